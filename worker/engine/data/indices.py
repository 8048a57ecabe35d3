"""Indices in the data against the tables that the model looks them up in."""

from collections.abc import Iterator
from typing import Final

from torch import fx, nn
from torch._ops import OpOverload

from worker.engine.data import codes
from worker.engine.data.samples import Samples
from worker.engine.data.split import Split
from worker.engine.data.table import chunks
from worker.engine.errors import InvalidDataset
from worker.engine.network import Network

#: Calls that hand indices on as they are.
_PASSING: Final = frozenset(
    ("to", "_to_copy", "clone", "contiguous", "reshape", "view", "flatten", "squeeze", "unsqueeze", "permute")
)


def require_indices(network: Network, split: Split) -> None:
    """Refuse samples that point outside of an embedding: each runtime fails on them in a way of its own.

    Raises:
        InvalidDataset: ``dataset_index_out_of_range``, naming the column, the layer and both ranges.
    """
    placeholders = [node for node in network.module.graph.nodes if node.op == "placeholder"]
    for spec, node in zip(network.inputs, placeholders, strict=True):
        tables = list(_tables(network.module, node))
        for role in ("calibration", "training", "evaluation") if tables else ():
            samples: Samples | None = getattr(split, role)
            if samples is None or samples.inputs[spec.name].dtype.kind not in "iu":
                continue
            low, high = _range(samples, spec.name)
            for name, rows in tables:
                if low < 0 or high >= rows:
                    raise InvalidDataset(
                        codes.INDEX_OUT_OF_RANGE,
                        f"Column {spec.name!r} of the {role} dataset goes from {low} to {high}; layer {name!r} of the "
                        f"model has {rows} rows, so it takes 0 to {rows - 1}. Encode the samples as for training.",
                    )


def _tables(module: fx.GraphModule, node: fx.Node) -> Iterator[tuple[str, int]]:
    """The embeddings that look up what `node` holds: name and number of rows."""
    for user in node.users:
        if user.op == "call_module" and isinstance(layer := module.get_submodule(str(user.target)), nn.Embedding):
            yield str(user.target), layer.num_embeddings
        elif isinstance(user.target, OpOverload) and user.target._schema.name.split("::")[1] in _PASSING:
            yield from _tables(module, user)


def _range(samples: Samples, name: str) -> tuple[int, int]:
    bounds = [(int(chunk.min()), int(chunk.max())) for chunk in chunks(samples.inputs[name])]
    return min(low for low, _ in bounds), max(high for _, high in bounds)
