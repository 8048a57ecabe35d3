"""Parameters of the quantization methods."""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from app.recipes.methods.base import Data, Stage, Step
from app.recipes.methods.effects import SHARED, Effects, Storage, Work
from app.recipes.methods.training import TrainedStep


class QuantizeDynamic(Step):
    """int8 weights; activation ranges are found at run time, sample by sample.

    Attributes:
        weight_bits / granularity / avoid_saturation: see `IntegerStep`.
    """

    summary: ClassVar[str] = "int8 weights, activations quantized on the fly; needs no data"
    stage: ClassVar[Stage] = "quantize"
    asks: ClassVar[Mapping[str, str]] = {"weight_bits": "dynamic_weight_bits", "granularity": "weight_granularity"}

    method: Literal["quantize.dynamic"] = "quantize.dynamic"
    weight_bits: Literal[8] = 8
    granularity: Literal["channel", "tensor"] = "channel"
    avoid_saturation: bool | None = None

    @property
    def effects(self) -> Effects:
        """int8 weights with their scales."""
        return Effects(stored=Storage(self.weight_bits, "dynamic", SHARED[self.granularity]), work=Work(held=1.0))


class QuantizeFloat(Step):
    """Weights in a shorter floating-point format.

    Attributes:
        format: float16 and bfloat16 are half as large, float8 a quarter.
    """

    summary: ClassVar[str] = "float16, bfloat16 or float8 weights; needs no data"
    stage: ClassVar[Stage] = "quantize"
    asks: ClassVar[Mapping[str, str]] = {"format": "float_formats"}

    method: Literal["quantize.float"] = "quantize.float"
    format: Literal["float16", "bfloat16", "float8_e4m3"] = "float16"

    @property
    def effects(self) -> Effects:
        """Shorter numbers; only float8 needs scales."""
        short = self.format == "float8_e4m3"
        stored = Storage(8 if short else 16, "float", "channel" if short else None)
        return Effects(stored=stored, work=Work(held=1.0))


class QuantizeWeights(Step):
    """Weights of few bits in groups that share a scale; activations stay in float.

    Attributes:
        bits: width of a weight.
        group_size: neighbouring inputs of a channel that share a scale, at most; -1: all of them.
        algorithm: ``rtn``: to the nearest, on the grid of least squared error; ``gptq``: errors are made good by the
            weights that are rounded later; ``awq``: scales move from large inputs into weights; ``hqq``: zero points
            that are robust to outliers.
        symmetric: grids around 0, without zero points.
        samples: how many calibration samples are used, at most.
    """

    summary: ClassVar[str] = (
        "weights of 8 to 2 bits in groups, activations in float; gptq and awq need calibration data"
    )
    stage: ClassVar[Stage] = "quantize"
    asks: ClassVar[Mapping[str, str]] = {"bits": "group_bits"}

    method: Literal["quantize.weights"] = "quantize.weights"
    bits: Literal[8, 4, 3, 2] = 8
    group_size: Literal[128, 64, 32, 16, -1] = 128
    algorithm: Literal["rtn", "gptq", "awq", "hqq"] = "rtn"
    symmetric: bool = False
    samples: int = Field(256, ge=1, le=100_000)

    @model_validator(mode="after")
    def _points_to_move(self) -> Self:
        _check_points(self.algorithm, self.symmetric)
        return self

    @property
    def needed(self) -> tuple[Data, ...]:
        """gptq and awq look at what layers read."""
        return ("calibration",) if self.algorithm in ("gptq", "awq") else ()

    @property
    def changes_weights(self) -> bool:
        """awq moves scales between layers."""
        return self.algorithm == "awq"

    @property
    def effects(self) -> Effects:
        """Groups with a scale each."""
        stored = Storage(self.bits, "groups", self.group_size, points=not self.symmetric)
        return Effects(stored=stored, work=_rounding(self.algorithm, self.samples))


class QuantizeMixed(Step):
    """As many bits for each layer's weights as its rounding needs, in a budget; activations stay in float.

    Attributes:
        choices: widths that a layer may get.
        average_bits: of a weight, at most, over all layers; null beside `max_size_ratio`, else the middle of the
            choices.
        max_size_ratio: what is stored of the weights, scales and float rest included, over the float weights.
        group_size / algorithm / symmetric / samples: see `QuantizeWeights`.
    """

    summary: ClassVar[str] = "bits chosen for each layer by its measured sensitivity, in a budget"
    stage: ClassVar[Stage] = "quantize"
    needs: ClassVar[tuple[Data, ...]] = ("calibration",)
    asks: ClassVar[Mapping[str, str]] = {"choices": "group_bits"}

    method: Literal["quantize.mixed"] = "quantize.mixed"
    choices: tuple[Literal[8, 4, 3, 2], ...] = Field((8, 4), min_length=1, max_length=4)
    average_bits: float | None = Field(None, ge=2, le=8)
    max_size_ratio: float | None = Field(None, gt=0, le=1)
    group_size: Literal[128, 64, 32, 16, -1] = 128
    algorithm: Literal["gptq", "rtn", "hqq"] = "gptq"
    symmetric: bool = False
    samples: int = Field(256, ge=1, le=100_000)

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.average_bits is not None and self.max_size_ratio is not None:
            raise ValueError("give average_bits or max_size_ratio, not both")
        if self.average_bits is not None and self.average_bits < min(self.choices):
            raise ValueError(
                f"average_bits {self.average_bits:g} is below the smallest of choices, {min(self.choices)}"
            )
        _check_points(self.algorithm, self.symmetric)
        return self

    @property
    def effects(self) -> Effects:
        """As many bits as the budget has on average; every choice is tried first."""
        bits = self.average_bits or (min(self.choices) + max(self.choices)) / 2
        stored = Storage(bits, "groups", self.group_size, points=not self.symmetric, total_ratio=self.max_size_ratio)
        work = _rounding(self.algorithm, self.samples)
        tried = len(self.choices) + 1
        work = replace(work, samples=self.samples, passes=work.passes * tried + tried, held=1.0 + tried / 4)
        return Effects(stored=stored, work=replace(work, per_weight=work.per_weight * tried))


def _check_points(algorithm: str, symmetric: bool) -> None:
    if algorithm == "hqq" and symmetric:
        raise ValueError("hqq moves zero points, and symmetric grids have none: take rtn, or symmetric: false")


def _rounding(algorithm: str, samples: int) -> Work:
    """What rounding weights in groups costs."""
    seen, passes, per_weight = _ALGORITHMS[algorithm]
    return Work(samples=samples if seen else 0, passes=passes, per_weight=per_weight, held=1.0, rows=seen)


#: Algorithm -> whether it looks at samples, passes over each of them, steps of arithmetic for each weight.
_ALGORITHMS: Mapping[str, tuple[bool, float, float]] = {
    "rtn": (False, 0.0, 150.0),
    "hqq": (False, 0.0, 400.0),
    "awq": (True, 4.0, 300.0),
    "gptq": (True, 2.0, 5000.0),
}


class IntegerStep(Step):
    """What static quantization and quantization-aware training have in common.

    Attributes:
        weight_bits: width of a weight.
        activation_bits: width of what layers read; 16 compute in float, 4 are for the target torch alone.
        calibration: how ranges of activations are found: by the least squared error, from the smallest to the largest
            value, a share of the values, or the least loss of information.
        granularity: scales of weights: one for each output channel, or one for the tensor.
        symmetric_activations: null takes what the target wants.
        bias_correction: undoes the mean shift that weight rounding causes (Nagel et al. 2019, section 4.2).
        equalize: cross-layer equalization (Nagel et al. 2019, section 4.1).
        smooth: SmoothQuant's alpha, the share of the difficulty that moves from activations to weights; 0: off.
        avoid_saturation: keep neighbouring 8-bit weights small enough for kernels that add pairs of products in 16
            bits; null: where the worker's processor has no VNNI and the target's kernels do so.
        samples: how many calibration samples are used, at most.
        percentile: share of values inside the range, for ``calibration: percentile``.
    """

    stage: ClassVar[Stage] = "quantize"
    asks: ClassVar[Mapping[str, str]] = {
        "weight_bits": "weight_bits",
        "activation_bits": "activation_bits",
        "granularity": "weight_granularity",
    }

    weight_bits: Literal[8, 4] = 8
    activation_bits: Literal[8, 16, 4] = 8
    calibration: Literal["mse", "minmax", "percentile", "entropy"] = "mse"
    granularity: Literal["channel", "tensor"] = "channel"
    symmetric_activations: bool | None = None
    bias_correction: bool = True
    equalize: bool = False
    smooth: float = Field(0, ge=0, le=1)
    avoid_saturation: bool | None = None
    samples: int = Field(256, ge=1, le=100_000)
    percentile: float = Field(99.99, gt=50, le=100)

    @property
    def changes_weights(self) -> bool:
        """Equalization and smoothing move scales between layers; training leaves alone what is quantized."""
        return self.equalize or self.smooth > 0

    @property
    def effects(self) -> Effects:
        """Integer weights with their scales; one pass over the samples finds the ranges."""
        stored = Storage(self.weight_bits, "integer", SHARED[self.granularity])
        return Effects(stored=stored, work=Work(samples=self.samples, passes=1.5, held=1.0))


class QuantizeStatic(IntegerStep):
    """Integer weights and activations, with ranges found once on calibration data.

    Attributes:
        rounding: ``adaptive``: weights are rounded up or down as the layer's output needs it (AdaRound).
    """

    summary: ClassVar[str] = "integer weights and activations, calibrated on data"
    needs: ClassVar[tuple[Data, ...]] = ("calibration",)

    method: Literal["quantize.static"] = "quantize.static"
    rounding: Literal["nearest", "adaptive"] = "nearest"

    @property
    def effects(self) -> Effects:
        """Roundings that are learned take their time."""
        effects = super().effects
        if self.rounding == "nearest":
            return effects
        work = replace(effects.work, passes=effects.work.passes + 2, per_weight=300_000.0, rows=True)
        return replace(effects, work=work)


class QuantizeAwareTraining(IntegerStep, TrainedStep):
    """Static quantization whose weights are then trained under it.

    Attributes:
        learned_scale: train the scales of weights and activations too (LSQ); false keeps those of calibration.
    """

    summary: ClassVar[str] = "integer weights and activations, trained under quantization"
    needs: ClassVar[tuple[Data, ...]] = ("training",)

    method: Literal["quantize.aware_training"] = "quantize.aware_training"
    epochs: int = Field(3, ge=1, le=1000)
    learned_scale: bool = True

    @property
    def effects(self) -> Effects:
        """As static quantization, and a training."""
        effects = super().effects
        return replace(effects, work=replace(self.training, samples=self.samples, passes=effects.work.passes))
