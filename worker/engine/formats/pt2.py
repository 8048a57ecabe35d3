"""Reading ``.pt2`` files (`torch.export.save`) without loading them.

`torch.export.load` runs code that a file can carry: pickled sample inputs, pickled weights, and shape expressions
that go through `sympy.sympify`. Here the zip is checked first, its JSON is read against a schema, weights are raw
bytes or the plain tensors of a pickle read as data, sample inputs and guards are left out, and the graph is built from
an allow list of operators.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from torch import Tensor, fx

from worker.engine.errors import InvalidModel, UnsafeFile, Unsupported
from worker.engine.formats import codes, expressions, lstm_shapes
from worker.engine.formats.archive import Archive
from worker.engine.formats.lift import lift
from worker.engine.formats.pickled_tensors import read_pickled_tensors
from worker.engine.formats.program import Program, State, dtype_name, output_names, refuse_stateful
from worker.engine.formats.pt2_graph import GraphBuilder
from worker.engine.formats.pt2_schema import (
    SCHEMA_MAJOR,
    SCHEMA_MINOR,
    ExportedProgram,
    GraphModule,
    InputSpec,
    OutputSpec,
    TensorMeta,
    VersionOnly,
)
from worker.engine.formats.weights import dtype_of, first_problem, read_tensors
from worker.engine.network import Dim, Network, TensorSpec

#: What `torch.export.save` wrote before PyTorch 2.8.
_OLD_PROGRAM: Final = "serialized_exported_program.json"
_OLD_TENSORS: Final = ("serialized_constants.pt", "serialized_state_dict.pt")
_SAMPLES: Final = ("data/sample_inputs/", "serialized_example_inputs.pt")
_LARGE_SAMPLES: Final = 1 << 20
_JSON: Final[TypeAdapter[Any]] = TypeAdapter(Any)
_RESAVE: Final = "torch.export.save(torch.export.load('old.pt2'), 'new.pt2')"


def read_pt2(path: Path) -> Network:
    """Read a ``.pt2``; nothing in it is executed.

    Raises:
        UnsafeFile: pickled objects other than tensors, or a shape expression that carries code.
        InvalidModel: damaged, incomplete, of another version, or not what PyTorch writes.
        Unsupported: operators or inputs that a network cannot have.
    """
    archive = Archive(path)
    if _OLD_PROGRAM in archive.entries:
        exported = _exported_program(archive.text(_OLD_PROGRAM))
        constants, weights = (read_pickled_tensors(archive, name) for name in _OLD_TENSORS)
    else:
        model = _model_name(archive)
        exported = _exported_program(archive.text(f"models/{model}.json"))
        constants, weights = (_tensors(archive, model, kind) for kind in ("constants", "weights"))
    program = build_program(exported, {**constants, **weights})
    samples = sum(entry.size for prefix in _SAMPLES for entry in archive.folder(prefix))
    if samples > _LARGE_SAMPLES:
        program.notes.append(
            f"The file carries {samples / 1e6:.1f} MB of sample inputs, which were left out. A sample that is a slice "
            "of a large tensor drags all of it along: export with a clone of it."
        )
    try:
        network = lift(program, "pt2")
        if lstm_shapes.are_wrong(exported.graph_module.graph):
            lstm_shapes.mend(network)
        return network
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise InvalidModel(codes.GRAPH_INVALID, f"The graph in the file does not make sense: {error}"[:500]) from error


def _model_name(archive: Archive) -> str:
    models = [e.name.rpartition("/")[2] for e in archive.folder("models/") if e.name.endswith(".json")]
    if len(models) == 1:
        return models[0].removesuffix(".json")
    found = f"{len(models)} models" if models else "no model (no entry models/*.json)"
    raise InvalidModel(
        codes.FILE_INCOMPLETE, f"The archive holds {found}, where one is needed. Save it with torch.export.save()."
    )


def _exported_program(text: bytes) -> ExportedProgram:
    try:
        version = VersionOnly.model_validate_json(text).schema_version
        if version.major != SCHEMA_MAJOR or version.minor > SCHEMA_MINOR:
            newer = (version.major, version.minor) > (SCHEMA_MAJOR, SCHEMA_MINOR)
            raise InvalidModel(
                codes.SCHEMA_VERSION,
                f"The file is of schema {version.major}.{version.minor}, written by a PyTorch that is too "
                f"{'new' if newer else 'old'}; schema {SCHEMA_MAJOR}.0 to {SCHEMA_MAJOR}.{SCHEMA_MINOR} is read "
                f"(PyTorch 2.6 to 2.14). Save it with one of those: {_RESAVE}",
            )
        return ExportedProgram.model_validate_json(text)
    except ValidationError as error:
        raise InvalidModel(
            codes.SCHEMA_INVALID, f"The program in the file is not what PyTorch writes: {first_problem(error)}"
        ) from error


def _tensors(archive: Archive, model: str, kind: str) -> dict[str, Tensor]:
    """The ``weights`` or ``constants``: a `torch.save` archive in PyTorch 2.8, raw with a list of them later."""
    folder = f"data/{kind}/"
    config, saved = f"{folder}{model}_{kind}_config.json", f"{folder}{model}.pt"
    if saved not in archive.entries:
        return read_tensors(archive, folder, config)
    if config in archive.entries:
        raise UnsafeFile(
            f"The archive holds {saved!r}, a pickle beside the weights themselves. Save it again: {_RESAVE}"
        )
    return read_pickled_tensors(archive, saved)


def build_program(exported: ExportedProgram, tensors: Mapping[str, Tensor]) -> Program:
    """The program that `exported` describes, with its weights from `tensors`."""
    module = exported.graph_module
    builder = GraphBuilder()
    graph, values = builder.build(module.graph)
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    specs = module.signature.input_specs
    if len(specs) != len(placeholders) or len(module.signature.output_specs) != len(module.graph.outputs):
        raise InvalidModel(codes.GRAPH_INVALID, "The file's signature does not fit its graph.")
    states: dict[fx.Node, State] = {}
    inputs: dict[fx.Node, TensorSpec] = {}
    names = _input_names(module)
    for node, spec, argument in zip(placeholders, specs, module.graph.inputs, strict=True):
        if spec.tag == "user_input":
            name = names.pop(0) if names else None
            if argument.tag == "as_tensor":
                value = argument.as_tensor.name
                inputs[node] = _spec(module, name or value, value)
        elif (state := _state(spec, tensors)) is not None:
            states[node] = state
    for node in placeholders:
        if node.users and node not in states and node not in inputs:
            raise Unsupported(codes.UNSUPPORTED_INPUT, f"Input {node.name!r} of the model is not a tensor.")
    return Program(graph, states, inputs, _outputs(module, values), builder.subgraphs, tensors)


def _state(spec: InputSpec, tensors: Mapping[str, Tensor]) -> State | None:
    match spec.tag:
        case "parameter":
            name, trainable = spec.parameter.parameter_name, True
        case "buffer":
            name, trainable = spec.buffer.buffer_name, False
        case "tensor_constant":
            name, trainable = spec.tensor_constant.tensor_constant_name, False
        case "constant_input":
            return None
        case other:
            raise Unsupported(codes.UNSUPPORTED_INPUT, f"The model has an input of kind {other}.")
    if name not in tensors:
        raise InvalidModel(codes.FILE_INCOMPLETE, f"The archive lacks the weight {name[:200]!r}.")
    return State(name, tensors[name], trainable and tensors[name].dtype.is_floating_point)


def _input_names(module: GraphModule) -> list[str]:
    """The names of the user's arguments, where each is one tensor."""
    signature = module.module_call_graph[0].signature if module.module_call_graph else None
    names = signature.forward_arg_names if signature else None
    count = sum(spec.tag == "user_input" for spec in module.signature.input_specs)
    return list(names) if names and len(names) == count else []


def _outputs(module: GraphModule, values: Mapping[str, fx.Node]) -> tuple[TensorSpec | None, ...]:
    specs = module.signature.output_specs
    count = sum(spec.tag == "user_output" for spec in specs)
    names = iter(output_names(_output_tree(module), count))
    return tuple(_output(module, spec, names) for spec in specs)


def _output(module: GraphModule, spec: OutputSpec, names: Any) -> TensorSpec | None:
    if spec.tag == "buffer_mutation":
        refuse_stateful(spec.buffer_mutation.buffer_name)
        return None
    if spec.tag != "user_output":
        return None
    name, argument = next(names), spec.user_output.arg
    return _spec(module, name, argument.as_tensor.name) if argument.tag == "as_tensor" else None


def _output_tree(module: GraphModule) -> Any:
    signature = module.module_call_graph[0].signature if module.module_call_graph else None
    if signature is None or len(signature.out_spec) > 1 << 20:
        return None
    try:
        version_and_tree = _JSON.validate_json(signature.out_spec)
    except ValidationError:
        return None
    return version_and_tree[1] if isinstance(version_and_tree, list) and len(version_and_tree) == 2 else None


def _spec(module: GraphModule, name: str, value: str) -> TensorSpec:
    meta: TensorMeta | None = module.graph.tensor_values.get(value)
    if meta is None:
        raise InvalidModel(codes.GRAPH_INVALID, f"The file says nothing of the shape of {value[:80]!r}.")
    shape: list[Dim] = []
    sizes: list[int] = []
    for size in meta.sizes:
        if size.tag == "as_int":
            shape.append(size.as_int)
            sizes.append(size.as_int)
            continue
        expression = expressions.parse(size.as_expr.expr_str)
        plain = isinstance(expression, expressions.Number)
        shape.append(expression.value if isinstance(expression, expressions.Number) else expressions.render(expression))
        hint = size.as_expr.hint
        sizes.append(int(hint.value) if hint is not None and not plain else 2)
    return TensorSpec(name, dtype_name(dtype_of(meta.dtype)), tuple(shape), tuple(sizes))
