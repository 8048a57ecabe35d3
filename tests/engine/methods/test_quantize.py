"""What the quantization methods choose, report and refuse."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.recipes import TARGETS as GRIDS
from app.recipes.methods import LayerFilter, QuantizeDynamic, QuantizeStatic
from tests.support.quantizable import NETWORKS, Notebook, build, compress, samples, sqnr_db
from worker.engine.data.samples import Samples
from worker.engine.errors import InvalidDataset, Unsupported
from worker.engine.formats.lift import network_of
from worker.engine.methods import METHODS
from worker.engine.network import Network
from worker.engine.quantized.fake import fake_quantized
from worker.engine.quantized.form import Quantization
from worker.engine.quantized.observe import observe, tensors
from worker.engine.state import Compressed, Context


def fidelity(network: Network, quantization: Quantization) -> float:
    """dB of the fake quantized network's first output on new samples."""
    inputs = tensors(samples(network, 64, seed=9).inputs, network, "cpu")
    with torch.no_grad():
        return sqnr_db(network.module(*inputs)[0].numpy(), fake_quantized(quantization)(*inputs)[0].numpy())


def static(network: Network, folder: Path, **settings: object) -> Quantization:
    step = QuantizeStatic.model_validate(settings)
    return compress(network, step, folder).quantized["onnxruntime"]


@pytest.mark.parametrize("calibration", ["mse", "minmax", "percentile", "entropy"])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_calibration_keeps_the_answers(name: str, calibration: str, tmp_path: Path) -> None:
    network = build(name)
    # entropy clips the few values that 48 samples give more than it should; where layers compute in bfloat16 less so
    least = 18 if calibration == "entropy" else 20
    assert fidelity(network, static(network, tmp_path, calibration=calibration)) > least


def test_weights_are_stored_as_integers_and_the_original_is_untouched(tmp_path: Path) -> None:
    network = build("residual")
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    form = static(network, tmp_path)
    assert set(form.weights) == {"stem", "one", "two", "head"}
    assert all(weight.values.dtype == torch.int8 for weight in form.weights.values())
    for name, value in network.module.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_relus_are_absorbed_and_start_at_zero(tmp_path: Path) -> None:
    form = static(build("residual"), tmp_path)
    assert form.absorbed
    assert all(form.activations[tail].zero_point == 0 for tail in form.absorbed.values())
    operations = [str(node.target) for node in fake_quantized(form).graph.nodes]
    assert sum("relu" in operation for operation in operations) == 1  # the one behind the float addition


def test_relu6_is_bounded_by_its_grid(tmp_path: Path) -> None:
    form = static(build("mobile"), tmp_path, calibration="minmax")
    tops = [form.activations[tail].range[1] for owner, tail in form.absorbed.items() if "expand" in owner]
    assert all(top <= 6 + 1e-5 for top in tops)


def test_the_last_linear_layer_answers_in_float(tmp_path: Path) -> None:
    form = static(build("two_inputs"), tmp_path)
    assert "head" in form.integer
    assert "head" not in form.activations


def test_channel_scales_beat_one_scale(tmp_path: Path) -> None:
    network = build("residual")
    torch.manual_seed(1)
    stretched = network_of(_stretched(), (torch.randn(3, 8),))
    channel = static(stretched, tmp_path, granularity="channel")
    tensor = static(stretched, tmp_path, granularity="tensor")
    assert channel.weights["first"].scale.shape == (32,)
    assert tensor.weights["first"].scale.shape == (1,)
    assert fidelity(stretched, channel) > fidelity(stretched, tensor) + 3
    assert fidelity(network, static(network, tmp_path, granularity="tensor")) > 18


def _stretched() -> nn.Module:
    """Two layers; the channels of the first differ a thousandfold, and the second undoes that."""

    class Stretched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 32), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.first(x)[:, :16], self.second(x)

    module = Stretched()
    with torch.no_grad():
        module.first.weight[16:] *= 1000
    return module


def test_bias_correction_takes_the_mean_shift_back(tmp_path: Path) -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(4, 6, 3, padding=1), nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(torch.relu(x) * 3 + 2).mean((2, 3)))

    torch.manual_seed(0)
    network = network_of(Shifted(), (torch.randn(3, 4, 8, 8),))
    corrected, plain = static(network, tmp_path), static(network, tmp_path, bias_correction=False)
    inputs = tensors(samples(network, 256, seed=4).inputs, network, "cpu")
    for form in (corrected, plain):  # weights alone: activations stay in float
        object.__setattr__(form, "activations", {})
    with torch.no_grad():
        expected = network.module(*inputs)[0].mean(0)
        shifts = [
            float((fake_quantized(form)(*inputs)[0].mean(0) - expected).abs().max()) for form in (corrected, plain)
        ]
    assert shifts[0] < shifts[1] / 5


def test_symmetric_activations(tmp_path: Path) -> None:
    form = static(build("branches"), tmp_path, symmetric_activations=True)
    assert {grid.zero_point for grid in form.activations.values()} <= {0, 128}
    signed = Context(
        {"other": GRIDS["onnxruntime"].model_copy(update={"activation_dtype": "int8", "symmetric_activations": True})},
        Notebook(),
        tmp_path,
        calibration=samples(build("branches")),
    )
    network = build("branches")
    made = METHODS[QuantizeStatic](Compressed(network), QuantizeStatic(), signed).quantized["other"]
    assert {(grid.low, grid.high, grid.zero_point) for grid in made.activations.values()} == {(-128, 127, 0)}
    assert fidelity(network, made) > 20


def test_report_and_notes(tmp_path: Path) -> None:
    network = build("mobile")
    step = QuantizeStatic(layers=LayerFilter(exclude=("squeeze", "excite")))
    done = compress(network, step, tmp_path)
    assert [row["name"] for row in done.layers] != []
    assert sorted(row["name"] for row in done.layers) == ["depthwise", "expand", "grouped", "last"]
    ratios = [row["output_sqnr_db"] for row in done.layers]
    assert ratios == sorted(ratios)
    assert all(20 < ratio < 80 for ratio in ratios)
    assert all(20 < row["sqnr_db"] < 80 for row in done.layers)
    assert sum(row["share"] for row in done.layers) == pytest.approx(1, abs=1e-3)
    assert {(row["kind"], row["bits"]) for row in done.layers} == {("Conv2d", 8)}
    assert [note for note in done.notes if "squeeze" in note] == ["squeeze stays in float: left out by the recipe"]


def test_layers_without_a_kernel_are_named(tmp_path: Path) -> None:
    class Upsampling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Conv2d(3, 8, 3, 2, 1), nn.ConvTranspose2d(8, 3, 2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.up(torch.relu(self.down(x)))

    done = compress(network_of(Upsampling(), (torch.randn(2, 3, 8, 8),)), QuantizeStatic(), tmp_path)
    assert any("up stays in float: ConvTranspose2d" in note for note in done.notes)
    assert [row["name"] for row in done.layers] == ["down"]


@pytest.mark.parametrize("step", [QuantizeStatic, QuantizeDynamic])
def test_unknown_layers_are_refused_with_close_names(step: type, tmp_path: Path) -> None:
    with pytest.raises(Unsupported) as caught:
        compress(build("residual"), step(layers=LayerFilter(include=("stme",))), tmp_path)
    assert caught.value.code == "unknown_layer"
    assert "stem" in caught.value.detail


def test_nothing_to_quantize_is_refused(tmp_path: Path) -> None:
    network = network_of(nn.Sequential(nn.ReLU()), (torch.randn(2, 4),))
    with pytest.raises(Unsupported) as caught:
        compress(network, QuantizeStatic(), tmp_path)
    assert caught.value.code == "no_layers"


def test_calibration_is_needed_and_must_be_finite(tmp_path: Path) -> None:
    network = build("signal")
    context = Context({"onnxruntime": GRIDS["onnxruntime"]}, Notebook(), tmp_path)
    with pytest.raises(InvalidDataset) as caught:
        METHODS[QuantizeStatic](Compressed(network), QuantizeStatic(), context)
    assert caught.value.code == "calibration_required"
    huge = Samples({name: np.full_like(array, 3e38) for name, array in samples(network).inputs.items()})
    with pytest.raises(InvalidDataset) as caught:
        METHODS[QuantizeStatic](Compressed(network), QuantizeStatic(), replace(context, calibration=huge))
    assert caught.value.code == "not_finite"


def test_samples_and_seed_decide_what_is_seen(tmp_path: Path) -> None:
    network = build("signal")
    grids = [static(network, tmp_path, samples=count).activations for count in (8, 8, 40)]
    assert grids[0] == grids[1]
    assert grids[0] != grids[2]


def test_dynamic_needs_no_data_and_leaves_convolutions_in_float(tmp_path: Path) -> None:
    context = Context({name: GRIDS[name] for name in ("onnxruntime", "openvino")}, Notebook(), tmp_path)
    done = METHODS[QuantizeDynamic](Compressed(build("residual")), QuantizeDynamic(), context)
    assert done.quantized["onnxruntime"].integer == {"head"}
    assert done.quantized["openvino"].integer == frozenset()
    assert set(done.quantized["openvino"].weights) == {"stem", "one", "two", "head"}
    assert any("convolutions store int8 weights" in note for note in done.notes)


def test_adaptive_rounding_is_used_where_it_is_asked_and_progress_never_falls(tmp_path: Path) -> None:
    network, reporter = build("two_inputs"), Notebook()
    forms = {}
    for rounding in ("nearest", "adaptive"):
        context = Context({"onnxruntime": GRIDS["onnxruntime"]}, reporter, tmp_path, calibration=samples(network))
        step = QuantizeStatic(weight_bits=4, rounding=rounding)
        reporter.fractions.clear()
        forms[rounding] = METHODS[QuantizeStatic](Compressed(network), step, context).quantized["onnxruntime"]
        assert reporter.fractions == sorted(reporter.fractions) and reporter.fractions[-1] == 1
    before, after = (forms[rounding].weights["mix"] for rounding in ("nearest", "adaptive"))
    assert not torch.equal(before.values, after.values) and torch.equal(before.scale, after.scale)


def test_observing_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    network = build("signal")
    names = [node.name for node in network.module.graph.nodes if node.op == "call_module"]
    sizes = []
    for count in (16, 400):
        statistics = observe(network, samples(network, count), names, dict.fromkeys(names, False))
        assert statistics.samples == count
        held = sum(len(histogram.bins()[0]) for histogram in statistics.histograms.values())
        sizes.append(held + sum(mean.numel() for mean in statistics.means.values()))
    assert sizes[1] <= 4096 * len(names) + sum(mean.numel() for mean in statistics.means.values())


@pytest.mark.parametrize("step", [QuantizeStatic, QuantizeDynamic])
def test_half_precision_is_refused_by_name(step: type, tmp_path: Path) -> None:
    half = network_of(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).half(), (torch.randn(2, 4).half(),))
    with pytest.raises(Unsupported) as caught:
        compress(half, step(), tmp_path)
    assert caught.value.code == "dtype_unsupported"
    assert "float16" in caught.value.detail
