"""Integers of any width from 1 to 8 bits in bytes, none of them wasted.

A width is a sum of powers of two (3 = 2 + 1), and values are split accordingly: their low two bits lie four to a byte,
the next one eight to a byte. So unpacking is one shift, one mask and one sum, which every runtime has.
"""

from typing import Final

import torch
from torch import Tensor

BYTE: Final = 8


def parts(bits: int) -> tuple[int, ...]:
    """The powers of two that a width of 1..8 is split into, the largest first."""
    return tuple(width for width in (8, 4, 2, 1) if bits & width)


def shifts(width: int) -> list[int]:
    """How far each of the values in a byte is shifted, the first lowest."""
    return list(range(0, BYTE, width))


def pack(codes: Tensor, bits: int) -> list[Tensor]:
    """Codes of 0..2**bits - 1, any shape -> one array of bytes for each of `parts`, each (bytes, 1) uint8."""
    flat, taken, packed = codes.reshape(-1).to(torch.uint8), 0, []
    for width in parts(bits):
        part = (flat >> taken) & ((1 << width) - 1)
        rows = torch.nn.functional.pad(part, (0, -len(part) % (BYTE // width))).reshape(-1, BYTE // width)
        packed.append((rows << torch.tensor(shifts(width), dtype=torch.uint8)).sum(1, keepdim=True, dtype=torch.uint8))
        taken += width
    return packed


def unpack(packed: list[Tensor], bits: int, count: int) -> Tensor:
    """The first `count` of what was packed, (count,) uint8."""
    result, taken = None, 0
    for part, width in zip(packed, parts(bits), strict=True):
        shift = torch.tensor(shifts(width), dtype=torch.uint8, device=part.device)
        codes = ((part >> shift) & ((1 << width) - 1)).reshape(-1)[:count] << taken
        result, taken = codes if result is None else result | codes, taken + width
    if result is None:
        raise ValueError("no bits")
    return result
