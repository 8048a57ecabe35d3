"""Files dropped on a page: they arrive, go on after a reload, and can be given up."""

import base64
import io
import re
from collections.abc import Callable

import numpy as np
from playwright.sync_api import expect

from tests.support.browser import Visitor

_DROP = """([name, text]) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, {lastModified: 1}));
  const place = document.querySelector(".drop");
  for (const type of ["dragenter", "dragover", "drop"]) {
    place.dispatchEvent(new DragEvent(type, {bubbles: true, cancelable: true, dataTransfer: data}));
  }
}"""
Visit = Callable[..., Visitor]
#: Time for the check of a small file on a busy machine.
CHECK_MS = 30_000


def _samples(count: int) -> bytes:
    file = io.BytesIO()
    np.savez(file, input=np.random.default_rng(count).standard_normal((count, 1, 16, 16), dtype=np.float32))
    return file.getvalue()


def _drop(visitor: Visitor, name: str, content: bytes) -> None:
    visitor.page.evaluate(_DROP, [name, base64.b64encode(content).decode()])


def _send_slowly(visitor: Visitor, bytes_per_s: int) -> None:
    session = visitor.context.new_cdp_session(visitor.page)
    session.send("Network.enable")
    conditions = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_per_s}
    session.send("Network.emulateNetworkConditions", conditions)


def test_a_reload_sends_nothing_twice(visit: Visit) -> None:
    visitor = visit()
    page, content = visitor.page, _samples(4000)
    visitor.go("/datasets")
    _send_slowly(visitor, 800_000)
    _drop(visitor, "large.npz", content)
    page.locator(".uploads", has_text=re.compile(r"[12]\.\d+ MB of 4\.1 MB .* left")).wait_for()
    page.reload()
    expect(page.locator(".uploads")).to_contain_text("large.npz 4.1 MB – not finished")
    visitor.keep("upload-unfinished")
    sent: list[tuple[str, int]] = []
    page.on("request", lambda one: sent.append((one.method, int(one.headers.get("upload-offset", -1)))))
    _drop(visitor, "large.npz", content)
    expect(page.locator(".uploads .state-ready")).to_be_visible(timeout=CHECK_MS)
    expect(page.locator("#list")).to_contain_text("4 k")
    offsets = [offset for method, offset in sent if method == "PATCH"]
    assert len(offsets) == 1
    assert offsets[0] > 0
    page.reload()
    expect(page.locator(".uploads li")).to_have_count(0)


def test_an_upload_is_given_up(visit: Visit) -> None:
    visitor = visit()
    page = visitor.page
    visitor.go("/datasets")
    _send_slowly(visitor, 200_000)
    _drop(visitor, "unwanted.npz", _samples(2000))
    page.locator(".uploads", has_text="left").wait_for()
    with page.expect_response(lambda answer: answer.request.method == "DELETE") as ended:
        page.get_by_role("button", name="Cancel the upload of unwanted.npz").click()
    assert ended.value.status == 204
    page.reload()
    expect(page.locator(".uploads li")).to_have_count(0)
    expect(page.locator("#list")).not_to_contain_text("unwanted")


def test_a_file_that_cannot_be_used(visit: Visit) -> None:
    visitor = visit()
    page = visitor.page
    visitor.go("/models")
    _drop(visitor, "broken.pt2", b"PK\x03\x04" + bytes(3000))
    expect(page.get_by_role("alert")).to_contain_text("file_damaged", timeout=CHECK_MS)
    page.get_by_role("link", name="broken").first.click()
    expect(page.get_by_role("heading", name="broken")).to_be_visible()
    expect(page.get_by_role("note")).to_contain_text("upload it again")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.wait_for_url(f"{visitor.url}/models")
    expect(page.locator("#list")).not_to_contain_text("file_damaged")
