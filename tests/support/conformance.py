"""The operator cases that ship with the onnx package, and what becomes of each when it is read and run.

A case is one small model with inputs and the right results. Every case is in exactly one of these groups: an operator
that is not in the table (`OUTSIDE`), or, of the others, one of `OUTCOMES`. A case counts as passed where its answer is
right as shipped; or where it is refused as shipped and right *with constants*: all inputs but the first as
initializers, which is what weights and settings are in real files. An answer that is wrong either way counts as wrong.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import fx

from worker.engine import formats
from worker.engine.errors import Unsupported
from worker.engine.formats.onnx_reader.operators import OPERATORS

PASSED, REJECTED, WRONG, CRASHED = OUTCOMES = ("passed", "rejected", "wrong", "crashed")
OUTSIDE = "outside"


@dataclass(frozen=True)
class Result:
    """What became of one case.

    Attributes:
        name: of the case.
        operators: that it uses.
        missing: those of them that are not in the table.
        shipped: outcome of the case as it is; `OUTSIDE` where operators are missing.
        fixed: outcome with constants; the same as `shipped` where there is one input.
        why: the refusal, the error or the difference.
    """

    name: str
    operators: tuple[str, ...]
    missing: tuple[str, ...]
    shipped: str
    fixed: str
    why: str = ""

    @property
    def outcome(self) -> str:
        """The one that counts: the worst, except that a refusal gives way to a right answer."""
        both = {self.shipped, self.fixed}
        return next(o for o in (OUTSIDE, CRASHED, WRONG, PASSED, REJECTED) if o in both)


def cases() -> list[Any]:
    """All cases of kind "node" (thousands of small models: made in about ten seconds)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests  # runs every operator of the package

        return load_model_tests(kind="node")


def full_name(node: onnx.NodeProto) -> str:
    """Operator with its domain, as the table spells it."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def run_all(found: Iterable[Any], folder: Path, check: Callable[..., None] | None = None) -> Iterator[Result]:
    """Read and run every case.

    Args:
        found: the cases.
        folder: for the files.
        check: called with each network that gave the right answer and its inputs; an error counts as a crash.
    """
    for case in found:
        operators = tuple(sorted({full_name(node) for node in case.model.graph.node}))
        missing = tuple(name for name in operators if name not in OPERATORS)
        if missing:
            yield Result(case.name, operators, missing, OUTSIDE, OUTSIDE)
            continue
        inputs, expected = case.data_sets[0]
        shipped, why = _outcome(case.model, inputs, expected, folder, check)
        fixed, reason = shipped, why
        if len(inputs) > 1:
            model = with_constants(case.model, inputs)
            if model is not None:
                fixed, reason = _outcome(model, inputs[:1], expected, folder, check)
        yield Result(case.name, operators, (), shipped, fixed, why if shipped in (WRONG, CRASHED) else reason)


def with_constants(model: onnx.ModelProto, arrays: list[Any]) -> onnx.ModelProto | None:
    """The model with every input but the first as an initializer; None where one of them is no tensor."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value, array in zip(model.graph.input[1:], arrays[1:], strict=True):
        if not isinstance(array, (np.ndarray, np.generic, onnx.TensorProto)):
            return None
        tensor = numpy_helper.from_array(_to_numpy(array), value.name)
        if tensor.data_type != value.type.tensor_type.elem_type:
            return None
        fixed.graph.initializer.append(tensor)
    if fixed.ir_version >= 4:  # before, initializers had to be inputs as well
        del fixed.graph.input[1:]
    return fixed


def _outcome(
    model: onnx.ModelProto, inputs: list[Any], expected: list[Any], folder: Path, check: Callable[..., None] | None
) -> tuple[str, str]:
    path = folder / "case.onnx"
    path.write_bytes(model.SerializeToString())
    try:
        network = formats.read(path)
    except Unsupported as error:
        return REJECTED, error.detail
    except Exception as error:  # noqa: BLE001  # a valid file that is called invalid is a crash as well
        return CRASHED, f"reading: {error!r}"
    try:
        given = [_to_torch(array) for array in inputs]
        results = _run(network.module, given)
    except Exception as error:  # noqa: BLE001  # every crash is counted
        return CRASHED, f"running: {error!r}"
    difference = _difference(results, expected)
    if difference:
        return WRONG, difference
    if check is not None:
        try:
            check(network, given)
        except Exception as error:  # noqa: BLE001
            return CRASHED, f"afterwards: {error!r}"
    return PASSED, ""


def _run(module: fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
    with torch.no_grad():
        return module(*inputs)


def _to_numpy(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.array(value)


def _to_torch(value: Any) -> torch.Tensor:
    array = _to_numpy(value)
    if array.dtype.name == "bfloat16" or array.dtype.name.startswith("float8"):
        return torch.from_numpy(array.astype(np.float32)).to(getattr(torch, array.dtype.name))
    return torch.from_numpy(array)


def _difference(results: Any, expected: list[Any]) -> str:
    """What is wrong with the results; empty where nothing is."""
    if len(results) != len(expected):
        return f"{len(results)} results instead of {len(expected)}"
    for got, want in zip(results, map(_to_numpy, expected), strict=True):
        if str(got.dtype).removeprefix("torch.") != want.dtype.name:
            return f"type {got.dtype} instead of {want.dtype}"
        if tuple(got.shape) != want.shape:
            return f"shape {tuple(got.shape)} instead of {want.shape}"
        loose = want.dtype.itemsize == 2 and got.is_floating_point()
        right = want.astype(np.float64) if got.is_floating_point() else want
        left = got.double().numpy() if got.is_floating_point() else got.numpy()
        rtol, atol = (1e-2, 1e-3) if loose else (1e-3, 1e-5)
        if not np.allclose(left, right, rtol=rtol, atol=atol, equal_nan=True):
            return f"values off by up to {np.nanmax(np.abs(left.astype(np.float64) - right.astype(np.float64))):.3g}"
    return ""


def count(results: Iterable[Result]) -> Counter[str]:
    """Cases by outcome, `OUTSIDE` included."""
    return Counter(result.outcome for result in results)


def sentence(results: list[Result]) -> str:
    """What docs/formats.md says of the counts."""
    inside = [result for result in results if result.outcome != OUTSIDE]
    total = count(inside)
    shipped = sum(result.shipped == PASSED for result in inside)
    refused = total[REJECTED]
    return (
        f"Of the {len(results)} operator cases of onnx {onnx.__version__}, {len(inside)} use nothing but operators of "
        f"the table. {total[PASSED]} of them ({total[PASSED] / len(inside):.1%}) pass, {shipped} as shipped and "
        f"{total[PASSED] - shipped} once their settings are constants, as in real files; {refused} are refused with a "
        f"sentence that says why; {total[WRONG]} are wrong and {total[CRASHED]} crash."
    )
