"""One small good file of every format: what the hostile ones are made from, and what the checks accept."""

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper

from tests.support.hostile.case import ACCEPTED, Case, always

_FILES = Path(__file__).parents[2] / "engine/formats/pt2_files"
RNG_SEED = 20260101


def pt2(version: str = "2.13.0") -> bytes:
    """What `torch.export.save` of a version of PyTorch wrote: weights ``layer.weight`` (2, 16) and ``layer.bias``."""
    return (_FILES / version / "sliced.pt2").read_bytes()


def zip_of(content: Mapping[str, bytes], method: int = zipfile.ZIP_STORED, top: str = "") -> bytes:
    """A zip of files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(top + name), data, method)
    return buffer.getvalue()


def entries_of(data: bytes, *, top: bool = False) -> dict[str, bytes]:
    """The files of a zip, `top`: without the folder that they lie in."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        named = {info.filename: archive.read(info) for info in archive.infolist()}
    return {name.partition("/")[2] or name if top else name: content for name, content in named.items()}


def tar_of(content: Mapping[str, bytes], mode: str = "w", top: str = "") -> bytes:
    """A tar of files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(top + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def value(name: str, shape: list[int | str] | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """An input or output of a graph."""
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name: str = "w", shape: tuple[int, ...] = (4, 4)) -> onnx.TensorProto:
    """An initializer."""
    values = np.random.default_rng(RNG_SEED).standard_normal(shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def onnx_model() -> onnx.ModelProto:
    """``y = relu(x @ w + b)``, to be spoiled."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "b"], ["z"]),
        helper.make_node("Relu", ["z"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [value("x", ["n", 4])], [value("y", ["n", 4])], [weight(), weight("b", (4,))])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def onnx_file() -> bytes:
    """The same as a file."""
    return onnx_model().SerializeToString()


def external_model(**where: str) -> onnx.ModelProto:
    """The same with ``w`` in another file; `where` replaces the entries of its external data."""
    model = onnx_model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in ({"location": "w.data", "offset": "0", "length": "64"} | where).items():
        tensor.external_data.add(key=key, value=text)
    return model


def onnx_bundle(**where: str) -> dict[str, bytes]:
    """It and that file."""
    return {"m.onnx": external_model(**where).SerializeToString(), "w.data": weight().raw_data}


#: Settings of a tiny BERT.
BERT = {
    "architectures": ["BertModel"], "model_type": "bert", "transformers_version": "5.0.0", "vocab_size": 50,
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 40, "type_vocab_size": 2, "pad_token_id": 1,
}  # fmt: skip


def bert_weights() -> dict[str, np.ndarray]:
    """Its weights."""
    layer = "encoder.layer.0."
    linear = {
        **{f"{layer}attention.self.{part}": (16, 16) for part in ("query", "key", "value")},
        f"{layer}attention.output.dense": (16, 16),
        f"{layer}intermediate.dense": (24, 16),
        f"{layer}output.dense": (16, 24),
        "pooler.dense": (16, 16),
    }
    norms = ("embeddings", f"{layer}attention.output", f"{layer}output")
    words = {"word": 50, "position": 40, "token_type": 2}
    shapes = {
        **{f"embeddings.{name}_embeddings.weight": (rows, 16) for name, rows in words.items()},
        **{f"{name}.LayerNorm.{part}": (16,) for name in norms for part in ("weight", "bias")},
        **{f"{name}.weight": shape for name, shape in linear.items()},
        **{f"{name}.bias": shape[:1] for name, shape in linear.items()},
    }
    random = np.random.default_rng(RNG_SEED)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def transformers_folder(**settings: object) -> dict[str, bytes]:
    """It as `save_pretrained` writes it, with other settings."""
    weights = safetensors.numpy.save(bert_weights(), {"format": "pt"})
    return {"config.json": json.dumps(BERT | settings).encode(), "model.safetensors": weights}


def tokenizer() -> dict:
    """A ``tokenizer.json`` of whole words."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "hello": 2, "world": 3, "a": 4}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }  # fmt: skip


def columns() -> dict[str, np.ndarray]:
    """Sixteen samples of two columns."""
    values = np.random.default_rng(RNG_SEED).standard_normal((16, 6)).astype(np.float32)
    return {"input": values, "label": np.arange(16) % 3}


def npz(compressed: bool = False) -> bytes:
    """They as ``.npz``."""
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **columns())
    return buffer.getvalue()


def safetensors_file() -> bytes:
    """They as ``.safetensors``."""
    return safetensors.numpy.save(columns())


def parquet(table: pa.Table | None = None, **options: object) -> bytes:
    """A table, or they, as ``.parquet``."""
    sink = pa.BufferOutputStream()
    if table is None:
        lists = pa.FixedSizeListArray.from_arrays(pa.array(columns()["input"].reshape(-1)), 6)
        table = pa.table({"input": lists, "label": columns()["label"]})
    pq.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


def jsonl() -> bytes:
    """Sixteen texts."""
    return b"".join(json.dumps({"text": f"text number {index}"}).encode() + b"\n" for index in range(16))


#: Name -> what it is uploaded as, and the file.
FILES = {
    "pt2": ("model", pt2),
    "pt2-old": ("model", lambda: pt2("2.6.0")),
    "onnx": ("model", onnx_file),
    "onnx-zip": ("model", lambda: zip_of(onnx_bundle())),
    "onnx-tgz": ("model", lambda: tar_of(onnx_bundle(), "w:gz")),
    "transformers": ("model", lambda: zip_of(transformers_folder())),
    "npz": ("tensors", npz),
    "npz-compressed": ("tensors", lambda: npz(compressed=True)),
    "safetensors": ("tensors", safetensors_file),
    "parquet": ("tensors", parquet),
    "jsonl": ("text", jsonl),
    "tokenizer": ("tokenizer", lambda: json.dumps(tokenizer()).encode()),
}


def cases(*names: str) -> list[Case]:
    """Good files as cases, by default all of them."""
    chosen = {name: FILES[name] for name in names or FILES}
    return [Case(f"good/{n}", "good", k, always(make()), frozenset([ACCEPTED])) for n, (k, make) in chosen.items()]
