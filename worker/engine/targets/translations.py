"""`torch.onnx.export`'s table of translations, made once per process instead of once per call.

The exporter makes its table of 540 operators anew in every call, and ONNX Script parses the source text of each
function that translates one, only to tell its domain, which nobody reads: a third to two thirds of the time of a small
network's export (docs/benchmarks.md, "Formats"). The table depends on the opset, and on the operators that PyTorch
knows when it is first made; exports read it.

These are internals of PyTorch 2.13 and ONNX Script 0.7 (docs/decisions/0018-one-table-of-translations.md). They take a
second to load, so that they are loaded by the first export.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch


@contextmanager
def table_kept() -> Iterator[None]:
    """Lets `torch.onnx.export` find the table of an earlier call, until the block ends; for one thread at a time."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry  # noqa: PLC0415 (see above)

    exporters_own()  # before it is replaced

    def kept(opset_version: int = ONNXRegistry().opset_version) -> ONNXRegistry:
        """A copy, to register further translations in (``custom_translation_table``)."""
        copied: ONNXRegistry = copy.copy(_table(opset_version))
        copied.functions = {target: list(translations) for target, translations in copied.functions.items()}
        return copied

    with patch.object(ONNXRegistry, "from_torchlib", staticmethod(kept)):
        yield


@cache
def exporters_own() -> Callable[..., Any]:
    """What makes the table in PyTorch, as it is outside of `table_kept`."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry  # noqa: PLC0415

    return ONNXRegistry.from_torchlib


@cache
def _table(opset: int) -> Any:
    from onnxscript._internal.values import TracedOnnxFunction  # noqa: PLC0415

    # Of a function's whole translation, only the domain is asked for, and its opset has the same.
    with patch.object(TracedOnnxFunction, "function_ir", property(lambda function: function.opset)):
        return exporters_own()(opset_version=opset)
