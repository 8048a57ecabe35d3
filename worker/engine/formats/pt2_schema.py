"""The JSON inside a ``.pt2``: schema 8 of `torch._export.serde.schema`, read strictly.

Unknown fields are refused, so that nothing in the file means something to PyTorch that it does not mean here. What
only describes (guards, call graph of inner modules) is checked for its type and then ignored.
"""

from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA_MAJOR: Final = 8
SCHEMA_MINOR: Final = 20

Int = Annotated[int, Field(ge=-(2**63), lt=2**64, strict=True)]
Name = Annotated[str, Field(max_length=4096)]
#: The serializer writes infinities and NaN as strings.
Float = Annotated[float, Field(strict=False)]


class Record(BaseModel):
    """A JSON object with exactly the fields of its class."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Union(Record):
    """A JSON object with exactly one of the fields of its class: its `tag`."""

    @model_validator(mode="after")
    def _one_field(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError("exactly one kind of value must be given")
        return self

    @property
    def tag(self) -> str:
        """Name of the one field."""
        return next(iter(self.model_fields_set))

    @property
    def value(self) -> Any:
        """The one value."""
        return getattr(self, self.tag)


class Device(Record):
    """Where a tensor was; the reader puts everything on the CPU."""

    type: Name
    index: Int | None = None


class Hint(Union):
    """The value a symbol had when the model was exported."""

    as_int: Int = 0
    as_bool: bool = False
    as_float: Float = 0.0


class SymbolicExpression(Record):
    """Text for `expressions.parse`."""

    expr_str: str
    hint: Hint | None = None


class SymInt(Union):
    """A size."""

    as_expr: SymbolicExpression = Field(default=None)  # type: ignore[assignment]
    as_int: Int = 0


class SymFloat(Union):
    """A symbolic float."""

    as_expr: SymbolicExpression = Field(default=None)  # type: ignore[assignment]
    as_float: Float = 0.0


class SymBool(Union):
    """A symbolic condition."""

    as_expr: SymbolicExpression = Field(default=None)  # type: ignore[assignment]
    as_bool: bool = False


class TensorMeta(Record):
    """Type and layout of a tensor."""

    dtype: Int
    sizes: list[SymInt]
    requires_grad: bool
    device: Device
    strides: list[SymInt]
    storage_offset: SymInt
    layout: Int


class Named(Record):
    """A value by name."""

    name: Name


class CustomObject(Record):
    """A scripted object: refused, but read so that it can be named."""

    name: Name
    class_fqn: Name


class SymArgument(Union):
    """A symbolic number by name, or a plain one."""

    as_name: Name = ""
    as_int: Int = 0
    as_float: Float = 0.0
    as_bool: bool = False


class OptionalTensor(Union):
    """A tensor or nothing."""

    as_tensor: Named = Field(default=None)  # type: ignore[assignment]
    as_none: bool = True


class Complex(Record):
    """A complex number."""

    real: Float
    imag: Float


class Argument(Union):
    """One argument or result of a call."""

    as_none: bool = True
    as_tensor: Named = Field(default=None)  # type: ignore[assignment]
    as_tensors: list[Named] = []
    as_int: Int = 0
    as_ints: list[Int] = []
    as_float: Float = 0.0
    as_floats: list[Float] = []
    as_string: Name = ""
    as_strings: list[Name] = []
    as_sym_int: SymArgument = Field(default=None)  # type: ignore[assignment]
    as_sym_ints: list[SymArgument] = []
    as_scalar_type: Int = 0
    as_memory_format: Int = 0
    as_layout: Int = 0
    as_device: Device = Field(default=None)  # type: ignore[assignment]
    as_bool: bool = False
    as_bools: list[bool] = []
    as_sym_bool: SymArgument = Field(default=None)  # type: ignore[assignment]
    as_sym_bools: list[SymArgument] = []
    as_graph: "SubGraph" = Field(default=None)  # type: ignore[assignment]
    as_optional_tensors: list[OptionalTensor] = []
    as_custom_obj: CustomObject = Field(default=None)  # type: ignore[assignment]
    as_operator: Name = ""
    as_sym_float: SymArgument = Field(default=None)  # type: ignore[assignment]
    as_sym_floats: list[SymArgument] = []
    as_optional_tensor: OptionalTensor = Field(default=None)  # type: ignore[assignment]
    as_complex: Complex = Field(default=None)  # type: ignore[assignment]
    as_nested_tensors: list[list[Named]] = []
    as_int_lists: list[list[Int]] = []
    as_string_to_argument: dict[Name, "Argument"] = {}
    as_float_lists: list[list[Float]] = []


class NamedArgument(Record):
    """An argument with the name it has in the operator's schema; kind 1 is positional, 2 by keyword."""

    name: Name
    arg: Argument
    kind: Int | None = None


class Node(Record):
    """A call."""

    target: Name
    inputs: list[NamedArgument]
    outputs: list[Argument]
    metadata: dict[str, str]
    is_hop_single_tensor_return: bool | None = None
    name: Name | None = None


class Graph(Record):
    """Calls in order."""

    inputs: list[Argument]
    outputs: list[Argument]
    nodes: list[Node]
    tensor_values: dict[Name, TensorMeta]
    sym_int_values: dict[Name, SymInt]
    sym_bool_values: dict[Name, SymBool]
    is_single_tensor_return: bool = False
    custom_obj_values: dict[Name, CustomObject] = {}
    sym_float_values: dict[Name, SymFloat] = {}


class SubGraph(Record):
    """A graph that is an argument."""

    name: Name
    graph: Graph


class UserInput(Record):
    """An input of the user."""

    arg: Argument


class ParameterInput(Record):
    """A parameter."""

    arg: Named
    parameter_name: Name


class BufferInput(Record):
    """A buffer."""

    arg: Named
    buffer_name: Name
    persistent: bool


class ConstantInput(Record):
    """A tensor that is written into the model's code."""

    arg: Named
    tensor_constant_name: Name


class ObjectInput(Record):
    """A scripted object."""

    arg: CustomObject
    custom_obj_name: Name


class InputSpec(Union):
    """What an input of the graph stands for."""

    user_input: UserInput = Field(default=None)  # type: ignore[assignment]
    parameter: ParameterInput = Field(default=None)  # type: ignore[assignment]
    buffer: BufferInput = Field(default=None)  # type: ignore[assignment]
    tensor_constant: ConstantInput = Field(default=None)  # type: ignore[assignment]
    custom_obj: ObjectInput = Field(default=None)  # type: ignore[assignment]
    token: dict[str, Any] = {}
    constant_input: dict[str, Any] = {}


class UserOutput(Record):
    """A result for the user."""

    arg: Argument


class BufferMutation(Record):
    """A result that is written back into a buffer."""

    arg: Named
    buffer_name: Name


class OutputSpec(Union):
    """What a result of the graph stands for."""

    user_output: UserOutput = Field(default=None)  # type: ignore[assignment]
    buffer_mutation: BufferMutation = Field(default=None)  # type: ignore[assignment]
    loss_output: dict[str, Any] = {}
    gradient_to_parameter: dict[str, Any] = {}
    gradient_to_user_input: dict[str, Any] = {}
    user_input_mutation: dict[str, Any] = {}
    token: dict[str, Any] = {}
    parameter_mutation: dict[str, Any] = {}


class GraphSignature(Record):
    """What goes in and out."""

    input_specs: list[InputSpec]
    output_specs: list[OutputSpec]


class CallSignature(Record):
    """How a module was called in Python."""

    inputs: list[Argument]
    outputs: list[Argument]
    in_spec: str
    out_spec: str
    forward_arg_names: list[Name] | None = None


class CallEntry(Record):
    """A module and how it was called; the first entry is the whole model."""

    fqn: Name
    signature: CallSignature | None = None


class GraphModule(Record):
    """The graph and its surroundings."""

    graph: Graph
    signature: GraphSignature
    module_call_graph: list[CallEntry]
    metadata: dict[str, str] = {}
    treespec_namedtuple_fields: dict[str, dict[str, list[str]]] = {}


class SchemaVersion(Record):
    """Version of this schema."""

    major: Int
    minor: Int


class RangeConstraint(Record):
    """Bounds of a symbol."""

    min_val: Int | None
    max_val: Int | None


class ExportedProgram(Record):
    """``models/model.json``."""

    graph_module: GraphModule
    opset_version: dict[str, Int]
    range_constraints: dict[str, RangeConstraint]
    schema_version: SchemaVersion
    verifiers: list[str] = []
    torch_version: str = "<=2.4"
    guards_code: list[str] = []


class VersionOnly(BaseModel):
    """``models/model.json`` as far as its version."""

    schema_version: SchemaVersion


class Payload(Record):
    """Where a weight is in the archive."""

    path_name: Name
    is_param: bool
    use_pickle: bool
    tensor_meta: TensorMeta | None


class PayloadConfig(Record):
    """``model_weights_config.json`` and ``model_constants_config.json``."""

    config: dict[Name, Payload]
