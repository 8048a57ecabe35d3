"""Tensors that lie in a memory map of the uploaded file: private, copy-on-write, read from disk where they are used."""

import mmap
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn


class Mapped:
    """A private map of a file.

    Reading through it keeps every page that was touched in memory until it is released: a reader that copies a
    weight (to transpose it, say) releases the original, so that the model is in memory once and not twice.

    Args:
        pages: the map; `Mapped.open` makes one.
    """

    def __init__(self, pages: mmap.mmap) -> None:
        self.pages = pages
        self.data = memoryview(pages)
        self._start = torch.frombuffer(pages, dtype=torch.uint8).data_ptr()

    @classmethod
    def open(cls, path: Path) -> "Mapped":
        """Map the file at `path`, which must not be empty."""
        with path.open("rb") as file:
            return cls(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))

    @staticmethod
    def tensor(view: memoryview, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
        """The bytes of `view` as a tensor; where they start at an odd address, so does the tensor (see `settle`)."""
        flat = torch.frombuffer(view, dtype=dtype) if len(view) else torch.empty(0, dtype=dtype)
        return flat.reshape(tuple(shape))

    def release(self, tensor: Tensor) -> None:
        """Let go of the pages that only `tensor` uses; what is in them is read again when needed."""
        start = tensor.data_ptr() - self._start
        end = start + tensor.numel() * tensor.element_size()
        first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
        if start >= 0 and end <= len(self.pages) and first < last:
            self.pages.madvise(mmap.MADV_DONTNEED, first, last - first)

    def settle(self, module: nn.Module) -> None:
        """Copy the weights of `module` that start at an odd address: processors and libraries want them aligned."""
        for state in (*module.parameters(), *module.buffers()):
            if state.data_ptr() % state.element_size():
                old = state.data
                state.data = old.clone()
                self.release(old)
