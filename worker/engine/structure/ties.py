"""Which labels go together: a union-find over integers, in bulk.

A *label* stands for one channel of a layer, or one element of a parameter; 0 stands for what is nobody's channel.
Labels that are tied stay or go together, labels that are frozen stay. Both are only ever added, so that a graph can be
gone through again and again until nothing changes.
"""

from collections.abc import Hashable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

Integers = NDArray[np.int64]


class Ties:
    """Labels and what is known of them.

    Attributes:
        changes: grows whenever two classes of labels become one, or one is frozen.
    """

    def __init__(self) -> None:
        self.changes = 0
        self._roots: Integers = np.zeros(1, np.int64)  # label -> the smallest label of its class
        self._pairs: list[Integers] = []
        self._given: dict[Hashable, Tensor] = {}
        self._reasons: list[tuple[Integers, str]] = []
        self._frozen = np.ones(1, np.bool_)  # by root; 0 never moves
        self._known = 0  # reasons that `_frozen` knows
        self._channel = np.zeros(1, np.bool_)

    def fresh(self, key: Hashable, count: int, *, channel: bool = False) -> Tensor:
        """`count` labels of their own, (count,); the same ones for the same key.

        Args:
            channel: whether they are channels that a layer computes.
        """
        if key not in self._given:
            first = len(self._roots)
            self._given[key] = torch.arange(first, first + count)
            self._roots = np.concatenate([self._roots, np.arange(first, first + count)])
            self._frozen = np.concatenate([self._frozen, np.zeros(count, np.bool_)])
            self._channel = np.concatenate([self._channel, np.full(count, channel)])
        return self._given[key]

    def tie(self, one: Tensor, other: Tensor, reason: str) -> None:
        """Tie labels position by position, with broadcasting; what meets 0 is frozen for `reason`."""
        one, other = torch.broadcast_tensors(one, other)  # type: ignore[no-untyped-call]
        pairs = torch.stack([one.reshape(-1), other.reshape(-1)], 1).numpy()
        pairs = np.unique(self._roots[pairs], axis=0)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        alone = (pairs == 0).any(1)
        if alone.any():
            self._freeze(pairs[alone].max(1), reason)
        if not alone.all():
            self._pairs.append(pairs[~alone])

    def freeze(self, labels: Tensor, reason: str) -> None:
        """None of `labels` may go."""
        found = np.unique(labels.reshape(-1).numpy())
        self._freeze(found[found != 0], reason)

    def _freeze(self, labels: Integers, reason: str) -> None:
        if len(labels) and not self._frozen[self._roots[labels]].all():
            self._reasons.append((labels, reason))

    def roots(self) -> Integers:
        """Label -> the smallest label of its class."""
        self._settle()
        return self._roots

    def frozen(self) -> NDArray[np.bool_]:
        """Label -> whether its class stays."""
        self._settle()
        return self._frozen[self._roots]

    def removable(self) -> Integers:
        """Roots of the classes that have a layer's channel and are not frozen, ascending."""
        self._settle()
        found = np.unique(self._roots[self._channel])
        return found[~self._frozen[found]]

    def resolved(self, labels: Tensor) -> Tensor:
        """The classes of `labels`; 0 for those that are frozen."""
        self._settle()
        roots = self._roots[labels.numpy()]
        return torch.from_numpy(np.where(self._frozen[roots], 0, roots))

    def reasons(self) -> dict[int, str]:
        """Root of each frozen class -> why it is, the first reason that was found."""
        self._settle()
        found: dict[int, str] = {}
        for labels, reason in self._reasons:
            for root in np.unique(self._roots[labels]):
                found.setdefault(int(root), reason)
        return found

    def _settle(self) -> None:
        if self._pairs:
            self._join(np.concatenate(self._pairs))
            self._pairs = []
        for labels, _ in self._reasons[self._known :]:
            roots = np.unique(self._roots[labels])
            self.changes += int((~self._frozen[roots]).sum())
            self._frozen[roots] = True
        self._known = len(self._reasons)

    def _join(self, pairs: Integers) -> None:
        pairs = self._roots[pairs]
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        if not len(pairs):
            return
        members, places = np.unique(pairs, return_inverse=True)
        ends = places.reshape(-1, 2)
        size = len(members)
        links = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(size, size))
        count, component = connected_components(links, directed=False)
        smallest = np.full(count, len(self._roots), np.int64)
        np.minimum.at(smallest, component, members)
        moved = np.arange(len(self._roots))
        moved[members] = smallest[component]
        frozen = members[self._frozen[members]]
        self._roots = moved[self._roots]
        self._frozen[moved[frozen]] = True
        self.changes += size - count
