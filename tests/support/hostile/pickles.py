"""Pickles in every place that a format has for one."""

import io
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.support.hostile import good
from tests.support.hostile.case import ACCEPTED, Group, Make, always
from tests.support.hostile.opcodes import BOMBS, OPCODES, Code, of_protocol
from tests.support.pt2_files import Payload, payload, saved, torch_payload

UNSAFE = "unsafe_format"
PICKLES = Group("pickles")
RECORDS = {"0": struct.pack("<32f", *range(32)), "1": struct.pack("<2f", 1, 2)}
#: Version of the file -> entry that is an archive of `torch.save` with the weights.
WEIGHTS = {"2.6.0": "serialized_state_dict.pt", "2.8.0": "data/weights/model.pt"}


def pt2_with(content: dict[str, bytes], version: str = "2.13.0") -> bytes:
    """A ``.pt2`` with other entries."""
    return good.zip_of({**good.entries_of(good.pt2(version), top=True), **content}, top="model/")


def in_weights(code: Code, version: str) -> Make:
    """A pickle in place of that of the weights."""
    return lambda canary: pt2_with({WEIGHTS[version]: saved(code(canary), RECORDS)}, version)


def numpy_objects(canary: Path) -> bytes:
    """A ``.npy`` of objects."""
    values = np.empty(8, object)
    values[:] = Payload(canary)
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=True)
    return buffer.getvalue()


def npz_objects(canary: Path, method: int = zipfile.ZIP_STORED) -> bytes:
    """It in an ``.npz`` beside a good column."""
    return good.zip_of({**good.entries_of(good.npz()), "objects.npy": numpy_objects(canary)}, method)


def legacy(canary: Path) -> bytes:
    """`torch.save` before PyTorch 1.6: several pickles in a row."""
    buffer = io.BytesIO()
    torch.save(Payload(canary), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def torchscript(canary: Path) -> bytes:
    """`torch.jit.save`, with a pickle of constants."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), buffer)
    return buffer.getvalue()


def folder_with(*names: str) -> Make:
    """A folder of transformers with pickles of these names beside its weights."""
    return lambda canary: good.zip_of(good.transformers_folder() | dict.fromkeys(names, torch_payload(canary)))


def only_pickled(canary: Path) -> bytes:
    """A folder of transformers whose weights are a pickle."""
    return good.zip_of(
        {"config.json": good.transformers_folder()["config.json"], "pytorch_model.bin": torch_payload(canary)}
    )


for _number in range(6):
    PICKLES.model(f"protocol-{_number}", of_protocol(_number), UNSAFE)
    PICKLES.tensors(f"protocol-{_number}", of_protocol(_number), UNSAFE, "unknown_format")
for _name, _code in OPCODES.items():
    PICKLES.model(f"{_name}-bare", _code, UNSAFE, "unknown_format")
    PICKLES.model(f"{_name}-in-pt2-2.6", in_weights(_code, "2.6.0"), UNSAFE, "weights_invalid")
    PICKLES.model(f"{_name}-in-pt2-2.8", in_weights(_code, "2.8.0"), UNSAFE, "weights_invalid")
    PICKLES.tensors(f"{_name}-bare", _code, UNSAFE, "unknown_format")
for _name, _data in BOMBS.items():
    PICKLES.model(f"{_name}-bare", always(_data), UNSAFE, "unknown_format")
    PICKLES.model(f"{_name}-in-pt2", in_weights(lambda canary, data=_data: data, "2.6.0"), UNSAFE, "weights_invalid")
PICKLES.model("torch-save", torch_payload, UNSAFE)
PICKLES.model("torch-save-legacy", legacy, UNSAFE)
PICKLES.model("torchscript", torchscript, UNSAFE)
PICKLES.model("joblib-zlib", lambda canary: zlib.compress(payload(canary)), "unknown_format")
PICKLES.model("behind-white-space", lambda canary: b"\n\n" + payload(canary), "unknown_format")
PICKLES.model("in-sample-inputs", lambda c: pt2_with({"data/sample_inputs/model.pt": torch_payload(c)}), ACCEPTED)
PICKLES.model(
    "in-old-sample-inputs", lambda c: pt2_with({"serialized_example_inputs.pt": torch_payload(c)}, "2.6.0"), ACCEPTED
)
PICKLES.model("in-constants-2.6", lambda c: pt2_with({"serialized_constants.pt": torch_payload(c)}, "2.6.0"), UNSAFE)
PICKLES.model("in-constants-2.8", lambda c: pt2_with({"data/constants/model.pt": torch_payload(c)}, "2.8.0"), UNSAFE)
PICKLES.model("beside-raw-weights", lambda c: pt2_with({"data/weights/model.pt": torch_payload(c)}), UNSAFE)
PICKLES.model("bare-in-place-of-weights", lambda c: pt2_with({WEIGHTS["2.6.0"]: payload(c)}, "2.6.0"), "file_damaged")
PICKLES.model("custom-object", lambda c: pt2_with({"data/constants/custom_obj_0": torch_payload(c)}), ACCEPTED)
PICKLES.model(
    "torchscript-entries-in-pt2",
    lambda c: pt2_with({"code/__torch__.py": b"import os", "constants.pkl": payload(c)}),
    ACCEPTED,
)
PICKLES.model("folder-only-pickled", only_pickled, UNSAFE)
PICKLES.model("folder-pickles-beside", folder_with("pytorch_model.bin", "training_args.bin", "optimizer.pt"), ACCEPTED)
PICKLES.model(
    "folder-code-beside",
    lambda c: good.zip_of(good.transformers_folder() | {"modeling_x.py": f"open({str(c)!r}, 'w')".encode()}),
    ACCEPTED,
)
PICKLES.model(
    "folder-pickle-as-safetensors",
    lambda c: good.zip_of(good.transformers_folder() | {"model.safetensors": payload(c)}),
    "file_damaged",
)
PICKLES.model(  # read from an offset at which none of its words is NaN, however long the canary's path
    "onnx-bundle-with-pickled-data",
    lambda c: good.zip_of(good.onnx_bundle(offset="2") | {"w.data": payload(c)}),
    ACCEPTED,
)
PICKLES.tensors("npz-objects", npz_objects, UNSAFE)
PICKLES.tensors("npz-objects-deflated", lambda canary: npz_objects(canary, zipfile.ZIP_DEFLATED), UNSAFE)
PICKLES.tensors("npy-objects", numpy_objects, "unknown_format", UNSAFE)
PICKLES.tensors(
    "npz-with-pickle", lambda c: good.zip_of({**good.entries_of(good.npz()), "meta.pkl": payload(c)}), UNSAFE
)
PICKLES.tensors("torch-save", torch_payload, UNSAFE)
PICKLES.tensors("npz-entry-is-a-pickle", lambda c: good.zip_of({"x.npy": payload(c)}), "file_damaged")
PICKLES.text("protocol-0", of_protocol(0), ACCEPTED, "dataset_text_invalid")
PICKLES.text("protocol-4", of_protocol(4), "dataset_text_invalid")
