"""``/v1/artifacts/{id}/packages``: folders that inference servers read, in zips that are made while they are sent."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import onnxruntime
import openvino
import pytest
import yaml
from google.protobuf import text_format
from onnx import TensorProto, helper

from app.artifacts.packages import kserve, tensors
from app.artifacts.packages.backends import BACKENDS, UNSERVED
from app.recipes import TARGETS
from app.web import archive
from tests.support.artifacts import MANIFEST, new_key
from tests.support.triton import ModelConfig

pytestmark = pytest.mark.anyio
SIDES = {
    "inputs": [{"name": "image", "dtype": "float32", "shape": ["batch", 2, 3]}],
    "outputs": [{"name": "sum", "dtype": "float32", "shape": ["batch"]}],
}
TOLD = {**MANIFEST, "tensors": SIDES}


@pytest.fixture(scope="module")
def model() -> bytes:
    """Adds up what it is given, per sample."""
    tensor = helper.make_tensor_value_info
    node = helper.make_node("ReduceSum", ["image", "axes"], ["sum"], keepdims=0)
    graph = helper.make_graph(
        [node],
        "sum",
        [tensor("image", TensorProto.FLOAT, ["batch", 2, 3])],
        [tensor("sum", TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    data: bytes = made.SerializeToString()
    return data


@pytest.fixture(scope="module")
def intermediate(model: bytes, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The same for OpenVINO, as a worker leaves it."""
    folder = tmp_path_factory.mktemp("openvino")
    (folder / "model.onnx").write_bytes(model)
    openvino.save_model(openvino.convert_model(folder / "model.onnx"), folder / "model.xml", compress_to_fp16=False)
    with zipfile.ZipFile(folder / "made.zip", "w", zipfile.ZIP_STORED) as out:
        for name in ("model.xml", "model.bin"):
            out.write(folder / name, name)
    return (folder / "made.zip").read_bytes()


@pytest.fixture
async def api(make_api: Any) -> Any:
    return await make_api(signing_key=new_key())


def unpacked(answer: httpx2.Response, folder: Path) -> list[str]:
    """The files of a package, and that it is whole and of the length that was told."""
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip"), answer.text
    assert int(answer.headers["content-length"]) == len(answer.content)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as package:
        assert package.testzip() is None
        package.extractall(folder)
        return package.namelist()


async def test_triton_onnx(api: Any, make_artifact: Any, model: bytes, tmp_path: Path) -> None:
    artifact = await make_artifact(api, TOLD, data=model, filename="net v1.int8.onnx")
    client = await api.client("reader")
    answer = await client.get(f"/v1/artifacts/{artifact.id}/packages/triton")
    assert unpacked(answer, tmp_path) == [
        "net_v1/config.pbtxt",
        "net_v1/provenance/manifest.json",
        "net_v1/provenance/bom.json",
        "net_v1/provenance/model.sig",
        "net_v1/1/model.onnx",
    ]
    assert 'filename="net_v1.triton.zip"' in answer.headers["content-disposition"]
    config = text_format.Parse((tmp_path / "net_v1/config.pbtxt").read_text(), ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("net_v1", "onnxruntime", 64)
    assert config.HasField("dynamic_batching")
    session = onnxruntime.InferenceSession(tmp_path / "net_v1/1/model.onnx")
    assert [one.name for one in config.input] == [one.name for one in session.get_inputs()]
    assert [one.name for one in config.output] == [one.name for one in session.get_outputs()]
    assert (list(config.input[0].dims), list(config.output[0].dims)) == ([2, 3], [1])
    assert config.output[0].HasField("reshape")
    (warmup,) = config.model_warmup
    assert (warmup.batch_size, list(warmup.inputs["image"].dims)) == (1, [2, 3])
    (total,) = session.run(None, {"image": np.ones((2, 2, 3), np.float32)})
    assert total.tolist() == [6.0, 6.0]
    provenance = tmp_path / "net_v1/provenance"
    assert json.loads((provenance / "manifest.json").read_text()) == TOLD
    for paper, path in (("bom.json", "bom"), ("model.sig", "signature")):
        shown = (await client.get(f"/v1/artifacts/{artifact.id}/{path}")).json()
        assert json.loads((provenance / paper).read_text()) == shown


async def test_kserve_openvino(api: Any, make_artifact: Any, intermediate: bytes, tmp_path: Path) -> None:
    row = {"target": "openvino", "format": "openvino", "filename": "net.int8.openvino.zip"}
    artifact = await make_artifact(api, TOLD, data=intermediate, **row)
    client = await api.client("reader")
    url = f"/v1/artifacts/{artifact.id}/packages/kserve?name=Net_2&version=7"
    files = unpacked(await client.get(url), tmp_path)
    assert files[0] == "inference-service.yaml"
    assert {"models/Net_2/7/model.xml", "models/Net_2/7/model.bin"} < set(files)
    service = yaml.safe_load((tmp_path / "inference-service.yaml").read_text())
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert service["metadata"]["name"] == "net-2"
    assert service["metadata"]["annotations"]["modelpress-sha256"] == artifact.sha256
    predictor = service["spec"]["predictor"]["model"]
    assert predictor["runtime"] == "kserve-tritonserver"
    assert predictor["modelFormat"] == {"name": "triton", "version": "2"}
    config = text_format.Parse((tmp_path / "models/Net_2/config.pbtxt").read_text(), ModelConfig())
    assert (config.name, config.backend) == ("Net_2", "openvino")
    loaded = openvino.Core().compile_model(str(tmp_path / "models/Net_2/7/model.xml"), "CPU")
    assert loaded(np.ones((1, 2, 3), np.float32))[0].tolist() == [6.0]


async def test_the_same_zip_every_time(api: Any, make_artifact: Any, model: bytes) -> None:
    artifact = await make_artifact(api, TOLD, data=model)
    client, url = await api.client(), f"/v1/artifacts/{artifact.id}/packages/triton"
    first, second, head = await client.get(url), await client.get(url), await client.head(url)
    assert first.content == second.content
    assert head.content == b""
    for name in ("etag", "content-length", "content-disposition"):
        assert first.headers[name] == second.headers[name] == head.headers[name]
    known = {"If-None-Match": first.headers["etag"]}
    assert (await client.get(url, headers=known)).status_code == 304
    assert (await client.get(f"{url}?version=2", headers=known)).status_code == 200


async def test_from_s3(make_api: Any, make_artifact: Any, s3: str, intermediate: bytes, tmp_path: Path) -> None:
    api = await make_api(store_url="s3://bucket/artifacts", s3_allow_http=True)
    artifact = await make_artifact(api, TOLD, data=intermediate, format="openvino", filename="net.openvino.zip")
    answer = await (await api.client()).get(f"/v1/artifacts/{artifact.id}/packages/triton")
    files = unpacked(answer, tmp_path)
    assert "net/1/model.bin" in files
    assert "net/provenance/model.sig" not in files  # this deployment has no key


async def test_what_the_list_offers_and_refuses(api: Any, make_artifact: Any, model: bytes) -> None:
    client = await api.client("reader")
    offered = await make_artifact(api, TOLD, data=model)
    items = (await client.get(f"/v1/artifacts/{offered.id}/packages")).json()["items"]
    assert [(item["layout"], item["available"], item["code"]) for item in items] == [
        ("triton", True, None),
        ("kserve", True, None),
    ]
    assert (await client.get(items[0]["download_url"])).status_code == 200
    exported = await make_artifact(api, TOLD, target="torch", format="pt2", filename="net.pt2")
    items = (await client.get(f"/v1/artifacts/{exported.id}/packages")).json()["items"]
    assert {(item["available"], item["code"], item["download_url"]) for item in items} == {
        (False, "package_unsupported", None)
    }
    assert "onnxruntime" in items[0]["detail"]
    refused = await client.get(f"/v1/artifacts/{exported.id}/packages/triton")
    assert (refused.status_code, refused.json()["code"]) == (422, "package_unsupported")
    silent = await make_artifact(api, MANIFEST, data=model)
    refused = await client.get(f"/v1/artifacts/{silent.id}/packages/triton")
    assert (refused.status_code, refused.json()["code"]) == (422, "tensors_unknown")


@pytest.mark.parametrize("query", ["name=a/b", "name=", "name=..", "version=0", "version=x", "names=a"])
async def test_names_that_are_refused(api: Any, make_artifact: Any, model: bytes, query: str) -> None:
    artifact = await make_artifact(api, TOLD, data=model)
    answer = await (await api.client()).get(f"/v1/artifacts/{artifact.id}/packages/triton?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def _zipped(compression: int = zipfile.ZIP_STORED, names: tuple[str, ...] = ("model.xml", "model.bin")) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as out:
        for name in names:
            out.writestr(name, bytes(1000))
    return buffer.getvalue()


DAMAGED = {
    "no zip": bytes(500),
    "cut off": _zipped()[:-30],
    "compressed": _zipped(zipfile.ZIP_DEFLATED),
    "a file missing": _zipped(names=("model.xml",)),
    "a file that lies outside": _zipped().replace((1000).to_bytes(4, "little"), (10**6).to_bytes(4, "little")),
    "a header that is none": b"XX" + _zipped()[2:],
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
async def test_artifacts_that_are_not_what_they_say(api: Any, make_artifact: Any, data: bytes) -> None:
    """A job's process is not trusted: what it left is looked at before it is handed on."""
    artifact = await make_artifact(api, TOLD, data=data, format="openvino", filename="net.zip")
    answer = await (await api.client()).get(f"/v1/artifacts/{artifact.id}/packages/triton")
    assert (answer.status_code, answer.json()["code"]) == (422, "artifact_damaged")


async def test_lost_bytes_are_told(api: Any, make_artifact: Any, model: bytes) -> None:
    artifact = await make_artifact(api, TOLD, data=model)
    await api.services.store.delete(artifact.workspace_id, artifact.sha256)
    answer = await (await api.client()).get(f"/v1/artifacts/{artifact.id}/packages/triton")
    assert (answer.status_code, answer.json()["code"]) == (404, "content_missing")


async def test_beyond_two_gibibytes(
    api: Any, make_artifact: Any, model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zip64 from a limit on that is lowered here; the length is then not told."""
    monkeypatch.setattr(archive, "_ZIP64", 100)
    artifact = await make_artifact(api, TOLD, data=model)
    answer = await (await api.client()).get(f"/v1/artifacts/{artifact.id}/packages/triton?name=net")
    assert "content-length" not in answer.headers
    with zipfile.ZipFile(io.BytesIO(answer.content)) as package:
        assert package.read("net/1/model.onnx") == model


def test_every_target_is_served_or_told_why_not() -> None:
    suffixes = {grid.artifact for grid in TARGETS.values()}
    assert len(BACKENDS) + len(UNSERVED) == len(suffixes)
    assert not set(BACKENDS) & set(UNSERVED)


@pytest.mark.parametrize(
    ("inputs", "outputs", "batched"),
    [
        ([["n", 3]], [["n"]], True),
        ([["n", 3]], [["m", 2]], False),
        ([["n", 3], [4]], [["n"]], False),
        ([[1, 3]], [[1]], False),
        ([[]], [["n"]], False),
    ],
)
def test_when_samples_can_be_put_together(inputs: list[Any], outputs: list[Any], batched: bool) -> None:
    def rows(shapes: list[Any]) -> list[dict[str, Any]]:
        return [{"name": f"t{place}", "dtype": "int8", "shape": shape} for place, shape in enumerate(shapes)]

    read = tensors.read({"inputs": rows(inputs), "outputs": rows(outputs)})
    assert read is not None
    assert read.batched is batched


@pytest.mark.parametrize(
    "told", [{}, {"inputs": 1}, {"inputs": [{}], "outputs": [{}]}, {**SIDES, "outputs": [{"name": "x"}]}]
)
def test_tensors_that_nobody_told(told: dict[str, Any]) -> None:
    assert tensors.read(told) is None
    assert tensors.read(told, SIDES) == tensors.read(SIDES)


@pytest.mark.parametrize(
    ("name", "service"),
    [("Net_2", "net-2"), ("2nd", "model-2nd"), ("a" * 63, "a" * 63), ("9" * 63, f"model-{'9' * 57}")],
)
def test_names_of_services(name: str, service: str) -> None:
    assert kserve._service(name) == service
