"""The table that is kept is the one that the exporter makes, and nobody else's changes are in it."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from tests.support.networks import MobileNet
from worker.engine.formats.lift import network_of
from worker.engine.targets import translations
from worker.engine.targets.onnx_export import OPSET, export_onnx
from worker.engine.targets.quiet import quiet
from worker.engine.targets.translations import table_kept


@pytest.fixture
def made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the exporter make its table, as where nothing keeps one."""
    monkeypatch.setattr(ONNXRegistry, "from_torchlib", translations.exporters_own())


def exported(module: nn.Module, **options: object) -> torch.onnx.ONNXProgram:
    with quiet():
        program = torch.onnx.export(module, (torch.rand(2, 3, 16, 16),), dynamo=True, verbose=False, **options)
    assert program is not None
    return program


def told(table: ONNXRegistry, target: object) -> list[object]:
    """All that decides how an operator is translated."""
    return [(one.onnx_function, one.signature, one.is_complex, one.is_custom) for one in table.functions[target]]


@pytest.mark.usefixtures("made_anew")
@pytest.mark.parametrize("opset", [18, OPSET])
def test_it_is_the_exporters(opset: int) -> None:
    anew = ONNXRegistry.from_torchlib(opset_version=opset)
    with table_kept():
        kept = ONNXRegistry.from_torchlib(opset_version=opset)
    assert kept.opset_version == opset
    assert len(kept.functions) > 400
    with table_kept():
        assert ONNXRegistry.from_torchlib().opset_version == ONNXRegistry().opset_version
    assert kept.functions.keys() == anew.functions.keys()
    assert [told(kept, target) for target in kept.functions] == [told(anew, target) for target in kept.functions]


@pytest.mark.usefixtures("made_anew")
def test_files_are_the_same_and_the_exporter_is_left_as_it_was() -> None:
    module = MobileNet().eval()
    anew = exported(module)
    with table_kept():
        kept = exported(module)
    assert kept.model_proto.SerializeToString() == anew.model_proto.SerializeToString()
    assert ONNXRegistry.from_torchlib == translations.exporters_own()


def test_translations_of_one_export_are_not_the_nexts() -> None:
    from onnxscript import opset18

    def softsign(self: object, inplace: bool = False) -> object:
        return opset18.Softsign(self)

    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()).eval()
    with table_kept():
        custom = exported(module, custom_translation_table={torch.ops.aten.relu.default: softsign})
        usual = exported(module)
    assert [node.op_type for node in custom.model_proto.graph.node] == ["Conv", "Softsign"]
    assert [node.op_type for node in usual.model_proto.graph.node] == ["Conv", "Relu"]


@pytest.mark.usefixtures("made_anew")
def test_exports_of_jobs_keep_it(tmp_path: Path) -> None:
    network = network_of(MobileNet().eval(), (torch.rand(2, 3, 16, 16),))
    before = translations._table.cache_info()
    for name in ("first", "second"):
        export_onnx(network, tmp_path / name)
    after = translations._table.cache_info()
    assert after.hits + after.misses == before.hits + before.misses + 2
