"""`modelpress check`, as a user runs it."""

import json
from pathlib import Path
from typing import Any

import modelpress
import pytest

from tests.support.kinds import KINDS

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def checked(run: Any, tmp_path: Path) -> Any:
    """Runs the command without a service: nobody listens at that address."""

    def runs(kind: str, *options: object, name: str = "model") -> Any:
        KINDS[kind](tmp_path / name)
        found = str(Path(modelpress.__file__).parents[1])
        return run("check", name, *options, PYTHONPATH=found, MODELPRESS_URL="http://127.0.0.1:9", MODELPRESS_KEY="")

    return runs


def test_a_model_that_is_accepted(checked: Any) -> None:
    ran = checked("pt2", name="net.pt2")
    assert ran.code == 0, ran.err
    first, *lines = ran.out.splitlines()
    assert first.startswith("accepted net.pt2, ")
    told = {line[:12].strip(): line[12:] for line in lines}
    assert told["format"] == "pt2, schema 8.20"
    assert told["parameters"] == "445; weights 1.82 kB"
    assert told["input"] == "input float32 [batch, 3, 6, 6]"
    assert told["output"] == "output float32 [batch, 5]"
    assert told["batch"] == "dynamic"
    assert "aten.conv2d 1" in told["operators"]
    assert ran.err == ""


def test_a_model_that_will_be_refused(checked: Any) -> None:
    ran = checked("onnx_unknown_operator", name="net.onnx")
    assert ran.code == 4
    assert ran.out.startswith("refused net.onnx, ")
    assert "com.example.Magic 1 (not read)" in ran.out
    assert "[unsupported_operator] The model uses operators that are not supported: com.example.Magic." in ran.out


def test_a_pickle(checked: Any) -> None:
    ran = checked("torch_save", name="net.pt")
    assert ran.code == 4
    assert "[unsafe_format]" in ran.out
    assert "torch.export.save(program" in ran.out


def test_json(checked: Any) -> None:
    ran = checked("onnx_fixed_batch", "--json")
    assert ran.code == 0
    data = json.loads(ran.out)
    assert (data["verdict"], data["format"], data["dynamic_batch"]) == ("accepted", "onnx", False)
    ran = checked("empty", "--json")
    assert ran.code == 4
    assert json.loads(ran.out)["problems"][0]["code"] == "empty_file"


def test_a_promise(checked: Any) -> None:
    assert checked("pt2", "--format", "pt2").code == 0
    ran = checked("pt2", "--format", "onnx")
    assert ran.code == 4
    assert "[format_mismatch]" in ran.out
    assert checked("pt2", "--format", "keras").code == 2


def test_a_file_that_is_not_there(run: Any) -> None:
    found = str(Path(modelpress.__file__).parents[1])
    assert run("check", "missing.pt2", PYTHONPATH=found).code == 2
