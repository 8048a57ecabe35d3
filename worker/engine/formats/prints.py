"""Which weights of a network are still those of its file."""

import zlib
from typing import Final

import torch
from torch import nn

#: Layers whose weights a writer compares with the file's one by one.
COMPARED: Final = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.LayerNorm)


def fingerprints(module: nn.Module) -> dict[str, int]:
    """Path -> checksum of every parameter and buffer that does not belong to a layer of `COMPARED`."""
    prints: dict[str, int] = {}
    for path, part in module.named_modules():
        if isinstance(part, COMPARED):
            continue
        for name, tensor in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)):
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            prints[f"{path}.{name}"] = zlib.crc32(flat.view(torch.uint8).numpy())
    return prints
