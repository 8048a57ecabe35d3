"""Parameters of the quantization methods."""

from typing import ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import Data, Stage, Step

INTEGER_TARGETS = ("onnxruntime", "openvino", "torch")


class QuantizeDynamic(Step):
    """int8 weights; activation ranges are found at run time, sample by sample."""

    summary: ClassVar[str] = "int8 weights, activations quantized on the fly; needs no data"
    stage: ClassVar[Stage] = "quantize"
    targets: ClassVar[tuple[str, ...]] = INTEGER_TARGETS

    method: Literal["quantize.dynamic"] = "quantize.dynamic"
    weight_bits: Literal[8] = 8
    granularity: Literal["channel", "tensor"] = "channel"


class QuantizeStatic(Step):
    """int8 weights and activations, with ranges found once on calibration data.

    Attributes:
        symmetric_activations: null takes what the target wants.
        bias_correction: undoes the mean shift that weight rounding causes (Nagel et al. 2019, section 4.2).
        samples: how many calibration samples are used, at most.
        percentile: share of values inside the range, for ``calibration: percentile``.
    """

    summary: ClassVar[str] = "int8 weights and activations, calibrated on data"
    stage: ClassVar[Stage] = "quantize"
    needs: ClassVar[tuple[Data, ...]] = ("calibration",)
    targets: ClassVar[tuple[str, ...]] = INTEGER_TARGETS

    method: Literal["quantize.static"] = "quantize.static"
    weight_bits: Literal[8] = 8
    activation_bits: Literal[8] = 8
    calibration: Literal["mse", "minmax", "percentile", "entropy"] = "mse"
    granularity: Literal["channel", "tensor"] = "channel"
    symmetric_activations: bool | None = None
    bias_correction: bool = True
    equalize: Literal[False] = False
    smooth: Literal[0] = 0
    rounding: Literal["nearest"] = "nearest"
    samples: int = Field(256, ge=1, le=100_000)
    percentile: float = Field(99.99, gt=50, le=100)
