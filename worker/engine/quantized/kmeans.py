"""k-means of weights: the codebook of least squared error.

One-dimensional k-means needs no distances: clusters of sorted numbers are runs, their ends lie half-way between
centroids, and a run's mean comes from prefix sums, so a turn of Lloyd's algorithm costs k binary searches however many
weights there are. Two starts, evenly spaced over the range (Han et al. 2015, https://arxiv.org/abs/1510.00149, section
3.2: large weights matter, and few centroids come to them otherwise) and over the ranks; the better end counts.

Vectors are clustered by Lloyd's algorithm on a sample, from k-means++ (Arthur and Vassilvitskii 2007).
"""

from typing import Final

import torch
from torch import Tensor

_TURNS: Final = 60
#: Share of the largest move below which nothing changes any more.
_SETTLED: Final = 1e-6
#: Vectors that clusters of vectors are found on, the turns, and how many distances are held at a time.
_SAMPLED: Final = 1 << 16
_VECTOR_TURNS: Final = 25
_AT_ONCE: Final = 1 << 24


@torch.no_grad()
def codebooks(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """One codebook for each row.

    Args:
        rows: (books, n), float32.
    Returns:
        centroids, float32, (books, 2^bits), rising, and codes, uint8, (books, n).
    """
    k = 1 << bits
    ordered = rows.double().sort(dim=1).values
    sums = torch.nn.functional.pad(ordered.cumsum(1), (1, 0))
    squares = torch.nn.functional.pad(ordered.square().cumsum(1), (1, 0))
    share = (torch.arange(k, dtype=torch.float64, device=rows.device) + 0.5) / k
    low, high = ordered[:, :1], ordered[:, -1:]
    starts = (low + (high - low) * share, ordered[:, (share * ordered.shape[1]).long()])
    ends = [_settle(ordered, sums, start) for start in starts]
    errors = torch.stack([_error(ordered, sums, squares, end) for end in ends])
    centroids = torch.where((errors[0] <= errors[1])[:, None], ends[0], ends[1]).float()
    return centroids, torch.searchsorted(_middles(centroids), rows.contiguous()).to(torch.uint8)


def _settle(ordered: Tensor, sums: Tensor, centroids: Tensor) -> Tensor:
    centroids = centroids.contiguous()
    span = (ordered[:, -1] - ordered[:, 0]).max()
    for _ in range(_TURNS):
        ends = _ends(ordered, centroids)
        counts = ends.diff(dim=1)
        means = sums.gather(1, ends).diff(dim=1) / counts.clamp(min=1)
        # A centroid that nothing is near to stays; it keeps its place in the order.
        moved = torch.where(counts > 0, means, centroids)
        settled = bool((moved - centroids).abs().max() <= _SETTLED * span)
        centroids = moved
        if settled:
            break
    return centroids


def _middles(centroids: Tensor) -> Tensor:
    return ((centroids[:, 1:] + centroids[:, :-1]) / 2).contiguous()


def _ends(ordered: Tensor, centroids: Tensor) -> Tensor:
    """Where each cluster begins in the sorted rows, and the last one ends: (books, k + 1)."""
    inner = torch.searchsorted(ordered, _middles(centroids))
    return torch.nn.functional.pad(torch.nn.functional.pad(inner, (1, 0)), (0, 1), value=ordered.shape[1])


def _error(ordered: Tensor, sums: Tensor, squares: Tensor, centroids: Tensor) -> Tensor:
    """Squared error of each row."""
    ends = _ends(ordered, centroids)
    count, first, second = ends.diff(dim=1), sums.gather(1, ends).diff(dim=1), squares.gather(1, ends).diff(dim=1)
    return (second - 2 * centroids * first + count * centroids.square()).sum(1)


@torch.no_grad()
def vector_codebook(points: Tensor, bits: int, seed: int) -> tuple[Tensor, Tensor]:
    """One codebook of vectors.

    Args:
        points: (n, vector), float32.
    Returns:
        centroids, float32, (2^bits, vector), and codes, uint8, (n,).
    """
    random = torch.Generator(points.device).manual_seed(seed)
    some = points[torch.randperm(len(points), generator=random, device=points.device)[:_SAMPLED]]
    centroids = _spread_start(some, 1 << bits, random)
    for _ in range(_VECTOR_TURNS):
        centroids = _means(some, _closest(some, centroids), centroids)
    codes = _closest(points, centroids)
    centroids = _means(points, codes, centroids)
    return centroids, _closest(points, centroids).to(torch.uint8)


def _spread_start(points: Tensor, k: int, random: torch.Generator) -> Tensor:
    """k-means++: each centroid is a point, chosen by its squared distance to those before."""
    first = torch.randint(len(points), (1,), generator=random, device=points.device)
    chosen = [points[first[0]]]
    distance = (points - chosen[0]).square().sum(1)
    for _ in range(k - 1):
        weights = distance if float(distance.sum()) > 0 else torch.ones_like(distance)
        chosen.append(points[int(torch.multinomial(weights, 1, generator=random))])
        distance = torch.minimum(distance, (points - chosen[-1]).square().sum(1))
    return torch.stack(chosen)


def _closest(points: Tensor, centroids: Tensor) -> Tensor:
    norms = centroids.square().sum(1)
    parts = torch.split(points, max(1, _AT_ONCE // len(centroids)))
    return torch.cat([torch.addmm(norms, part, centroids.T, alpha=-2).argmin(1) for part in parts])


def _means(points: Tensor, codes: Tensor, centroids: Tensor) -> Tensor:
    counts = torch.bincount(codes, minlength=len(centroids))[:, None]
    sums = torch.zeros_like(centroids).index_add_(0, codes, points)
    return torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
