"""Tensors of labels."""

import torch

from worker.engine.structure.labels import blank, combine, compact, essential, multiply, settle, varying
from worker.engine.structure.ties import Ties


def test_compact_labels_keep_their_shape() -> None:
    ties = Ties()
    labels = ties.fresh("a", 4).reshape(1, 4, 1).repeat(3, 1, 5)
    found = compact(labels)
    assert torch.equal(found, labels)
    assert essential(found).shape == (1, 4, 1)
    assert varying(ties, found) == (1,)
    assert essential(blank((2, 3))).shape == (1, 1)


def test_labels_that_meet_are_tied() -> None:
    ties = Ties()
    a, b = ties.fresh("a", 4), ties.fresh("b", 4)
    found = combine(ties, [a.reshape(1, 4, 1).expand(2, 4, 6), b.reshape(4, 1).expand(4, 6)], (2, 4, 6), "added")
    assert ties.resolved(b).tolist() == ties.resolved(a).tolist() == [1, 2, 3, 4]
    assert varying(ties, found) == (1,)


def test_a_gate_over_space_follows_nothing() -> None:
    ties = Ties()
    a, gate = ties.fresh("a", 4), ties.fresh("gate", 1)
    found = combine(
        ties, [a.reshape(1, 4, 1).expand(2, 4, 6), gate.reshape(1, 1, 1).expand(2, 1, 6)], (2, 4, 6), "gated"
    )
    assert ties.resolved(gate).tolist() == [0]
    assert ties.resolved(found[0, :, 0]).tolist() == [1, 2, 3, 4]


def test_what_heads_share_ties_whole_heads() -> None:
    ties = Ties()
    heads = ties.fresh("a", 6).reshape(2, 1, 3)
    combine(ties, [heads.expand(2, 5, 3), blank((5, 3))], (2, 5, 3), "turned")
    assert ties.resolved(heads).flatten().tolist() == [1, 1, 1, 4, 4, 4]


def test_unlabelled_values_freeze() -> None:
    ties = Ties()
    a = ties.fresh("a", 4)
    combine(ties, [a.expand(2, 4), blank((2, 4))], (2, 4), "added")
    assert ties.resolved(a).tolist() == [0] * 4
    assert set(ties.reasons().values()) == {"added"}


def test_what_is_summed_over_is_tied_pairwise() -> None:
    ties = Ties()
    q, k = ties.fresh("q", 4), ties.fresh("k", 4)
    found = multiply(ties, q.expand(2, 5, 4), k.expand(2, 6, 4).mT, (2, 5, 6), "product")
    assert ties.resolved(k).tolist() == [1, 2, 3, 4]
    assert not found.any()


def test_along_a_dimension_labels_are_tied_or_frozen() -> None:
    ties = Ties()
    both, one = ties.fresh("both", 6).reshape(2, 3), ties.fresh("one", 3)
    settle(ties, both, [1], "why")
    assert ties.resolved(both).tolist() == [[1, 1, 1], [4, 4, 4]]
    settle(ties, one.expand(2, 3), [1], "why")
    assert ties.resolved(one).tolist() == [0, 0, 0]
