"""The table: ONNX operator -> function. What is not here is refused by name."""

from typing import Final

from worker.engine.formats.onnx_reader import (
    attention,
    casting,
    control,
    elementwise,
    layers,
    norms,
    pooling,
    quantized,
    recurrent,
    resize,
    scatter,
    shaping,
    sklearn,
)
from worker.engine.formats.onnx_reader.node import Operator

OPERATORS: Final[dict[str, Operator]] = {
    **elementwise.OPERATORS,
    **attention.OPERATORS,
    **casting.OPERATORS,
    **control.OPERATORS,
    **shaping.OPERATORS,
    **layers.OPERATORS,
    **norms.OPERATORS,
    **pooling.OPERATORS,
    **resize.OPERATORS,
    **quantized.OPERATORS,
    **recurrent.OPERATORS,
    **scatter.OPERATORS,
    **sklearn.OPERATORS,
}
