"""Files that want to crash, to fill memory or to take forever: the answer is a report, soon."""

import gzip
import io
import json
import os
import random
import struct
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modelpress import CheckReport, check

from tests.support.hostile import ACCEPTED, GROUPS
from tests.support.kinds import KINDS, MODEL
from tests.support.pt2_files import entries, rebuild

pytestmark = pytest.mark.filterwarnings("ignore")
#: Small ones of every form of reading.
SPOILED = (
    "pt2", "pt2_deflated", "pt2_old_layout", "onnx_torchscript_exporter", "onnx_dynamo_exporter", "onnx_function",
    "zipped_onnx_deflated", "transformers_zip", "transformers_tar", "transformers_tgz", "safetensors", "torch_save",
)  # fmt: skip


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("kinds") / "file"
    found = {}
    for kind in SPOILED:
        path.with_suffix("").unlink(missing_ok=True)
        KINDS[kind](path)
        found[kind] = path.read_bytes()
    return found


def problem(path: Path) -> str:
    report = check(path)
    assert isinstance(report, CheckReport)
    json.dumps(report.as_dict())
    return report.problems[0].code if report.problems else "accepted"


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), kind=st.sampled_from(SPOILED))
def test_flipped_bytes(originals, tmp_path, data, kind):
    content = bytearray(originals[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (tmp_path / "m").write_bytes(content)
    problem(tmp_path / "m")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), kind=st.sampled_from(SPOILED))
def test_cut_and_joined(originals, tmp_path, data, kind):
    content = originals[kind]
    start, end = sorted((data.draw(st.integers(0, len(content))), data.draw(st.integers(0, len(content)))))
    (tmp_path / "m").write_bytes(content[:start] + content[end:] if data.draw(st.booleans()) else content[start:end])
    problem(tmp_path / "m")


@pytest.mark.parametrize("kind", SPOILED)
def test_truncated_anywhere(originals, tmp_path, kind):
    content = originals[kind]
    for cut in sorted({*range(0, min(len(content), 300), 7), *range(0, len(content) - 1, len(content) // 60 + 1)}):
        (tmp_path / "m").write_bytes(content[:cut])
        assert problem(tmp_path / "m") not in ("accepted",) or kind in ("onnx_function", "transformers_tar"), cut


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    content=st.binary(min_size=1, max_size=300),
    start=st.sampled_from([b"", b"\x08\x09", b"\x3a", b"\x1f\x8b", b"PK\x03\x04"]),
)
def test_noise(tmp_path, content, start):
    (tmp_path / "m").write_bytes(start + content)
    problem(tmp_path / "m")


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_json_with_values_swapped(originals, tmp_path, data):
    path = tmp_path / "swapped"
    path.write_bytes(originals["pt2"])
    content = entries(path)
    document = json.loads(content[MODEL])
    spots = []

    def collect(value):
        if isinstance(value, (dict, list)):
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                spots.append((value, key))
                collect(inner)

    collect(document)
    for _ in range(data.draw(st.integers(1, 3))):
        holder, key = spots[data.draw(st.integers(0, len(spots) - 1))]
        values = [None, -1, 2**63, 10**400, 0, "", "x", [], {}, True, 1.5, float("inf"), [[]], {"as_int": "9"}]
        holder[key] = data.draw(st.sampled_from(values))
    content[MODEL] = json.dumps(document).encode()
    problem(rebuild(content, path))


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def measured(path: Path) -> tuple[str, float, int]:
    """The answer, the seconds it took, the most memory that it held."""
    check(path)  # loads the tables
    tracemalloc.start()
    begin = time.perf_counter()
    answer = problem(path)
    took = time.perf_counter() - begin
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return answer, took, peak


@pytest.mark.parametrize(("size", "answer"), [(3 << 30, "archive_too_large"), (1 << 30, "accepted")])
def test_gigabytes_of_weights_are_not_read(tmp_path, size, answer):
    """A sparse file: one weight of `size` bytes in the middle of a graph."""
    path = tmp_path / "large.onnx"
    node = message(1, message(1, b"x") + message(1, b"w") + message(2, b"y") + message(4, b"Add"))
    shape = message(2, message(1, b"\x08\x04"))
    value = message(1, b"x") + message(2, message(1, b"\x08\x01" + shape))
    ends = message(11, value) + message(12, value.replace(b"x", b"y", 1))
    head = b"\x08" + varint(size // 4) + b"\x10\x01" + message(8, b"w") + varint(9 << 3 | 2) + varint(size)
    tensor = varint(5 << 3 | 2) + varint(len(head) + size) + head
    graph = varint(7 << 3 | 2) + varint(len(node) + len(tensor) + size + len(ends)) + node + tensor
    with path.open("wb") as file:
        file.write(b"\x08\x09" + message(8, b"\x10\x14") + graph)
        file.seek(size, os.SEEK_CUR)
        file.write(ends)
    found, took, peak = measured(path)
    assert found == answer
    assert took < 0.5
    assert peak < 4 << 20
    report = check(path)
    assert report.parameters == size // 4
    assert report.inputs[0].shape == (4,)


def test_deep_messages(tmp_path):
    """Graphs in attributes of nodes of graphs, and so on."""
    inner = b""
    for _ in range(3000):
        inner = message(1, message(5, message(6, inner)))
    (tmp_path / "m").write_bytes(b"\x08\x09" + message(7, inner))
    assert problem(tmp_path / "m") == "file_damaged"


def test_many_nodes(tmp_path):
    (tmp_path / "m").write_bytes(b"\x08\x09" + message(7, message(1, b"") * 1_000_000 + message(12, b"")))
    assert problem(tmp_path / "m") == "archive_too_large"


def test_many_fields(tmp_path):
    """Neither is a model refused because the check ran out of patience."""
    node = message(1, message(5, message(8, b"x") * 10_000))
    (tmp_path / "m").write_bytes(b"\x08\x09" + message(7, node * 250 + message(12, b"")))
    report = check(tmp_path / "m")
    assert report.accepted
    assert "larger than what this check reads" in report.notes[0]


def test_long_names_are_cut(tmp_path):
    node = message(1, message(4, b"A" * (20 << 20)) + message(2, b"y"))
    (tmp_path / "m").write_bytes(b"\x08\x09" + message(7, node + message(12, message(1, b"y"))))
    _, _, peak = measured(tmp_path / "m")
    assert peak < 4 << 20
    assert len(check(tmp_path / "m").operators[0].name) <= 512


def test_a_zip_bomb_in_the_model(tmp_path):
    with zipfile.ZipFile(tmp_path / "m", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.onnx", bytes(64 << 20))
    assert problem(tmp_path / "m") == "archive_too_large"


def test_an_entry_that_holds_more_than_it_says(tmp_path, originals):
    (tmp_path / "m").write_bytes(originals["pt2_deflated"])
    data = bytearray(originals["pt2_deflated"])
    at = data.rfind(b"PK\x01\x02", 0, data.rfind(b"model/" + MODEL.encode()))
    struct.pack_into("<I", data, at + 24, 100)
    (tmp_path / "m").write_bytes(data)
    assert problem(tmp_path / "m") in ("archive_too_large", "file_damaged")


def test_a_tar_bomb(tmp_path):
    with gzip.open(tmp_path / "m", "wb") as file:
        info = tarfile.TarInfo("weights.bin")
        info.size = 300 << 20
        file.write(info.tobuf())
        for _ in range(300):
            file.write(bytes(1 << 20))
    answer, _, peak = measured(tmp_path / "m")
    assert answer in ("file_damaged", "archive_too_large")
    assert peak < 16 << 20


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil"])
def test_a_tar_that_leaves_its_folder(tmp_path, name):
    with tarfile.open(tmp_path / "m", "w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    assert problem(tmp_path / "m") == "archive_unsafe_names"


def test_a_tar_with_a_link(tmp_path):
    info = tarfile.TarInfo("config.json")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "m", "w") as archive:
        archive.addfile(info)
    assert problem(tmp_path / "m") == "archive_unsafe_names"


def test_a_header_of_safetensors_without_end(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{")
    assert problem(tmp_path) == "file_damaged"
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 90_000) + b"[" * 90_000)
    assert problem(tmp_path) == "file_damaged"


def test_a_directory_of_millions_of_entries(tmp_path):
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65535, 65535, 2**31, 0, 0)
    (tmp_path / "m").write_bytes(b"PK\x03\x04" + bytes(60) + end)
    assert problem(tmp_path / "m") == "archive_too_large"


def test_random_archives(tmp_path):
    """Zip structures that point anywhere."""
    draw = random.Random(0)
    for _ in range(300):
        data = bytearray(b"PK\x03\x04" + draw.randbytes(200))
        data += b"PK\x01\x02" + draw.randbytes(42) + b"PK\x05\x06" + bytes(4)
        data += struct.pack("<HHIIH", 1, 1, 46, len(data) - 54, 0)
        (tmp_path / "m").write_bytes(data)
        problem(tmp_path / "m")


@pytest.mark.slow
def test_the_corpus_of_the_service(tmp_path):
    """The answer is always a report, soon, and never stricter than the service where that accepts."""
    for group in GROUPS.values():
        for case in group:
            if case.kind == "model" and case.group not in ("truncated", "flipped"):
                case.write(tmp_path / "m", tmp_path / "canary")
                started = time.process_time()
                report = check(tmp_path / "m")
                assert time.process_time() - started < 10, case.name
                assert report.accepted or case.codes != {ACCEPTED}, (case.name, report.problems)
    assert not (tmp_path / "canary").exists()
