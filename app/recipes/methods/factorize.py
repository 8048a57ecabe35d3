"""Parameters of the factorization methods: a layer becomes several that together are smaller."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from app.recipes.methods.base import Data, Stage, Step
from app.recipes.methods.effects import Effects, Factorized, Work


class RankStep(Step):
    """What methods that choose a rank for each layer have in common; at most one of the three ways is given.

    Attributes:
        rank_ratio: the rank over the one at which the factors are as large as the layer: about the share of its
            parameters that stays.
        energy: the rank is the smallest that keeps this share of the squares.
        max_error: the rank is the smallest at which the layer's relative error stays below this; the same as an energy
            of ``1 - max_error ** 2``.
        round_to: ranks are rounded to a multiple of this, upwards where an energy or an error is promised, unless the
            layer would not become smaller.
    """

    stage: ClassVar[Stage] = "factorize"
    #: Fields of which at most one is given.
    ways: ClassVar[tuple[str, ...]] = ("rank_ratio", "energy", "max_error")

    rank_ratio: float | None = Field(None, gt=0, lt=1)
    energy: float | None = Field(None, gt=0, lt=1)
    max_error: float | None = Field(None, gt=0, lt=1)
    round_to: int = Field(8, ge=1, le=256)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [name for name in self.ways if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {', '.join(self.ways)}, not both {given[0]} and {given[1]}")
        return self


class FactorizeSvd(RankStep):
    """Linear layers and 1x1 convolutions as two of lower rank; without a rank: an energy of 0.99.

    Attributes:
        activation_aware: the error that is made small is that of the layer's output on calibration samples, not that
            of its weight.
        samples: how many calibration samples are used, at most.
    """

    summary: ClassVar[str] = "linear layers and 1x1 convolutions as two of lower rank; calibrated unless told otherwise"

    method: Literal["factorize.svd"] = "factorize.svd"
    activation_aware: bool = True
    samples: int = Field(256, ge=1, le=100_000)

    @property
    def needed(self) -> tuple[Data, ...]:
        """Outputs are those on calibration samples."""
        return ("calibration",) if self.activation_aware else ()

    @property
    def effects(self) -> Effects:
        """Two layers of the rank between them."""
        work = Work(samples=self.samples, passes=1.0, held=1.0) if self.activation_aware else Work(held=1.0)
        return Effects(shape=Factorized(self.rank_ratio, True, 2, round_to=self.round_to), work=work)


class FactorizeTucker(RankStep):
    """Convolutions as a small one between two of 1x1; without a rank: as variational Bayes finds it.

    Attributes:
        ranks: channels that the small convolution reads and writes, at most.
    """

    summary: ClassVar[str] = "convolutions as a small one between two of 1x1 (Tucker-2); needs no data"
    ways: ClassVar[tuple[str, ...]] = ("ranks", *RankStep.ways)

    method: Literal["factorize.tucker"] = "factorize.tucker"
    ranks: tuple[int, int] | None = None

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.ranks is not None and min(self.ranks) < 1:
            raise ValueError("ranks are 1 or more")
        return self

    @property
    def effects(self) -> Effects:
        """Three layers."""
        shape = Factorized(self.rank_ratio, False, 3, self.ranks, self.round_to)
        return Effects(shape=shape, work=Work(held=1.0, per_weight=200.0))


class FactorizeCp(RankStep):
    """Convolutions as 1x1, one depthwise along each axis, and 1x1; without a rank: as variational Bayes finds it.

    Attributes:
        ranks: channels between the layers.
        restarts: how often the least squares start, at most; the first result that stands counts.
        iterations: of alternating least squares, at most, per start.
    """

    summary: ClassVar[str] = "convolutions as 1x1, depthwise ones along each axis, and 1x1 (CP); needs no data"
    ways: ClassVar[tuple[str, ...]] = ("ranks", *RankStep.ways)

    method: Literal["factorize.cp"] = "factorize.cp"
    ranks: int | None = Field(None, ge=1, le=65_536)
    restarts: int = Field(2, ge=1, le=20)
    iterations: int = Field(50, ge=1, le=10_000)

    @property
    def effects(self) -> Effects:
        """Four layers, in as many alternating least squares as were asked for."""
        ranks = None if self.ranks is None else (self.ranks, self.ranks)
        shape = Factorized(self.rank_ratio, False, 4, ranks, self.round_to)
        return Effects(shape=shape, work=Work(held=1.0, per_weight=20.0 * self.iterations))


class FactorizeStructured(Step):
    """Linear layers and 1x1 convolutions as the nearest matrix of a structure that takes fewer products.

    Attributes:
        structure: ``kronecker``: a sum of Kronecker products; ``monarch``: two block-diagonal matrices with a
            permutation between; ``toeplitz``: blocks that are the same along each diagonal.
        blocks: into how many parts each side is cut, about; null: near the square root (toeplitz: 4).
        terms: Kronecker products that are added, or the rank of a Monarch matrix's blocks; null: the fewest that keep
            `max_error`.
        max_error: layers whose weight's relative error would be larger stay as they are; null: 0.3, and with `terms`
            any error is taken.
    """

    summary: ClassVar[str] = "Kronecker, Monarch or Toeplitz matrices in place of dense ones; to be trained further"
    stage: ClassVar[Stage] = "factorize"

    method: Literal["factorize.structured"] = "factorize.structured"
    structure: Literal["kronecker", "monarch", "toeplitz"] = "kronecker"
    blocks: int | None = Field(None, ge=2, le=65_536)
    terms: int | None = Field(None, ge=1, le=65_536)
    max_error: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="after")
    def _terms_of_what(self) -> Self:
        if self.structure == "toeplitz" and self.terms not in (None, 1):
            raise ValueError("a Toeplitz matrix has one term: leave terms out, or take kronecker or monarch")
        return self

    @property
    def effects(self) -> Effects:
        """Which layers are near enough to the structure only their weights tell."""
        return Effects(shape=Factorized(None, True, 2), work=Work(held=1.0, per_weight=500.0))
