"""Every page in light and dark: no serious fault of accessibility; at phone width nothing sticks out."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.browser import Visitor

PAGES = {
    "overview": "/",
    "models": "/models",
    "model": "/models/{model_id}",
    "datasets": "/datasets",
    "dataset": "/datasets/{evaluation_dataset_id}",
    "jobs": "/jobs",
    "jobs-none": "/jobs?tag=none",
    "job": "/jobs/{id}",
    "job-new": "/jobs/new?from={id}",
    "keys": "/settings/keys",
    "webhooks": "/settings/webhooks",
    "usage": "/settings/usage",
    "audit": "/settings/audit",
}


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 360)])
def test_pages(visit: Callable[..., Visitor], done: dict[str, Any], scheme: str, width: int) -> None:
    visitor = visit(scheme=scheme, width=width, height=740)
    faults = {}
    for name, path in PAGES.items():
        visitor.go(path.format(**done))
        _settled(visitor, name)
        visitor.keep(f"{name}-{scheme}-{width}")
        found = visitor.faults()
        if visitor.page.evaluate("document.documentElement.scrollWidth") > width:
            found.append("it scrolls sideways")
        if found:
            faults[name] = found
    assert not faults


def test_pages_before_signing_in(visit: Callable[..., Visitor]) -> None:
    visitor = visit(signed_in=False, width=360, height=740)
    visitor.go("/sign-in")
    visitor.keep("sign-in")
    assert not visitor.faults()


def test_an_error_is_a_page(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    visitor.go("/jobs/job_of_nobody")
    visitor.complaints.clear()  # of the 404 that this answer is
    expect(visitor.page.get_by_text("job_not_found")).to_be_visible()
    visitor.keep("error")
    assert not visitor.faults()


def test_the_menu_of_a_phone(visit: Callable[..., Visitor]) -> None:
    visitor = visit(width=360, height=740)
    link = visitor.page.get_by_role("link", name="Datasets", exact=True)
    expect(link).to_be_hidden()
    visitor.page.get_by_role("button", name="Menu").click()
    link.click()
    expect(visitor.page.get_by_role("heading", name="Datasets", exact=True)).to_be_visible()


def _settled(visitor: Visitor, name: str) -> None:
    """Once everything that scripts draw is there."""
    if name == "job":
        for place in ("[data-chart=layers]", "[data-chart=curves]", ".compare"):
            expect(visitor.page.locator(f"{place} .js-plotly-plot")).to_be_visible()
    if name == "job-new":
        expect(visitor.page.locator("#estimate .figure").first).to_be_visible()
