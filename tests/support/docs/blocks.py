"""The fenced blocks of a page, with what its HTML comments say of them."""

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[3]
#: ``<!-- checked: NAME -->``, ``<!-- given: NAME -->``, ``<!-- slow -->``, each on lines of its own.
COMMENT = re.compile(r"<!-- (checked|given|slow)(?:: ([a-z, -]+))? -->\s*")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: of its fence, for messages.
        language: first word after the fence; empty where there is none.
        check: what looks at it instead of running it, from the comment right before it.
        given: what has to be there before it runs, from the comments since the block before.
    """

    line: int
    language: str
    text: str
    check: str | None
    given: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """A page of the documentation; `slow` where it says that its blocks take minutes."""

    path: Path
    blocks: tuple[Block, ...]
    slow: bool

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT)) if self.path.is_relative_to(ROOT) else self.path.name


def pages() -> list[Page]:
    """Every page whose blocks have to hold."""
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "client/README.md", *(ROOT / "docs").rglob("*.md")]
    return [read_page(path) for path in sorted(files)]


def read_page(path: Path) -> Page:
    """Reads the blocks of a page.

    Raises:
        ValueError: a comment that says how a block is checked has no block after it.
    """
    blocks: list[Block] = []
    given: list[str] = []
    check: str | None = None
    slow = False
    for token in MarkdownIt().parse(path.read_text("utf-8")):
        if token.type == "html_block":
            for word, names in COMMENT.findall(token.content):
                if word == "slow":
                    slow = True
                elif word == "given":
                    given += names.split(", ")
                else:
                    check = names
        elif token.type in ("fence", "code_block") and token.map:
            language = (token.info.split() or [""])[0]
            blocks.append(Block(token.map[0] + 1, language, token.content, check, tuple(given)))
            given, check = [], None
        elif check is not None and token.level == 0 and token.nesting >= 0:
            raise ValueError(f"{path}: `checked: {check}` stands before no block")
    return Page(path, tuple(blocks), slow)
