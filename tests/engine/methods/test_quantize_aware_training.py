"""Training under quantization: what it recovers, what comes out, and going on after an interruption."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.recipes import TARGETS as GRIDS
from app.recipes.methods import LayerFilter, QuantizeAwareTraining, QuantizeStatic
from tests.support import handwriting
from tests.support.networks import ZOO, make
from tests.support.quantizable import Notebook, build, samples, sqnr_db
from worker.engine import checkpoint
from worker.engine.data.samples import Samples
from worker.engine.errors import InvalidDataset, Unsupported
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.formats.lift import network_of
from worker.engine.methods import METHODS
from worker.engine.network import Network
from worker.engine.quantized.fake import fake_quantized
from worker.engine.quantized.observe import tensors
from worker.engine.quantized.student import Student
from worker.engine.quantized.weights import neighbours
from worker.engine.state import Compressed, Context, Partial

FAST = {"learning_rate": 1e-3, "batch_size": 32, "epochs": 2}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(network: Network, folder: Path, context: dict[str, Any] | None = None, **settings: Any) -> Compressed:
    """QAT with labels-free samples, for one target, unless `context` says otherwise."""
    surroundings = Context(
        **{
            "grids": {"torch": GRIDS["torch"]},
            "reporter": Notebook(),
            "folder": folder,
            "training": samples(network, 64, seed=2),
            **(context or {}),
        }
    )
    step = QuantizeAwareTraining.model_validate({**FAST, **settings})
    return METHODS[QuantizeAwareTraining](Compressed(network), step, surroundings)


def outputs(module: Callable[..., Any], network: Network, seed: int = 9) -> list[Tensor]:
    inputs = tensors(samples(network, 32, seed=seed).inputs, network, "cpu")
    with torch.no_grad():
        return list(module(*inputs))


@torch.no_grad()
def _spread(first: Any, second: Any) -> None:
    """Channels of very different size between two layers that a ReLU joins: the same function, hard on one scale."""
    factors = 2 ** torch.linspace(-2.5, 2.5, 8)
    first.weight.mul_(factors.reshape(-1, *[1] * (first.weight.dim() - 1)))
    first.bias.mul_(factors)
    second.weight.div_(factors.reshape(-1, 1, 1, 1))


@pytest.mark.parametrize("norm", [True, False])
def test_four_bits_recover_at_least_half_of_what_static_quantization_loses(norm: bool, tmp_path: Path) -> None:
    net = handwriting.trained(norm)
    _spread(net[1] if norm else net[0], net[3] if norm else net[2])
    network = network_of(net, (torch.zeros(2, 1, 8, 8),))
    training = handwriting.training(network)
    calibration = training.take(np.arange(128))
    hard = {"weight_bits": 4, "activation_bits": 4, "granularity": "tensor", "calibration": "minmax"}
    context = Context({"torch": GRIDS["torch"]}, Notebook(), tmp_path, calibration, training, task="classification")

    static = METHODS[QuantizeStatic](Compressed(network), QuantizeStatic.model_validate(hard), context)
    step = QuantizeAwareTraining.model_validate({**hard, "learning_rate": 2e-3, "epochs": 6})
    trained = METHODS[QuantizeAwareTraining](Compressed(network), step, context)
    before, lost, after = (
        handwriting.accuracy(module)
        for module in (network.module, *(fake_quantized(done.quantized["torch"]) for done in (static, trained)))
    )
    assert before - lost > 0.1
    assert after - lost >= (before - lost) / 2
    assert len(trained.curves["loss"]) == len(trained.curves["accuracy"]) == 6
    assert trained.curves["loss"][-1] < trained.curves["loss"][0]


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("name", ["residual", "mobile", "branches", "signal", "two_inputs", "encoder"])
def test_what_comes_out_computes_what_was_trained(
    name: str, granularity: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build(name)
    before = {key: value.clone() for key, value in network.module.state_dict().items()}
    students: list[Student] = []
    monkeypatch.setattr(Student, "settle", _noting(students, Student.settle))
    done = train(network, tmp_path, granularity=granularity)
    form = done.quantized["torch"]
    assert form.network is done.network
    assert fold_batch_norm(done.network) is done.network
    quantized = fake_quantized(form)
    for one, other in zip(outputs(students[-1].module.eval(), network), outputs(quantized, network), strict=True):
        assert sqnr_db(one, other) > 40
    for one, other in zip(outputs(network.module, network), outputs(quantized, network), strict=True):
        assert sqnr_db(one, other) > 10
    for key, value in network.module.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def _noting(students: list[Student], settle: Callable[..., None]) -> Callable[..., None]:
    def noting(self: Student, frozen: bool) -> None:
        students.append(self)
        settle(self, frozen)

    return noting


def test_weights_and_scales_are_trained_and_scales_stay_where_that_is_asked(tmp_path: Path) -> None:
    network = build("residual")
    learned = train(network, tmp_path).quantized["torch"]
    kept = train(network, tmp_path, learned_scale=False).quantized["torch"]
    static = METHODS[QuantizeStatic](
        Compressed(network),
        QuantizeStatic(),
        Context({"torch": GRIDS["torch"]}, Notebook(), tmp_path, calibration=samples(network, 64, seed=2)),
    ).quantized["torch"]
    for name, grid in static.activations.items():
        assert kept.activations[name].scale == pytest.approx(grid.scale, rel=1e-6)
    assert any(abs(learned.activations[n].scale / g.scale - 1) > 1e-3 for n, g in static.activations.items())
    assert all(learned.activations[n].zero_point == g.zero_point for n, g in static.activations.items())
    assert not torch.equal(learned.network.module.two.weight, network.module.two.weight)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("name", ["residual", "mlp"])
def test_an_interrupted_training_ends_with_the_same_numbers(name: str, tmp_path: Path) -> None:
    network = build(name) if name == "residual" else network_of(make("mlp"), ZOO["mlp"].inputs(4))
    kept: list[Partial] = []

    def keep(label: str, partial: Partial) -> None:
        assert label == "epoch 1 of 3"
        kept.append(partial)
        raise Interrupted

    whole = train(network, tmp_path, epochs=3)
    with pytest.raises(Interrupted):
        train(network, tmp_path, {"keep": keep}, epochs=3)
    # What is kept goes through a file.
    checkpoint.save(Compressed(network), [], tmp_path / "c.zip", network, kept[0])
    partial = checkpoint.load(tmp_path / "c.zip", network).partial
    resumed = train(network, tmp_path, {"resumed": partial}, epochs=3)
    assert resumed.curves == whole.curves
    assert resumed.quantized["torch"].activations == whole.quantized["torch"].activations
    for one, other in zip(_tensors(whole), _tensors(resumed), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def _tensors(done: Compressed) -> list[Tensor]:
    weights = [w for _, w in sorted(done.quantized["torch"].weights.items())]
    return [*done.network.module.state_dict().values(), *(w.values for w in weights), *(w.scale for w in weights)]


def _without_first(partial: Partial) -> Partial:
    return replace(partial, tensors=dict(list(partial.tensors.items())[1:]))


def _not_finite(partial: Partial) -> Partial:
    name = next(name for name in partial.tensors if name.startswith("exp_avg/"))
    return replace(partial, tensors={**partial.tensors, name: partial.tensors[name] * torch.nan})


def _other_shape(partial: Partial) -> Partial:
    name = next(name for name in partial.tensors if name.startswith("model/"))
    return replace(partial, tensors={**partial.tensors, name: torch.zeros(3, 3, 3)})


@pytest.mark.parametrize(
    "change",
    [
        _without_first,
        _not_finite,
        _other_shape,
        lambda partial: replace(partial, state={}),
        lambda partial: replace(partial, state={**partial.state, "zero_points": {"nobody": 3}}),
        lambda partial: replace(partial, state={**partial.state, "training": {"epoch": 99, "curves": {}}}),
        lambda partial: replace(partial, state={**partial.state, "training": {"epoch": "1", "curves": {}}}),
    ],
)
def test_what_does_not_fit_is_left_aside(change: Callable[[Partial], Partial], tmp_path: Path) -> None:
    network = build("two_inputs")
    kept: list[Partial] = []
    whole = train(network, tmp_path, {"keep": lambda label, partial: kept.append(partial)})
    notebook = Notebook()
    again = train(network, tmp_path, {"resumed": change(kept[0]), "reporter": notebook})
    assert any("starts over" in line for line in notebook.lines)
    assert again.curves == whole.curves


def _attention() -> Network:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            weights = torch.matmul(self.query(x), self.key(x).transpose(1, 2)).softmax(-1)
            return self.head(torch.matmul(weights, self.value(x)))

    torch.manual_seed(0)
    return network_of(Attention().eval(), (torch.randn(3, 5, 8),))


def test_one_training_serves_targets_with_different_integers(tmp_path: Path) -> None:
    network = _attention()
    signed = GRIDS["torch"].model_copy(update={"name": "signed", "activation_dtype": "int8"})
    grids = {"torch": GRIDS["torch"], "signed": signed, "onnxruntime": GRIDS["onnxruntime"]}
    done = train(network, tmp_path, {"grids": grids, "saturating": True})
    forms = done.quantized
    assert {grid.dtype for grid in forms["signed"].activations.values()} == {"int8"}
    assert len(forms["onnxruntime"].integer) > len(forms["torch"].integer)  # products of activations
    results = [outputs(fake_quantized(forms[name]), network)[0] for name in ("torch", "signed", "onnxruntime")]
    torch.testing.assert_close(results[0], results[1])
    assert sqnr_db(results[0], results[2]) > 20
    for path, weight in forms["torch"].weights.items():
        assert weight is forms["onnxruntime"].weights[path]
        assert float(neighbours(weight.values.float()).max()) <= 128


def test_symmetric_where_one_target_asks_for_it(tmp_path: Path) -> None:
    network = build("two_inputs")
    strict = GRIDS["torch"].model_copy(update={"activation_dtype": "int8", "symmetric_activations": True})
    forms = train(network, tmp_path, {"grids": {"torch": GRIDS["torch"], "strict": strict}}).quantized
    assert all(grid.zero_point == 0 for grid in forms["strict"].activations.values())
    assert all(grid.zero_point == 128 for grid in forms["torch"].activations.values())


def test_the_result_survives_a_checkpoint(tmp_path: Path) -> None:
    network = build("residual")
    done = train(network, tmp_path)
    checkpoint.save(done, [], tmp_path / "c.zip", network)
    saved = checkpoint.load(tmp_path / "c.zip", network).compressed
    assert saved.curves == done.curves
    expected = outputs(fake_quantized(done.quantized["torch"]), network)
    torch.testing.assert_close(outputs(fake_quantized(saved.quantized["torch"]), network), expected, rtol=0, atol=0)


@pytest.mark.parametrize("bits", [(4, 4), (8, 16), (4, 8)])
def test_widths(bits: tuple[int, int], tmp_path: Path) -> None:
    form = train(build("signal"), tmp_path, weight_bits=bits[0], activation_bits=bits[1]).quantized["torch"]
    assert {weight.bits for weight in form.weights.values()} == {bits[0]}
    assert {grid.bits for grid in form.activations.values()} == {bits[1]}
    assert max(int(weight.values.abs().max()) for weight in form.weights.values()) <= 2 ** (bits[0] - 1) - 1


def test_embeddings_and_recurrent_layers_are_stored_and_the_rest_trains_around_them(tmp_path: Path) -> None:
    network = network_of(make("recurrent"), ZOO["recurrent"].inputs(3))
    tokens = np.random.default_rng(0).integers(0, 20, (40, 5))
    done = train(network, tmp_path, {"training": Samples({network.inputs[0].name: tokens})})
    assert "embedding" in done.quantized["torch"].weights
    torch.testing.assert_close(done.network.module.embedding.weight, network.module.embedding.weight)
    assert any("stored in few bits" in note for note in done.notes)


def test_layers_left_out_stay_in_float_and_train(tmp_path: Path) -> None:
    network = build("residual")
    done = train(network, tmp_path, layers=LayerFilter(exclude=("stem",)).model_dump())
    assert set(done.quantized["torch"].weights) == {"one", "two", "head"}
    assert "stem stays in float: left out by the recipe" in done.notes
    assert not torch.equal(done.network.module.stem.weight, fold_batch_norm(network).module.stem.weight)


def test_what_an_earlier_step_quantized_does_not_train(tmp_path: Path) -> None:
    network = build("residual")
    context = Context(
        {"torch": GRIDS["torch"]},
        Notebook(),
        tmp_path,
        calibration=samples(network),
        training=samples(network, 64, seed=2),
    )
    first = METHODS[QuantizeStatic](
        Compressed(network), QuantizeStatic(layers=LayerFilter(include=("stem", "head"))), context
    )
    step = QuantizeAwareTraining.model_validate({**FAST, "layers": {"include": ["one", "two"]}})
    done = METHODS[QuantizeAwareTraining](first, step, context)
    assert set(done.quantized["torch"].weights) == {"stem", "one", "two", "head"}
    torch.testing.assert_close(done.network.module.head.weight, network.module.head.weight, rtol=0, atol=0)
    quantized = outputs(fake_quantized(done.quantized["torch"]), network)[0]
    assert sqnr_db(outputs(network.module, network)[0], quantized) > 14


def test_a_fixed_batch_trains_run_by_run(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    program = torch.export.export(net, (torch.zeros(1, 3, 8, 8),))
    path = tmp_path / "net.pt2"
    torch.export.save(program, path)
    from worker.engine.formats.pt2 import read_pt2

    network = read_pt2(path)
    network = replace(network, inputs=tuple(replace(s, shape=(1, *s.shape[1:])) for s in network.inputs))
    arrays = np.random.default_rng(0).standard_normal((20, 3, 8, 8)).astype(np.float32)
    done = train(network, tmp_path, {"training": Samples({network.inputs[0].name: arrays})}, batch_size=8)
    assert len(done.curves["loss"]) == 2
    assert done.curves["loss"][-1] < 1


@pytest.mark.parametrize(
    ("context", "settings", "code"),
    [
        ({"training": None}, {}, "training_required"),
        ({}, {"teacher": False}, "labels_required"),
        ({}, {"layers": {"include": ["stme"]}}, "unknown_layer"),
        ({}, {"learning_rate": 1.0, "teacher": True, "huge": True}, "training_diverged"),
    ],
)
def test_refusals(context: dict[str, Any], settings: dict[str, Any], code: str, tmp_path: Path) -> None:
    network = build("two_inputs")
    if settings.pop("huge", False):
        few = samples(network, 64)
        spoiled = {name: array.copy() for name, array in few.inputs.items()}
        spoiled["left"][40] = np.nan
        context = {"training": Samples(spoiled), "calibration": few}
    with pytest.raises((InvalidDataset, Unsupported)) as caught:
        train(network, tmp_path, context, **settings)
    assert caught.value.code == code


def test_labels_of_another_task_need_a_teacher(tmp_path: Path) -> None:
    network = build("two_inputs")
    labelled = replace(samples(network, 64), labels=np.zeros((64, 2), np.float32))
    with pytest.raises(Unsupported) as caught:
        train(network, tmp_path, {"training": labelled, "task": "ranking"}, teacher=False)
    assert caught.value.code == "task_unsupported"
    done = train(network, tmp_path, {"training": labelled, "task": "regression"}, teacher=False)
    assert set(done.curves) == {"loss"}


def test_it_tells_how_far_it_is(tmp_path: Path) -> None:
    notebook = Notebook()
    train(build("signal"), tmp_path, {"reporter": notebook})
    assert notebook.fractions == sorted(notebook.fractions)
    assert notebook.fractions[-1] == 1.0
    assert sum(line.startswith("training.loss=") for line in notebook.lines) == 2
