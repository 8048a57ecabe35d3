"""Losses: what is compared with what, and where nothing is."""

import pytest
import torch
from torch import Tensor, nn

from tests.support.quantizable import build
from worker.engine.formats.lift import network_of
from worker.engine.training.batches import Batch
from worker.engine.training.losses import Answer, Objective, gives_probabilities, scores_classes, soft_labels, spreads


def test_soft_labels_are_the_divergence_of_softened_scores() -> None:
    one, other = torch.randn(6, 5), torch.randn(6, 5)
    p, q = (torch.softmax(scores.double() / 3, 1) for scores in (other, one))
    expected = 9 * float((p * (p.log() - q.log())).sum(1).mean())
    assert float(soft_labels(one, other, 3.0)) == pytest.approx(expected, rel=1e-5)
    assert float(soft_labels(one, one)) == pytest.approx(0, abs=1e-6)


def objective(teacher: Tensor | None, *, scores: bool = True, probabilities: bool = False) -> Objective:
    outputs = None if teacher is None else (lambda *inputs: (teacher, teacher))
    return Objective(outputs, (Answer(scores, probabilities, 1.0), Answer(False, False, 4.0)))


def test_teacher_and_labels_add_up_and_other_outputs_count_by_their_spread() -> None:
    answers, wanted, labels = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    batch = Batch([torch.zeros(4)], labels)
    loss = objective(wanted)((answers, answers), batch)
    expected = soft_labels(answers, wanted) + nn.functional.mse_loss(answers, wanted) / 4
    torch.testing.assert_close(loss.total, expected + nn.functional.cross_entropy(answers, labels))
    assert loss.right is not None
    assert int(loss.right) == int((answers.argmax(1) == labels).sum())
    alone = objective(None)((answers, answers), batch)
    torch.testing.assert_close(alone.total, nn.functional.cross_entropy(answers, labels))


def test_without_labels_the_teacher_says_what_is_right() -> None:
    answers = torch.randn(4, 3)
    loss = objective(answers)((answers, answers), Batch([torch.zeros(4)], None))
    assert loss.right is not None
    assert int(loss.right) == 4
    assert float(loss.total) == pytest.approx(0, abs=1e-6)


def test_probabilities_are_brought_back_to_scores() -> None:
    scores, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    loss = objective(None, probabilities=True)
    total = loss((scores.softmax(1),), Batch([torch.zeros(4)], labels)).total
    torch.testing.assert_close(total, nn.functional.cross_entropy(scores, labels))


def test_regression_labels_may_lack_the_last_dimension() -> None:
    answers, labels = torch.randn(4, 1), torch.randn(4)
    loss = objective(None, scores=False)((answers,), Batch([torch.zeros(4)], labels))
    torch.testing.assert_close(loss.total, nn.functional.mse_loss(answers[:, 0], labels))
    assert loss.right is None


def test_what_the_first_output_is() -> None:
    assert scores_classes(build("residual").outputs[0], None)
    assert not scores_classes(build("residual").outputs[0], "regression")
    soft = network_of(nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)).eval(), (torch.randn(2, 4),))
    assert gives_probabilities(soft.module) == (True,)
    assert gives_probabilities(build("residual").module) == (False,)


def test_spreads_of_floating_outputs() -> None:
    values = torch.tensor([[1.0], [3.0]])
    assert spreads((values, torch.tensor([1, 2]), torch.zeros(3))) == (1.0, None, 1e-12)
