"""Every fenced block of the documentation runs, or is checked as the page says; CONTRIBUTING.md has the rules."""

from pathlib import Path

import pytest

from tests.support.docs.blocks import Page, pages
from tests.support.docs.runner import check_data, check_form, run_page, runs
from tests.support.service import Service

PAGES = pages()
RUNNING = [page for page in PAGES if any(runs(block) for block in page.blocks)]


@pytest.mark.parametrize("page", [page for page in PAGES if page.blocks], ids=lambda page: page.name)
def test_blocks_that_are_looked_at(page: Page) -> None:
    check_form(page)
    check_data(page)


@pytest.mark.timeout(900)  # whole pages, with jobs among them
@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] * page.slow, id=page.name) for page in RUNNING]
)
def test_blocks_that_run(page: Page, running_service: Service, made: Path, tmp_path: Path) -> None:
    run_page(page, tmp_path, running_service, made)


def test_pages_are_found() -> None:
    names = {page.name for page in PAGES}
    assert {"README.md", "client/README.md", "CONTRIBUTING.md", "docs/tutorial.md"} <= names
    assert len(RUNNING) > 10
