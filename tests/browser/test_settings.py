"""Keys and webhooks: what is shown once, what a revoked key ends, and faults at their fields."""

import re
from collections.abc import Callable

from playwright.sync_api import expect

from tests.support.browser import Visitor

Visit = Callable[..., Visitor]


def test_a_wrong_key_does_not_sign_in(visit: Visit) -> None:
    visitor = visit(signed_in=False)
    visitor.go("/jobs?state=failed")
    visitor.page.get_by_label("Key").fill("mpk_wrong")
    visitor.page.keyboard.press("Enter")
    expect(visitor.page.get_by_role("alert")).to_contain_text("unknown, expired or revoked")
    visitor.complaints.clear()  # of the 401 that this answer is


def test_a_key_is_shown_once_and_ends_its_sessions(visit: Visit) -> None:
    visitor = visit()
    page = visitor.page
    visitor.go("/settings/keys")
    page.get_by_label("Name").fill("for a while")
    page.get_by_label("Role").select_option("reader")
    page.get_by_role("button", name="Make key").click()
    key = page.get_by_role("dialog").locator("code").inner_text()
    assert re.fullmatch(r"mpk_\w+", key)
    visitor.keep("key-made")
    assert not visitor.faults()
    page.get_by_role("button", name="I have kept it").click()
    expect(page.get_by_role("row", name="for a while")).to_contain_text("live")
    page.reload()
    assert key not in page.content()

    guest = visit(signed_in=False)
    guest.go("/models?state=ready")
    guest.page.get_by_label("Key").fill(key)
    guest.page.get_by_role("button", name="Sign in").click()
    guest.page.wait_for_url(f"{guest.url}/models?state=ready")
    assert guest.page.evaluate("document.cookie") == ""

    page.get_by_role("button", name="Revoke for a while").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("row", name="for a while")).to_contain_text("revoked")
    expect(guest.page).to_have_url(f"{guest.url}/models?state=ready")
    for _ in range(20):  # other API processes may believe it for seconds more
        guest.go("/jobs")
        if "/sign-in" in guest.page.url:
            break
        guest.page.wait_for_timeout(500)
    expect(guest.page).to_have_url(f"{guest.url}/sign-in?next=%2Fjobs")


def test_a_webhook_that_may_not_be(visit: Visit) -> None:
    visitor = visit()
    page = visitor.page
    visitor.go("/settings/webhooks")
    page.get_by_label("URL").fill("https://10.0.0.1/hook")
    page.get_by_role("button", name="Make webhook").click()
    expect(page.locator(".fault")).to_be_visible()
    expect(page.get_by_label("URL")).to_be_focused()
    page.get_by_label("URL").fill("https://receiver.invalid/hook")
    page.get_by_label("Name").fill("chat")
    page.get_by_role("button", name="Make webhook").click()
    secret = page.get_by_role("dialog").locator("code").inner_text()
    assert secret.startswith("whsec_")
    page.get_by_role("button", name="I have kept it").click()
    page.get_by_role("button", name="Send a test").click()
    expect(page.get_by_role("row", name="webhook.test")).to_be_visible()
    visitor.keep("webhook")
    assert not visitor.faults()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.wait_for_url(f"{visitor.url}/settings/webhooks")
    expect(page.get_by_text("No webhooks")).to_be_visible()
