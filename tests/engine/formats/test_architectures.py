"""What users upload, from both ONNX exporters and as ``.pt2``: read, quantized, and written back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from app.recipes import TARGETS as GRIDS
from app.recipes.methods import QuantizeStatic
from tests.support.architectures import ARCHITECTURES, LARGE, Architecture, export
from tests.support.networks import flat
from tests.support.quantizable import Notebook, sqnr_db
from worker.engine import formats
from worker.engine.data.samples import Samples
from worker.engine.errors import RuntimeFailure
from worker.engine.measure.machine import saturates
from worker.engine.methods import METHODS
from worker.engine.network import Network
from worker.engine.state import Compressed, Context
from worker.engine.targets import TARGETS
from worker.engine.targets.floats import Floats
from worker.engine.targets.onnx_export import export_onnx

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

SLOW = [pytest.mark.slow]
EXPORTERS = ("dynamo", "torchscript", "pt2")
#: What the exporter itself cannot write.
IMPOSSIBLE = {
    ("causal", "torchscript"): "it knows no aten::rms_norm",
    ("masked_encoder", "torchscript"): "it writes the length into nn.MultiheadAttention: ONNX Runtime takes no other",
}
#: A recurrent layer's length, which torch.export takes for a constant.
FIXED = {("lstm", "pt2"), ("gru", "pt2")}
#: Read in every run of the tests; the others take minutes.
FAST = {
    ("bert", "torchscript"), ("distilbert", "dynamo"), ("lstm", "torchscript"), ("causal", "pt2"),
    ("masked_encoder", "pt2"), ("shufflenet", "torchscript"), ("unet", "torchscript"), ("tabular", "torchscript"),
}  # fmt: skip
#: dB of the int8 file against the float one, over every output.
FIDELITY = 15.0

Arrays = list[np.ndarray]


@dataclass(frozen=True)
class Exported:
    """A file, what it computes, and the network that was read from it."""

    name: str
    architecture: Architecture
    exporter: str
    path: Path
    truth: Callable[[dict[str, Tensor]], Arrays]
    network: Network

    def inputs(self, batch: int, length: int = 8) -> dict[str, Tensor]:
        return self.architecture.draw(batch, length, seed=batch + length)

    @property
    def varies(self) -> bool:
        """Whether the file has more symbolic sizes than the batch."""
        return any(isinstance(dim, str) for spec in self.network.inputs for dim in spec.shape[1:])


def onnx_runtime(path: Path) -> Callable[[dict[str, Tensor]], Arrays]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options)
    used = [value.name for value in session.get_inputs()]
    return lambda inputs: session.run(None, {name: inputs[name].numpy() for name in used})


def computed(run: Callable[..., object]) -> Callable[[dict[str, Tensor]], Arrays]:
    def apply(inputs: dict[str, Tensor]) -> Arrays:
        with torch.no_grad():
            return [tensor.numpy() for tensor in flat(run(**inputs))]

    return apply


def of_network(network: Network) -> Callable[[dict[str, Tensor]], Arrays]:
    return computed(lambda **inputs: network.module(*(inputs[spec.name] for spec in network.inputs)))


def make(name: str, architecture: Architecture, exporter: str, folder: Path, opset: int | None = None) -> Exported:
    path = folder / "model"
    module = export(architecture, exporter, path, opset)
    truth = computed(module) if exporter == "pt2" else onnx_runtime(path)
    return Exported(name, architecture, exporter, path, truth, formats.read(path))


def assert_close(got: Arrays, expected: Arrays, tolerance: float) -> None:
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance, rtol=tolerance)


def cases(*, brief: bool = False) -> Iterator[object]:
    """Every architecture as each exporter writes it; `brief`: of the slow ones, CI takes those of one exporter."""
    for name in ARCHITECTURES:
        for exporter in EXPORTERS:
            if (name, exporter) not in IMPOSSIBLE:
                marks = [pytest.mark.xdist_group(f"{name}-{exporter}")]
                marks += [] if (name, exporter) in FAST else SLOW
                if brief and exporter != "dynamo" and (name, exporter) not in FAST:
                    marks.append(pytest.mark.long)
                yield pytest.param((name, exporter), marks=marks, id=f"{name}-{exporter}")


@pytest.fixture(scope="module", params=cases())
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    name, exporter = request.param
    return make(name, ARCHITECTURES[name], exporter, tmp_path_factory.mktemp(exporter))


def test_agrees(exported: Exported) -> None:
    network = of_network(exported.network)
    for batch in (2, 5, 1):
        inputs = exported.inputs(batch)
        assert_close(network(inputs), exported.truth(inputs), 1e-4)


def test_agrees_at_other_lengths(exported: Exported) -> None:
    if not exported.varies:
        pytest.skip("no other length")
    network = of_network(exported.network)
    for batch, length in ((3, 11), (2, 5)):
        inputs = exported.inputs(batch, length)
        assert_close(network(inputs), exported.truth(inputs), 1e-4)


def test_lengths_stay_symbolic(exported: Exported) -> None:
    name, exporter = exported.name, exported.exporter
    assert exported.varies == (exported.architecture.varies and (name, exporter) not in FIXED)
    assert exported.network.batched


# The network is the same whoever wrote it (test_agrees): CI has no time to quantize it thrice.
@pytest.mark.parametrize("exported", list(cases(brief=True)), indirect=True)
def test_quantized(exported: Exported, tmp_path: Path) -> None:
    """Statically, for ONNX Runtime: what is written runs there, and computes nearly the same."""
    calibration = {name: value.numpy() for name, value in exported.inputs(24).items()}
    grids = {"onnxruntime": GRIDS["onnxruntime"]}
    context = Context(grids, Notebook(), tmp_path, calibration=Samples(calibration), saturating=saturates())
    done = METHODS[QuantizeStatic](Compressed(exported.network), QuantizeStatic(), context)
    form, target = done.quantized["onnxruntime"], TARGETS["onnxruntime"]
    floats = target.export_float(Floats(exported.network, tmp_path / "float"))
    quantized = onnx_runtime(target.export_quantized(form, floats, tmp_path / "int8.onnx"))
    inputs = exported.inputs(32)
    truth = exported.truth(inputs)
    assert_close(onnx_runtime(floats.path)(inputs), truth, 1e-4)
    assert min(map(sqnr_db, truth, quantized(inputs))) > FIDELITY
    if exported.varies:
        inputs = exported.inputs(3, 11)
        assert min(map(sqnr_db, exported.truth(inputs), quantized(inputs))) > FIDELITY


def test_round_trip(exported: Exported, tmp_path: Path) -> None:
    again = round_trip(exported, tmp_path)
    for batch in (2, 5):
        inputs = exported.inputs(batch)
        assert_close(again(inputs), exported.truth(inputs), 1e-5)


def round_trip(exported: Exported, folder: Path) -> Callable[[dict[str, Tensor]], Arrays]:
    """Write the network as a file of the format that it came from; how that file is run."""
    if exported.exporter != "pt2":
        return onnx_runtime(export_onnx(exported.network, folder).path)
    formats.WRITERS["pt2"](exported.network, folder / "float.pt2")
    return of_network(formats.read(folder / "float.pt2"))


SIZES = [
    pytest.param(
        name, exporter, marks=[] if (name, exporter) in {("resnet18", "pt2"), ("lstm", "torchscript")} else SLOW
    )
    for name in LARGE
    for exporter in EXPORTERS
]


@pytest.mark.parametrize(("name", "exporter"), SIZES)
def test_round_trips_keep_the_size(name: str, exporter: str, tmp_path: Path) -> None:
    exported = make(name, LARGE[name], exporter, tmp_path)
    again = round_trip(exported, tmp_path)
    inputs = exported.inputs(3)
    assert_close(again(inputs), exported.truth(inputs), 1e-5)
    (written,) = tmp_path.glob("float.*")
    assert written.stat().st_size == pytest.approx(exported.path.stat().st_size, rel=0.02)


@pytest.mark.parametrize(
    "name", ["tabular", *(pytest.param(name, marks=SLOW) for name in ("unet", "densenet", "crnn"))]
)
def test_other_weights_than_those_of_the_file(name: str, tmp_path: Path) -> None:
    """What training changed is written, whichever layer it belongs to."""
    exported = make(name, ARCHITECTURES[name], "torchscript", tmp_path)
    with torch.no_grad():
        for parameter in exported.network.module.parameters():
            parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
    inputs = exported.inputs(3)
    expected = of_network(exported.network)(inputs)
    assert_close(round_trip(exported, tmp_path)(inputs), expected, 1e-5)


def test_a_recurrent_layer_of_any_length_is_not_written_with_one(tmp_path: Path) -> None:
    exported = make("gru", ARCHITECTURES["gru"], "torchscript", tmp_path)
    with torch.no_grad():
        next(exported.network.module.parameters()).mul_(2)
    with pytest.raises(RuntimeFailure, match="length of a recurrent layer"):
        round_trip(exported, tmp_path)


OPSETS = [
    *(("unet", "torchscript", opset) for opset in (11, 13, 17, 18)),
    *(("bert", "torchscript", opset) for opset in (14, 18)),  # 13 the exporter refuses itself
    ("lstm", "torchscript", 13),
    *(("mobilenet", "torchscript", opset) for opset in (13, 17)),
    *(("unet", "dynamo", opset) for opset in (18, 21, 23)),
    *(("causal", "dynamo", opset) for opset in (18, 21, 23)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exporter", "opset"), OPSETS)
def test_other_opsets(name: str, exporter: str, opset: int, tmp_path: Path) -> None:
    exported = make(name, ARCHITECTURES[name], exporter, tmp_path, opset)
    again, network = round_trip(exported, tmp_path), of_network(exported.network)
    for batch in (2, 5):
        inputs = exported.inputs(batch)
        assert_close(network(inputs), exported.truth(inputs), 1e-4)
        assert_close(again(inputs), exported.truth(inputs), 1e-5)
