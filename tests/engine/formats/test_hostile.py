"""Files that try to run code, to fill memory or to confuse: each is refused with its code, and nothing runs."""

import json
import os
import pickle
import stat
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from tests.support.pt2_files import edit_json, entries, payload, rebuild, save, torch_payload
from worker.engine import formats
from worker.engine.errors import InvalidModel, UnsafeFile, UserError
from worker.engine.formats import codes

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "model.pt2"
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)).eval()
    module(torch.randn(2, 3, 6, 6))
    return save(module, (torch.randn(2, 3, 6, 6),), path)


@pytest.fixture
def marker(tmp_path):
    """A file that hostile payloads create: it must not exist in the end."""
    path = tmp_path / "code-ran"
    yield path
    assert not path.exists(), "code of the file ran"


def refused(path, *expected):
    with pytest.raises(UserError) as error:
        formats.read(path)
    assert error.value.code in expected
    assert len(error.value.detail) > 20
    return error.value


def test_the_payload_would_create_the_marker(tmp_path):
    pickle.loads(payload(tmp_path / "ran"))
    assert (tmp_path / "ran").exists()


def test_a_pickle_in_place_of_the_sample_inputs_is_ignored(good, tmp_path, marker):
    content = entries(good)
    content["data/sample_inputs/model.pt"] = torch_payload(marker)
    assert formats.read(rebuild(content, tmp_path / "m")).parameters > 0


CODE = "__import__('os').system('touch {}')"


def every_expression(document, text):
    """Put `text` in place of each shape expression."""
    if isinstance(document, dict):
        if "expr_str" in document:
            document["expr_str"] = text
        for value in document.values():
            every_expression(value, text)
    elif isinstance(document, list):
        for value in document:
            every_expression(value, text)


@pytest.mark.parametrize(
    "text", [CODE, "Symbol('s0') if {0!r} else 1", "exec(\"open({0!r}, 'w')\")", "(lambda: " + CODE + ")()", "[" * 3000]
)
def test_code_in_shape_expressions(good, tmp_path, marker, text):
    path = edit_json(good, MODEL, lambda d: every_expression(d, text.replace("{}", str(marker))), tmp_path / "m")
    refused(path, "unsafe_format")


def test_code_in_a_single_unused_expression(good, tmp_path, marker):
    def change(document):
        values = document["graph_module"]["graph"]["tensor_values"]
        values["p_0_weight"]["strides"][0] = {"as_expr": {"expr_str": CODE.format(marker), "hint": None}}

    refused(edit_json(good, MODEL, change, tmp_path / "m"), "unsafe_format")


def test_code_in_guards_and_metadata_is_never_looked_at(good, tmp_path, marker):
    def change(document):
        document["guards_code"] = [CODE.format(marker)]
        for node in document["graph_module"]["graph"]["nodes"]:
            node["metadata"]["stack_trace"] = CODE.format(marker)
            node["metadata"]["torch_fn"] = CODE.format(marker)

    assert formats.read(edit_json(good, MODEL, change, tmp_path / "m")).parameters > 0


@pytest.mark.parametrize("config", [WEIGHTS, CONSTANTS])
@pytest.mark.parametrize("kind", ["weight_9", "tensor_9", "custom_obj_0", "opaque_obj_0"])
def test_pickled_weights_and_constants(good, tmp_path, marker, config, kind):
    content = entries(good)
    document = json.loads(content[config])
    entry = {"path_name": kind, "is_param": False, "use_pickle": True, "tensor_meta": None}
    document["config"]["0.weight"] = entry
    content[config] = json.dumps(document).encode()
    content[config.rpartition("/")[0] + "/" + kind] = torch_payload(marker)
    refused(rebuild(content, tmp_path / "m"), "unsafe_format")


@pytest.mark.parametrize("name", ["data/weights/model.pt", "data/constants/model.pt"])
def test_pickled_weights_beside_the_raw_ones(good, tmp_path, marker, name):
    refused(rebuild({**entries(good), name: torch_payload(marker)}, tmp_path / "m"), "unsafe_format")


INJECTION = "x): import os; os.system('touch {}')  #"


@pytest.mark.parametrize("where", ["input", "value", "weight", "argument"])
def test_names_never_become_code(good, tmp_path, marker, where):
    """FX turns names into Python that it runs."""
    text = entries(good)[MODEL].decode()
    evil = json.dumps(INJECTION.format(marker))[1:-1]
    old = {"input": '"name": "input"', "value": '"conv2d"', "weight": '"parameter_name": "0.weight"'}.get(
        where, '"stride"'
    )
    key, _, _ = old.rpartition(": ")
    assert old in text or where == "argument"
    content = entries(good)
    content[MODEL] = text.replace(old, f'{key}: "{evil}"' if key else f'"{evil}"').encode()
    if where == "weight":
        content[WEIGHTS] = content[WEIGHTS].replace(b'"0.weight"', f'"{evil}"'.encode())
    try:
        network = formats.read(rebuild(content, tmp_path / "m"))
        network.module(torch.randn(2, 3, 6, 6))
        formats.WRITERS["pt2"](network, tmp_path / "again.pt2")
    except UserError:
        pass


@pytest.mark.parametrize(
    "target",
    [
        "torch.load",
        "torch.ops.aten.from_file.default",
        "torch.ops.load_library",
        "torch.classes.load_library",
        "torch.ops.aten.__class__",
        "torch.ops.aten.relu.__globals__",
        "torch.hub.load",
        "_operator.attrgetter",
        "_operator.methodcaller",
        "math.__loader__.load_module",
        "builtins.eval",
        "os.system",
        "#torch.something",
    ],
)
def test_targets_outside_the_table_are_not_looked_up(good, tmp_path, target):
    def change(document):
        document["graph_module"]["graph"]["nodes"][2]["target"] = target

    error = refused(edit_json(good, MODEL, change, tmp_path / "m"), "unsupported_operator")
    assert target.split(".")[-1].split("#")[-1] in error.detail or "relu" in error.detail or "from_file" in error.detail


def test_zip_bomb(good, tmp_path):
    content = entries(good)
    content["data/weights/weight_0"] = bytes(200 << 20)
    path = rebuild(content, tmp_path / "m", zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    refused(path, codes.ARCHIVE_TOO_LARGE)


def test_an_entry_that_holds_more_than_it_says(good, tmp_path):
    content = entries(good)
    path = rebuild(content, tmp_path / "m", zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02", 0, data.rfind(b"model/" + MODEL.encode()))
    struct.pack_into("<I", data, at + 24, 100)
    path.write_bytes(data)
    refused(path, codes.ARCHIVE_TOO_LARGE, codes.FILE_DAMAGED)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "C:/evil", "a\\..\\evil", "model//x"])
def test_names_that_leave_the_folder(good, tmp_path, name):
    path = rebuild(entries(good), tmp_path / "m")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"x")
    refused(path, codes.ARCHIVE_UNSAFE_NAMES)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices(good, tmp_path, kind):
    path = rebuild(entries(good), tmp_path / "m")
    info = zipfile.ZipInfo("model/data/link")
    info.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, "/etc/passwd")
    refused(path, codes.ARCHIVE_UNSAFE_NAMES)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name(good, tmp_path):
    path = rebuild(entries(good), tmp_path / "m")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"model/{MODEL}", b"{}")
    refused(path, codes.ARCHIVE_UNSAFE_NAMES)


def test_entries_on_top_of_each_other(good, tmp_path):
    path = rebuild(entries(good), tmp_path / "m")
    data = bytearray(path.read_bytes())
    first = struct.unpack_from("<I", data, data.rfind(b"PK\x05\x06") + 16)[0]
    second = data.find(b"PK\x01\x02", first + 4)
    data[second : second + 46] = data[first : first + 46]
    path.write_bytes(data)
    refused(path, codes.ARCHIVE_UNSAFE_NAMES, codes.FILE_DAMAGED)


def test_a_directory_of_millions_of_entries(tmp_path):
    path = tmp_path / "m"
    path.write_bytes(
        b"PK\x03\x04" + bytes(60) + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65535, 65535, 2**31, 0, 0)
    )
    refused(path, codes.ARCHIVE_TOO_LARGE)


def test_deep_json(good, tmp_path):
    content = entries(good)
    content[MODEL] = b'{"schema_version": {"major": 8, "minor": 1}, "graph_module": ' + b"[" * 200_000
    refused(rebuild(content, tmp_path / "m"), codes.SCHEMA_INVALID)


def test_deeply_nested_graphs(good, tmp_path):
    def change(document):
        graph = document["graph_module"]["graph"]
        for _ in range(60):
            call = {
                "target": "torch.ops.higher_order.wrap_with_set_grad_enabled",
                "inputs": [{"name": "", "arg": {"as_graph": {"name": "g", "graph": graph}}, "kind": 1}],
                "outputs": [],
                "metadata": {},
            }
            graph = {**graph, "nodes": [call]}
        document["graph_module"]["graph"] = graph

    refused(edit_json(good, MODEL, change, tmp_path / "m"), codes.SCHEMA_INVALID, codes.GRAPH_INVALID)


def weight(change):
    return lambda document: change(document["config"]["0.weight"]["tensor_meta"])


def sizes(*values):
    return [{"as_int": value} for value in values]


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(sizes=sizes(2**40, 3, 3, 3)),
        lambda m: m.update(sizes=sizes(2**62, 2**62, 3, 3)),
        lambda m: m.update(sizes=sizes(2**40, 3, 3, 3), strides=sizes(0, 0, 0, 0)),
        lambda m: m.update(sizes=sizes(2**40, 2**40, 0, 3)),
        lambda m: m.update(sizes=sizes(-1, 3, 3, 3)),
        lambda m: m.update(strides=sizes(-27, 9, 3, 1)),
        lambda m: m.update(storage_offset={"as_int": 1}),
        lambda m: m.update(sizes=sizes(4, 3), strides=sizes(1)),
        lambda m: m.update(sizes=[{"as_expr": {"expr_str": "s0", "hint": None}}] * 4),
        lambda m: m.update(dtype=8),
    ],
)
def test_weights_that_do_not_fit(good, tmp_path, change):
    refused(edit_json(good, WEIGHTS, weight(change), tmp_path / "m"), codes.WEIGHTS_INVALID)


def test_a_weight_of_another_shape_than_the_layer_needs(good, tmp_path):
    path = edit_json(good, WEIGHTS, weight(lambda m: m.update(sizes=sizes(2, 2), strides=sizes(2, 1))), tmp_path / "m")
    try:
        network = formats.read(path)
    except UserError:
        return
    with pytest.raises(RuntimeError):
        network.module(torch.randn(2, 3, 6, 6))


@pytest.mark.parametrize("entry", [MODEL, WEIGHTS, CONSTANTS, "data/weights/weight_0"])
def test_missing_entries(good, tmp_path, entry):
    content = entries(good)
    del content[entry]
    refused(rebuild(content, tmp_path / "m"), codes.FILE_INCOMPLETE, codes.UNKNOWN_FORMAT)


@pytest.mark.parametrize(("major", "minor"), [(9, 0), (8, 99), (7, 3)])
def test_other_versions(good, tmp_path, major, minor):
    def change(document):
        document["schema_version"] = {"major": major, "minor": minor}
        document["field_of_the_future"] = 1

    error = refused(edit_json(good, MODEL, change, tmp_path / "m"), codes.SCHEMA_VERSION)
    assert f"{major}.{minor}" in error.detail


def test_the_layout_before_pytorch_2_6(tmp_path, marker):
    program = b'{"schema_version": {"major": 7, "minor": 3}, "graph_module": {}}'
    content = {"serialized_exported_program.json": program, "serialized_state_dict.pt": torch_payload(marker)}
    error = refused(rebuild(content, tmp_path / "m"), codes.SCHEMA_VERSION)
    assert "PyTorch 2.6 to 2.14" in error.detail
    assert "torch.export.save(torch.export.load(" in error.detail


def test_unknown_fields(good, tmp_path):
    path = edit_json(good, MODEL, lambda d: d["graph_module"].update(surprise=1), tmp_path / "m")
    assert "surprise" in refused(path, codes.SCHEMA_INVALID).detail


def test_values_used_before_they_exist(good, tmp_path):
    path = edit_json(good, MODEL, lambda d: d["graph_module"]["graph"]["nodes"].reverse(), tmp_path / "m")
    refused(path, codes.GRAPH_INVALID)


def test_truncated_anywhere(good, tmp_path):
    data = good.read_bytes()
    path = tmp_path / "m"
    for cut in [1, 2, 3, 4, 5, 17, 30, *range(64, len(data) - 1, len(data) // 40), len(data) - 30, len(data) - 1]:
        path.write_bytes(data[:cut])
        with pytest.raises(InvalidModel) as error:
            formats.read(path)
        assert error.value.code in (codes.FILE_DAMAGED, codes.UNKNOWN_FORMAT), cut


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_flipped_bytes_are_noticed_or_harmless(good, tmp_path, data):
    content = bytearray(good.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "flipped"
    path.write_bytes(content)
    try:
        network = formats.read(path)
    except UserError as error:
        assert error.code in codes.ALL
        return
    reference = formats.read(good)
    for name, value in reference.module.state_dict().items():
        assert torch.equal(network.module.state_dict()[name], value), name


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_json_with_values_swapped_is_refused_or_read(good, tmp_path, data):
    """Whatever the JSON says, the answer is a network or an error with a code."""
    content = entries(good)
    document = json.loads(content[MODEL])
    spots = []

    def collect(value):
        if isinstance(value, (dict, list)):
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                spots.append((value, key))
                collect(inner)

    collect(document["graph_module"])
    for _ in range(data.draw(st.integers(1, 2))):
        holder, key = spots[data.draw(st.integers(0, len(spots) - 1))]
        holder[key] = data.draw(
            st.sampled_from([None, -1, 2**63, 0, "", "x", [], {}, True, 1.5, "torch.ops.aten.add.Tensor"])
        )
    content[MODEL] = json.dumps(document).encode()
    try:
        formats.read(rebuild(content, tmp_path / "swapped"))
    except UserError as error:
        assert error.code in codes.ALL


def test_a_name_in_the_code_page_of_old_programs(good, tmp_path):
    """Windows writes names without the flag of UTF-8."""
    path = rebuild({**entries(good), "extra/gr?n.txt": b"x"}, tmp_path / "m")
    path.write_bytes(path.read_bytes().replace(b"gr?n", b"gr\x81n"))
    assert formats.read(path).parameters > 0


def test_an_archive_in_an_archive(good, tmp_path):
    """The inner one's record of zip64, close to the end, is not the outer one's."""
    with zipfile.ZipFile(tmp_path / "m", "w") as archive:
        archive.writestr("m.pt2", good.read_bytes())
    refused(tmp_path / "m", codes.UNKNOWN_FORMAT)


def test_empty_file(tmp_path):
    (tmp_path / "m.pt2").write_bytes(b"")
    refused(tmp_path / "m.pt2", codes.EMPTY_FILE)


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol(tmp_path, marker, protocol):
    from tests.support.pt2_files import Payload

    (tmp_path / "m.pt2").write_bytes(pickle.dumps(Payload(marker), protocol=protocol))
    error = refused(tmp_path / "m.pt2", "unsafe_format")
    assert "torch.export.export(" in error.detail
    assert "torch.export.save(" in error.detail


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_saves(tmp_path, zipped):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "m.onnx", _use_new_zipfile_serialization=zipped)
    refused(tmp_path / "m.onnx", "unsafe_format")


@pytest.mark.filterwarnings("ignore")
def test_torchscript(tmp_path):
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.randn(1, 2)), tmp_path / "m.pt2")
    error = refused(tmp_path / "m.pt2", "unsafe_format")
    assert "TorchScript" in error.detail


def write_numpy(path):
    np.savez(path, x=np.zeros(3))
    path.with_name(path.name + ".npz").rename(path)


def write_tar(path):
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, arcname="x")


@pytest.mark.parametrize(
    "write",
    [
        write_numpy,
        write_tar,
        lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)),
        lambda p: p.write_bytes(b"GGUF" + bytes(100)),
        lambda p: p.write_text("hello"),
        lambda p: p.write_bytes(bytes(1000)),
        lambda p: p.write_bytes(struct.pack("<Q", 20) + b'{"a":{"dtype":"F32"}}'),
        lambda p: p.write_bytes(os.urandom(1000)),
    ],
)
def test_other_files(tmp_path, write):
    write(tmp_path / "m")
    error = refused(tmp_path / "m", codes.UNKNOWN_FORMAT)
    assert "torch.export.save" in error.detail


def test_a_wrong_promise(good):
    with pytest.raises(InvalidModel) as error:
        formats.read(good, format="onnx")
    assert error.value.code == codes.FORMAT_MISMATCH


@pytest.mark.timeout(60)
def test_a_very_deep_nesting(good, tmp_path):
    content = entries(good)
    content[MODEL] = b"[" * (20 << 20)
    path = rebuild(content, tmp_path / "m")
    refused(path, codes.SCHEMA_INVALID)


def test_errors_are_of_the_tree():
    assert issubclass(UnsafeFile, UserError)
    assert issubclass(InvalidModel, UserError)
