"""A job's state between two steps, as one zip: ``state.json``, ``tensors.safetensors``, where a step changed the
network ``weights.safetensors`` (the graph is still the one that was read, or that with its batch norms folded) or
``network.pt2``, and where a step is under way ``partial.safetensors``. Never a pickle: the process that wrote
it is not trusted.
"""

import copy
import json
import math
import struct
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from worker.engine.errors import InvalidModel
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.formats.pt2 import read_pt2
from worker.engine.formats.pt2_writer import write_pt2
from worker.engine.network import Network, TensorSpec
from worker.engine.quantized.affine import Affine
from worker.engine.quantized.form import Quantization, Weight, stored_in
from worker.engine.quantized.packing import BYTE
from worker.engine.quantized.placement import LAYERS, STORED, operation
from worker.engine.state import Compressed, Partial

STATE, TENSORS, NETWORK, PARTIAL = "state.json", "tensors.safetensors", "network.pt2", "partial.safetensors"
WEIGHTS: Final = "weights.safetensors"
_FILES: Final = frozenset({STATE, TENSORS, NETWORK, PARTIAL, WEIGHTS})
_LARGEST_STATE: Final = 256 << 20
_STORED_TYPES: Final = (torch.int8, torch.float16, torch.bfloat16, torch.float8_e4m3fn)


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds: the model after some steps, one report row per step, how far the next step is."""

    compressed: Compressed
    steps: list[dict[str, Any]]
    partial: Partial | None = None


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Grid(_Strict):
    scale: float = Field(gt=0)
    zero_point: int = Field(ge=-32768, le=65535)
    low: int = Field(ge=-32768, le=32767)
    high: int = Field(ge=-32768, le=65535)


class _Form(_Strict):
    targets: tuple[str, ...]
    bits: dict[str, Annotated[int, Field(ge=1, le=16)]]
    activations: dict[str, _Grid]
    integer: tuple[str, ...]
    absorbed: dict[str, str]
    dynamic: tuple[str, ...]


class _Node(_Strict):
    operation: str
    name: str


class _Spec(_Strict):
    name: str
    dtype: str
    shape: tuple[int | str, ...]
    sizes: tuple[int, ...]


class _State(_Strict):
    steps: list[dict[str, Any]]
    layers: list[dict[str, Any]]
    notes: list[str]
    curves: dict[str, list[float]]
    sensitivity: list[dict[str, Any]] = []
    pruned: tuple[str, ...] = ()
    pareto: list[dict[str, Any]] = []
    sourced: bool
    inputs: tuple[_Spec, ...]
    outputs: tuple[_Spec, ...]
    nodes: tuple[_Node, ...]
    forms: tuple[_Form, ...]
    partial: dict[str, Any] | None = None


def save(
    compressed: Compressed,
    steps: list[dict[str, Any]],
    path: Path,
    original: Network | None = None,
    partial: Partial | None = None,
    written: Path | None = None,
) -> None:
    """Write a checkpoint.

    Args:
        steps: the report rows of the steps that are done.
        original: the network as it was read; not stored again where `compressed` still has it.
        partial: how far the step after those is.
        written: where the network is kept in its file from one checkpoint of the same state to the next: exporting it
            takes much longer than an epoch of a small network.
    """
    tensors: dict[str, Tensor] = {}
    forms: dict[int, tuple[Quantization, list[str]]] = {}
    for target, quantization in compressed.quantized.items():
        forms.setdefault(id(quantization), (quantization, []))[1].append(target)
    described = [_describe(index, form, names, tensors) for index, (form, names) in enumerate(forms.values())]
    state = _State(
        steps=steps,
        layers=compressed.layers,
        notes=compressed.notes,
        curves=compressed.curves,
        sensitivity=compressed.sensitivity,
        pruned=compressed.pruned,
        pareto=compressed.pareto,
        sourced=compressed.network.source is not None,
        inputs=_specs(compressed.network.inputs),
        outputs=_specs(compressed.network.outputs),
        nodes=_nodes(compressed.network),
        forms=described,
        partial=None if partial is None else dict(partial.state),
    )
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, zipfile.ZipFile(path, "w") as archive:
        archive.writestr(STATE, state.model_dump_json())
        archive.writestr(TENSORS, safetensors.torch.save(tensors))
        if partial is not None:
            archive.writestr(PARTIAL, safetensors.torch.save(dict(partial.tensors)))
        if compressed.network is original:
            return
        if original is not None and (
            _same_graph(compressed.network, original) or _same_graph(compressed.network, fold_batch_norm(original))
        ):
            weights = {name: value.contiguous().clone() for name, value in _weights_of(compressed.network).items()}
            archive.writestr(WEIGHTS, safetensors.torch.save(weights))
        else:
            file = written or Path(folder) / NETWORK
            if not file.exists():
                write_pt2(compressed.network, file)
            archive.write(file, NETWORK)


def load(path: Path, original: Network) -> Saved:
    """Read a checkpoint.

    Args:
        path: the zip, or a folder with what was in it.
        original: the network as read from the user's file; used where no step had changed it.
    Raises:
        InvalidModel: ``checkpoint_damaged``.
    """
    if path.is_dir():
        return _load(path, original)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                if not {STATE, TENSORS} <= set(names) <= _FILES or len(names) > len(_FILES):
                    raise _damaged("it holds other files than a checkpoint does")
                archive.extractall(folder)
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
            raise _damaged(str(error)) from error
        return _load(Path(folder), original)


def _load(folder: Path, original: Network) -> Saved:
    try:
        if (folder / STATE).stat().st_size > _LARGEST_STATE:
            raise _damaged(f"{STATE} is too large")
        state = _State.model_validate_json((folder / STATE).read_bytes())
        tensors = safetensors.torch.load((folder / TENSORS).read_bytes())
        partial = None
        if state.partial is not None:
            partial = Partial(state.partial, safetensors.torch.load((folder / PARTIAL).read_bytes()))
    except (OSError, ValidationError, SafetensorError, struct.error, json.JSONDecodeError) as error:
        raise _damaged(str(error)) from error
    network = _network(folder, original, state)
    if network is not original and not state.sourced:
        network = replace(network, source=None)  # the user's own graph does not have what was changed
    _rename(network, state.nodes, needed=bool(state.forms))
    quantized: dict[str, Quantization] = {}
    folded = fold_batch_norm(network) if state.forms else network
    for index, form in enumerate(state.forms):
        quantization = _restore(index, form, folded, tensors)
        quantized.update(dict.fromkeys(form.targets, quantization))
    parameters = dict(network.module.named_parameters())
    if not set(state.pruned) <= parameters.keys():
        raise _damaged("its network lacks what was pruned")
    told = state.layers, state.notes, state.curves, state.sensitivity, state.pruned, state.pareto
    compressed = Compressed(network, quantized, *told)
    return Saved(compressed, state.steps, partial)


def _specs(specs: tuple[TensorSpec, ...]) -> tuple[_Spec, ...]:
    return tuple(_Spec(name=s.name, dtype=s.dtype, shape=s.shape, sizes=s.sizes) for s in specs)


def _restored(stored: tuple[_Spec, ...], read: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """What a ``.pt2`` says of inputs or outputs, under the user's names: there they are identifiers."""
    kinds = [[(s.dtype, [d if isinstance(d, int) else None for d in s.shape]) for s in part] for part in (stored, read)]
    if kinds[0] != kinds[1]:
        raise _damaged("its network takes or returns other things")
    return tuple(TensorSpec(s.name, s.dtype, s.shape, s.sizes) for s in stored)


def _network(folder: Path, original: Network, state: _State) -> Network:
    """The network as the steps left it."""
    if (folder / NETWORK).exists():
        read = read_pt2(folder / NETWORK)
        return replace(
            read,
            inputs=_restored(state.inputs, read.inputs),
            outputs=_restored(state.outputs, read.outputs),
            format=original.format,
            tokenizer=original.tokenizer,
        )
    if not (folder / WEIGHTS).exists():
        return original
    try:
        weights = safetensors.torch.load((folder / WEIGHTS).read_bytes())
        whole = weights.keys() == _weights_of(original).keys()
        source = original if whole else fold_batch_norm(original)
        network = replace(source, module=copy.deepcopy(source.module))
        network.module.load_state_dict(weights)
    except (OSError, SafetensorError, struct.error, json.JSONDecodeError, RuntimeError) as error:
        raise _damaged(str(error)) from error
    return network


def _weights_of(network: Network) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = network.module.state_dict()
    return weights


def _same_graph(one: Network, other: Network) -> bool:
    """Whether two networks differ in nothing but the numbers of their weights."""
    kinds = [{name: (w.shape, w.dtype) for name, w in _weights_of(network).items()} for network in (one, other)]
    calls = [
        [(node.name, node.target, str(node.args), str(node.kwargs)) for node in network.module.graph.nodes]
        for network in (one, other)
    ]
    parts = [[(name, repr(part)) for name, part in network.module.named_modules() if name] for network in (one, other)]
    return kinds[0] == kinds[1] and calls[0] == calls[1] and parts[0] == parts[1]


def _describe(index: int, form: Quantization, targets: list[str], tensors: dict[str, Tensor]) -> _Form:
    for path, weight in form.weights.items():
        parts = weight.tensors().items()
        tensors.update({f"{index}/{path}/{part}": value.clone() for part, value in parts if value is not None})
    return _Form(
        targets=tuple(targets),
        bits={path: weight.bits for path, weight in form.weights.items()},
        activations={
            name: _Grid(scale=grid.scale, zero_point=grid.zero_point, low=grid.low, high=grid.high)
            for name, grid in form.activations.items()
        },
        integer=tuple(sorted(form.integer)),
        absorbed=dict(form.absorbed),
        dynamic=tuple(sorted(form.dynamic)),
    )


def _restore(index: int, form: _Form, network: Network, tensors: Mapping[str, Tensor]) -> Quantization:
    names = {node.name for node in network.module.graph.nodes}
    used = {*form.activations, *form.integer, *form.absorbed, *form.absorbed.values(), *form.dynamic}
    if not used <= names:
        raise _damaged(f"the model has no {sorted(used - names)[0]!r}")
    return Quantization(
        network=network,
        weights={path: _weight(f"{index}/{path}", path, bits, network, tensors) for path, bits in form.bits.items()},
        activations={
            name: Affine(grid.scale, grid.zero_point, grid.low, grid.high) for name, grid in form.activations.items()
        },
        integer=frozenset(form.integer),
        absorbed=form.absorbed,
        dynamic=frozenset(form.dynamic),
    )


def _weight(key: str, path: str, bits: int, network: Network, tensors: Mapping[str, Tensor]) -> Weight:
    try:
        layer, name = stored_in(network.module, path)
        shape = getattr(layer, name).shape
    except AttributeError as error:
        raise _damaged(f"there is no layer {path!r}") from error
    values, scale = (tensors.get(f"{key}/{part}") for part in ("values", "scale"))
    if not isinstance(layer, (*LAYERS, *STORED.values())) or values is None or scale is None:
        raise _damaged(f"layer {path!r} is incomplete")
    bias, zero_point, centroids = (tensors.get(f"{key}/{part}") for part in ("bias", "zero_point", "centroids"))
    weight = Weight(values, scale, bias, bits, zero_point, centroids, () if centroids is None else tuple(shape))
    wanted = None if name != "weight" else getattr(layer, "bias", None)
    if not _fits(weight, shape) or (bias is None) != (wanted is None) or (bias is not None and bias.shape != shape[:1]):
        raise _damaged(f"layer {path!r} has weights of another shape or type")
    return weight


def _fits(weight: Weight, shape: torch.Size) -> bool:
    """Whether the parts of a weight are of a layer's `shape`."""
    channels, each, scale, zero_point = shape[0], math.prod(shape[1:]), weight.scale, weight.zero_point
    if scale.dtype != torch.float32 or not bool((scale > 0).all()):
        return False
    if weight.centroids is not None:
        if weight.centroids.dim() != 3 or weight.bits > BYTE:
            return False
        books, vector = weight.centroids.shape[0], weight.centroids.shape[-1]
        codes, numbers = (channels, each // max(vector, 1)), 1 << weight.bits
        return (
            books in (1, channels)
            and weight.centroids.shape[1] == numbers
            and codes[1] * vector == each
            and weight.values.shape == codes
            and weight.values.dtype == torch.uint8
            and bool((weight.values.int() < numbers).all())
        )
    groups = scale.shape[1] if scale.dim() == 2 else 0
    values = weight.values.int()  # an int8 does not compare with 128
    if weight.integers and not bool(((values >= weight.low) & (values < -weight.low)).all()):
        return False
    return (
        weight.values.shape == shape
        and weight.values.dtype in _STORED_TYPES
        and (scale.shape in ((1,), (channels,)) or (groups > 0 and scale.shape[0] == channels and each % groups == 0))
        and (
            zero_point is None or (zero_point.shape == scale.shape and zero_point.dtype in (torch.int8, torch.float32))
        )
    )


def _nodes(network: Network) -> tuple[_Node, ...]:
    module = network.module
    return tuple(_Node(operation=operation(module, node), name=node.name) for node in module.graph.nodes)


def _rename(network: Network, nodes: tuple[_Node, ...], *, needed: bool) -> None:
    """Give the nodes the names that they had.

    What was stored of a quantization refers to them; where there is none, another graph of the same network is as good:
    an exporter leaves out what stands there twice.
    """
    now = _nodes(network)
    if now == nodes:
        return
    if [node.operation for node in now] != [node.operation for node in nodes]:
        if not needed:
            return
        raise _damaged("its network is another one")
    if len({node.name for node in nodes}) != len(nodes) or not all(node.name.isidentifier() for node in nodes):
        raise _damaged("its network has impossible names")
    # Not by `_rename`, which gives no name again that the graph ever used.
    for node, given in zip(network.module.graph.nodes, nodes, strict=True):
        node.name = given.name
    network.module.recompile()


def _damaged(what: str) -> InvalidModel:
    return InvalidModel("checkpoint_damaged", f"The checkpoint cannot be used: {what}.")
