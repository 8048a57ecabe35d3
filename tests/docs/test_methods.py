"""Each method has a page with its source, an equation, when to use it, its parameters and measured figures."""

import re
from pathlib import Path

import pytest

from app.recipes import METHODS

FOLDER = Path(__file__).parents[2] / "docs/methods"
PAGES = {path.stem: path.read_text("utf-8") for path in FOLDER.glob("*.md")}
#: Sections that every page has, in this order.
SECTIONS = ("When to use it", "How it works", "Parameters")
#: Where papers and specifications are.
PAPER = re.compile(r"\]\(https://(?:arxiv\.org|doi\.org|jmlr\.org|proceedings\.|onnx\.ai)\S+\)")
#: An equation, as a block or within a line.
EQUATION = re.compile(r"```text\n[^`]*[=≈≤][^`]*```|`[^`\n]*(?:Σ|√|softmax|[=≈≤] )[^`\n]*`")


def sections(name: str) -> dict[str, str]:
    return dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGES[name], re.MULTILINE | re.DOTALL))


def test_every_method_has_a_page() -> None:
    assert PAGES.keys() == METHODS.keys()


@pytest.mark.parametrize("name", METHODS)
def test_the_page_has_its_sections(name: str) -> None:
    found = list(sections(name))
    assert [title for title in found if title in SECTIONS] == list(SECTIONS)
    assert "Measured" in found
    assert len(sections(name)["When to use it"].split()) > 10
    assert PAGES[name].startswith(f"# {name}\n")


@pytest.mark.parametrize("name", METHODS)
def test_the_page_names_its_source_and_an_equation(name: str) -> None:
    assert PAPER.search(PAGES[name]), "a link to the paper or specification"
    assert EQUATION.search(sections(name)["How it works"]), "an equation"


@pytest.mark.parametrize("name", METHODS)
def test_figures_were_measured(name: str) -> None:
    measured = sections(name)["Measured"]
    assert len(re.findall(r"\d+(?:\.\d+)?", measured)) >= 3
    assert "benchmarks.md" in measured or "```" in measured or "`make " in measured, "where they come from"


@pytest.mark.parametrize("name", METHODS)
def test_every_parameter_is_explained(name: str) -> None:
    """On the page, or on that of another method whose parameters it says are the same."""
    others = re.findall(r"\]\(([\w.]+)\.md", sections(name)["Parameters"])
    explained = set(re.findall(r"`(\w+)`", "".join(PAGES[one] for one in (name, *others) if one in PAGES)))
    assert METHODS[name].model_fields.keys() - {"method"} - explained == set()


def test_links_to_figures_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", (FOLDER.parent / "benchmarks.md").read_text("utf-8"), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for name, text in PAGES.items():
        assert set(re.findall(r"benchmarks\.md#([\w-]+)", text)) <= anchors, name
