"""One file of every kind that people upload: models of each format, the spoiled ones, and what is no model at all."""

import gzip
import io
import json
import os
import pickle
import stat
import struct
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.export import Dim

from tests.support.pt2_files import edit_json, entries, rebuild, save

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
Writer = Callable[[Path], object]


def network() -> nn.Module:
    """Convolution, batch norm, linear: 1 x 3 x 6 x 6 in, 5 out."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    return nn.Sequential(*layers).eval()


def example() -> torch.Tensor:
    """What it takes."""
    return torch.randn(2, 3, 6, 6)


class WithoutGradients(nn.Module):
    """A part of it is an inner graph in the file."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            scale = torch.tanh(self.inner(x))
        return x * scale


class Counting(nn.Module):
    """Its answer depends on earlier calls."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.add_(x.sum(0))
        return x + self.seen


# -- .pt2 ------------------------------------------------------------------------------------------------------------


def pt2(path: Path) -> Path:
    """What `torch.export.save` writes."""
    path.write_bytes(_saved())
    return path


@cache
def _saved() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return save(network(), (example(),), Path(folder) / "model.pt2").read_bytes()


def changed(entry: str, change: Callable[[dict], object]) -> Writer:
    """A ``.pt2`` with another JSON."""
    return lambda path: edit_json(pt2(path), entry, change, path)


def rebuilt(change: Callable[[dict[str, bytes]], object], compression: int = zipfile.ZIP_STORED) -> Writer:
    """A ``.pt2`` with other entries."""

    def write(path: Path) -> None:
        content = entries(pt2(path))
        change(content)
        rebuild(content, path, compression)

    return write


def with_entry(name: str, mode: int = stat.S_IFREG) -> Writer:
    """A ``.pt2`` with one entry more."""

    def write(path: Path) -> None:
        info = zipfile.ZipInfo(name)
        info.external_attr = (mode | 0o644) << 16
        with zipfile.ZipFile(pt2(path), "a") as archive:
            archive.writestr(info, b"x")

    return write


def target(name: str) -> Writer:
    """A ``.pt2`` that calls something else."""
    return changed(MODEL, lambda d: d["graph_module"]["graph"]["nodes"][2].update(target=name))


def version(major: int, minor: int) -> Writer:
    """A ``.pt2`` of another schema."""
    return changed(MODEL, lambda d: d.update(schema_version={"major": major, "minor": minor}))


def _expression(document: dict) -> None:
    sizes = document["graph_module"]["graph"]["tensor_values"]["input"]["sizes"]
    sizes[0] = {"as_expr": {"expr_str": "__import__('os').getcwd()", "hint": None}}


def _pickled(document: dict) -> None:
    document["config"]["0.weight"] = {
        "path_name": "weight_9", "is_param": True, "use_pickle": True, "tensor_meta": None,
    }  # fmt: skip


def _old_layout(content: dict[str, bytes]) -> None:
    program, buffer = content[MODEL], io.BytesIO()
    torch.save(network().state_dict(), buffer)
    content.clear()
    content |= {"version": b"8.2", "serialized_exported_program.json": program}
    content |= {"serialized_state_dict.pt": buffer.getvalue(), "serialized_constants.pt": buffer.getvalue()}


def _pickled_layout(content: dict[str, bytes]) -> None:
    buffer = io.BytesIO()
    torch.save(network().state_dict(), buffer)
    for name in [name for name in content if name.startswith(("data/weights", "data/constants"))]:
        del content[name]
    content |= {"data/weights/model.pt": buffer.getvalue(), "data/constants/model.pt": buffer.getvalue()}


def _misfit(document: dict) -> None:
    document["config"]["0.weight"]["tensor_meta"]["sizes"][0] = {"as_int": 2**40}


# -- .onnx -----------------------------------------------------------------------------------------------------------


@cache
def exports(*, dynamo: bool, dynamic: bool = True, external: bool = False) -> dict[str, bytes]:
    """What `torch.onnx.export` writes: ``model.onnx`` and, where external, its data."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = ({0: Dim.DYNAMIC},) if dynamic else None
            options = {"dynamic_shapes": shapes, "external_data": external, "verbose": False}
        else:
            options = {"input_names": ["image"], "dynamic_axes": {"image": {0: "n"}} if dynamic else None}
        torch.onnx.export(network(), (example(),), Path(folder) / "model.onnx", dynamo=dynamo, **options)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def exported(path: Path, *, dynamo: bool, dynamic: bool = True) -> Path:
    """An ``.onnx`` of one of the exporters of PyTorch."""
    path.write_bytes(exports(dynamo=dynamo, dynamic=dynamic)["model.onnx"])
    return path


def onnx_model(*nodes: onnx.NodeProto, opset: int = 20, **parts: object) -> onnx.ModelProto:
    """A model from ``x`` (n, 4) to ``y``; `parts`: initializers, functions, inputs, opsets of other domains."""
    inputs = parts.get("inputs") or [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])]
    outputs = [] if parts.get("no_outputs") else [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])]
    graph = helper.make_graph(list(nodes), "g", inputs, outputs, list(parts.get("initializers", ())))
    graph.sparse_initializer.extend(parts.get("sparse", ()))
    domains = [helper.make_opsetid(domain, 1) for domain in parts.get("domains", ())]
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), *domains],
        functions=list(parts.get("functions", ())),
        ir_version=9,
    )


def written(model: onnx.ModelProto) -> Writer:
    """The model as it is, checked by nobody."""
    return lambda path: path.write_bytes(model.SerializeToString())


def relu() -> onnx.NodeProto:
    """``y = relu(x)``."""
    return helper.make_node("Relu", ["x"], ["y"])


def function(name: str, *operators: str, domain: str = "local") -> onnx.FunctionProto:
    """A function of the file that calls `operators`, ``domain.name`` where they are not standard."""
    nodes, value = [], "a"
    for index, operator in enumerate(operators):
        owner, _, plain = operator.rpartition(".")
        nodes.append(helper.make_node(plain, [value], [f"v{index}"], domain=owner))
        value = f"v{index}"
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(domain, 1), helper.make_opsetid("com.example", 1)]
    return helper.make_function(domain, name, ["a"], [value], nodes, imports)


def branch() -> onnx.NodeProto:
    """``If`` with an operator of nobody's in one of its branches."""
    out = helper.make_tensor_value_info("b", TensorProto.FLOAT, ["n", 4])
    magic = helper.make_graph([helper.make_node("Magic", ["x"], ["b"], domain="com.example")], "yes", [], [out])
    plain = helper.make_graph([helper.make_node("Exp", ["x"], ["b"])], "no", [], [out])
    return helper.make_node("If", ["c"], ["y"], then_branch=magic, else_branch=plain)


def calling(name: str = "f") -> onnx.NodeProto:
    """A call of a function of the file."""
    return helper.make_node(name, ["x"], ["y"], domain="local")


def magic() -> onnx.NodeProto:
    """An operator of nobody's."""
    return helper.make_node("Magic", ["x"], ["y"], domain="com.example")


def add() -> onnx.NodeProto:
    """``y = x + w``."""
    return helper.make_node("Add", ["x", "w"], ["y"])


def weight(values: object = (1, 2, 3, 4), type: type = np.float32) -> onnx.TensorProto:
    """The initializer ``w``."""
    return numpy_helper.from_array(np.array(values, dtype=type), "w")


def _wrong_weight() -> onnx.TensorProto:
    tensor = weight()
    tensor.dims[0] = 4000
    return tensor


def _no_shape() -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("x", TensorProto.FLOAT, None)


def _sequence() -> onnx.ValueInfoProto:
    return helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)


def _sparse() -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(weight([1.0]), weight([2], np.int64), [4])


def external(path: Path) -> None:
    """An ``.onnx`` without the file that its weights are in."""
    model = onnx.load(exported(path, dynamo=False))
    onnx.save(model, path, save_as_external_data=True, location="weights.data", size_threshold=0)


# -- folders of transformers -----------------------------------------------------------------------------------------


def transformers_files() -> dict[str, bytes]:
    """A small BERT as `save_pretrained` writes it."""
    config = {"architectures": ["BertForSequenceClassification"], "model_type": "bert", "transformers_version": "5.0"}
    tensors = {"bert.embeddings.weight": [8, 4], "classifier.weight": [2, 4]}
    header, offset = {}, 0
    for name, shape in tensors.items():
        size = 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    weights = struct.pack("<Q", len(text)) + text + os.urandom(offset)
    return {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": weights,
        "tokenizer.json": os.urandom(2000),
    }


def zipped(content: Callable[[], dict[str, bytes]], top: str = "", compression: int = zipfile.ZIP_STORED) -> Writer:
    """Files in a zip."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in content().items():
                archive.writestr(top + name, data)

    return write


def tarred(
    content: Callable[[], dict[str, bytes]], mode: str, top: str = "", format: int = tarfile.PAX_FORMAT
) -> Writer:
    """Files in a tar, `mode` ``w`` or ``w:gz``."""

    def write(path: Path) -> None:
        with tarfile.open(path, mode, format=format) as archive:
            for name, data in content().items():
                info = tarfile.TarInfo(top + name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))

    return write


def zipped_onnx(path: Path, *, whole: bool = True, compression: int = zipfile.ZIP_STORED) -> None:
    """An ``.onnx`` and its data, or without it, in a zip."""
    content = {name: data for name, data in exports(dynamo=True, external=True).items() if whole or "data" not in name}
    zipped(lambda: content, "m/", compression)(path)


def onnx_files(data: str = "weights.bin") -> dict[str, bytes]:
    """An ``.onnx`` and its data in a file called `data`."""
    with tempfile.TemporaryDirectory() as folder:
        model = onnx.load_from_string(next(iter(exports(dynamo=False).values())))
        onnx.save(model, f"{folder}/m.onnx", save_as_external_data=True, location=data, size_threshold=0)
        return {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}


def from_a_mac(content: dict[str, bytes]) -> dict[str, bytes]:
    """Files in a folder, and what macOS adds to them in an archive."""
    beside = {f"__MACOSX/top/._{name}": b"\0\5\26\7" for name in content}
    return {**{f"top/{name}": data for name, data in content.items()}, "top/.DS_Store": b"1", **beside}


def tar_header(name: str, size: int = 0, kind: bytes = b"0") -> bytes:
    """One header of a tar, also with a size that no program writes."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if size:
        block[124:136] = (b"\xff" if size < 0 else b"\x80") + size.to_bytes(11, "big", signed=size < 0)
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def tar_pax(*records: bytes) -> bytes:
    """A pax header and the empty file ``a`` that it is about."""
    data = b"".join(records)
    return tar_header("p", len(data), b"x") + data.ljust(-len(data) % 512 + len(data), b"\0") + tar_header("a")


#: Tars whose headers lie, and what is said to them.
LYING_TARS: dict[str, tuple[bytes, str]] = {
    **{
        f"{kind.decode()}{size}": (tar_header("a", size, kind), "file_damaged")
        for kind in (b"0", b"L", b"x", b"5")
        for size in (-1, -512, -(2**40))
    },
    **{f"{kind}_huge": (tar_header("a", 2**40, kind.encode()), "file_damaged") for kind in "0LKxg"},
    "negative_later": (tar_header("a") + tar_header("b", -1024), "file_damaged"),
    "long_header": (tar_header("a", 2 << 20, b"L") + bytes(2 << 20), "archive_too_large"),
    "pax_negative": (tar_pax(b"15 size=-10000\n"), "file_damaged"),
    "pax_short": (tar_pax(b"13 size=-512\n"), "file_damaged"),
    "pax_cut": (tar_pax(b"13 size=9000\n"), "file_damaged"),
    "pax_length": (tar_pax(b"99999 path=x\n"), "file_damaged"),
    "pax_up": (tar_pax(b"13 path=../b\n"), "archive_unsafe_names"),
    "pax_root": (tar_pax(b"20 path=/etc/passwd\n"), "archive_unsafe_names"),
    "pax_holes": (tar_pax(b"22 GNU.sparse.major=1\n"), "archive_unsafe_names"),
    "holes": (tar_header("a", kind=b"S"), "archive_unsafe_names"),
    "noise": (tar_header("a") + b"x" * 512, "file_damaged"),
    "no_name": (tar_header("") + tar_header("b"), "archive_unsafe_names"),
    "double_slash": (tar_header("a//b"), "archive_unsafe_names"),
    "twice": (tar_header("./a") + tar_header("a"), "archive_unsafe_names"),
    "link": (tar_header("a", kind=b"2"), "archive_unsafe_names"),
}  # fmt: skip


# -- what is no model ------------------------------------------------------------------------------------------------


def numpy_archive(path: Path) -> None:
    """An ``.npz``."""
    with path.open("wb") as file:
        np.savez(file, x=np.zeros(3))


def torchscript(path: Path) -> None:
    """What `torch.jit.save` writes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.randn(1, 2)), path)


def raw(data: bytes) -> Writer:
    """These bytes."""
    return lambda path: path.write_bytes(data)


def cut(write: Writer, share: float) -> Writer:
    """The beginning of a file."""

    def writes(path: Path) -> None:
        write(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return writes


KINDS: dict[str, Writer] = {
    "pt2": pt2,
    "pt2_deflated": rebuilt(lambda content: None, zipfile.ZIP_DEFLATED),
    "pt2_inner_graph": lambda path: save(WithoutGradients(), (torch.randn(2, 6),), path),
    "pt2_stateful": lambda path: save(Counting(), (torch.randn(2, 6),), path),
    "pt2_cut": cut(pt2, 0.7),
    "pt2_version_9": version(9, 0),
    "pt2_version_8_99": version(8, 99),
    "pt2_version_7": version(7, 3),
    "pt2_target_load": target("torch.load"),
    "pt2_target_from_file": target("torch.ops.aten.from_file.default"),
    "pt2_target_out": target("torch.ops.aten.add.out"),
    "pt2_target_torchvision": target("torch.ops.torchvision.nms.default"),
    "pt2_target_overload": target("torch.ops.aten.relu.nonsense"),
    "pt2_code": changed(MODEL, _expression),
    "pt2_pickled_weight": changed(WEIGHTS, _pickled),
    "pt2_weight_misfit": changed(WEIGHTS, _misfit),
    "pt2_no_weights": rebuilt(lambda content: content.pop("data/weights/weight_0")),
    "pt2_no_config": rebuilt(lambda content: content.pop(WEIGHTS)),
    "pt2_no_model": rebuilt(lambda content: content.pop(MODEL)),
    "pt2_pickle_beside": rebuilt(lambda content: content.update({"data/weights/model.pt": b"x"})),
    "pt2_not_json": rebuilt(lambda content: content.update({MODEL: b"[1, 2"})),
    "pt2_other_json": rebuilt(lambda content: content.update({MODEL: b"[1, 2]"})),
    "pt2_deep_json": rebuilt(lambda content: content.update({MODEL: b"[" * 200_000})),
    "pt2_bomb": rebuilt(lambda content: content.update({"data/weights/weight_0": bytes(2**25)}), zipfile.ZIP_DEFLATED),
    "pt2_outside": with_entry("../evil"),
    "pt2_link": with_entry("model/link", stat.S_IFLNK),
    "pt2_old_layout": rebuilt(_old_layout),
    "pt2_pickled_layout": rebuilt(_pickled_layout),
    "onnx_torchscript_exporter": lambda path: exported(path, dynamo=False),
    "onnx_dynamo_exporter": lambda path: exported(path, dynamo=True),
    "onnx_fixed_batch": lambda path: exported(path, dynamo=False, dynamic=False),
    "onnx_cut": cut(lambda path: exported(path, dynamo=False), 0.6),
    "onnx_external": external,
    "onnx_opset_5": written(onnx_model(relu(), opset=5)),
    "onnx_opset_99": written(onnx_model(relu(), opset=99)),
    "onnx_no_outputs": written(onnx_model(relu(), no_outputs=True)),
    "onnx_unknown_operator": written(onnx_model(magic(), domains=["com.example"])),
    "onnx_function": written(onnx_model(calling(), domains=["local"], functions=[function("f", "Relu", "Exp")])),
    "onnx_function_unknown_operator": written(
        onnx_model(
            calling(), domains=["local", "com.example"], functions=[function("f", "Relu", "com.example.Magic")]
        )
    ),
    "onnx_function_uncalled": written(
        onnx_model(
            relu(), domains=["local", "com.example"], functions=[function("f", "Relu", "com.example.Magic")]
        )
    ),
    "onnx_function_recursive": written(
        onnx_model(calling(), domains=["local"], functions=[function("f", "local.g"), function("g", "local.f")])
    ),
    "onnx_functions_explode": written(
        onnx_model(
            calling("f20"),
            domains=["local"],
            functions=[function("f0", "Relu"), *(function(f"f{i}", *[f"local.f{i - 1}"] * 2) for i in range(1, 21))],
        )
    ),
    "onnx_sparse": written(onnx_model(relu(), sparse=[_sparse()])),
    "onnx_text_weight": written(onnx_model(add(), initializers=[weight(["a"], np.object_)])),
    "onnx_complex_weight": written(onnx_model(add(), initializers=[weight([1, 2, 3, 4], np.complex64)])),
    "onnx_wrong_weight": written(onnx_model(add(), initializers=[_wrong_weight()])),
    "onnx_input_without_shape": written(onnx_model(relu(), inputs=[_no_shape()])),
    "onnx_input_sequence": written(
        onnx_model(helper.make_node("SequenceLength", ["x"], ["y"]), inputs=[_sequence()])
    ),
    "onnx_weight_as_input": written(
        onnx_model(
            add(),
            inputs=[helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4] if n == "x" else [4]) for n in "xw"],
            initializers=[weight()],
        )
    ),
    "zipped_onnx": zipped_onnx,
    "zipped_onnx_deflated": lambda path: zipped_onnx(path, compression=zipfile.ZIP_DEFLATED),
    "zipped_onnx_without_data": lambda path: zipped_onnx(path, whole=False),
    "zipped_onnx_bin": zipped(onnx_files),
    "zipped_onnx_mac": zipped(lambda: from_a_mac(onnx_files())),
    "zipped_onnx_twice": zipped(lambda: {"m/a.onnx": b"1", "m/b.onnx": b"2"}),
    "onnx_tar": tarred(onnx_files, "w", "deep/folder/"),
    "onnx_tgz": tarred(lambda: from_a_mac(onnx_files("m.data")), "w:gz"),
    "onnx_tar_without_data": tarred(lambda: {"m.onnx": onnx_files()["m.onnx"]}, "w"),
    "onnx_tar_twice": tarred(lambda: {"a.onnx": b"1", "b.onnx": b"2"}, "w"),
    "pt2_in_a_tar": tarred(lambda: entries(pt2(Path(tempfile.mkdtemp()) / "m")), "w"),
    "transformers_mac": zipped(lambda: from_a_mac(transformers_files())),
    "transformers_zip": zipped(transformers_files),
    "transformers_zip_deflated": zipped(transformers_files, "bert/", zipfile.ZIP_DEFLATED),
    "transformers_tar": tarred(transformers_files, "w", "bert/"),
    "transformers_tgz": tarred(transformers_files, "w:gz", "./", tarfile.GNU_FORMAT),
    "transformers_pickled": zipped(
        lambda: {"config.json": transformers_files()["config.json"], "pytorch_model.bin": pickle.dumps({})}
    ),
    "empty": raw(b""),
    "text": raw(b"hello, this is a model"),
    "zeros": raw(bytes(1000)),
    "noise": raw(os.urandom(1000)),
    "json": raw(b'{"a": 1}'),
    "xml": raw(b"<?xml version='1.0'?><net/>"),
    "keras_h5": raw(b"\x89HDF\r\n\x1a\n" + bytes(100)),
    "keras_zip": zipped(lambda: {"config.json": b"{}", "metadata.json": b"{}", "model.weights.h5": b"\x89HDF"}),
    "gguf": raw(b"GGUF" + bytes(100)),
    "tflite": raw(b"\x1c\0\0\0TFL3" + bytes(100)),
    "safetensors": raw(transformers_files()["model.safetensors"]),
    "parquet": raw(b"PAR1" + bytes(100)),
    "npy": raw(b"\x93NUMPY\x01\0" + bytes(100)),
    "npz": numpy_archive,
    "gzip": raw(gzip.compress(b"hello " * 100)),
    "tgz": tarred(lambda: {"x.txt": os.urandom(5000)}, "w:gz"),
    "tgz_bomb": tarred(lambda: {"x.txt": bytes(32 << 20)}, "w:gz"),
    "tgz_cut": cut(tarred(lambda: {"x.txt": os.urandom(5000)}, "w:gz"), 0.7),
    **{f"tar_{name}": raw(content + bytes(1024)) for name, (content, _) in LYING_TARS.items()},
    "tar": tarred(lambda: {"x.txt": b"hello"}, "w"),
    "zip": zipped(lambda: {"x.txt": b"hello"}),
    **{f"pickle_{n}": raw(pickle.dumps({"a": [1, "b"]}, protocol=n)) for n in range(6)},
    "torch_save": lambda path: torch.save(network().state_dict(), path),
    "torch_save_legacy": lambda path: torch.save(network().state_dict(), path, _use_new_zipfile_serialization=False),
    "torchscript": torchscript,
}  # fmt: skip

#: Kinds that the client takes already, and the server only with readers that are still to come: empty this list then.
AHEAD_OF_THE_SERVER: set[str] = set()

#: Kinds in which the service looks at more than the structure: it refuses them later than the check can.
DEEPER = {name for name in KINDS if name.startswith("transformers") and name != "transformers_pickled"}
