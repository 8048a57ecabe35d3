"""The pages in headless Chromium, against one service with everything behind it."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Playwright, expect, sync_playwright

from benchmarks.demo import free_port
from tests.support.browser import Visitor
from tests.support.client import Api
from tests.support.digits import Digits, train_digits
from tests.support.service import Service, serving

#: For what takes a moment on a busy machine, such as the library of the charts.
PATIENCE_MS = 30_000
CHROMIUM = shutil.which("chromium")
#: Names that are not localhost, for what browsers do on plain HTTP alone.
_NAMES = "--host-resolver-rules=MAP *.test 127.0.0.1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One service, one process: the stories share it."""
    for item in items:
        if "tests/browser/" in item.nodeid:
            item.add_marker(pytest.mark.xdist_group("browser"))
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="there is no chromium; `make test` installs Debian's"))


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("pages") / "data", free_port()) as running:
        yield running


@pytest.fixture(scope="package")
def api(service: Service) -> Iterator[Api]:
    client = Api(service.url, service.key())
    yield client
    client.http.close()


@pytest.fixture(scope="package")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``digits.pt2``, ``calibration.npz`` and ``evaluation.npz``."""
    folder = tmp_path_factory.mktemp("files")
    digits: Digits = train_digits(folder, epochs=4)
    (folder / "calibration.npz").write_bytes(digits.calibration)
    (folder / "evaluation.npz").write_bytes(digits.evaluation)
    return folder


@pytest.fixture(scope="package")
def uploaded(api: Api, files: Path) -> dict[str, str]:
    """Ids of the model and its data, as a request names them."""
    model = api.checked("models", (files / "digits.pt2").read_bytes(), "digits.pt2", name="digits")
    data = {
        role: api.checked("datasets", (files / f"{role}.npz").read_bytes(), f"{role}.npz", kind="tensors", name=role)
        for role in ("calibration", "evaluation")
    }
    return {"model_id": model["id"], **{f"{role}_dataset_id": view["id"] for role, view in data.items()}}


@pytest.fixture(scope="package")
def done(api: Api, uploaded: dict[str, str]) -> dict[str, Any]:
    """A job that has trained, for two targets, and kept its limits."""
    recipe = {"steps": [{"method": "finetune", "epochs": 2}, {"method": "quantize.static", "samples": 64}]}
    job = api.post_job(
        **uploaded,
        training_dataset_id=uploaded["calibration_dataset_id"],
        recipe=recipe,
        targets=["onnxruntime", "torch"],
        limits={"max_metric_drop": 0.2, "max_size_ratio": 0.9},
        name="nightly",
        tags={"team": "vision"},
    )
    view = api.finished(job["id"])
    assert view["state"] == "succeeded", view["error"]
    return view


# A loop of Playwright's runs in the main thread until it is stopped, and no test of coroutines can run meanwhile.
@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="package")
def browser(playwright: Playwright) -> Iterator[Browser]:
    # CI runs as root in a container, where Chromium's own sandbox cannot.
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", _NAMES])
    yield browser
    browser.close()


@pytest.fixture
def visit(browser: Browser, service: Service) -> Iterator[Callable[..., Visitor]]:
    """Opens browsers; whatever one of them complains of (policy, errors of scripts) fails the test."""
    visitors: list[Visitor] = []

    def make(*, signed_in: bool = True, width: int = 1280, height: int = 900, scheme: Any = "light") -> Visitor:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
        )
        context.set_default_timeout(PATIENCE_MS)
        visitor = Visitor(context, context.new_page(), service.url)
        visitor.listen()
        visitors.append(visitor)
        if signed_in:
            visitor.sign_in(service.key())
        return visitor

    yield make
    complaints = [complaint for visitor in visitors for complaint in visitor.complaints]
    for visitor in visitors:
        visitor.context.close()
    assert not complaints, json.dumps(complaints, indent=2)
