"""Checks of uploads: what they tell, and that what is accepted runs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.pt2_files import save
from worker.engine.checks import check_dataset, check_model
from worker.engine.errors import InvalidModel, UserError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(32, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.norm(self.conv(image)))
        pooled = nn.functional.adaptive_avg_pool2d(features, 2).flatten(1)
        return self.head(pooled) @ torch.ones(10, 10)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "net.pt2"
    dynamic = {"image": {0: torch.export.Dim("batch")}}
    program = torch.export.export(Net().eval(), (torch.zeros(2, 2, 8, 8),), dynamic_shapes=dynamic)
    torch.export.save(program, path)
    return path


def test_model_facts(model: Path) -> None:
    facts = check_model(model, None, "net.pt2")
    assert facts.format == "pt2"
    assert [(value.name, value.dtype, value.shape[1:]) for value in facts.inputs] == [("image", "float32", (2, 8, 8))]
    assert isinstance(facts.inputs[0].shape[0], str)
    assert facts.outputs[0].shape[1:] == (10,)
    assert facts.parameters == sum(parameter.numel() for parameter in Net().parameters())
    layers = {layer.name: layer for layer in facts.layers}
    assert layers["conv"].macs == 8 * 8 * 8 * 1 * 9
    assert layers["head"].macs == 320
    assert (layers["head"].kind, layers["head"].parameters) == ("Linear", 330)
    assert facts.operators["Conv2d"] == 1
    assert layers["conv"].shapes == {"weight": (8, 1, 3, 3), "bias": (8,)}
    assert (layers["conv"].groups, layers["head"].groups) == (2, 1)
    assert 0 < facts.live_bytes < facts.value_bytes


def test_truncated_model_is_refused(model: Path, tmp_path: Path) -> None:
    short = tmp_path / "net.pt2"
    short.write_bytes(model.read_bytes()[:3000])
    with pytest.raises(UserError) as caught:
        check_model(short, None, "net.pt2")
    assert caught.value.detail


def test_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(Net(), tmp_path / "net.pt")
    with pytest.raises(UserError) as caught:
        check_model(tmp_path / "net.pt", None, "net.pt")
    assert caught.value.code == "unsafe_format"


def test_dataset_facts(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, image=np.zeros((5, 2, 8, 8), np.float32), label=np.array([0, 4, 2, 1, 1]))
    facts = check_dataset(path, "tensors", "x.npz")
    assert facts.samples == 5
    assert {column.name: (column.dtype, column.shape) for column in facts.columns} == {
        "image": ("float32", (2, 8, 8)),
        "label": ("int64", ()),
    }
    assert facts.label == {"kind": "class", "min": 0, "max": 4}


def test_float_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 1)), label=np.array([0.5, -1.5], np.float32))
    facts = check_dataset(tmp_path / "x.npz", "tensors")
    assert facts.label == {"kind": "float", "min": -1.5, "max": 0.5}


@pytest.mark.parametrize(
    "content", [b'{"text": "one"}\n\n{"text": "two", "id": 7}\n', b"\xef\xbb\xbfone\r\ntwo\r\n", b"one\ntwo"]
)
def test_text_facts(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    facts = check_dataset(tmp_path / "x", "text")
    assert (facts.samples, facts.columns[0].name, facts.label) == (2, "text", None)


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        (b"", "text", "empty_file"),
        (b"\n\n", "text", "dataset_too_few_samples"),
        (b"\xff\xfe\x00", "text", "dataset_text_invalid"),
        (b'{"text": "one"}\n{"txt": "two"}', "text", "dataset_text_invalid"),
        (b'{"text": 1}', "text", "dataset_text_invalid"),
        (b'{"text": "one"', "text", "dataset_text_invalid"),
        (b"{" + b'"a":[' * 100_000, "text", "dataset_text_invalid"),
        (b"x" * (16 * 1024**2 + 1), "text", "dataset_text_invalid"),
        (b"hello", "images", "dataset_kind_unsupported"),
        (b"", "tensors", "empty_file"),
    ],
)
def test_refused_datasets(tmp_path: Path, content: bytes, kind: str, code: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError) as caught:
        check_dataset(tmp_path / "x", kind)
    assert caught.value.code == code


def test_a_model_with_nan_among_its_weights(tmp_path: Path) -> None:
    module = nn.Linear(4, 2)
    with torch.no_grad():
        module.weight[1, 2] = float("nan")
    path = save(module, (torch.zeros(2, 4),), tmp_path / "m.pt2")
    with pytest.raises(InvalidModel, match="weight' holds NaN") as error:
        check_model(path)
    assert error.value.code == "weights_invalid"
