"""Code that loads an artifact in its runtime, to be copied."""

from collections.abc import Mapping, Sequence
from keyword import iskeyword
from pathlib import PurePath
from typing import Any

from app.artifacts.untrusted import mapping, sequence, text

_ONNXRUNTIME = """\
import onnxruntime

session = onnxruntime.InferenceSession({file!r}, providers=["CPUExecutionProvider"])
outputs = session.run(None, {{{feed}}})
"""
_OPENVINO = """\
import zipfile, openvino

zipfile.ZipFile({file!r}).extractall({folder!r})
model = openvino.compile_model({xml!r}, "CPU")
outputs = model({{{feed}}})
"""
_TORCH = """\
import torch

model = torch.export.load({file!r}).module()
outputs = model({tensors})
"""
_EXECUTORCH = """\
import torch
from executorch.runtime import Runtime

method = Runtime.get().load_program({file!r}).load_method("forward")
outputs = method.execute([{tensors}])
"""
_LITERT = """\
from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter(model_path={file!r})
interpreter.allocate_tensors()
for detail, array in zip(interpreter.get_input_details(), [{arrays}]):
    interpreter.set_tensor(detail["index"], array)  # one sample at a time
interpreter.invoke()
outputs = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
"""
_TENSORRT = """\
import tensorrt, zipfile

engine = zipfile.ZipFile({file!r}).read("model.engine")
runtime = tensorrt.Runtime(tensorrt.Logger())
context = runtime.deserialize_cuda_engine(engine).create_execution_context()
"""
_CODE = {
    "onnxruntime": _ONNXRUNTIME,
    "openvino": _OPENVINO,
    "torch": _TORCH,
    "executorch": _EXECUTORCH,
    "litert": _LITERT,
    "tensorrt": _TENSORRT,
}


def snippet(target: str, filename: str, facts: Mapping[str, Any] | None) -> str | None:
    """Python that runs the file; None for a target that this knows no code for.

    Args:
        facts: of the uploaded model, whose inputs the artifact keeps; None where it is gone.
    """
    code = _CODE.get(target)
    if code is None:
        return None
    inputs = [mapping(row) for row in sequence(mapping(facts).get("inputs"))] or [{"name": "input"}]
    names = [text(row.get("name")) or "input" for row in inputs]
    folder = PurePath(filename).stem
    return _shapes(inputs) + code.format(
        file=filename,
        folder=folder,
        xml=f"{folder}/model.xml",
        feed=", ".join(f"{name!r}: {_variable(name)}" for name in names),
        arrays=", ".join(map(_variable, names)),
        tensors=", ".join(f"torch.from_numpy({_variable(name)})" for name in names),
    )


def _shapes(inputs: Sequence[Mapping[str, Any]]) -> str:
    """A comment for each input that says what it is."""
    lines = []
    for row in inputs:
        shape = ", ".join(str(size) for size in sequence(row.get("shape")))
        if shape:
            lines.append(f"# {_variable(text(row.get('name')))}: numpy {text(row.get('dtype'))} [{shape}]\n")
    return "".join(lines)


def _variable(name: str) -> str:
    """A name for the array: the input's own, where Python takes it."""
    plain = "".join(letter if letter.isalnum() or letter == "_" else "_" for letter in name)
    return plain if plain.isidentifier() and not iskeyword(plain) else f"input_{plain}"
