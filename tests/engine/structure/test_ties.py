"""Labels that are tied, and labels that are frozen."""

import torch

from worker.engine.structure.ties import Ties


def test_ties_are_transitive_and_frozen_classes_stay() -> None:
    ties = Ties()
    a, b = ties.fresh("a", 3, channel=True), ties.fresh("b", 3)
    assert ties.fresh("a", 3) is a
    ties.tie(a[:2], b[:2], "why")
    ties.tie(b[1:], b[2], "why")
    assert ties.resolved(a).tolist() == [1, 2, 3]
    assert ties.resolved(b).tolist() == [1, 2, 2]
    assert ties.removable().tolist() == [1, 2, 3]
    before = ties.changes
    ties.freeze(b[2:], "because")
    assert ties.resolved(a).tolist() == [1, 0, 3]
    assert ties.changes == before + 1
    assert ties.reasons() == {2: "because"}
    assert ties.removable().tolist() == [1, 3]
    ties.tie(a[0], a[1], "later")  # what is tied to something frozen is frozen, for the same reason
    assert ties.resolved(a).tolist() == [0, 0, 3]
    assert ties.reasons() == {1: "because"}


def test_what_meets_nothing_is_frozen() -> None:
    ties = Ties()
    a = ties.fresh("a", 2)
    ties.tie(a, torch.tensor([0, 2]), "meets")
    assert ties.resolved(a).tolist() == [0, 2]
    assert ties.frozen().tolist() == [True, True, False]
    assert ties.reasons() == {1: "meets"}
