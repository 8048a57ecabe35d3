"""A checkpoint brings back the same numbers, and never more than it should."""

import copy
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from app.recipes.methods import QuantizeDynamic, QuantizeStatic, QuantizeWeights
from tests.support.quantizable import NETWORKS, build, compress
from worker.engine import checkpoint
from worker.engine.errors import InvalidModel
from worker.engine.quantized.fake import fake_quantized
from worker.engine.state import Compressed


@pytest.mark.parametrize(
    ("name", "step", "changed"),
    [
        *((name, QuantizeStatic(), False) for name in sorted(NETWORKS)),
        ("branches", QuantizeStatic(), True),
        ("encoder", QuantizeStatic(), True),
        ("two_inputs", QuantizeDynamic(), True),
    ],
)
def test_same_numbers(name: str, step: QuantizeStatic | QuantizeDynamic, changed: bool, tmp_path: Path) -> None:
    network = build(name)
    before = compress(network, step, tmp_path, ("onnxruntime", "openvino"))
    file = tmp_path / "checkpoint.zip"
    checkpoint.save(before, [{"method": step.method}], file, None if changed else network)
    saved = checkpoint.load(file, build(name, seed=5) if changed else network)
    assert saved.steps == [{"method": step.method}]
    assert saved.compressed.layers == before.layers
    assert saved.compressed.notes == before.notes
    inputs = [torch.randn(4, *(int(dim) for dim in spec.shape[1:])) for spec in network.inputs]
    for target in before.quantized:
        expected = fake_quantized(before.quantized[target])(*inputs)
        got = fake_quantized(saved.compressed.quantized[target])(*inputs)
        for one, other in zip(expected, got, strict=True):
            torch.testing.assert_close(other, one, rtol=0, atol=0)


def test_shared_forms_stay_shared(tmp_path: Path) -> None:
    network = build("two_inputs")
    before = compress(network, QuantizeStatic(), tmp_path, ("onnxruntime", "openvino"))
    checkpoint.save(before, [], tmp_path / "c.zip", network)
    forms = checkpoint.load(tmp_path / "c.zip", network).compressed.quantized
    assert forms["onnxruntime"] is forms["openvino"]
    assert (tmp_path / "c.zip").stat().st_size < 20_000


def test_float_network_alone(tmp_path: Path) -> None:
    network = build("signal")
    checkpoint.save(Compressed(network), [], tmp_path / "c.zip")
    back = checkpoint.load(tmp_path / "c.zip", build("signal", seed=3)).compressed.network
    for one, other in zip(network.module.parameters(), back.module.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def _rewritten(path: Path, change: dict[str, object]) -> Path:
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    state = json.loads(entries[checkpoint.STATE])
    for key, value in change.items():
        (state["forms"][0] if key in state["forms"][0] else state)[key] = value
    entries[checkpoint.STATE] = json.dumps(state).encode()
    result = path.with_name("changed.zip")
    with zipfile.ZipFile(result, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return result


@pytest.mark.parametrize(
    "change",
    [
        {"bits": {"left.nothing": 8}},
        {"integer": ["nobody"]},
        {"absorbed": {"left": "nobody"}},
        {"activations": {"left": {"scale": 0.0, "zero_point": 0, "low": 0, "high": 255}}},
        {"activations": {"left": {"scale": 1.0, "zero_point": 0, "low": 0, "high": 1 << 40}}},
        {"nodes": []},
        {"dynamic": ["nobody"]},
        {"extra": 1},
    ],
    ids=str,
)
def test_refuses_what_does_not_fit(change: dict[str, object], tmp_path: Path) -> None:
    network = build("two_inputs")
    checkpoint.save(compress(network, QuantizeStatic(), tmp_path), [], tmp_path / "c.zip", network)
    with pytest.raises(InvalidModel) as caught:
        checkpoint.load(_rewritten(tmp_path / "c.zip", change), network)
    assert caught.value.code == "checkpoint_damaged"


def test_refuses_other_archives(tmp_path: Path) -> None:
    path = tmp_path / "c.zip"
    path.write_bytes(b"not a zip")
    with pytest.raises(InvalidModel):
        checkpoint.load(path, build("signal"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../state.json", "{}")
    with pytest.raises(InvalidModel):
        checkpoint.load(path, build("signal"))
    assert not (tmp_path.parent / "state.json").exists()


def test_another_network_is_refused(tmp_path: Path) -> None:
    network = build("signal")
    checkpoint.save(compress(network, QuantizeStatic(), tmp_path), [], tmp_path / "c.zip", network)
    with pytest.raises(InvalidModel):
        checkpoint.load(tmp_path / "c.zip", build("two_inputs"))
    assert isinstance(network.module, nn.Module)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("scale", lambda old: torch.zeros_like(old)),
        ("scale", lambda old: old.to(torch.int64)),
        ("scale", lambda old: old[:, :1].expand(-1, 5).contiguous()),
        ("values", lambda old: torch.full_like(old, 100)),
        ("values", lambda old: old.flatten()),
        ("zero_point", lambda old: old.to(torch.int32)),
        ("centroids", lambda old: torch.tensor(1.0)),
    ],
)
@pytest.mark.parametrize("bits", [None, -1, 10**13])
def test_weights_in_groups_are_checked(part: str, value: object, bits: int | None, tmp_path: Path) -> None:
    network = build("encoder")
    done = compress(network, QuantizeWeights(bits=3, group_size=16), tmp_path, ("torch",))
    checkpoint.save(done, [], tmp_path / "c.zip", network)
    with zipfile.ZipFile(tmp_path / "c.zip") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    tensors = safetensors.torch.load(content[checkpoint.TENSORS])
    key = f"0/up/{part}"
    tensors[key] = value(tensors.get(key, torch.ones(1)))  # type: ignore[operator]
    content[checkpoint.TENSORS] = safetensors.torch.save(tensors)
    if bits is not None:
        state = json.loads(content[checkpoint.STATE])
        state["forms"][0]["bits"]["up"] = bits
        content[checkpoint.STATE] = json.dumps(state).encode()
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    with pytest.raises(InvalidModel) as caught:
        checkpoint.load(tmp_path / "bad.zip", network)
    assert caught.value.code == "checkpoint_damaged"


def test_names_that_are_no_identifiers_come_back(tmp_path: Path) -> None:
    """The legacy exporter calls the first input of many networks ``input.1``."""
    network = build("two_inputs")
    named = [replace(spec, name=f"in.put:{index}") for index, spec in enumerate(network.inputs)]
    results = [replace(spec, name=f"the result/{index}") for index, spec in enumerate(network.outputs)]
    changed = replace(network, module=copy.deepcopy(network.module), inputs=tuple(named), outputs=tuple(results))
    original = replace(network, inputs=tuple(named), outputs=tuple(results))
    checkpoint.save(Compressed(changed), [], tmp_path / "c.zip")
    back = checkpoint.load(tmp_path / "c.zip", original).compressed.network
    assert back.inputs == changed.inputs
    assert back.outputs == changed.outputs
    assert [spec.sizes for spec in back.inputs] == [spec.sizes for spec in changed.inputs]
