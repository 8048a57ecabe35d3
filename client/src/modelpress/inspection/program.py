"""The program inside a ``.pt2``, as far as its JSON tells it: nothing of it is evaluated."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from modelpress.inspection import tables
from modelpress.views import TensorSpec

#: What shape expressions are written with; anything else is code. The service parses them by a grammar.
_EXPRESSION: Final = re.compile(r"[A-Za-z0-9_'\s<>=!/*+%(),-]{0,4096}")
_SYMBOL: Final = re.compile(r"Symbol\('([A-Za-z_]\w*)'[^()]*\)")
_WEIGHTS: Final = {
    "parameter": "parameter_name",
    "buffer": "buffer_name",
    "tensor_constant": "tensor_constant_name",
}
_INPUTS: Final = (*_WEIGHTS, "user_input", "constant_input")
#: More dimensions than any tensor has.
_MAX_RANK: Final = 64
#: Deeper inner graphs than any exporter writes.
_MAX_GRAPHS: Final = 40


class Program:
    """`document` is the JSON of an exported program. Whatever is malformed raises an ordinary Python error."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._module = document["graph_module"]
        self._graph = self._module["graph"]
        self._signature = self._module["signature"]
        entries = self._module["module_call_graph"]
        self._called = (entries[0].get("signature") if entries else None) or {}
        self._batch: str | None = None

    def calls(self) -> Iterator[str]:
        """The target of every call, those in inner graphs among them."""
        return _calls(self._graph, 0)

    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the user gives."""
        specs = [_only(spec) for spec in self._signature["input_specs"]]
        given = [value["arg"] for tag, value in specs if tag == "user_input"]
        names = self._called.get("forward_arg_names") or []
        values = [_only(argument) for argument in given]
        called = names if len(names) == len(values) else [None] * len(values)
        tensors = [
            (name, value["name"]) for name, (tag, value) in zip(called, values, strict=True) if tag == "as_tensor"
        ]
        return tuple(self._tensor(str(name or value), value) for name, value in tensors)

    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the user gets."""
        specs = [_only(spec) for spec in self._signature["output_specs"]]
        results = [_only(value["arg"]) for tag, value in specs if tag == "user_output"]
        names = _output_names(self._called.get("out_spec"), len(results))
        return tuple(
            self._tensor(name, value["name"])
            for name, (tag, value) in zip(names, results, strict=True)
            if tag == "as_tensor"
        )

    def weights(self) -> Iterator[tuple[str, str, list[int], bool]]:
        """Name, dtype, shape, and whether it is a parameter."""
        for spec in self._signature["input_specs"]:
            tag, value = _only(spec)
            if tag in _WEIGHTS:
                meta = self._graph["tensor_values"][value["arg"]["name"]]
                shape = [int(size["as_int"]) for size in meta["sizes"][:_MAX_RANK]]
                yield str(value[_WEIGHTS[tag]]), _dtype(meta), shape, tag == "parameter"

    def foreign_inputs(self) -> list[str]:
        """Kinds of inputs that are neither tensors nor constants."""
        tags = [_only(spec)[0] for spec in self._signature["input_specs"]]
        return sorted({tag for tag in tags if tag not in _INPUTS})

    def mutated(self) -> list[str]:
        """The buffers that the program writes into."""
        specs = [_only(spec) for spec in self._signature["output_specs"]]
        found = [str(value["buffer_name"]) for tag, value in specs if tag == "buffer_mutation"]
        given = [_only(spec) for spec in self._signature["input_specs"]]
        weights = {value["arg"]["name"]: str(value[_WEIGHTS[tag]]) for tag, value in given if tag in _WEIGHTS}
        for node in self._graph["nodes"]:
            name = node["target"].split(".")[3:4]
            if node["inputs"] and name and re.fullmatch(r"\w*[^_]_", name[0]):  # in place
                tag, value = _only(node["inputs"][0]["arg"])
                if tag == "as_tensor" and value["name"] in weights:
                    found.append(weights[value["name"]])
        return found

    def code(self) -> str | None:
        """The first shape expression that is none."""
        waiting: list[Any] = [
            self._graph["tensor_values"],
            self._graph["sym_int_values"],
            self._graph["sym_bool_values"],
        ]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                text = value.get("expr_str")
                if isinstance(text, str) and not _EXPRESSION.fullmatch(text):
                    return text
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value
        return None

    def _tensor(self, name: str, value: str) -> TensorSpec:
        meta = self._graph["tensor_values"][value]
        return TensorSpec(name=name[:200], dtype=_dtype(meta), shape=tuple(map(self._size, enumerate(meta["sizes"]))))

    def _size(self, indexed: tuple[int, dict[str, Any]]) -> int | str:
        """A size; the symbol of the first free first dimension is called ``batch``."""
        axis, size = indexed
        tag, value = _only(size)
        if tag == "as_int":
            return int(value)
        text = _SYMBOL.sub(r"\1", str(value["expr_str"])[:200])
        if axis == 0 and self._batch is None and re.fullmatch(r"[suz]\d+", text):
            self._batch = text
        return text if self._batch is None else re.sub(rf"\b{self._batch}\b", "batch", text)


def _only(union: dict[str, Any]) -> tuple[str, Any]:
    """The one kind of value that is given."""
    ((tag, value),) = union.items()
    return tag, value


def _calls(graph: dict[str, Any], depth: int) -> Iterator[str]:
    if depth > _MAX_GRAPHS:
        raise ValueError("inner graphs are nested too deeply")
    for node in graph["nodes"]:
        if not isinstance(node["target"], str):
            raise TypeError("a target that is no text")
        yield node["target"]
        for argument in node["inputs"]:
            tag, value = _only(argument["arg"])
            if tag == "as_graph":
                yield from _calls(value["graph"], depth + 1)


def _dtype(meta: dict[str, Any]) -> str:
    number = str(meta["dtype"])
    return str(tables.table()["pt2"]["dtypes"].get(number, f"type number {number[:10]}"))


def _output_names(spec: Any, count: int) -> list[str]:
    """Keys of a returned dictionary, else ``output`` or ``output_0``, ...."""
    names: list[str] = []
    if isinstance(spec, str) and len(spec) < 1 << 20:
        try:
            names = _leaves(json.loads(spec)[1], "", 0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            names = []
    if len(names) != count or len(set(names)) != count:
        names = [str(index) for index in range(count)]
    if count == 1 and names[0] in ("", "0"):
        return ["output"]
    return [f"output_{name}" if name[:1].isdigit() else name for name in names]


def _leaves(spec: dict[str, Any], prefix: str, depth: int) -> list[str]:
    children = spec.get("children_spec") or []
    if not children or depth > _MAX_GRAPHS:
        return [prefix] if spec.get("type") is None else []
    context = spec.get("context")
    try:
        keys = json.loads(context) if isinstance(context, str) else context
    except ValueError:
        keys = None
    if isinstance(keys, list) and len(keys) == 2 and isinstance(keys[1], list):
        keys = keys[1]
    if not (isinstance(keys, list) and len(keys) == len(children) and all(isinstance(key, str) for key in keys)):
        keys = [str(index) for index in range(len(children))]
    named = zip(keys, children, strict=True)
    return [leaf for key, child in named for leaf in _leaves(child, f"{prefix}_{key}" if prefix else key, depth + 1)]
