import contextlib
import logging
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.export import Dim

from tests.support.networks import ZOO, make
from worker.engine import formats
from worker.engine.errors import InvalidModel, Unsupported, UserError
from worker.engine.formats import codes
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.formats.lift import quiet_export

#: Network, whether by the exporter of torch.export, and opset. ResNet-18 has nothing more to show by the slow one.
EXPORTS = (
    ("resnet18", False, None),
    *((name, dynamo, None) for name in ("mobilenet", "transformer", "mlp") for dynamo in (True, False)),
    ("mlp", True, 21),
    ("mlp", False, 13),
)


def export(module, inputs, path, dynamo, opset=None):
    """What a user does; the exporter's own warnings and chatter aside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            if dynamo:
                shapes = tuple({0: Dim.DYNAMIC} for _ in inputs)
                options = {"dynamo": True, "dynamic_shapes": shapes, "external_data": False, "verbose": False}
            else:
                options = {"dynamo": False, "input_names": ["x.1"], "dynamic_axes": {"x.1": {0: "n"}}}
            torch.onnx.export(module, inputs, path, opset_version=opset, **options)
        finally:
            logging.disable(logging.NOTSET)
    return path


def run(path, inputs):
    session = onnxruntime.InferenceSession(path)
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))


@pytest.fixture(
    scope="module",
    params=[pytest.param(one, marks=pytest.mark.xdist_group("-".join(map(str, one)))) for one in EXPORTS],
    ids=lambda one: "-".join(map(str, one)),
)
def exported(request, tmp_path_factory):
    name, dynamo, opset = request.param
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return name, export(make(name), ZOO[name].inputs(2), path, dynamo, opset)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_agrees_with_onnx_runtime(exported, batch):
    name, path = exported
    network = formats.read(path)
    inputs = ZOO[name].inputs(batch)
    for expected, got in zip(run(path, inputs), network.module(*inputs), strict=True):
        np.testing.assert_allclose(got.detach().numpy(), expected, atol=1e-5, rtol=1e-4)


def test_names_are_those_of_the_file(exported):
    _, path = exported
    network, session = formats.read(path), onnxruntime.InferenceSession(path)
    assert [spec.name for spec in network.inputs] == [value.name for value in session.get_inputs()]
    assert [spec.name for spec in network.outputs] == [value.name for value in session.get_outputs()]
    assert network.batched
    assert network.format == "onnx"


def test_every_node_says_which_value_it_makes(exported):
    """What it says is true: the values are compared with those that ONNX Runtime computes."""
    name, path = exported
    network = formats.read(path)
    inputs = ZOO[name].inputs(2)
    model = onnx.ModelProto()
    model.CopyFrom(network.source.model)
    said = {
        n.meta["onnx_value"]: n for n in network.module.graph.nodes if "onnx_value" in n.meta and n.op != "placeholder"
    }
    made = {value for node in model.graph.node for value in node.output}
    wanted = [value for value in said if value in made and value not in {o.name for o in model.graph.output}]
    model.graph.output.extend(onnx.ValueInfoProto(name=value) for value in wanted)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    feeds = {value.name: x.numpy() for value, x in zip(session.get_inputs(), inputs, strict=True)}
    truth = dict(zip([value.name for value in session.get_outputs()], session.run(None, feeds), strict=True))
    seen = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, node):
            seen[node] = super().run_node(node)
            return seen[node]

    with torch.no_grad():
        Recorder(network.module).run(*inputs)
    assert len(wanted) >= 4
    for value in wanted:
        np.testing.assert_allclose(seen[said[value]].numpy(), truth[value], atol=1e-4, rtol=1e-4)


def test_layers_say_where_they_are_in_the_file(exported):
    _, path = exported
    network = formats.read(path)
    nodes = {node.name: node for node in network.source.model.graph.node}
    initializers = {tensor.name for tensor in network.source.model.graph.initializer}
    aliases = {n.output[0]: n.input[0] for n in nodes.values() if n.op_type == "Identity"}
    layers = [n for n in network.module.graph.nodes if n.op == "call_module"]
    assert layers
    for layer in layers:
        assert layer.meta["onnx_weight"] in initializers
        given = nodes[layer.meta["onnx_node"]].input
        assert layer.meta["onnx_weight"] in {*given, *(aliases.get(value) for value in given)}
        assert layer.meta["onnx_value"] in nodes[layer.meta["onnx_node"]].output


def test_writes_as_pt2_and_trains(exported, tmp_path):
    name, path = exported
    network = formats.read(path)
    formats.WRITERS["pt2"](network, tmp_path / "again.pt2")
    again = formats.read(tmp_path / "again.pt2")
    inputs = ZOO[name].inputs(3)
    for expected, got in zip(network.module(*inputs), again.module(*inputs), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    sum(out.sum() for out in network.module.train()(*inputs)).backward()
    assert all(p.grad is not None for n, p in network.module.named_parameters() if n.endswith("weight"))


def test_dotted_names_become_modules(exported):
    name, path = exported
    if name == "resnet18":
        names = {n.target for n in formats.read(path).module.graph.nodes if n.op == "call_module"}
        assert {"conv1", "layer1.0.conv1", "layer4.1.conv2", "fc"} <= names


def test_folding_keeps_track_of_the_file(tmp_path):
    module = make("mlp")
    path = export(module, ZOO["mlp"].inputs(2), tmp_path / "m.onnx", False, 17)
    network = formats.read(path)
    norm = next(n for n in network.module.graph.nodes if n.target == "body.1")
    folded = next(n for n in fold_batch_norm(network).module.graph.nodes if n.target == "body.0")
    assert folded.meta["onnx_value"] == norm.meta["onnx_value"]
    assert folded.meta["onnx_folded"] == norm.meta["onnx_node"]
    assert folded.meta["onnx_weight"] == "body.0.weight"


class Shapes(nn.Module):
    """Sizes that are computed: windows, flattening of two symbolic dimensions, interpolation, padding."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=1)
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, x):
        n, c, h, w = x.shape
        y = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
        y = nn.functional.pad(y, (1, 1, 1, 1), mode="reflect")[:, :, 1:-1, 1:-1]
        y = y + nn.functional.interpolate(x, size=(h * 2, w * 2), mode="bilinear", align_corners=False)
        z = self.norm(self.up(x))
        a, b = z.chunk(2, 1)
        tokens = x.reshape(n, c, h * w).transpose(1, 2)
        return (
            y,
            torch.cat([a, b * 2], 1),
            tokens.softmax(-1).argmax(-1),
            nn.functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
        )


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_symbolic_heights_and_widths(tmp_path, dynamo):
    module, x = Shapes().eval(), torch.randn(2, 3, 8, 12)
    axes = {0: "n", 2: "h", 3: "w"}
    logging.disable(logging.WARNING)
    if dynamo:
        shapes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
        torch.onnx.export(
            module, (x,), tmp_path / "m", dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False
        )
    else:
        torch.onnx.export(module, (x,), tmp_path / "m", dynamo=False, input_names=["x"], dynamic_axes={"x": axes})
    logging.disable(logging.NOTSET)
    network = formats.read(tmp_path / "m")
    assert [isinstance(dim, str) for dim in network.inputs[0].shape] == [True, False, True, True]
    for size in ((1, 3, 8, 12), (3, 3, 10, 6)):
        x = torch.randn(size)
        for expected, got in zip(run(tmp_path / "m", (x,)), network.module(x), strict=True):
            np.testing.assert_allclose(got.detach().numpy(), expected, atol=1e-5, rtol=1e-4)


# -- files that are refused ----------------------------------------------------------------------------------------


def model(nodes, initializers=(), shape=(2, 3), outputs=("y",), functions=(), opset=20, domains=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["a", "b"]) for name in outputs],
        list(initializers),
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10)


def refused(content, path, *expected):
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    with pytest.raises(UserError) as error:
        formats.read(path)
    assert error.value.code in expected
    return error.value


def test_unsupported_operators_are_all_named(tmp_path):
    nodes = [helper.make_node("Det", ["x"], ["a"]), helper.make_node("NonZero", ["a"], ["y"])]
    error = refused(model(nodes), tmp_path / "m", codes.UNSUPPORTED_OPERATOR)
    assert "Det" in error.detail
    assert "NonZero" in error.detail


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "weights.bin"])
def test_external_data(tmp_path, location):
    weight = numpy_helper.from_array(np.zeros((2, 3), np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "24")):
        weight.external_data.add(key=key, value=value)
    refused(model([helper.make_node("Add", ["x", "w"], ["y"])], [weight]), tmp_path / "m", codes.EXTERNAL_DATA)


def test_external_data_in_an_attribute(tmp_path):
    weight = TensorProto(name="w", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="/etc/passwd")
    nodes = [helper.make_node("Constant", [], ["c"], value=weight), helper.make_node("Add", ["x", "c"], ["y"])]
    refused(model(nodes), tmp_path / "m", codes.EXTERNAL_DATA)


@pytest.mark.parametrize("dims", [[2**40], [2**31, 2**31], [-1], [1] * 40])
def test_absurd_shapes(tmp_path, dims):
    weight = TensorProto(name="w", data_type=1, dims=dims, raw_data=bytes(8))
    refused(model([helper.make_node("Add", ["x", "w"], ["y"])], [weight]), tmp_path / "m", codes.WEIGHTS_INVALID)


def function(name, *calls):
    nodes = [helper.make_node(call, ["a"], ["b"], domain="local") for call in calls]
    return helper.make_function("local", name, ["a"], ["b"], nodes[:1], [helper.make_opsetid("local", 1)])


def test_functions_that_recurse(tmp_path):
    functions = [function("F", "G"), function("G", "F")]
    nodes = [helper.make_node("F", ["x"], ["y"], domain="local")]
    refused(model(nodes, functions=functions, domains=["local"]), tmp_path / "m", codes.GRAPH_INVALID)


@pytest.mark.timeout(60)
def test_functions_that_grow_without_bound(tmp_path):
    functions = []
    for level in range(30):
        called, domain = (f"F{level + 1}", "local") if level < 29 else ("Relu", "")
        body = [helper.make_node(called, [f"v{i}"], [f"v{i + 1}"], domain=domain) for i in range(4)]
        imports = [helper.make_opsetid("local", 1), helper.make_opsetid("", 20)]
        functions.append(helper.make_function("local", f"F{level}", ["v0"], ["v4"], body, imports))
    nodes = [helper.make_node("F0", ["x"], ["y"], domain="local")]
    refused(model(nodes, functions=functions, domains=["local"]), tmp_path / "m", codes.ARCHIVE_TOO_LARGE)


def test_functions_are_written_out(tmp_path):
    imports = [helper.make_opsetid("", 20)]
    body = [helper.make_node("Relu", ["a"], ["t"]), helper.make_node("Neg", ["t"], ["b"])]
    functions = [helper.make_function("local", "F", ["a"], ["b"], body, imports)]
    nodes = [helper.make_node("F", ["x"], ["y"], domain="local")]
    (tmp_path / "m").write_bytes(model(nodes, functions=functions, domains=["local"]).SerializeToString())
    x = torch.tensor([[-1.0, 2.0, 3.0], [4.0, -5.0, 6.0]])
    torch.testing.assert_close(formats.read(tmp_path / "m").module(x)[0], -x.relu())


@pytest.mark.parametrize("opset", [6, 99])
def test_other_opsets(tmp_path, opset):
    refused(model([helper.make_node("Relu", ["x"], ["y"])], opset=opset), tmp_path / "m", codes.SCHEMA_VERSION)


def test_code_never_comes_from_names(tmp_path):
    evil = f"x): import os; os.system('touch {tmp_path}/ran')  #"
    nodes = [helper.make_node("Gemm", ["x", evil + "w"], ["y"], name=evil)]
    weight = numpy_helper.from_array(np.eye(3, dtype=np.float32), evil + "w")
    content = model(nodes, [weight])
    content.graph.input[0].name = evil
    content.graph.node[0].input[0] = evil
    (tmp_path / "m").write_bytes(content.SerializeToString())
    with contextlib.suppress(UserError):
        formats.read(tmp_path / "m").module(torch.randn(2, 3))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Relu", ["missing"], ["y"])],
        [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Relu", ["x"], ["y"])],
        [helper.make_node("Relu", ["x", "x", "x"], ["y"])],
        [helper.make_node("Reshape", ["x", "x"], ["y"])],
        [helper.make_node("Transpose", ["x"], ["y"], perm=[0, 7])],
        [helper.make_node("Concat", ["x", "x"], ["y"])],
    ],
)
def test_graphs_that_make_no_sense(tmp_path, nodes):
    refused(model(nodes), tmp_path / "m", codes.GRAPH_INVALID, codes.UNSUPPORTED_ATTRIBUTE)


def test_truncated_and_flipped(tmp_path):
    path = export(make("mlp"), ZOO["mlp"].inputs(2), tmp_path / "good.onnx", False)
    content, spoiled = path.read_bytes(), tmp_path / "spoiled"
    for cut in range(1, len(content) - 1, len(content) // 60):
        spoiled.write_bytes(content[:cut])
        with pytest.raises((InvalidModel, Unsupported)):
            formats.read(spoiled)
    generator = np.random.default_rng(0)
    for _ in range(150):
        changed = bytearray(content)
        for position in generator.integers(0, len(content), 3):
            changed[position] ^= int(generator.integers(1, 256))
        spoiled.write_bytes(changed)
        try:
            formats.read(spoiled)
        except UserError as error:
            assert error.code in codes.ALL


def test_exporting_again_keeps_the_batch_dynamic(tmp_path):
    network = formats.read(export(make("mobilenet"), ZOO["mobilenet"].inputs(2), tmp_path / "m.onnx", False))
    again = quiet_export(network.module, network.examples(), ({0: Dim.DYNAMIC},)).module()
    x = ZOO["mobilenet"].inputs(5)
    torch.testing.assert_close(again(*x)[0], network.module(*x)[0])


@pytest.mark.timeout(60)
def test_functions_that_grow_inside_branches(tmp_path):
    """Calls in the branches of an If are written out as well: 6 ** 40 of them."""
    functions = []
    for level in range(40):
        called, domain = (f"F{level + 1}", "local") if level < 39 else ("Relu", "")
        body = [helper.make_node(called, ["v0" if i == 0 else f"t{i}"], [f"t{i + 1}"], domain=domain) for i in range(3)]
        result = [helper.make_tensor_value_info("t3", TensorProto.FLOAT, None)]
        branches = {f"{name}_branch": helper.make_graph(body, name, [], result) for name in ("then", "else")}
        condition = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True)))
        body = [condition, helper.make_node("If", ["c"], ["t3"], **branches)]
        imports = [helper.make_opsetid("local", 1), helper.make_opsetid("", 20)]
        functions.append(helper.make_function("local", f"F{level}", ["v0"], ["t3"], body, imports))
    nodes = [helper.make_node("F0", ["x"], ["y"], domain="local")]
    refused(model(nodes, functions=functions, domains=["local"]), tmp_path / "m", codes.ARCHIVE_TOO_LARGE)


def numbers(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("nodes", "initializers"),
    [
        ([helper.make_node("ConstantOfShape", ["s"], ["big"])], [numbers("s", 1 << 12, 1 << 12, 1 << 6)]),
        (
            [helper.make_node("Tile", ["s", "r"], ["a"]), helper.make_node("Tile", ["a", "r"], ["big"])],
            [numbers("s", 1), numbers("r", 1 << 15)],
        ),
        (
            [
                helper.make_node("Expand", ["s", "r"], ["a"]),
                helper.make_node("Slice", ["a", "first", "last", "axis", "step"], ["big"]),
            ],
            [
                *(numbers("s", 1), numbers("r", 1 << 33), numbers("axis", 0)),
                *(numbers("first", -1), numbers("last", -(1 << 62)), numbers("step", -2)),
            ],
        ),
    ],
)
def test_constants_that_fill_the_memory(tmp_path, nodes, initializers):
    more = [
        helper.make_node("ReduceSum", ["big"], ["total"]),
        helper.make_node("Cast", ["total"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "float"], ["y"]),
    ]
    refused(model([*nodes, *more], initializers), tmp_path / "m", codes.ARCHIVE_TOO_LARGE)


@pytest.mark.parametrize("name", ["training.fc", "forward.fc", "half", "children.0", "T_destination.x.y"])
def test_layers_called_like_a_part_of_every_module(tmp_path, name):
    weight = numpy_helper.from_array(2 * np.eye(3, dtype=np.float32), f"{name}.weight")
    content = model([helper.make_node("MatMul", ["x", f"{name}.weight"], ["y"], name="n")], [weight])
    (tmp_path / "m").write_bytes(content.SerializeToString())
    torch.testing.assert_close(formats.read(tmp_path / "m").module(torch.ones(2, 3))[0], torch.full((2, 3), 2.0))
