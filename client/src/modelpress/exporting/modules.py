"""A module made ready for its export, and left as it was."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from modelpress.errors import ExportError

#: What wraps a module, and the attribute that holds the module itself.
WRAPPERS = (
    ("torch.compile", torch._dynamo.OptimizedModule, "_orig_mod"),
    ("DataParallel", nn.DataParallel, "module"),
    ("DistributedDataParallel", nn.parallel.DistributedDataParallel, "module"),
)


@contextmanager
def ready(module: object) -> Iterator[tuple[nn.Module, list[str]]]:
    """The module without wrappers, on the CPU and in eval mode, with notes; every part gets its mode back.

    Raises:
        ExportError: it is no module, or none that can be traced.
    """
    plain = _unwrapped(module)
    notes = []
    if any(tensor.device.type != "cpu" for tensor in (*plain.parameters(), *plain.buffers())):
        # A file of a module on a GPU would name that device in the tensors that it makes.
        plain = copy.deepcopy(plain).cpu()
        notes.append("The module was exported from a copy on the CPU, so that the file names no GPU.")
    training = [part for part in plain.modules() if part.training]
    try:
        plain.eval()
        yield plain, notes
    finally:
        for part in training:
            part.training = True


def _unwrapped(module: object) -> nn.Module:
    for _, wrapper, attribute in WRAPPERS:
        if isinstance(module, wrapper):
            return _unwrapped(getattr(module, attribute))
    if isinstance(module, torch.jit.ScriptModule):
        raise ExportError("a TorchScript module cannot be exported: give the nn.Module that it was made from")
    if isinstance(module, dict):
        raise ExportError("a state dict has no code: make the module, load_state_dict() it, and give the module")
    if not isinstance(module, nn.Module):
        raise ExportError(f"not an nn.Module but {type(module).__name__}: give the module itself")
    return module
