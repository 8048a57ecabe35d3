"""The whole story as people live it: sign in, upload, estimate, start, watch, download; and jobs that end otherwise."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests.support.browser import Visitor
from tests.support.client import Api
from tests.support.service import Service

Visit = Callable[..., Visitor]
LONG = 90_000
#: Every value that the bar has until it goes.
WATCH = """() => new Promise((done) => {
    const seen = new Set();
    const look = () => {
        const bar = document.querySelector('#progress');
        if (!bar) return done([...seen]);
        seen.add(bar.value);
        requestAnimationFrame(look);
    };
    look();
})"""


def test_from_a_file_to_its_artifact(visit: Visit, service: Service, api: Api, files: Path) -> None:
    visitor = visit(signed_in=False)
    page = visitor.page
    visitor.go("/jobs")
    expect(page).to_have_url(re.compile("/sign-in"))
    page.get_by_label("Key").fill("mpk_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("unknown, expired or revoked")
    visitor.complaints.clear()  # of the 401 that this answer is
    page.get_by_label("Key").fill(service.key())
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()

    visitor.go("/jobs/new")
    page.locator("form[data-ready]").wait_for()
    page.locator("#file-models").set_input_files(files / "digits.pt2")
    page.locator("#file-datasets").set_input_files([files / "calibration.npz", files / "evaluation.npz"])
    expect(page.locator(".uploads .state-ready")).to_have_count(3, timeout=LONG)
    expect(page.get_by_label("Model", exact=True)).to_have_value(re.compile("^mdl_"))
    page.get_by_label("balanced").check()
    page.get_by_label("Calibration data", exact=True).select_option("")
    expect(page.locator('[data-pointer="/calibration_dataset_id"] .fault')).to_contain_text("needs calibration data")
    visitor.keep("job-new-fault")
    page.get_by_label("Calibration data", exact=True).select_option(label="calibration")
    page.get_by_label("Evaluation data", exact=True).select_option(label="evaluation")
    expect(page.locator("#estimate .figure")).to_have_count(3)
    page.get_by_label("Max metric drop").fill("0.2")
    page.get_by_label("Max size ratio").fill("0.9")
    visitor.keep("job-new")
    page.get_by_role("button", name="Start job").click()

    page.wait_for_url(re.compile(r"/jobs/job_"))
    expect(page.get_by_role("progressbar", name="Progress of the job")).to_be_visible()
    shown = page.evaluate(WATCH)
    assert len(shown) > 2, "the bar moves"
    assert shown == sorted(shown)
    expect(page.locator("#job-head .state")).to_have_text("succeeded", timeout=LONG)
    expect(page.locator("#gate")).to_contain_text("passed")
    expect(page.locator(".compare .js-plotly-plot")).to_be_visible()
    expect(page.locator("[data-chart=layers] .js-plotly-plot")).to_be_visible()
    visitor.keep("job-succeeded")
    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile("^Download")).click()
    content = Path(download.value.path()).read_bytes()
    job = api.get(f"/v1/jobs/{page.url.rsplit('/', 1)[1]}")
    assert hashlib.sha256(content).hexdigest() == job["artifacts"][0]["sha256"]
    page.get_by_text("Load it in onnxruntime").click()
    expect(page.locator(".copyable code").first).to_contain_text("onnxruntime.InferenceSession")


def test_a_job_that_breaks_its_limits(visit: Visit, api: Api, uploaded: dict[str, str]) -> None:
    job = api.post_job(
        **uploaded,
        recipe={"steps": [{"method": "quantize.static", "samples": 32}]},
        targets=["onnxruntime"],
        limits={"max_size_ratio": 0.01},
    )
    visitor = visit()
    visitor.go(f"/jobs/{job['id']}")
    page = visitor.page
    expect(page.locator("#job-head .state")).to_have_text("failed", timeout=LONG)
    expect(page.get_by_role("region", name="Why it failed")).to_contain_text("limits_not_met")
    expect(page.locator("#job-result tr.failed")).to_contain_text("max_size_ratio")
    expect(page.get_by_role("link", name=re.compile("^Download"))).to_be_visible()
    visitor.keep("job-failed")
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_role("progressbar", name="Progress of the job")).to_be_visible()
    page.evaluate("document.body.dataset.opened = 'during the second attempt'")
    expect(page.locator("#job-head .state")).to_have_text("failed", timeout=LONG)
    expect(page.locator("#job-head")).to_contain_text("attempt 2 of")
    expect(page.locator("body")).to_have_attribute("data-opened", "during the second attempt")
    expect(page.get_by_role("log")).to_contain_text("failed (attempt 2)")
    page.locator("#job-head").get_by_role("link", name="Edit and run again").click()
    expect(page.get_by_label("Max size ratio")).to_have_value("0.01")
    page.get_by_label("Max size ratio").fill("0.95")
    expect(page.locator("#estimate .figure")).to_have_count(3)
    page.get_by_role("button", name="Start job").click()
    page.wait_for_url(re.compile(rf"/jobs/(?!{job['id']}|new)job_"))
    expect(page.locator("#job-head .state")).to_have_text("succeeded", timeout=LONG)


def test_a_job_that_is_canceled(visit: Visit, api: Api, uploaded: dict[str, str]) -> None:
    job = api.post_job(
        **uploaded,
        training_dataset_id=uploaded["calibration_dataset_id"],
        recipe={"steps": [{"method": "finetune", "epochs": 1000}] * 8},
        targets=["onnxruntime"],
        name="long",
    )
    visitor = visit()
    visitor.go(f"/jobs/{job['id']}")
    page = visitor.page
    expect(page.locator("#live-curves .js-plotly-plot")).to_be_visible(timeout=LONG)
    expect(page.get_by_role("log")).to_contain_text("Epoch")
    visitor.keep("job-running")
    page.get_by_role("button", name="Cancel", exact=True).click()
    dialog = page.get_by_role("dialog", name="Cancel this job?")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Cancel", exact=True).click()
    dialog.get_by_role("button", name="Cancel the job").click()
    expect(page.locator("#job-head .state")).to_have_text("canceled", timeout=LONG)
    expect(page.get_by_role("button", name="Retry")).to_be_visible()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete the job").click()
    page.wait_for_url(visitor.url + "/jobs")
    assert api.http.get(f"/v1/jobs/{job['id']}").status_code == 404
    visitor.keep("jobs")


def test_points_of_the_plot_lead_to_their_recipe(visit: Visit, done: dict[str, Any]) -> None:
    visitor = visit()
    visitor.go(f"/jobs/{done['id']}")
    page = visitor.page
    point = page.locator(".compare .point").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator(".compare .hoverlayer")).to_contain_text("quantize.")  # plotly knows where the mouse is
    page.mouse.down()
    page.mouse.up()
    expect(page.locator(".panel")).to_contain_text("quantize.")
    page.locator(".compare").get_by_role("button", name="nightly").click()
    expect(page.locator(".panel h3")).to_have_text("nightly")
    page.locator(".panel").get_by_role("link", name="Run again, or change it").click()
    expect(page.get_by_role("list", name="Steps of the recipe").get_by_role("listitem")).to_have_count(2)


def test_with_the_keyboard_alone(
    visit: Visit, service: Service, uploaded: dict[str, str], done: dict[str, Any]
) -> None:
    visitor = visit(signed_in=False)
    page, press = visitor.page, visitor.page.keyboard.press
    visitor.go("/sign-in")
    page.keyboard.type(service.key())
    press("Enter")
    page.wait_for_url(visitor.url + "/")
    press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    press("Enter")
    expect(page.locator("#main")).to_be_focused()
    visitor.go(f"/jobs/new?model={uploaded['model_id']}")
    page.locator("form[data-ready]").wait_for()
    expect(page.locator("#estimate .figure")).to_have_count(3)
    for _ in range(80):
        press("Tab")
        if page.evaluate("document.activeElement.id") == "start":
            break
    else:
        raise AssertionError("the button that starts is reached by Tab")
    press("Enter")
    page.wait_for_url(re.compile(r"/jobs/job_"))
    expect(page.locator("#job-head .state")).to_have_text("succeeded", timeout=LONG)


def test_steps_are_added_moved_and_removed(visit: Visit, uploaded: dict[str, str], done: dict[str, Any]) -> None:
    visitor = visit()
    visitor.go(f"/jobs/new?from={done['id']}")
    page = visitor.page
    steps = page.get_by_role("list", name="Steps of the recipe").get_by_role("listitem").locator("h3 code")
    expect(steps).to_have_text(["finetune", "quantize.static"])
    expect(page.get_by_text("has no place for")).to_have_count(0)
    page.get_by_label("Add a step").select_option("prune.channels")
    page.get_by_role("button", name="Add step").click()
    expect(steps).to_have_text(["finetune", "prune.channels", "quantize.static"])
    page.get_by_role("button", name="Move prune.channels up").click()
    expect(steps).to_have_text(["prune.channels", "finetune", "quantize.static"])
    page.locator("[data-step='0']").get_by_label("Ratio", exact=True).fill("7")
    expect(page.locator("[data-step='0'] [data-path='/ratio'] .fault")).to_contain_text("less than 1")
    page.get_by_role("button", name="Remove prune.channels").click()
    expect(page.locator("#estimate .figure").first).to_be_visible()
    page.get_by_text("The request as JSON").click()
    text = page.locator("#json").input_value()
    assert '"samples": 64' in text
    page.locator("#json").fill(text.replace('"samples": 64', '"samples": 32'))
    page.get_by_role("button", name="Apply to the form").click()
    shown = page.locator("[data-step='1'] [data-path='/samples'] input")
    expect(shown).to_have_value("32")
    for change, named in (
        ({"recipe": "auto", "budget": {"trials": 3}}, "budget, the recipe auto"),
        ({"recipe": {"steps": [{"method": "quantize.static", "sampels": 3}]}}, "recipe.steps.0.sampels"),
        (
            {"recipe": {"steps": [{"method": "quantize.static", "layers": {"only": ["*"]}}]}},
            "recipe.steps.0.layers.only",
        ),
        ({"recipe": {"steps": [{"method": "squeeze"}]}}, "recipe.steps.0"),
        ({"targets": ["toaster"]}, "the target toaster"),
        ({"limits": {"max_drop": 1}}, "limits.max_drop"),
        ({"modelid": "x"}, "modelid"),
        ({"compute": "tpu"}, "compute"),
    ):
        page.locator("#json").fill(json.dumps(json.loads(text) | change))
        page.get_by_role("button", name="Apply to the form").click()
        expect(page.locator("#json-fault")).to_contain_text(f"the form has no place for {named}")
        expect(shown).to_have_value("32")
    without = {name: value for name, value in json.loads(text).items() if name != "evaluation_dataset_id"}
    page.locator("#json").fill(json.dumps(without))
    page.get_by_role("button", name="Apply to the form").click()
    expect(page.get_by_label("Evaluation data", exact=True)).to_have_value("")
