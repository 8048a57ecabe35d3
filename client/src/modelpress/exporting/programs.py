"""Programs of `torch.export`: traced with a dynamic batch where that holds, saved small, run against the module."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.utils import _pytree as pytree

from modelpress.errors import ExportError
from modelpress.exporting.examples import Example, fixed

#: torch.export makes constants of sizes of 0 and 1.
TRACED_ROWS = 2
OTHER_ROWS = 3
OUTPUTS = (Tensor, int, float, bool, str, type(None))
#: Largest difference, relative to the largest output.
TOLERANCES: Mapping[torch.dtype, float] = {torch.float16: 1e-2, torch.bfloat16: 5e-2, torch.float64: 1e-6}
TOLERANCE = 1e-4
DATA_DEPENDENT = (
    "forward() decides by the values of its inputs (an `if` on a tensor, .item(), .tolist()): torch.where or "
    "torch.cond say the same in a graph"
)
CONSTANT_BATCH = (
    "forward() holds the number of samples as a constant, or decides by it: x.shape[0], view(-1, ...) and flatten(1) "
    "work with any number"
)
#: What PyTorch says when it cannot trace, and what would work.
HINTS: Mapping[str, str] = {
    "data-dependent": DATA_DEPENDENT,
    "Data-dependent": DATA_DEPENDENT,
    "GuardOnDataDependent": DATA_DEPENDENT,
    "to be a constant": CONSTANT_BATCH,
    "generated guard": CONSTANT_BATCH,
    "invalid for input of size": CONSTANT_BATCH,
    "must match": CONSTANT_BATCH,
    "mutat": "forward() keeps a state in the module: pass it as an input and return it as an output",
    "unsupported input type": "inputs have to be tensors, numbers, or tuples, lists or dictionaries of them",
    "unsupported output": "outputs have to be tensors, or tuples, lists or dictionaries of them: return those",
}
HINT = "rewrite that part with ordinary layers and tensor operations"


class _Unlike(Exception):
    """The program does not answer as the module does."""


def save(module: nn.Module, example: Example, path: Path, *, dynamic: bool) -> list[str]:
    """Write `module` to `path`; notes on what is fixed.

    Raises:
        ExportError: the module does not run on `example`, is random, or no program of it answers alike.
    """
    _check_runs(module, example.resized(None))
    failure: Exception | None = None
    for rows, free in _attempts(example, dynamic=dynamic):
        try:
            program = _traced(module, example.resized(rows), free=free)
            _write(program, path)
            _compare(module, path, example.resized(OTHER_ROWS if free else rows))
        except Exception as error:  # noqa: BLE001  # PyTorch raises what it likes; each is told in the end
            failure = failure or error
            continue
        notes = list(fixed(example, module))
        if failure is not None:
            size = rows or example.batch
            notes.insert(0, f"The batch is fixed at {size}, since it cannot be dynamic: {_told(failure)}.")
        return notes
    raise ExportError(f"{type(module).__name__} cannot be exported: {_told(failure)}") from failure


def _attempts(example: Example, *, dynamic: bool) -> Iterator[tuple[int | None, bool]]:
    """Numbers of samples to trace with, and whether the batch is free; the service runs one of 1 sample by sample."""
    if dynamic:
        yield TRACED_ROWS, True
        if example.batch != 1:
            yield 1, False
    yield None, False


def _check_runs(module: nn.Module, example: Example) -> None:
    try:
        first, second = example.call(module), example.call(module)
    except Exception as error:
        raise ExportError(
            f"the module itself does not run on example_inputs: {_first_line(error)}. Give what you would call it "
            "with: one tensor, a tuple, or a dictionary of keyword inputs"
        ) from error
    foreign = sorted({type(leaf).__name__ for leaf in pytree.tree_leaves(first) if not isinstance(leaf, OUTPUTS)})
    if foreign:
        raise ExportError(f"the module answers with {', '.join(foreign)}: return tensors, or tuples or dicts of them")
    try:
        _alike(first, second)
    except _Unlike as error:
        raise ExportError(
            "the module answers otherwise each time, in eval mode too: take the randomness or the state out of "
            "forward(), or pass it as an input"
        ) from error


def _traced(module: nn.Module, example: Example, *, free: bool) -> ExportedProgram:
    shapes: Any = ShapesCollection()  # type: ignore[no-untyped-call]
    batch = Dim("batch")
    for tensor in example.tensors():
        if free and example.batched(tensor):
            shapes[tensor] = {0: batch}
    spec = shapes.dynamic_shapes(module, example.args, example.kwargs) if free else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(module, example.args, example.kwargs, dynamic_shapes=spec)


def _write(program: ExportedProgram, path: Path) -> None:
    _compact(program.state_dict)
    _compact(program.constants)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, path)


def _compact(tensors: dict[str, Any]) -> None:
    """Give weights that are slices of something larger, of which the rest would be stored too, their own memory."""
    used: dict[int, dict[tuple[object, ...], Tensor]] = {}
    dense = {name: value for name, value in tensors.items() if isinstance(value, Tensor) and value.device.type == "cpu"}
    for tensor in dense.values():
        used.setdefault(tensor.untyped_storage().data_ptr(), {})[_place(tensor)] = tensor
    copies: dict[tuple[object, ...], Tensor] = {}
    for name, tensor in dense.items():
        storage = tensor.untyped_storage()
        if sum(one.nbytes for one in used[storage.data_ptr()].values()) < storage.nbytes():
            # Weights that are tied stay tied.
            copy = copies.setdefault(_place(tensor), tensor.detach().clone())
            tensors[name] = nn.Parameter(copy, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy


def _place(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def _compare(module: nn.Module, path: Path, example: Example) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = example.call(torch.export.load(path).module())
    try:
        _alike(example.call(module), answer)
    except _Unlike as error:
        raise _Unlike(f"with {example.batch} samples the file answers otherwise than the module: {error}") from error


def _alike(expected: Any, found: Any) -> None:
    wanted, answered = pytree.tree_leaves(expected), pytree.tree_leaves(found)
    if len(wanted) != len(answered):
        raise _Unlike(f"{len(answered)} outputs in place of {len(wanted)}")
    for index, (left, right) in enumerate(zip(wanted, answered, strict=True)):
        if not isinstance(left, Tensor) or not isinstance(right, Tensor):
            if type(left) is not type(right) or left != right:
                raise _Unlike(f"output {index} is {right!r} in place of {left!r}")
        elif left.shape != right.shape:
            raise _Unlike(f"output {index} has shape {list(right.shape)} in place of {list(left.shape)}")
        elif not _close(left, right):
            raise _Unlike(f"the values of output {index} differ")


def _close(left: Tensor, right: Tensor) -> bool:
    if not left.is_floating_point():
        return bool(torch.equal(left, right))
    finite = left[left.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    tolerance = TOLERANCES.get(left.dtype, TOLERANCE) * scale
    return bool(torch.allclose(left, right, rtol=0.0, atol=tolerance, equal_nan=True))


def _told(failure: Exception | None) -> str:
    text = str(failure)
    if isinstance(failure, _Unlike):
        return text
    hint = next((hint for word, hint in HINTS.items() if word in text), HINT)
    return f"{_first_line(failure)} -- {hint}"


def _first_line(error: Exception | None) -> str:
    """What PyTorch says is wrong, without its advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    listed = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    return ([*listed, *lines, type(error).__name__][0])[:300].rstrip(".")
