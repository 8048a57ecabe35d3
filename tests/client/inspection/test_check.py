"""What the check tells of files as people have them."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import modelpress
import pytest
from modelpress import Operator, TensorSpec, check

from tests.support import kinds
from tests.support.kinds import KINDS

pytestmark = pytest.mark.filterwarnings("ignore")


def report_of(kind: str, folder: Path, name: str = "model", **options):
    KINDS[kind](folder / name)
    return check(folder / name, **options)


def problem(report):
    assert not report.accepted
    assert report.verdict == "refused"
    return report.problems[0]


def counts(report):
    return {one.name: one.count for one in report.operators}


def test_a_pt2(tmp_path):
    report = report_of("pt2", tmp_path)
    assert report.verdict == "accepted"
    assert (report.format, report.version) == ("pt2", "schema 8.20")
    assert report.producer is not None
    assert report.producer.startswith("torch 2.")
    assert report.inputs == (TensorSpec(name="input", dtype="float32", shape=("batch", 3, 6, 6)),)
    assert report.outputs == (TensorSpec(name="output", dtype="float32", shape=("batch", 5)),)
    assert report.dynamic_batch is True
    assert report.parameters == 112 + 8 + 325
    assert report.weight_bytes == 4 * (445 + 8) + 8
    assert counts(report) == dict.fromkeys(
        ("aten.conv2d", "aten.batch_norm", "aten.relu", "aten.flatten.using_ints", "aten.linear"), 1
    )
    assert (report.problems, report.notes) == ((), ())


@pytest.mark.parametrize("kind", ["onnx_torchscript_exporter", "onnx_dynamo_exporter"])
def test_an_onnx(kind, tmp_path):
    report = report_of(kind, tmp_path)
    assert report.accepted
    assert report.format == "onnx"
    assert report.version is not None
    assert report.version.startswith("opset 20, IR")
    assert report.producer is not None
    assert report.producer.startswith("pytorch 2.")
    (given,), (got,) = report.inputs, report.outputs
    assert (given.dtype, given.shape[1:]) == ("float32", (3, 6, 6))
    assert isinstance(given.shape[0], str)
    assert got.shape[1:] == (5,)
    assert report.dynamic_batch is True
    assert counts(report)["Conv"] == counts(report)["Gemm"] == 1


def test_a_fixed_batch_is_said(tmp_path):
    report = report_of("onnx_fixed_batch", tmp_path)
    assert report.accepted
    assert report.dynamic_batch is False
    assert "fixed at 2" in report.notes[0]
    assert "sample by sample" in report.notes[0]


def test_functions_are_written_out(tmp_path):
    assert counts(report_of("onnx_function", tmp_path)) == {"Relu": 1, "Exp": 1}
    report = report_of("onnx_function_unknown_operator", tmp_path)
    assert Operator(name="com.example.Magic", count=1, supported=False) in report.operators
    assert problem(report).code == "unsupported_operator"
    assert "com.example.Magic" in problem(report).detail
    assert report_of("onnx_function_uncalled", tmp_path).accepted


def test_operators_in_branches_count(tmp_path):
    from onnx import TensorProto, helper

    flag = helper.make_node("ReduceMax", ["t"], ["c"], keepdims=0)
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])]
    given.append(helper.make_tensor_value_info("t", TensorProto.BOOL, [1]))
    kinds.written(kinds.onnx_model(flag, kinds.branch(), inputs=given, domains=["com.example"]))(tmp_path / "m")
    report = check(tmp_path / "m")
    assert counts(report) == {"ReduceMax": 1, "If": 1, "com.example.Magic": 1, "Exp": 1}
    assert "com.example.Magic" in problem(report).detail


def test_everything_that_is_wrong_is_told(tmp_path):
    model = kinds.onnx_model(kinds.magic(), opset=99, domains=["com.example"])
    kinds.written(model)(tmp_path / "m")
    codes = [one.code for one in check(tmp_path / "m").problems]
    assert codes == ["schema_version_unsupported", "unsupported_operator"]


def test_weights_in_another_file(tmp_path):
    report = report_of("onnx_external", tmp_path)
    assert problem(report).code == "external_data_refused"
    assert "weights.data" in report.notes[0]
    report = report_of("zipped_onnx_without_data", tmp_path, "zip")
    assert problem(report).code == "file_incomplete"
    assert "model.onnx.data" in problem(report).detail
    for kind in ("zipped_onnx", "zipped_onnx_deflated"):
        report = report_of(kind, tmp_path, kind)
        assert report.accepted, report.problems
        assert report.format == "onnx"
        assert report.parameters == 112 + 8 + 325 or report.parameters == 112 + 325


def test_weights_in_a_tar(tmp_path):
    for kind in ("onnx_tar", "onnx_tgz", "zipped_onnx_mac", "zipped_onnx_bin"):
        report = report_of(kind, tmp_path, kind)
        assert report.accepted, (kind, report.problems)
        assert (report.format, report.dynamic_batch) == ("onnx", True)
    assert problem(report_of("onnx_tar_without_data", tmp_path, "lone")).code == "file_incomplete"


@pytest.mark.parametrize("kind", ["zipped_onnx_twice", "onnx_tar_twice"])
def test_two_models_in_an_archive_are_named(kind, tmp_path):
    report = report_of(kind, tmp_path)
    assert problem(report).code == "file_incomplete"
    assert "'a.onnx', 'b.onnx'" in problem(report).detail


def test_the_layouts_of_older_pytorch(tmp_path):
    for kind in ("pt2_old_layout", "pt2_pickled_layout"):
        report = report_of(kind, tmp_path, kind)
        assert report.accepted, report.problems
        assert report.parameters == 445


def test_tied_weights_count_once(tmp_path):
    import torch
    from torch import nn

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 4)
            self.down.weight = self.up.weight

        def forward(self, x):
            return self.down(self.up(x))

    kinds.save(Tied(), (torch.randn(2, 4),), tmp_path / "m.pt2")
    assert check(tmp_path / "m.pt2").parameters == 16 + 4 + 4


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("transformers") and "pickled" not in kind])
def test_transformers_in_an_archive(kind, tmp_path):
    report = report_of(kind, tmp_path)
    assert report.accepted, report.problems
    assert report.format == "transformers"
    assert report.architectures == ("BertForSequenceClassification",)
    assert report.version == "model_type bert"
    assert report.parameters == 40
    assert report.weight_bytes == 160


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "bert"
    made.mkdir()
    for name, data in kinds.transformers_files().items():
        (made / name).write_bytes(data)
    return made


def test_a_folder_of_transformers(folder):
    report = check(folder)
    assert report.accepted
    assert report.size_bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert any("zip -0 -r" in note for note in report.notes)


def test_a_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    assert problem(check(folder)).code == "unknown_format"
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    assert problem(check(folder)).code == "unsafe_format"
    assert "weights in a Python pickle" in problem(check(folder)).detail


def test_a_folder_that_lacks_a_shard(folder):
    places = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert "model-00002-of-00002" in problem(check(folder)).detail


def test_a_damaged_shard(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-1])
    assert problem(check(folder)).code == "file_damaged"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_type": "mamba9", "auto_map": {"AutoModel": "code.Model"}}, "never run"),
        ({"architectures": ["BertForSomethingElse"]}, "BertForSomethingElse"),
        ({"quantization_config": {"bits": 4}}, "already quantized"),
    ],
)
def test_architectures_that_are_not_read(folder, change, told):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    assert problem(check(folder)).code == "unsupported_architecture"
    assert told in problem(check(folder)).detail


def test_weights_of_types_that_networks_do_not_have(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data.replace(b'"F32"', b'"F8X"'))
    assert problem(check(folder)).code == "unsupported_input"


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "x.txt").write_text("hello")
    assert problem(check(tmp_path)).code == "unknown_format"


def test_a_wrong_promise(tmp_path):
    assert problem(report_of("pt2", tmp_path, format="onnx")).code == "format_mismatch"
    assert report_of("pt2", tmp_path, format="pt2").accepted


def test_a_pickle_says_how_to_convert(tmp_path):
    assert "torch.export.save(" in problem(report_of("torch_save", tmp_path)).detail


def test_the_report_as_json(tmp_path):
    report = report_of("onnx_unknown_operator", tmp_path)
    data = json.loads(json.dumps(report.as_dict()))
    assert next(iter(data)) == "verdict"
    assert data["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["n", 4]}]
    assert data["operators"] == [{"name": "com.example.Magic", "count": 1, "supported": False}]
    assert data["problems"][0]["code"] == "unsupported_operator"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match="nothing"):
        check(tmp_path / "nothing")
    with pytest.raises(OSError, match="neither a file nor a folder"):
        check("/dev/null")


def test_it_is_typed_and_exported():
    assert {"check", "CheckReport", "Operator"} <= set(modelpress.__all__)


def test_it_loads_nothing_of_the_server(tmp_path):
    kinds.pt2(tmp_path / "m")
    with zipfile.ZipFile(tmp_path / "m") as archive:
        assert archive.testzip() is None
    code = (
        "import sys, modelpress\n"
        f"assert modelpress.check({str(tmp_path / 'm')!r}).accepted\n"
        "print({n.partition('.')[0] for n in sys.modules} & {'app', 'worker', 'torch', 'numpy', 'onnx', 'google'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
