"""The table: ONNX operator -> function. What is not here is refused by name."""

from typing import Final

from worker.engine.formats.onnx_reader import casting, elementwise, layers, pooling, shaping
from worker.engine.formats.onnx_reader.node import Operator

OPERATORS: Final[dict[str, Operator]] = {
    **elementwise.OPERATORS,
    **casting.OPERATORS,
    **shaping.OPERATORS,
    **layers.OPERATORS,
    **pooling.OPERATORS,
}
