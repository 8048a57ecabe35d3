"""Runs a page: block after block, in one shell and one Python, in a folder of its own."""

import os
import sys
from contextlib import ExitStack, closing
from pathlib import Path

from tests.support.docs.blocks import ROOT, Block, Page
from tests.support.docs.checks import DATA, NAMED, check_settings
from tests.support.docs.given import GIVEN
from tests.support.docs.sessions import BlockError, Session
from tests.support.service import Service, clean_environment

RUN = ("sh", "python")
#: Where the pages say that the service listens; here it has a free port.
ADDRESS = "http://127.0.0.1:8000"


class PageError(Exception):
    """A block does not hold; the message has the page, the line, and why."""


def runs(block: Block) -> bool:
    """Whether a block is run, and not only looked at."""
    return block.language in RUN and block.check is None


def fault(page: Page, block: Block, why: str) -> PageError:
    return PageError(f"{page.name}:{block.line}: {why}")


def check_form(page: Page) -> None:
    """Every block has a language that is run or checked, and a check that exists."""
    for block in page.blocks:
        if not block.language:
            raise fault(page, block, "a block without language; `text` is for drawings, equations and output")
        if block.check is not None and block.check not in NAMED:
            raise fault(page, block, f"no check is called {block.check}: {', '.join(NAMED)}")
        if block.check is None and block.language not in (*RUN, *DATA):
            raise fault(page, block, f"`{block.language}` is neither run nor checked: {', '.join((*RUN, *DATA))}")
        for name in block.given:
            if name not in GIVEN:
                raise fault(page, block, f"nothing is called {name}: {', '.join(GIVEN)}")


def check_data(page: Page) -> None:
    """What does not run holds all the same, and settings are ones that exist."""
    for block in page.blocks:
        check = NAMED[block.check] if block.check else DATA.get(block.language)
        try:
            if check:
                check(block.text)
            if block.language == "sh":
                check_settings(block.text)
        except Exception as error:
            raise fault(page, block, f"{type(error).__name__}: {error}") from error


def run_page(page: Page, folder: Path, service: Service, made: Path) -> None:
    """Runs the blocks of a page against `service`; `made` is where what is `given` is kept for all pages."""
    languages = {block.language for block in page.blocks if runs(block)}
    env = environment(folder, service)
    with ExitStack() as stack:
        session = {name: stack.enter_context(closing(Session(name, folder, env))) for name in languages}
        for block in page.blocks:
            try:
                for name in block.given:
                    for language, names in GIVEN[name](made, folder, env).items():
                        if language in session:
                            session[language].run(names)
                if runs(block):
                    session[block.language].run(block.text.replace(ADDRESS, service.url))
            except BlockError as error:
                raise fault(page, block, f"the block failed\n{error}") from None


def environment(folder: Path, service: Service) -> dict[str, str]:
    """Makes `folder` look like a clone with an environment and a running service; the variables of its sessions."""
    (folder / ".modelpress").symlink_to(service.data)
    (folder / ".venv").symlink_to(sys.prefix)
    return {
        **clean_environment(),
        "MODELPRESS_URL": service.url,
        "MODELPRESS_KEY": service.key(),
        "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}",
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
