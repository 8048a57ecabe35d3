"""Sessions over plain HTTP, where browsers say nothing of where a visitor comes from."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from tests.support.browser import Visitor
from tests.support.service import Service

Visit = Callable[..., Visitor]


@pytest.fixture
def visitor(visit: Visit, service: Service) -> Iterator[Visitor]:
    """Signed in at a name that is not localhost; every name below `.test` leads to the service."""
    known = visit(signed_in=False)
    there = replace(known, url=service.url.replace("127.0.0.1", "modelpress.test"))
    there.sign_in(service.key())
    yield there
    # What the browser says of a header that plain HTTP makes nothing of.
    known.complaints[:] = [one for one in known.complaints if "Cross-Origin-Opener-Policy" not in one]


def test_who_is_signed_in_is_let_through_from_another_site(visitor: Visitor, service: Service) -> None:
    page = visitor.page
    page.goto(service.url.replace("127.0.0.1", "elsewhere.test") + "/sign-in")
    page.evaluate("address => { location.href = address }", f"{visitor.url}/jobs?state=failed")
    page.wait_for_url(f"{visitor.url}/jobs?state=failed")
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()


def test_a_live_page_notices_that_the_session_has_ended(visitor: Visitor) -> None:
    visitor.go("/jobs")
    visitor.context.clear_cookies()
    visitor.page.wait_for_url(re.compile(r"/sign-in\?next=%2Fjobs"), timeout=60_000)
    visitor.complaints.clear()  # of answers to who is not signed in any more
