"""The canonical form of a model.

Every uploaded model becomes a `Network`, so that each method is written once: an FX `GraphModule` in which the
layers are real modules (`nn.Conv2d`, `nn.Linear`, `nn.BatchNorm2d`, ... as ``call_module`` nodes under the
uploader's own names) and every other operation is a ``call_function`` of an aten overload. It trains, runs on
CPU and CUDA, and exports again with `torch.export`.
"""

from dataclasses import dataclass, field
from typing import Any

from torch import fx

#: One dimension: a size, or the name of a symbolic dimension such as ``"batch"``.
Dim = int | str


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a network.

    Attributes:
        name: as the user's dataset columns spell it.
        dtype: numpy name, such as ``float32`` or ``int64``.
        shape: sizes; a string names a symbolic dimension. Dimension 0 is the batch where it is symbolic.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]

    @property
    def batched(self) -> bool:
        """Whether the first dimension is symbolic, so that samples can be run together."""
        return bool(self.shape) and isinstance(self.shape[0], str)

    def to_json(self) -> dict[str, Any]:
        """The form that the API shows: ``{"name", "dtype", "shape"}``."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}


@dataclass
class Network:
    """A model in canonical form.

    Attributes:
        module: FX graph; placeholders in the order of `inputs`, one output node returning a tuple in the order
            of `outputs` (a single output is still a tuple of one). In eval mode unless a method trains it.
        inputs: specs of the placeholders.
        outputs: specs of the results.
        format: the format it was read from (``pt2``, ``onnx``).
        notes: what the reader left out or changed (dropped sample inputs, guards, ...), for the user.
        source: what the reader knows about its file that a writer can reuse (format specific; see the reader).
    """

    module: fx.GraphModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    format: str
    notes: list[str] = field(default_factory=list)
    source: Any = None

    @property
    def batched(self) -> bool:
        """Whether every input has a symbolic first dimension."""
        return all(spec.batched for spec in self.inputs)

    @property
    def parameters(self) -> int:
        """Number of trainable scalars."""
        return sum(p.numel() for p in self.module.parameters())
