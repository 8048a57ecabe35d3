"""The runtimes that an artifact can be for, and the numbers each can hold.

A target declares its numeric grid here; a method asks the grid and never guesses. Adding a target is one `Grid`
here and one file in ``worker/engine/targets``.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Grid(BaseModel):
    """What a runtime can store and compute.

    Attributes:
        artifact: what the user downloads.
        runs_on: devices.
        activation_dtype: integer type of activations that its kernels are fastest with.
        symmetric_activations: whether the zero point of activations must be (or is best) zero.
        activation_bits / weight_bits: widths that it stores and computes.
        weight_granularity: per-channel or per-tensor scales of weights.
        dynamic_activations: whether linear layers can quantize their input while running.
        notes: what a user should know before choosing it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    artifact: str
    runs_on: tuple[str, ...]
    activation_dtype: Literal["uint8", "int8"]
    symmetric_activations: bool
    activation_bits: tuple[int, ...]
    weight_bits: tuple[int, ...]
    weight_granularity: tuple[str, ...] = ("channel", "tensor")
    dynamic_activations: bool = True
    notes: tuple[str, ...] = ()


TARGETS: dict[str, Grid] = {
    grid.name: grid
    for grid in (
        Grid(
            name="onnxruntime",
            artifact=".onnx",
            runs_on=("cpu", "cuda"),
            activation_dtype="uint8",
            symmetric_activations=False,
            activation_bits=(8,),
            weight_bits=(8,),
            notes=("QuantizeLinear / DequantizeLinear, opset 21; integer kernels need AVX512-VNNI or similar to pay",),
        ),
        Grid(
            name="openvino",
            artifact=".xml + .bin, zipped",
            runs_on=("cpu",),
            activation_dtype="uint8",
            symmetric_activations=False,
            activation_bits=(8,),
            weight_bits=(8,),
            dynamic_activations=False,
            notes=("float models compute in bf16 where the CPU has AMX; latency is measured as users get it",),
        ),
        Grid(
            name="torch",
            artifact=".pt2",
            runs_on=("cpu", "cuda"),
            activation_dtype="uint8",
            symmetric_activations=False,
            activation_bits=(8,),
            weight_bits=(8,),
            notes=("int8 weights in plain aten, loads with torch alone; for size: it is not faster than float",),
        ),
    )
}
