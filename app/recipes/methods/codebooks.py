"""Parameters of quantization to the numbers of shared values: codebooks, ternary and binary weights."""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import Data, Stage
from app.recipes.methods.effects import SHARED, Effects, Storage
from app.recipes.methods.training import TrainedStep


class QuantizeCodebook(TrainedStep):
    """Weights as the numbers of shared values, or of shared vectors, that k-means finds.

    Attributes:
        bits: width of a number: there are 2^bits centroids.
        group: what shares a codebook.
        vector: neighbouring weights of a channel that a centroid stands for; more than 1: product quantization.
        finetune: train the centroids then, as `epochs` and the rest of `TrainedStep` say.
    """

    summary: ClassVar[str] = (
        "weights from k-means codebooks, one for a layer or a channel; finetune needs training data"
    )
    stage: ClassVar[Stage] = "quantize"
    asks: ClassVar[Mapping[str, str]] = {"bits": "codebook_bits"}

    trains_with: ClassVar[str] = "finetune: true"

    method: Literal["quantize.codebook"] = "quantize.codebook"
    bits: Literal[4, 1, 2, 3, 5, 6, 7, 8] = 4
    group: Literal["layer", "channel"] = "layer"
    vector: int = Field(1, ge=1, le=16)
    finetune: bool = False
    epochs: int = Field(1, ge=1, le=1000)

    @property
    def needed(self) -> tuple[Data, ...]:
        """Centroids are tuned on training samples."""
        return ("training",) if self.finetune else ()

    @property
    def effects(self) -> Effects:
        """Numbers of centroids, and the centroids."""
        per = SHARED["channel" if self.group == "channel" else "tensor"]
        stored = Storage(
            self.bits / self.vector, "codes", per, centroids=2**self.bits, vector=self.vector, tables=False
        )
        work = replace(self.training, per_weight=30.0 * self.vector * self.bits)
        return Effects(stored=stored, work=replace(work, held=max(work.held, 1.0)))


class SignStep(TrainedStep):
    """What ternary and binary weights have in common.

    Attributes:
        scale: one for each channel, or one for the layer.
        first_last: whether the first and the last layer stay in float.
        epochs: passes over the training samples, straight-through; 0: weights are only rounded.
    """

    stage: ClassVar[Stage] = "quantize"
    asks: ClassVar[Mapping[str, str]] = {"scale": "sign_scales"}

    scale: Literal["channel", "layer"] = "channel"
    first_last: Literal["keep", "quantize"] = "keep"
    epochs: int = Field(0, ge=0, le=1000)
    learning_rate: float = Field(1e-3, gt=0, le=1)

    #: Width of a weight.
    sign_bits: ClassVar[int]

    @property
    def needed(self) -> tuple[Data, ...]:
        """Training needs samples."""
        return ("training",) if self.epochs else ()

    @property
    def effects(self) -> Effects:
        """Codebooks of one or two bits."""
        per, ends = SHARED["channel" if self.scale == "channel" else "tensor"], self.first_last == "quantize"
        bits = self.sign_bits
        stored = Storage(bits, "codes", per, centroids=2**bits, tables=False, ends=ends)
        return Effects(stored=stored, work=replace(self.training, held=max(self.training.held, 1.0)))


class QuantizeTernary(SignStep):
    """Weights -s, 0 and s."""

    summary: ClassVar[str] = "weights of three values, 2 bits; epochs > 0 trains them, on training data"

    sign_bits: ClassVar[int] = 2

    method: Literal["quantize.ternary"] = "quantize.ternary"


class QuantizeBinary(SignStep):
    """Weights -s and s."""

    summary: ClassVar[str] = "weights of two values, 1 bit; epochs > 0 trains them, on training data"

    sign_bits: ClassVar[int] = 1

    method: Literal["quantize.binary"] = "quantize.binary"
