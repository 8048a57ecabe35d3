"""Markdown as the generated pages use it."""

import re
from collections.abc import Iterable, Sequence

NOTE = "<!-- Written by `make reference` from the code; do not edit. -->"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; line breaks and bars within cells are made harmless."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def page(title: str, *parts: str) -> str:
    """A page of paragraphs."""
    return "\n\n".join([f"# {title}", NOTE, *(part.strip() for part in parts if part.strip())]) + "\n"


def code(*words: object) -> str:
    """Words as code, with commas between them."""
    return ", ".join(f"`{word}`" for word in words)


def first_sentence(text: str | None) -> str:
    """The first paragraph of a docstring or help, in one line."""
    return re.sub(r"\s+", " ", (text or "").strip().split("\n\n")[0]).replace("``", "`")


def _cell(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text).replace("|", "\\|").strip()
