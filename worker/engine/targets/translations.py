"""`torch.onnx.export`'s table of translations, made once per process instead of once per call.

The exporter makes its table of 540 operators anew in every call, and ONNX Script parses the source text of each
translation only to tell its domain, which nobody reads: a third to two thirds of the time of a small network's export
(docs/benchmarks.md, "Formats"). The table depends on the opset alone, and exports read it.

These are internals of PyTorch 2.13 and ONNX Script 0.7 (docs/decisions/0018-one-table-of-translations.md).
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unittest.mock import patch

from onnxscript._internal.values import TracedOnnxFunction
from torch.onnx._internal.exporter._registration import ONNXRegistry

_made_anew = ONNXRegistry.from_torchlib


@contextmanager
def table_kept() -> Iterator[None]:
    """Lets `torch.onnx.export` find the table of an earlier call, until the block ends."""
    with patch.object(ONNXRegistry, "from_torchlib", staticmethod(_kept)):
        yield


def _kept(opset_version: int) -> ONNXRegistry:
    """A copy, to register further translations in (``custom_translation_table``)."""
    table = _table(opset_version)
    copied = copy.copy(table)
    copied.functions = {target: list(translations) for target, translations in table.functions.items()}
    return copied


@cache
def _table(opset: int) -> ONNXRegistry:
    # Of a function's whole translation, only the domain is asked for, and its opset has the same.
    with patch.object(TracedOnnxFunction, "function_ir", property(lambda function: function.opset)):
        return _made_anew(opset_version=opset)
