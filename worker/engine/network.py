"""The canonical form of a model.

Every uploaded model becomes a `Network`, so that each method is written once: an FX `GraphModule` in which the
layers are real modules (`nn.Conv2d`, `nn.Linear`, `nn.BatchNorm2d`, ... as ``call_module`` nodes under the
uploader's own names) and every other operation is a ``call_function`` of an aten overload. It trains, runs on
CPU and CUDA, and exports again with `torch.export`.
"""

from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, fx

#: One dimension: a size, or the name of a symbolic dimension such as ``"batch"``.
Dim = int | str


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a network.

    Attributes:
        name: as the user's dataset columns spell it.
        dtype: numpy name, such as ``float32`` or ``int64``.
        shape: sizes; a string names a symbolic dimension. Dimension 0 is the batch where it is symbolic.
        sizes: the same with numbers that are known to work in place of the names; may be empty.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    sizes: tuple[int, ...] = field(default=(), compare=False)

    @property
    def batched(self) -> bool:
        """Whether the first dimension is symbolic, so that samples can be run together."""
        return bool(self.shape) and isinstance(self.shape[0], str)

    def example(self, batch: int = 2) -> Tensor:
        """Zeros that the network accepts, on CPU; symbolic dimensions as they were, dimension 0 as `batch`."""
        known = self.sizes or (2,) * len(self.shape)
        sizes = [dim if isinstance(dim, int) else size for dim, size in zip(self.shape, known, strict=True)]
        if self.batched:
            sizes[0] = batch
        return torch.zeros(sizes, dtype=getattr(torch, self.dtype))

    def to_json(self) -> dict[str, Any]:
        """The form that the API shows: ``{"name", "dtype", "shape"}``."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}


@dataclass(frozen=True)
class Tokenizer:
    """What turns text into a network's inputs.

    Attributes:
        definition: the ``tokenizer.json`` of Hugging Face's tokenizers, as it was uploaded.
        longest: most tokens of a text.
    """

    definition: bytes
    longest: int


@dataclass
class Network:
    """A model in canonical form.

    Attributes:
        module: FX graph; placeholders in the order of `inputs`, one output node returning a tuple in the order
            of `outputs` (a single output is still a tuple of one). In eval mode unless a method trains it.
        inputs: specs of the placeholders.
        outputs: specs of the results.
        format: the format it was read from (``pt2``, ``onnx``, ``transformers``).
        notes: what the reader left out or changed (dropped sample inputs, guards, ...), for the user.
        source: what the reader knows about its file that a writer can reuse (format specific; see the reader).
        tokenizer: what came with a model that takes text.
    """

    module: fx.GraphModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    format: str
    notes: list[str] = field(default_factory=list)
    source: Any = None
    tokenizer: Tokenizer | None = None

    @property
    def batched(self) -> bool:
        """Whether every input has a symbolic first dimension."""
        return all(spec.batched for spec in self.inputs)

    @property
    def parameters(self) -> int:
        """Number of trainable scalars."""
        return sum(p.numel() for p in self.module.parameters())

    def examples(self, batch: int = 2) -> tuple[Tensor, ...]:
        """One `TensorSpec.example` for each input."""
        return tuple(spec.example(batch) for spec in self.inputs)

    def to(self, device: torch.device | str) -> Self:
        """Move the weights to `device`, and the calls that make new tensors (``zeros``, ``arange``) with them."""
        self.module.to(device)
        target = torch.device(device)
        for node in self.module.graph.nodes:
            if node.kwargs.get("device") not in (None, target):
                node.kwargs = {**node.kwargs, "device": target}
        self.module.recompile()
        return self


def owners(module: fx.GraphModule) -> dict[int, list[str]]:
    """Who has each parameter, by its id: the modules, under all their names, and the reads of it outside of a layer.

    A parameter with one owner may be changed for that owner's sake.
    """
    found: dict[int, list[str]] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        for parameter in part.parameters(recurse=False):
            found.setdefault(id(parameter), []).append(path)
    for target in dict.fromkeys(str(node.target) for node in module.graph.nodes if node.op == "get_attr"):
        parent, _, name = target.rpartition(".")
        value = getattr(module.get_submodule(parent), name)
        found.setdefault(id(value), []).append(f"{target}, which the model reads by itself")
    return found
