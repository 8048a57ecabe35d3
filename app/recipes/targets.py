"""The runtimes that an artifact can be for, and the numbers each can hold.

A target declares its numeric grid here; a method asks the grid and never guesses. Adding a target is one `Grid`
here, one file in ``worker/engine/targets``, its session in ``worker/engine/runtimes``, and a line in each one's table.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

#: Operators that a runtime may compute on integers: layers, and what combines values.
Operator = Literal["conv", "linear", "add", "mul", "cat", "matmul"]
#: Layers whose weight is stored in few bits, and that compute in float.
StoredLayer = Literal["conv3d", "embedding", "recurrent"]


class Grid(BaseModel):
    """What a runtime can store and compute. An empty tuple of widths or formats: not to be had there.

    Attributes:
        artifact: what the user downloads.
        runs_on: devices.
        activation_dtype: 8-bit integer type of activations that its kernels are fastest with.
        symmetric_activations: whether the zero point of activations is best zero.
        asymmetric_activations: whether it can be anything else.
        activation_bits / weight_bits: widths of static quantization that it stores.
        weight_granularity: per-channel or per-tensor scales of weights.
        dynamic_weight_bits: widths of weights whose activations are quantized while running, or not at all.
        group_bits: widths of weights in groups that share a scale, beside float arithmetic.
        codebook_bits: widths of numbers that stand for centroids, beside float arithmetic.
        dynamic_activations: whether linear layers can quantize their input while running.
        float_formats: floating-point formats that it stores weights in.
        operators: what it computes on integers; everything else computes in float.
        stored: layers that compute in float from weights stored in few bits.
        stored_beside_integers: the same, in a file where other layers compute on integers.
        integer_results: whether a layer that reads integers on a fixed grid must also return integers.
        saturates: whether its integer kernels add pairs of products in 16 bits on x86 processors without VNNI, so
            that neighbouring weights must not both be large there.
        notes: what a user should know before choosing it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    artifact: str
    runs_on: tuple[str, ...]
    activation_dtype: Literal["uint8", "int8"]
    symmetric_activations: bool
    asymmetric_activations: bool = True
    activation_bits: tuple[int, ...]
    weight_bits: tuple[int, ...]
    weight_granularity: tuple[str, ...] = ("channel", "tensor")
    dynamic_weight_bits: tuple[int, ...] = (8,)
    group_bits: tuple[int, ...] = ()
    codebook_bits: tuple[int, ...] = ()
    dynamic_activations: bool = True
    float_formats: tuple[str, ...] = ()
    operators: tuple[Operator, ...] = ("conv", "linear", "add", "mul", "cat")
    stored: tuple[StoredLayer, ...] = ("conv3d", "embedding", "recurrent")
    stored_beside_integers: tuple[StoredLayer, ...] = ("conv3d", "embedding", "recurrent")
    integer_results: bool = False
    saturates: bool = False
    notes: tuple[str, ...] = ()

    @property
    def sign_scales(self) -> tuple[str, ...]:
        """What may share the scale of ternary and binary weights, which are codebooks of two bits and of one."""
        return ("channel", "layer") if {1, 2} <= set(self.codebook_bits) else ()


TARGETS: dict[str, Grid] = {
    grid.name: grid
    for grid in (
        Grid(
            name="onnxruntime",
            artifact=".onnx",
            runs_on=("cpu", "cuda"),
            activation_dtype="uint8",
            symmetric_activations=False,
            activation_bits=(8, 16),
            weight_bits=(8, 4),
            group_bits=(8, 4, 3, 2),
            codebook_bits=(8, 7, 6, 5, 4, 3, 2, 1),
            float_formats=("float16", "bfloat16", "float8_e4m3"),
            operators=("conv", "linear", "add", "mul", "cat", "matmul"),
            saturates=True,
            notes=(
                "QuantizeLinear / DequantizeLinear, opset 21; integer kernels need AVX512-VNNI or similar to pay",
                "4-bit weights are widened to 8 bits when the file is loaded, and run on the same integer kernels",
                "with 16-bit activations, and from float formats, layers compute in float32",
            ),
        ),
        Grid(
            name="openvino",
            artifact=".xml + .bin, zipped",
            runs_on=("cpu",),
            activation_dtype="uint8",
            symmetric_activations=False,
            activation_bits=(8,),
            weight_bits=(8, 4),
            group_bits=(8, 4),
            dynamic_activations=False,
            float_formats=("float16", "bfloat16"),
            operators=("conv", "linear", "add", "mul", "cat", "matmul"),
            stored_beside_integers=("conv3d", "embedding"),
            saturates=True,
            notes=(
                "float models compute in bf16 where the CPU has AMX; latency is measured as users get it",
                "with 4-bit weights layers compute in float",
            ),
        ),
        Grid(
            name="torch",
            artifact=".pt2",
            runs_on=("cpu", "cuda"),
            activation_dtype="uint8",
            symmetric_activations=False,
            activation_bits=(8, 16, 4),
            weight_bits=(8, 4),
            group_bits=(8, 4, 3, 2),
            codebook_bits=(8, 7, 6, 5, 4, 3, 2, 1),
            float_formats=("float16", "bfloat16", "float8_e4m3"),
            notes=(
                "packed weights in plain aten, loads with torch alone",
                "arithmetic is float32, on the numbers of the grid: for size, it is not faster than float",
            ),
        ),
        Grid(
            name="executorch",
            artifact=".pte",
            runs_on=("cpu",),
            activation_dtype="int8",
            symmetric_activations=False,
            activation_bits=(8,),
            weight_bits=(8,),
            stored=(),
            stored_beside_integers=(),
            integer_results=True,
            notes=(
                "XNNPACK, for mobile and edge processors; takes batches of up to 16 samples where the model allows it",
                "operators that XNNPACK has no kernel for run in portable ones, which are slow",
            ),
        ),
        Grid(
            name="litert",
            artifact=".tflite",
            runs_on=("cpu",),
            activation_dtype="int8",
            symmetric_activations=False,
            activation_bits=(8,),
            weight_bits=(8,),
            stored=(),
            stored_beside_integers=(),
            integer_results=True,
            notes=("LiteRT (TensorFlow Lite), for mobile and edge processors; takes one sample at a time",),
        ),
        Grid(
            name="tensorrt",
            artifact="engine + .onnx, zipped",
            runs_on=("cuda",),
            activation_dtype="int8",
            symmetric_activations=True,
            asymmetric_activations=False,
            activation_bits=(8,),
            weight_bits=(8,),
            dynamic_weight_bits=(),
            dynamic_activations=False,
            stored=(),
            stored_beside_integers=(),
            notes=(
                "an engine runs on the GPU model and the TensorRT version that it was built with",
                "has not been run on hardware yet",
            ),
        ),
    )
}
