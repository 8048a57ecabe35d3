"""The loop on a network of its own: it learns, goes on where it was, and stops where numbers end."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.quantizable import build, samples
from worker.engine.errors import Unsupported
from worker.engine.training.batches import Batch, Batches
from worker.engine.training.loop import NotResumable, Plan, Training
from worker.engine.training.losses import Loss


class Noisy(nn.Module):
    """Dropout and a batch norm: randomness and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(80, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.body(x),)


def mean(outputs: Sequence[Tensor], batch: Batch) -> Loss:
    """The mean of the input is the answer."""
    return Loss(nn.functional.mse_loss(outputs[0][:, 0], batch.inputs[0].mean((1, 2))), None)


def training(epochs: int = 4, **changes: Any) -> tuple[Training, nn.Module]:
    torch.manual_seed(3)
    module = Noisy().train()
    batches = Batches(build("signal"), samples(build("signal"), 60), size=16, seed=1)
    return Training(module, batches, changes.pop("criterion", mean), Plan(epochs, 1e-2, 1, **changes)), module


def test_it_learns_and_tells_the_loss_of_every_epoch() -> None:
    shares: list[float] = []
    run, _ = training(8, progress=shares.append)
    assert list(run.epochs()) == list(range(1, 9))
    assert len(run.curves["loss"]) == 8
    assert run.curves["loss"][-1] < run.curves["loss"][0]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_going_on_gives_the_same_bits() -> None:
    whole, expected = training()
    list(whole.epochs())
    first, _ = training()
    for epoch in first.epochs():
        if epoch == 2:
            break
    kept = first.keep()
    second, got = training()
    torch.manual_seed(99)
    second.resume(kept)
    assert second.epoch == 2
    assert list(second.epochs()) == [3, 4]
    assert second.curves == whole.curves
    for one, other in zip(expected.state_dict().values(), got.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_what_was_kept_of_another_training_is_refused_and_changes_nothing() -> None:
    run, _ = training()
    next(run.epochs())
    kept = run.keep()
    other, module = training(rates={"body.1.weight": 0.5})
    before = {name: value.clone() for name, value in module.state_dict().items()}
    kept.tensors["model/body.1.weight"].resize_(2, 2)  # type: ignore[attr-defined]
    with pytest.raises(NotResumable, match="shape"):
        other.resume(kept)
    short, _ = training(epochs=1)
    with pytest.raises(NotResumable):
        short.resume(type(kept)({**kept.state, "epoch": 2}, kept.tensors))
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_parameters_with_a_rate_of_their_own_take_it() -> None:
    still, module = training(epochs=1, rates={"body.1.weight": 1e-30})
    before = module.state_dict()["body.1.weight"].clone()
    list(still.epochs())
    torch.testing.assert_close(module.state_dict()["body.1.weight"], before, rtol=0, atol=1e-12)


def test_a_loss_without_a_number_ends_it() -> None:
    run, _ = training(criterion=lambda outputs, batch: Loss(outputs[0].sum() * torch.nan, None))
    with pytest.raises(Unsupported) as caught:
        list(run.epochs())
    assert caught.value.code == "training_diverged"
