"""What the readers accept, written from their own tables: a page for people, a JSON file for the client.

    python -m tools.operators            # writes both; `make operators`

`modelpress check` has neither torch nor onnx, and must not depend on the server: it knows what the JSON file says.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Final

import onnx
import torch
from torch import nn

from worker.engine.formats import aten, codes
from worker.engine.formats.layers import RULES
from worker.engine.formats.onnx_reader import file as onnx_file
from worker.engine.formats.onnx_reader import tensors as onnx_tensors
from worker.engine.formats.onnx_reader.operators import OPERATORS
from worker.engine.formats.program import COUNTERS, dtype_name
from worker.engine.formats.pt2_graph import unknown_operators
from worker.engine.formats.pt2_schema import SCHEMA_MAJOR, SCHEMA_MINOR, Graph
from worker.engine.formats.recurrent import RECURRENT
from worker.engine.formats.transformers_reader.architectures import ARCHITECTURES, HEADS
from worker.engine.formats.weights import DTYPES

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "operators.md"
TABLE: Final = ROOT / "client" / "src" / "modelpress" / "inspection" / "operators.json"
WIDTH: Final = 118


# -- ONNX ----------------------------------------------------------------------------------------------------------


def newest_opset() -> int:
    """The newest version of the standard operators that is read."""
    return int(onnx.defs.onnx_opset_version())


def domain_of(name: str) -> tuple[str, str]:
    """``com.microsoft.Gelu`` -> its domain and its own name; standard operators are in ``ai.onnx``."""
    domain, _, plain = name.rpartition(".")
    return domain or "ai.onnx", plain


def opsets() -> dict[str, tuple[int, int]]:
    """First and last opset that has each standard operator, among those that are read."""
    history: dict[str, list[tuple[int, bool]]] = defaultdict(list)
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            history[schema.name].append((schema.since_version, schema.deprecated))
    ranges: dict[str, tuple[int, int]] = {}
    for name, versions in history.items():
        last, gone = max(versions)
        ranges[name] = max(onnx_file.MIN_OPSET, min(versions)[0]), last - 1 if gone else newest_opset()
    return ranges


# -- layers --------------------------------------------------------------------------------------------------------


def layers_of(function: Callable[..., Any]) -> list[str]:
    """Names of the `torch.nn` classes that a reader's function builds, itself or in functions of ours that it calls."""
    found: dict[str, None] = {}
    _collect(function, found, set())
    return sorted(found)


def _collect(value: object, found: dict[str, None], seen: set[int]) -> None:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, type):
        if issubclass(value, nn.Module) and value is not nn.Module:
            found[value.__name__] = None
    elif isinstance(value, Mapping | Sequence) and not isinstance(value, str):
        for inner in value.values() if isinstance(value, Mapping) else value:
            _collect(inner, found, seen)
    elif isinstance(value, FunctionType) and value.__module__.startswith("worker.engine.formats."):
        for name in _names(value.__code__):
            _collect(value.__globals__.get(name), found, seen)
            if hasattr(nn, name):  # ``nn.Linear``
                _collect(getattr(nn, name), found, seen)
        for cell in value.__closure__ or ():
            _collect(cell.cell_contents, found, seen)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


# -- aten ----------------------------------------------------------------------------------------------------------


def overloads() -> dict[str, list[str]]:
    """The overloads of each aten operator that a ``.pt2`` may call, in-place forms and assertions included."""
    found: dict[str, list[str]] = {}
    for name in sorted({*aten.ALLOWED, *aten.ASSERTIONS, *aten.WORDS}):
        for form in (name, name + "_"):
            packet = getattr(torch.ops.aten, form, None)
            known = packet.overloads() if isinstance(packet, torch._ops.OpOverloadPacket) else ()  # type: ignore[no-untyped-call]
            allowed = [one for one in known if aten.resolve(f"torch.ops.aten.{form}.{one}") is not None]
            if allowed:
                found[form] = sorted(allowed)
    return found


def higher_order() -> list[str]:
    """Targets that call inner graphs and may be in a ``.pt2``."""
    names = [f"torch.ops.higher_order.{name}" for name in sorted(torch._ops._higher_order_ops)]
    return [name for name in names if not unknown_operators(_calling(name))]


def _calling(target: str) -> Graph:
    call = {"target": target, "inputs": [], "outputs": [], "metadata": {}}
    empty: dict[str, Any] = {name: {} for name in ("tensor_values", "sym_int_values", "sym_bool_values")}
    return Graph.model_validate({"inputs": [], "outputs": [], "nodes": [call], **empty})


# -- what is written -----------------------------------------------------------------------------------------------


def table() -> dict[str, Any]:
    """What the client has to know."""
    return {
        "onnx": {
            "opsets": [onnx_file.MIN_OPSET, newest_opset()],
            "operators": sorted(OPERATORS),
            "dtypes": {str(number): dtype_name(dtype) for number, dtype in sorted(onnx_tensors.DTYPES.items())},
            "constants": sorted(onnx_tensors.NARROW),
            "types": {str(number): name for name, number in sorted(onnx.TensorProto.DataType.items())},
            "max_file": onnx_file.MAX_FILE,
            "max_nodes": onnx_file.MAX_NODES,
            "max_rank": onnx_file.MAX_RANK,
        },
        "pt2": {
            "schema": [SCHEMA_MAJOR, SCHEMA_MINOR],
            "aten": {name: " ".join(found) for name, found in overloads().items()},
            "other": [*sorted(aten.SYMBOLIC), *higher_order()],
            "dtypes": {str(number): dtype_name(dtype) for number, dtype in sorted(DTYPES.items())},
            "counters": sorted(COUNTERS),
        },
        "transformers": {"architectures": sorted(ARCHITECTURES), "heads": sorted(HEADS)},
        "codes": sorted(codes.ALL),
    }


def page() -> str:
    """docs/operators.md."""
    parts = [
        "# Operators",
        "<!-- Written by `make operators` from the tables of the readers; do not edit. -->",
        "What a model may be made of. An operator that is not here is refused by name (`unsupported_operator`), and "
        "`modelpress check FILE` tells so before anything is uploaded. A *layer* keeps its weights as a module that "
        "methods can compress; it becomes one where its weights are constants of the file, and plain operations "
        "otherwise. Everything else is computed by operations of PyTorch.",
        *_onnx_sections(),
        *_aten_sections(),
        *_architecture_section(),
    ]
    return "\n\n".join(parts) + "\n"


def _onnx_sections() -> Iterator[str]:
    known, first, last = opsets(), onnx_file.MIN_OPSET, newest_opset()
    domains: dict[str, list[str]] = defaultdict(list)
    for name in OPERATORS:
        domains[domain_of(name)[0]].append(name)
    yield f"## ONNX\n\nOpset {first} to {last}; functions of the file are written out where they are called."
    for domain, names in sorted(domains.items()):
        rows = []
        for name in sorted(names):
            plain = domain_of(name)[1]
            low, high = known.get(plain, (first, last)) if domain == "ai.onnx" else (None, None)
            opset = "" if low is None else f"{low} to {high}"
            rows.append(f"| `{plain}` | {opset} | {_becomes(layers_of(OPERATORS[name]))} |")
        yield f"### Domain `{domain}`: {len(names)}\n\n| operator | opset | becomes |\n|---|---|---|\n" + "\n".join(
            rows
        )


def _aten_sections() -> Iterator[str]:
    built = {name: layers_of(rule.build) for name, rule in RULES.items()}
    built |= {name: [cls.__name__] for name, (cls, *_) in RECURRENT.items() if isinstance(cls, type)}
    yield (
        f"## aten, in `.pt2`: {len(aten.ALLOWED)}\n\nThe in-place form (`relu_`) goes with the plain one; overloads "
        "that write into `out` are refused. What only checks shapes and types is left out:\n"
        + _words(sorted(aten.ASSERTIONS))
    )
    rows = [f"| `{name}` | {_becomes(built[name])} |" for name in sorted(built)]
    yield "### Layers\n\n| operator | becomes |\n|---|---|\n" + "\n".join(rows)
    yield "### Operations\n\n" + _words(sorted(aten.ALLOWED - built.keys()))
    yield "### Arithmetic on sizes, and calls of inner graphs\n\n" + _words([*sorted(aten.SYMBOLIC), *higher_order()])


def _architecture_section() -> Iterator[str]:
    yield (
        f"## Folders of transformers: {len(ARCHITECTURES)}\n\n`model_type` of `config.json`; the class is the plain "
        "model or ends with one of " + ", ".join(f"`{name}`" for name in HEADS) + "."
    )
    for kind in sorted(set(ARCHITECTURES.values())):
        names = sorted(name for name, takes in ARCHITECTURES.items() if takes == kind)
        yield f"### Of {kind}: {len(names)}\n\n" + _words(names)


def _becomes(layers: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in layers) or "operations"


def _words(names: Iterable[str]) -> str:
    """Code words in lines of a width that a diff can show."""
    lines = [""]
    for name in names:
        word = f"`{name}`"
        if len(lines[-1]) + len(word) >= WIDTH:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def contents() -> dict[Path, str]:
    """What each file has to hold."""
    return {TABLE: json.dumps(table(), indent=1) + "\n", PAGE: page()}


if __name__ == "__main__":
    for path, text in contents().items():
        path.write_text(text, "utf-8")
