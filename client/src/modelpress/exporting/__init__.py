"""`modelpress.export`: a module as a `.pt2` that the service reads, proven on another batch before it is there."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelpress.errors import ExportError
from modelpress.inspection import CheckReport, check

if TYPE_CHECKING:
    from torch import Tensor, nn

NO_TORCH = "modelpress.export needs PyTorch, which is not installed here: pip install torch"


def export(
    module: "nn.Module",
    example_inputs: "Tensor | Sequence[Any] | Mapping[str, Any]",
    path: str | Path,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_batch: bool = True,
) -> CheckReport:
    """Save `module` as a `.pt2` and prove that the file answers as the module does.

    The first dimension of the inputs becomes dynamic where the module allows that; where it does not, the batch is
    fixed and `notes` of the report say why. The module is exported in eval mode and left in the mode that it had; it
    may be on a GPU, compiled or wrapped for parallel training. Of the examples no more than two samples are stored.

    Args:
        module: an `nn.Module`, not a state dict.
        example_inputs: one input, or a tuple of them; a dictionary holds keyword inputs. Samples lie along the first
            dimension. A module that takes one dictionary gets it in a tuple: `({"a": ..., "b": ...},)`.
        path: where to save it, ending in `.pt2`; it is written whole or not at all.
        kwargs: keyword inputs beside those of a tuple.
        dynamic_batch: False keeps the shapes of the examples.

    Returns:
        What `modelpress.check` says of the file, with notes on everything in it that is fixed.

    Raises:
        ExportError: PyTorch is missing, the module cannot be exported, the service would refuse the file, or the file
            answers otherwise than the module. The message says what would work.
        OSError: the file cannot be written.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ExportError(NO_TORCH) from error
    from modelpress.exporting import examples, modules, programs

    target = Path(path)
    if target.suffix != ".pt2":
        raise ExportError(f"the name of the file has to end in .pt2: {target.with_suffix('.pt2').name!r} would do")
    given = examples.arranged(example_inputs, kwargs)
    with (
        modules.ready(module) as (ready, notes),
        tempfile.TemporaryDirectory(prefix=".modelpress-", dir=target.parent) as folder,
    ):
        made = Path(folder) / target.name
        notes = [*notes, *programs.save(ready, given, made, dynamic=dynamic_batch)]
        report = check(made)
        if not report.accepted:
            first = report.problems[0]
            raise ExportError(f"the service would refuse the file ({first.code}): {first.detail}")
        made.replace(target)
    # Why the batch is fixed is told better here.
    told = [note for note in report.notes if not (dynamic_batch and note.startswith("The batch is fixed"))]
    return replace(report, notes=(*notes, *told))
