"""Every pair of method and target that ``GET /v1/methods`` declares possible, run from the step to the exported file.

The cases come from the declared table itself (`app.recipes.reach.possible`): each value of each parameter that depends
on the target, the others at their defaults. Each file is opened alone, in its runtime, in a fresh process, and must
compute what fake quantization predicts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.recipes import METHODS as DECLARED
from app.recipes import TARGETS as GRIDS
from app.recipes import Step
from app.recipes.reach import impossible, possible
from tests.support import everything
from tests.support.exports import Exports
from tests.support.quantizable import Notebook, sqnr_db
from worker.engine.data.samples import Samples
from worker.engine.errors import Unsupported
from worker.engine.measure.machine import saturates
from worker.engine.measure.remote import Remote
from worker.engine.methods import METHODS
from worker.engine.network import Network
from worker.engine.quantized.fake import fake_quantized
from worker.engine.state import Compressed, Context
from worker.engine.targets import TARGETS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

NETWORKS = {"images": everything.images, "words": everything.words}


def takes(target: str, name: str) -> bool:
    """Whether the target runs here, and stores the layers of this network in few bits."""
    return TARGETS[target].available() is None and (name != "words" or "recurrent" in GRIDS[target].stored)


#: Parameters that keep a pair to seconds.
_SHORT: dict[str, Any] = {"epochs": 1, "batch_size": 16}
QUICK: dict[str, dict[str, Any]] = {
    "quantize.aware_training": _SHORT,
    "finetune": _SHORT,
    "distill": _SHORT,
    "search.architecture": {**_SHORT, "trials": 4, "round_to": 1, "limit_ratio": 0.8},
    "prune.channels": {"round_to": 1, "ratio": 0.3},
}
#: dB; kernels round a half differently now and then.
AGREEMENT = 28.0
#: dB against the float network, by the fewest bits that are asked for.
FIDELITY = {1: 0.5, 2: 0.5, 3: 4.0, 4: 8.0, 5: 10.0, 6: 12.0, 7: 15.0, 8: 18.0, 16: 18.0}
#: Of methods whose width is no parameter.
WIDTHS = {"quantize.ternary": 2, "quantize.binary": 1}


@dataclass(frozen=True)
class Case:
    """One recipe step and the targets that the table says it can go to."""

    step: Step
    targets: tuple[str, ...]

    def __str__(self) -> str:
        parameters = {name: getattr(self.step, name) for name in self.step.asks}
        return "-".join([self.step.method, *map(str, parameters.values())])

    @property
    def marks(self) -> list[pytest.MarkDecorator]:
        """Every method is run with its defaults; other values take minutes together."""
        return [] if self.step == _step(type(self.step), {}) else [pytest.mark.slow, pytest.mark.long]

    @property
    def fewest(self) -> int:
        asked = [getattr(self.step, name) for name in self.step.asks if name.endswith("bits") or name == "choices"]
        given = min((bits for one in asked for bits in (one if isinstance(one, tuple) else (one,))), default=8)
        return WIDTHS.get(self.step.method, given)


def cases() -> Iterator[Case]:
    """One case for each set of parameter values, with all targets that take it: they share one run of the method."""
    for method in DECLARED.values():
        rows = possible(method)
        settings = [{}, *(setting(method, *pair) for row in rows.values() for pair in _pairs(row))]
        steps = {step: None for setting in settings if (step := _step(method, setting)) is not None}
        for step in steps:
            reached = [
                name for name, row in rows.items() if not any(impossible(getattr(step, p), row[p]) for p in step.asks)
            ]
            yield Case(step, tuple(reached))


def _pairs(row: dict[str, list[int | str]]) -> Iterator[tuple[str, int | str]]:
    return ((name, value) for name, values in row.items() for value in values)


def setting(method: type[Step], name: str, value: int | str) -> dict[str, Any]:
    """The parameter with this value; a list of it where the parameter is a list."""
    return {name: (value,) if isinstance(method.model_fields[name].default, tuple) else value}


def _step(method: type[Step], setting: dict[str, Any]) -> Step:
    return method.model_validate({"method": method.name(), **QUICK.get(method.name(), {}), **setting})


CASES = list(cases())


def test_the_cases_cover_the_table() -> None:
    covered = {
        (case.step.method, target, p, getattr(case.step, p))
        for case in CASES
        for target in case.targets
        for p in case.step.asks
    }
    declared = {
        (name, target, parameter, setting(method, parameter, value)[parameter])
        for name, method in DECLARED.items()
        for target, row in possible(method).items()
        if TARGETS[target].available() is None
        for parameter, values in row.items()
        for value in values
    }
    assert covered >= declared
    assert {type(case.step) for case in CASES} == set(METHODS)


@pytest.mark.parametrize("target", TARGETS)
def test_the_target_runs_here(target: str) -> None:
    """Says which rows of the table were not run, and why."""
    reason = TARGETS[target].available()
    if reason is not None:
        pytest.skip(reason)
    assert any(target in case.targets for case in CASES)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exports]:
    """The float files of each network, shared by the tests of a process."""
    return {name: Exports(make(), tmp_path_factory.mktemp(name)) for name, make in NETWORKS.items()}


#: Values other than the defaults are run on the images alone, which have layers of every kind but embeddings and
#: recurrent ones (test_groups has those at few bits): CI has no time for both.
PAIRS = [
    pytest.param(case, name, marks=case.marks, id=f"{case}-{name}")
    for case in CASES
    for name in NETWORKS
    if name == "images" or not case.marks
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("case", "name"), PAIRS)
def test_a_declared_pair_works(case: Case, name: str, exports: dict[str, Exports], tmp_path: Path) -> None:
    network = NETWORKS[name]()
    context = Context(
        {target: GRIDS[target] for target in case.targets if takes(target, name)},
        Notebook(),
        tmp_path,
        calibration=everything.samples(network, 32, 1),
        training=labelled(network, everything.samples(network, 32, 2)),
        task="classification",
        saturating=saturates(),
        original=network,
    )
    try:
        compressed = METHODS[type(case.step)](Compressed(network), case.step, context)
    except Unsupported as error:
        # The images have some; random weights are near to no structure.
        if error.code in ("no_layers", "budget_too_small") and (name == "words" or case.step.stage == "factorize"):
            pytest.skip(error.detail)
        raise
    if compressed.network is network and not compressed.quantized:
        assert case.step.stage == "factorize"  # of random weights it may win nothing, and says so
        pytest.skip("; ".join(compressed.notes))
    floats = exports[name] if compressed.network is network else Exports(compressed.network, tmp_path / "changed")
    for target in context.grids:
        if not compressed.quantized:
            check_float(compressed.network, target, floats, tmp_path)
            continue
        check(compressed, target, floats, case.fewest, tmp_path)


@torch.no_grad()
def labelled(network: Network, samples: Samples) -> Samples:
    """With the classes that the network finds most likely."""
    inputs = [torch.from_numpy(np.ascontiguousarray(array)) for array in samples.inputs.values()]
    return replace(samples, labels=network.module(*inputs)[0].argmax(1).numpy())


def check(compressed: Compressed, target: str, floats: Exports, bits: int, folder: Path) -> None:
    """The file agrees with what fake quantization predicts, and with the float network."""
    form, network = compressed.quantized[target], compressed.network
    path = TARGETS[target].export_quantized(form, floats.of(target), folder / f"quantized{TARGETS[target].suffix}")
    held_out = everything.samples(network, 16, 3)
    got = alone(target, path, network, folder / target)
    inputs = [torch.from_numpy(np.ascontiguousarray(array)) for array in held_out.inputs.values()]
    with torch.no_grad():
        predicted, expected = fake_quantized(form)(*inputs)[0].numpy(), network.module(*inputs)[0].numpy()
    assert sqnr_db(predicted, got) > AGREEMENT, target
    assert sqnr_db(expected, got) > FIDELITY[bits], target


def check_float(network: Network, target: str, floats: Exports, folder: Path) -> None:
    """The float file agrees with the network that the step made."""
    got = alone(target, floats.of(target).path, network, folder / target)
    inputs = [
        torch.from_numpy(np.ascontiguousarray(array)) for array in everything.samples(network, 16, 3).inputs.values()
    ]
    with torch.no_grad():
        expected = network.module(*inputs)[0].numpy()
    assert sqnr_db(expected, got) > AGREEMENT, target


def alone(target: str, path: Path, network: Network, folder: Path) -> np.ndarray:
    """The first output on the held-out samples, by a process that has nothing but the runtime and the file."""
    with Remote(target, path, 1, folder) as remote:
        remote.open(exact=True)
        remote.load(everything.samples(network, 16, 3).inputs)
        return np.array(remote.run(16)[0])
