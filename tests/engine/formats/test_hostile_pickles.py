"""Pickled weights that try to run code, to fill memory or to confuse: refused with a code, and nothing runs."""

import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.pt2_files import (
    Payload,
    Rebuilt,
    Stored,
    entries,
    payload,
    pickled,
    rebuild,
    saved,
    tensor,
    torch_payload,
)
from worker.engine import formats
from worker.engine.errors import UserError
from worker.engine.formats import codes, pickle_machine

FILES = Path(__file__).parent / "pt2_files"
OLD, NEWER = FILES / "2.6.0" / "sliced.pt2", FILES / "2.8.0" / "sliced.pt2"
WEIGHTS = {OLD: "serialized_state_dict.pt", NEWER: "data/weights/model.pt"}
CONSTANTS = {OLD: "serialized_constants.pt", NEWER: "data/constants/model.pt"}
RECORDS = {"0": struct.pack("<32f", *range(32)), "1": struct.pack("<2f", 1, 2)}


@pytest.fixture
def marker(tmp_path):
    """A file that hostile payloads create: it must not exist in the end."""
    path = tmp_path / "code-ran"
    yield path
    assert not path.exists(), "code of the file ran"


@pytest.fixture
def read(tmp_path):
    """Reads a file in which `entry` is replaced by `content`."""

    def read_with(content, file=OLD, entry=None):
        return formats.read(rebuild({**entries(file), entry or WEIGHTS[file]: content}, tmp_path / "m"))

    return read_with


@pytest.fixture
def refused(read):
    def refused_with(content, *expected, **where):
        with pytest.raises(UserError) as error:
            read(content, **where)
        assert error.value.code in expected, error.value
        assert len(error.value.detail) > 20
        return error.value

    return refused_with


def weights(**changes):
    """A good state dict with the weight's description changed."""
    return {"layer.weight": tensor("0", 2, 16, **changes), "layer.bias": tensor("1", 2)}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_torch_save_writes_in_every_protocol(read, protocol):
    network = read(saved(pickled(weights(), protocol), RECORDS))
    assert torch.equal(network.module.layer.weight, torch.arange(32.0).reshape(2, 16))
    assert torch.equal(network.module.layer.bias, torch.tensor([1.0, 2.0]))


def test_parameters_buffers_and_types_with_attributes(read):
    """Attributes of tensors and of the dictionary are left out; strides and offsets are kept."""
    parameter = Rebuilt(
        tensor("0", 2, 16, stride=(1, 2)),
        True,
        OrderedDict(),
        {"tag": "x"},
        function=torch._utils._rebuild_parameter_with_state,
    )
    stored = Stored("2", 2, torch.storage.UntypedStorage)
    new = (stored, 0, (2,), (1,), False, OrderedDict(), torch.float8_e4m3fn)
    buffer = Rebuilt(
        torch._utils._rebuild_tensor_v3,
        torch.Tensor,
        new,
        {"persistent": True},
        function=torch._tensor._rebuild_from_type_v2,
    )
    bias = tensor("3", 2, count=3, offset=1)
    state = OrderedDict({"layer.weight": parameter, "layer.bias": bias, "other": buffer})
    state._metadata = {"": {"version": 1}}
    network = read(saved(pickled(state), {**RECORDS, "2": b"\x38\x40", "3": struct.pack("<3f", 0, 5, 6)}))
    assert torch.equal(network.module.layer.weight, torch.arange(32.0).reshape(16, 2).T)
    assert torch.equal(network.module.layer.bias, torch.tensor([5.0, 6.0]))


def test_two_names_of_one_record_are_one_memory(read):
    state = weights() | {"layer.bias": tensor("0", 2, count=32, offset=30)}
    module = read(saved(pickled(state), RECORDS)).module
    assert torch.equal(module.layer.bias, torch.tensor([30.0, 31.0]))
    assert module.layer.bias.untyped_storage().data_ptr() == module.layer.weight.untyped_storage().data_ptr()


@pytest.mark.parametrize("file", [OLD, NEWER], ids=["old", "newer"])
@pytest.mark.parametrize("entries_of", [WEIGHTS, CONSTANTS], ids=["weights", "constants"])
def test_code_in_pickles(refused, marker, file, entries_of):
    for content in (torch_payload(marker), saved(pickled(weights() | {"x": Payload(marker)}, 4), RECORDS)):
        error = refused(content, "unsafe_format", file=file, entry=entries_of[file])
        assert "system" in error.detail
        assert "export" in error.detail


@pytest.mark.parametrize("content", [payload, lambda marker: b"", lambda marker: b"nothing"])
def test_what_is_no_archive(refused, marker, content):
    refused(content(marker), codes.FILE_DAMAGED, codes.FILE_INCOMPLETE)


def test_code_in_sample_inputs_is_never_looked_at(read, marker):
    assert read(torch_payload(marker), entry="serialized_example_inputs.pt").parameters == 34


def test_pickled_weights_beside_raw_ones(tmp_path, marker):
    content = entries(FILES / "2.13.0" / "sliced.pt2")
    for folder in ("weights", "constants"):
        path = rebuild({**content, f"data/{folder}/model.pt": torch_payload(marker)}, tmp_path / "m")
        with pytest.raises(UserError, match="unsafe_format"):
            formats.read(path)


class Odd:
    """With a state of its own."""

    x = 1


@pytest.mark.parametrize(
    "value",
    [
        os.system,
        eval,
        torch.load,
        torch.nn.Linear,
        torch.nn.Parameter,
        torch.Size([2]),
        torch.device("cpu"),
        torch._utils._rebuild_sparse_tensor,
        torch._utils._rebuild_qtensor,
        OrderedDict.fromkeys,
        Odd(),
        Rebuilt("os.system", function=getattr),
        Rebuilt("x", function=pickle.loads),
        1.5,
        [1],
        {1, 2},
        b"bytes",
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, '__name__', '')}",  # no address: workers compare names
)
def test_anything_but_tensors(refused, value):
    state = weights() | {"x": Rebuilt(tensor("1", 2), False, value, function=torch._utils._rebuild_parameter)}
    refused(saved(pickled(state), RECORDS), "unsafe_format")


@pytest.mark.parametrize("value", [None, 1, "text", (), {}, torch.FloatStorage])
def test_entries_that_are_no_tensors(refused, value):
    refused(saved(pickled(weights() | {"x": value}), RECORDS), "unsafe_format")


def test_calls_of_what_is_only_a_name(refused):
    for function in (torch.FloatStorage, torch.Tensor):
        refused(saved(pickled({"x": Rebuilt(4, function=function)}), RECORDS), "unsafe_format")


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize(
    ("function", "kind"), [(torch._utils._rebuild_tensor_v2, Subclass), (os.system, torch.Tensor), ("x", torch.Tensor)]
)
def test_subclasses_and_other_functions_of_tensors(refused, function, kind):
    value = Rebuilt(function, kind, ("true",), {}, function=torch._tensor._rebuild_from_type_v2)
    refused(saved(pickled(weights() | {"x": value}), RECORDS), "unsafe_format")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02}(K\x01K\x02u.",  # a number for a key
        b"\x80\x02}(X\x01\x00\x00\x00xu.",  # a key without its value
        b"\x80\x02(.",  # nothing above the mark
        b"\x80\x02}q\x00h\x07.",
        b"\x80\x02u.",
        b"\x80\x02NK\x01K\x02s.",
        b"\x80\x02X\xff\xff\xff\xffx.",
        b"\x80\x02X\x01\x00\x00\x00\xff.",
        b"\x80\x02\x8a\xff" + b"1" * 255 + b".",
        b"\x80\x02ctorch\nTensor",
        b"\x80\x02K\x01Q.",
        b"\x80\x02ccollections\nOrderedDict\nNR.",
        b"\x80\x02ccollections\nOrderedDict\n}\x85R.",
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n)R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n)R.",
        b"\x80\x02K\x01.",
        b"\x80\x02",
        b"(dp0\n.",
        b"",
    ],
)
def test_pickles_that_make_no_sense(refused, data):
    refused(saved(data, RECORDS), codes.WEIGHTS_INVALID)


@pytest.mark.parametrize(
    "data", [b"\x80\x02K\x01}b.", b"\x80\x02}b.", b"\x80\x02)}\x93.", b"\x80\x02}}R.", b"\x80\x02P0\n."]
)
def test_instructions_that_only_code_needs(refused, data):
    refused(saved(data, RECORDS), "unsafe_format", codes.WEIGHTS_INVALID)


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 31},
        {"count": 33},
        {"count": -1},
        {"count": 2**62},
        {"kind": torch.DoubleStorage},
        {"kind": torch.HalfStorage},
        {"kind": torch.storage.UntypedStorage},
        {"stride": (-16, 1)},
        {"stride": (16, -1)},
        {"stride": (17, 1)},
        {"stride": (16,)},
        {"stride": (2**62, 1)},
        {"stride": ("16", 1)},
        {"offset": 1},
        {"offset": -1},
        {"offset": 2**50},
        {"size": (3, 16)},
        {"size": (-2, 16)},
        {"size": (2**40, 16), "stride": (0, 1)},
        {"size": (2**40, 2**40, 0), "count": 32},
        {"size": (2, None)},
        {"size": 32},
        {"size": (1,) * 20, "stride": (1,) * 20},
    ],
    ids=str,
)
def test_tensors_that_do_not_fit(refused, changes):
    refused(saved(pickled(weights(**changes)), RECORDS), codes.WEIGHTS_INVALID)


@pytest.mark.parametrize("key", ["9", "../0", "x", "", 0, "0" * 20])
def test_records_that_are_not_there(refused, key):
    content = saved(pickled(weights() | {"layer.bias": tensor(key, 2)}), RECORDS)
    refused(content, codes.WEIGHTS_INVALID, codes.FILE_INCOMPLETE)


def test_records_that_are_too_short(refused):
    refused(saved(pickled(weights()), {**RECORDS, "0": RECORDS["0"][:-1]}), codes.WEIGHTS_INVALID)
    refused(saved(pickled(weights()), {**RECORDS, "0": RECORDS["0"][:-4]}), codes.WEIGHTS_INVALID)


def test_conjugated_views_and_other_byte_orders(refused):
    value = Rebuilt(Stored("1", 2), 0, (2,), (1,), False, OrderedDict(), {"neg": True})
    refused(saved(pickled(weights() | {"x": value}), RECORDS), codes.UNSUPPORTED_INPUT)
    refused(saved(pickled(weights()), {**RECORDS, "/byteorder": b"big"}), codes.UNSUPPORTED_INPUT)


def test_a_missing_weight(refused):
    refused(saved(pickled({"layer.bias": tensor("1", 2)}), RECORDS), codes.FILE_INCOMPLETE)


def test_an_inner_archive_that_is_cut_off(refused):
    content = saved(pickled(weights()), RECORDS)
    for cut in (1, 4, 30, len(content) // 2, len(content) - 30, len(content) - 1):
        refused(content[:cut], codes.FILE_DAMAGED)


def test_bombs(refused, tmp_path):
    zeros = {**RECORDS, "9": bytes(50 << 20)}
    refused(saved(pickled(weights()), zeros, zipfile.ZIP_DEFLATED), codes.ARCHIVE_TOO_LARGE)
    content = {**entries(OLD), WEIGHTS[OLD]: saved(pickled(weights()), RECORDS)}
    with pytest.raises(UserError, match=codes.ARCHIVE_TOO_LARGE):
        formats.read(rebuild(content, tmp_path / "m", zipfile.ZIP_DEFLATED))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "data",
    [
        bytes(pickle_machine.MAX_BYTES + 1),
        b"(" * 100_000,
        b"N" * 100_000,
        b"N" + b"\x85" * 300_000 + b"0",
        b"}q\x00" + b"X\x01\x00\x00\x00xh\x00s" * 1000 + b"\x85R.",
        b"Nr\xff\xff\xff\xff.",
        b"N" + b"\x94" * (pickle_machine.MAX_MEMO + 1),
    ],
    ids=["long", "marks", "values", "deep", "in-itself", "index", "memory"],
)
def test_pickles_that_fill_memory(refused, data):
    refused(saved(b"\x80\x02" + data, RECORDS), codes.WEIGHTS_INVALID, "unsafe_format")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_flipped_bytes_are_noticed_or_harmless(tmp_path, data):
    original = {name: content for name, content in entries(OLD).items() if "inputs" not in name}
    content = bytearray(rebuild(original, tmp_path / "good").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "flipped"
    path.write_bytes(content)
    try:
        network = formats.read(path)
    except UserError as error:
        assert error.code in codes.ALL
        return
    for name, value in formats.read(OLD).module.state_dict().items():
        assert torch.equal(network.module.state_dict()[name], value), name


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_flipped_bytes_under_good_checksums(tmp_path, data):
    """In the pickle itself, where no checksum tells."""
    content = bytearray(pickled(weights()))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        formats.read(rebuild({**entries(OLD), WEIGHTS[OLD]: saved(bytes(content), RECORDS)}, tmp_path / "flipped"))
    except UserError as error:
        assert error.code in codes.ALL
