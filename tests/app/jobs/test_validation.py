"""Everything that can be wrong with a job, told before it is queued."""

import json
from typing import Any

import httpx
import pytest

from tests.support.stage import CPU, Stage

pytestmark = pytest.mark.anyio

STATIC = {"steps": [{"method": "quantize.static"}]}
DYNAMIC = {"steps": [{"method": "quantize.dynamic"}]}
MODEL_FACTS = {
    "format": "onnx",
    "inputs": [{"name": "image", "dtype": "float32", "shape": ["batch", 3, 8, "width"]}],
    "outputs": [{"name": "score", "dtype": "float32", "shape": ["batch", 10]}],
    "parameters": 8,
    "layers": [{"name": f"block.{number}", "kind": "Linear", "parameters": 8} for number in range(12)],
}


def data_facts(
    *columns: tuple[str, str, list[int]], samples: int = 100, label: bool = False, top: int = 9
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "columns": [{"name": name, "dtype": dtype, "shape": shape} for name, dtype, shape in columns],
        "samples": samples,
    }
    if label:
        facts["columns"].append({"name": "label", "dtype": "int64", "shape": []})
        facts["label"] = {"kind": "class", "min": 0, "max": top}
    return facts


IMAGE = ("image", "float32", [3, 8, 6])


async def post(api: httpx.AsyncClient, text: str) -> httpx.Response:
    """Posts text that need not be JSON; lone surrogates and NaN get through."""
    return await api.post("/v1/jobs", content=text, headers={"Content-Type": "application/json"})


async def faults(api: httpx.AsyncClient, request: Any) -> tuple[str, dict[str, str]]:
    """Code of a refusal, and pointer -> code of each fault."""
    answer = await post(api, json.dumps(request))
    problem = answer.json()
    assert answer.status_code == 422, problem
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert all(fault["detail"] for fault in problem["errors"])
    return problem["code"], {fault["pointer"]: fault["code"] for fault in problem["errors"]}


@pytest.fixture
async def request_body(stage: Stage) -> dict[str, Any]:
    """A request that is accepted; its inputs are still being checked."""
    return {
        "model_id": await stage.model("checking"),
        "calibration_dataset_id": await stage.dataset("checking"),
        "recipe": STATIC,
        "targets": ["onnxruntime"],
    }


async def test_the_request_itself_is_accepted(api: httpx.AsyncClient, request_body: dict[str, Any]) -> None:
    answer = await api.post("/v1/jobs", json=request_body)
    assert answer.status_code == 202, answer.text


async def test_all_faults_are_told_at_once(api: httpx.AsyncClient) -> None:
    request = {
        "priority": 1000,
        "colour": "red",
        "limits": {"max_size_ratio": -1, "max_weight": 3},
        "timeouts": {"run_s": 0},
        "targets": [],
        "recipe": {"steps": [{"method": "quantize.magic"}, {"method": "quantize.static", "samples": 0}], "x/y": 1},
    }
    code, found = await faults(api, request)
    assert code in found.values()
    assert found == {
        "/model_id": "invalid_request",
        "/priority": "invalid_request",
        "/colour": "unknown_field",
        "/limits/max_size_ratio": "invalid_request",
        "/limits/max_weight": "unknown_field",
        "/timeouts/run_s": "invalid_request",
        "/targets": "invalid_request",
        "/recipe/x~1y": "unknown_field",
        "/recipe/steps/0/method": "unknown_method",
        "/recipe/steps/1/samples": "invalid_parameter",
    }


#: Change of the request, where the fault is, its code.
ONE_FAULT: list[tuple[dict[str, Any], str, str]] = [
    ({"recipe": "auto"}, "/recipe", "planner_unavailable"),
    ({"recipe": "auto", "budget": {"trials": 3}}, "/recipe", "planner_unavailable"),
    ({"budget": {"trials": 3}}, "/budget", "invalid_request"),
    ({"recipe": "preset:none"}, "/recipe", "unknown_preset"),
    ({"recipe": "fast"}, "/recipe", "invalid_recipe"),
    ({"recipe": {"steps": []}}, "/recipe", "invalid_recipe"),
    ({"recipe": None}, "/recipe", "invalid_recipe"),
    ({"recipe": {"steps": [{"method": "quantize.static", "bits": 8}]}}, "/recipe/steps/0/bits", "unknown_field"),
    (
        {"recipe": {"steps": [{"method": "quantize.static"}, {"method": "quantize.dynamic"}]}},
        "/recipe/steps/1",
        "invalid_order",
    ),
    ({"targets": ["abacus"]}, "/targets/0", "target_unavailable"),
    ({"targets": ["gguf"]}, "/targets/0", "target_unavailable"),
    ({"targets": ["torch", "torch"]}, "/targets/1", "invalid_request"),
    ({"targets": "torch"}, "/targets", "invalid_request"),
    ({"compute": "gpu"}, "/compute", "target_unavailable"),
    ({"compute": "tpu"}, "/compute", "invalid_request"),
    ({"calibration_dataset_id": None}, "/calibration_dataset_id", "data_required"),
    ({"calibration_dataset_id": "dst_none"}, "/calibration_dataset_id", "dataset_not_found"),
    ({"evaluation_dataset_id": "dst_none"}, "/evaluation_dataset_id", "dataset_not_found"),
    ({"model_id": "mdl_none"}, "/model_id", "model_not_found"),
    ({"model_id": 7}, "/model_id", "invalid_request"),
    ({"max_attempts": 0}, "/max_attempts", "invalid_request"),
    ({"seed": -1}, "/seed", "invalid_request"),
    ({"seed": 2**70}, "/seed", "invalid_request"),
    ({"timeouts": {"pending_s": 1e9}}, "/timeouts/pending_s", "invalid_request"),
    ({"tags": {"a": 1}}, "/tags/a", "invalid_request"),
    ({"name": "nul\0"}, "/name", "invalid_request"),
    ({"tags": {"a": "\ud800"}}, "/tags/a", "invalid_request"),
    ({"tags": {"\0": "a"}}, "/tags", "invalid_request"),
    ({"limits": {"confidence": 1}}, "/limits/confidence", "invalid_request"),
]


async def test_one_fault(api: httpx.AsyncClient, request_body: dict[str, Any]) -> None:
    for change, pointer, code in ONE_FAULT:
        assert await faults(api, {**request_body, **change}) == (code, {pointer: code}), change


async def test_numbers_must_be_finite(api: httpx.AsyncClient, request_body: dict[str, Any]) -> None:
    text = json.dumps({**request_body, "limits": {"min_sqnr_db": 0.125}})
    for number in ("NaN", "Infinity", "-Infinity", "1e999"):
        answer = await post(api, text.replace("0.125", number))
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/limits/min_sqnr_db"), number


async def test_bodies_that_are_no_request(api: httpx.AsyncClient) -> None:
    for text in ("[" * 100_000, '{"model_id":' * 5000, "{", "[]", "null", '"x"', ""):
        answer = await post(api, text)
        assert answer.status_code in (400, 422), text[:20]
        assert answer.json()["code"] in ("invalid_json", "invalid_request", "bad_request"), text[:20]


async def test_deep_nesting_is_a_fault_not_a_crash(api: httpx.AsyncClient, request_body: dict[str, Any]) -> None:
    nested: Any = "x"
    for _ in range(400):
        nested = {"a": [nested]}
    code, _ = await faults(api, {**request_body, "recipe": nested, "tags": nested})
    assert code in ("invalid_request", "invalid_recipe")


async def test_rejected_inputs(stage: Stage, api: httpx.AsyncClient, request_body: dict[str, Any]) -> None:
    error = {"code": "unsafe_format", "detail": "a pickle; export it"}
    request = {
        **request_body,
        "model_id": await stage.model("rejected", error=error),
        "evaluation_dataset_id": await stage.dataset("rejected", error=error),
    }
    _, found = await faults(api, request)
    assert found == {"/model_id": "model_rejected", "/evaluation_dataset_id": "dataset_rejected"}


async def test_targets_must_be_on_one_live_worker(
    stage: Stage, api: httpx.AsyncClient, request_body: dict[str, Any]
) -> None:
    both = {**request_body, "targets": ["torch", "openvino"]}
    await stage.run(stage.leases.forget_worker, CPU.id)
    assert await faults(api, request_body) == ("target_unavailable", {"/compute": "target_unavailable"})
    await stage.offer(CPU.__class__(id="a", hostname="h", queue="cpu", targets=("torch",)))
    assert await faults(api, both) == ("target_unavailable", {"/targets/1": "target_unavailable"})
    await stage.offer(CPU.__class__(id="b", hostname="h", queue="gpu", targets=("openvino",)))
    assert await faults(api, both) == ("target_unavailable", {"/targets": "target_unavailable"})
    assert (await api.post("/v1/jobs", json={**request_body, "targets": ["openvino"]})).status_code == 202


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (data_facts(IMAGE), None),
        (data_facts(IMAGE, label=True), None),
        (data_facts(("input", "float32", [3, 8, 9])), None),
        (data_facts(("picture", "float32", [3, 8, 6])), "dataset_columns_mismatch"),
        (data_facts(IMAGE, ("extra", "float32", [1])), "dataset_columns_mismatch"),
        (data_facts(("image", "uint8", [3, 8, 6])), "dataset_dtype_mismatch"),
        (data_facts(("image", "float32", [8, 3, 6])), "dataset_shape_mismatch"),
        (data_facts(("image", "float32", [8, 6])), "dataset_shape_mismatch"),
        (data_facts(IMAGE, samples=7), "dataset_too_few_samples"),
        (data_facts(IMAGE, label=True, top=10), "labels_out_of_range"),
    ],
)
async def test_data_that_does_not_fit_the_model(
    stage: Stage, api: httpx.AsyncClient, request_body: dict[str, Any], facts: dict[str, Any], code: str | None
) -> None:
    request = {
        **request_body,
        "model_id": await stage.model(facts=MODEL_FACTS),
        "calibration_dataset_id": await stage.dataset(facts=facts),
    }
    if code is None:
        assert (await api.post("/v1/jobs", json=request)).status_code == 202
    else:
        assert await faults(api, request) == (code, {"/calibration_dataset_id": code})


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, "labels_required"),
        ({"calibration": False}, "labels_required"),
        ({"calibration": True}, None),
        ({"training": True, "calibration": False}, None),
        ({"evaluation": False, "calibration": True}, "labels_required"),
        ({"evaluation": True}, None),
        ({"evaluation": None}, None),
        ({"calibration": False, "training": None}, None),
    ],
)
async def test_a_metric_limit_needs_labels(
    stage: Stage, api: httpx.AsyncClient, given: dict[str, bool | None], code: str | None
) -> None:
    request: dict[str, Any] = {
        "model_id": await stage.model("checking"),
        "recipe": DYNAMIC,
        "targets": ["onnxruntime"],
        "limits": {"max_metric_drop": 0.01},
    }
    for role, label in given.items():
        state = "checking" if label is None else "ready"
        facts = None if label is None else data_facts(IMAGE, label=label)
        request[f"{role}_dataset_id"] = await stage.dataset(state, facts=facts)
    if code is None:
        assert (await api.post("/v1/jobs", json=request)).status_code == 202
    else:
        assert await faults(api, request) == (code, {"/limits/max_metric_drop": code})


@pytest.mark.parametrize(("label", "code"), [(True, None), (None, None), (False, "labels_required")])
async def test_training_on_labels_alone_needs_them(
    stage: Stage, api: httpx.AsyncClient, label: bool | None, code: str | None
) -> None:
    facts = None if label is None else data_facts(IMAGE, label=label)
    request: dict[str, Any] = {
        "model_id": await stage.model(facts=MODEL_FACTS),
        "training_dataset_id": await stage.dataset("checking" if label is None else "ready", facts=facts),
        "recipe": {"steps": [{"method": "search.architecture"}, {"method": "finetune"}]},
        "targets": ["onnxruntime"],
    }
    if code is None:
        assert (await api.post("/v1/jobs", json=request)).status_code == 202
    else:
        assert await faults(api, request) == (code, {"/training_dataset_id": code})


async def test_layer_names_must_be_the_models(
    stage: Stage, api: httpx.AsyncClient, request_body: dict[str, Any]
) -> None:
    layers = {"include": ["block.*", "head"], "exclude": ["block.1?", "stem.*"]}
    request = {
        **request_body,
        "model_id": await stage.model(facts=MODEL_FACTS),
        "recipe": {"steps": [{"method": "quantize.static", "layers": layers}]},
    }
    assert await faults(api, request) == (
        "unknown_layer",
        {
            "/recipe/steps/0/layers/include/1": "unknown_layer",
            "/recipe/steps/0/layers/exclude/1": "unknown_layer",
        },
    )
