"""Models of 2 GB with random weights, and what reading one costs (``python -m benchmarks.support.large network X``)."""

import json
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

#: Layers and their width.
LARGE, SMALL = (31, 4096), (2, 64)
_BERT: dict[str, Any] = {
    "num_attention_heads": 16,
    "vocab_size": 30522,
}
_BERT_LARGE: dict[str, Any] = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 9}
_BERT_SMALL: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}


def onnx_file(path: Path, size: tuple[int, int] = LARGE) -> Path:
    """A perceptron, its layers as PyTorch writes them (Gemm) and as others do (MatMul), in turn; and a small one."""
    if size == LARGE:
        onnx_file(path.with_name("small-" + path.name), SMALL)
    if path.exists():
        return path
    layers, width = size
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    random = np.random.default_rng(0)
    base = random.standard_normal((width, width), dtype=np.float32) * np.float32(0.02)
    nodes, weights, value = [], [], "input"
    for index in range(layers):
        weights.append(numpy_helper.from_array(base + np.float32(index * 1e-6), f"layer{index}.weight"))
        operator = ("Gemm", {"transB": 1}) if index % 2 == 0 else ("MatMul", {})
        nodes.append(helper.make_node(operator[0], [value, f"layer{index}.weight"], [f"m{index}"], **operator[1]))
        nodes.append(helper.make_node("Relu", [f"m{index}"], [f"r{index}"]))
        value = f"r{index}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]) for name in ("input", value)]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def folder(path: Path, size: dict[str, Any] = _BERT_LARGE) -> Path:
    """A zip of a BERT with few, wide layers; and a small one."""
    if size is _BERT_LARGE:
        folder(path.with_name("small-" + path.name), _BERT_SMALL)
    if path.exists():
        return path
    import torch  # noqa: PLC0415
    from transformers import BertConfig, BertModel  # noqa: PLC0415

    saved = path.with_suffix(".saved")
    torch.manual_seed(0)
    BertModel(BertConfig(**{**_BERT, **size})).save_pretrained(saved)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(saved.iterdir()):
            archive.write(file, file.name)
            file.unlink()
    saved.rmdir()
    return path


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def _measure(what: str, path: Path) -> dict[str, float]:
    """Seconds, and bytes that the process grew by at most.

    A small model is read before: PyTorch imports half of itself when it is first used, and imports do not count.
    """
    if what == "network":
        from worker.engine import formats  # noqa: PLC0415

        formats.read(path.with_name("small-" + path.name))
    Path("/proc/self/clear_refs").write_text("5")  # forget the largest size so far
    before, started = _status("VmRSS"), time.perf_counter()
    kept = formats.read(path) if what == "network" else path.read_bytes()
    seconds = time.perf_counter() - started
    grown = _status("VmHWM") - before
    del kept
    return {"seconds": seconds, "grown": float(grown)}


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], Path(sys.argv[2]))))
