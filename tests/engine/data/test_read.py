"""Reading datasets: round trips, and every way in which a hostile or broken file is refused."""

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

from worker.engine.data.read import detect, read
from worker.engine.data.table import DTYPES
from worker.engine.errors import InvalidDataset, UnsafeFile, UserError

COLUMNS = {"image": np.arange(24, dtype=np.float32).reshape(4, 2, 3), "label": np.array([0, 1, 2, 1])}


def write_parquet(path: Path, columns: dict[str, np.ndarray]) -> None:
    def column(array: np.ndarray) -> pa.Array:
        made = pa.array(array.reshape(-1))
        for size in reversed(array.shape[1:]):
            made = pa.FixedSizeListArray.from_arrays(made, size)
        return made

    pq.write_table(pa.table({name: column(array) for name, array in columns.items()}), path)


WRITERS = {
    "npz": lambda path, columns: np.savez(path, **columns),
    "npz-compressed": lambda path, columns: np.savez_compressed(path, **columns),
    "safetensors": lambda path, columns: save_file(columns, path),
    "parquet": write_parquet,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_round_trip(tmp_path: Path, writer: str) -> None:
    path = tmp_path / "data.npz"  # the name says nothing: the content does
    WRITERS[writer](path, COLUMNS)
    table = read(path, tmp_path)
    assert set(table) == set(COLUMNS)
    for name, expected in COLUMNS.items():
        assert table[name].dtype == expected.dtype
        np.testing.assert_array_equal(table[name], expected)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    array=st.sampled_from(DTYPES).flatmap(
        lambda name: hnp.arrays(
            name,
            hnp.array_shapes(min_dims=1, max_dims=4, max_side=4),
            elements=hnp.from_dtype(np.dtype(name), allow_nan=False, allow_infinity=False),
        )
    ),
    fortran=st.booleans(),
    compressed=st.booleans(),
)
def test_any_npz(tmp_path: Path, array: np.ndarray, fortran: bool, compressed: bool) -> None:
    path = tmp_path / "any.npz"
    path.unlink(missing_ok=True)
    (np.savez_compressed if compressed else np.savez)(path, x=np.asfortranarray(array) if fortran else array)
    np.testing.assert_array_equal(read(path, tmp_path)["x"], array)


def test_uncompressed_arrays_are_mapped_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones((1000, 10), np.float32))
    assert isinstance(read(tmp_path / "x.npz", tmp_path)["x"], np.memmap)


def refused(path: Path, code: str, *, scratch: Path | None = None) -> UserError:
    with pytest.raises(UserError) as caught:
        read(path, scratch or path.parent)
    assert caught.value.code == code, caught.value
    return caught.value


def npz(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def npy(header: str, data: bytes = b"") -> bytes:
    raw = header.encode()
    raw += b" " * (-(len(raw) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw + data


class Marker:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_pickled_objects_are_refused_and_do_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    objects = np.empty(8, object)
    objects[:] = Marker(marker)
    np.savez(tmp_path / "x.npz", x=objects)
    error = refused(tmp_path / "x.npz", "unsafe_format")
    assert isinstance(error, UnsafeFile)
    assert "np.savez" in error.detail
    assert not marker.exists()


def test_object_array_in_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=np.array([{}, []], object))
    refused(tmp_path / "x.npz", "unsafe_format")


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickle_is_refused(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(pickle.dumps({"x": [1.0]}, protocol))
    refused(path, "unsafe_format")


def test_torch_archive_is_refused(tmp_path: Path) -> None:
    refused(npz(tmp_path / "x.npz", {"x/data.pkl": b"\x80\x02."}), "unsafe_format")


def test_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    shape = (600 * 1024**2,)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as entry:
        entry.write(npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"))
        for _ in range(600):
            entry.write(bytes(1024**2))
    path = tmp_path / "x.npz"
    path.write_bytes(buffer.getvalue())
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert "unpacks to" in refused(path, "archive_too_large", scratch=scratch).detail
    assert not list(scratch.iterdir())


def test_entry_that_understates_its_size_is_cut_off(tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", {"x.npy": npy_of(np.zeros(100_000, np.float32))}, zipfile.ZIP_DEFLATED)
    raw = bytearray(path.read_bytes())
    directory = raw.rindex(b"PK\x01\x02")
    raw[directory + 24 : directory + 28] = struct.pack("<I", 256)
    path.write_bytes(raw)
    refused(path, "file_damaged")
    assert all(file.stat().st_size <= 256 for file in tmp_path.glob("column-*"))


def npy_of(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("header", "data", "code"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000,), }", b"abcd", "file_damaged"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", b"", "file_damaged"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os').getpid(),), }", b"", "file_damaged"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"12345678", "unsafe_format"),
        ("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }", b"12345678", "unsafe_format"),
        ("{'descr': '<U4', 'fortran_order': False, 'shape': (1,), }", bytes(16), "dataset_column_invalid"),
        ("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", bytes(8), "dataset_column_invalid"),
        ("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", bytes(4), "dataset_column_invalid"),
        ("{'descr': '<f3', 'fortran_order': False, 'shape': (1,), }", bytes(3), "dataset_column_invalid"),
        ("(" * 3000, b"", "file_damaged"),
        ("not a header", b"", "file_damaged"),
    ],
)
def test_hostile_npy_headers(tmp_path: Path, header: str, data: bytes, code: str) -> None:
    refused(npz(tmp_path / "x.npz", {"x.npy": npy(header, data)}), code)


@pytest.mark.parametrize(
    ("name", "code"),
    [("../../etc/x.npy", "dataset_column_invalid"), ("x\n.npy", "dataset_column_invalid"), ("x.txt", "unknown_format")],
)
def test_odd_entries_of_an_archive(tmp_path: Path, name: str, code: str) -> None:
    if code == "unknown_format":
        refused(npz(tmp_path / "x.npz", {name: b"hello"}), code)
    elif "\n" in name:
        refused(npz(tmp_path / "x.npz", {name: npy_of(np.zeros(2))}), code)
    else:  # a path is only ever a column's name: nothing is written outside the scratch folder
        path = npz(tmp_path / "x.npz", {name: npy_of(np.zeros(2))}, zipfile.ZIP_DEFLATED)
        assert set(read(path, tmp_path)) == {"../../etc/x"}
        assert sorted(file.name for file in tmp_path.iterdir()) == ["column-0.npy", "x.npz"]


def test_wrong_checksum(tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", {"x.npy": npy_of(np.ones(64, np.float32))})
    raw = bytearray(path.read_bytes())
    raw[raw.index(struct.pack("<f", 1.0) * 4)] ^= 1
    path.write_bytes(raw)
    refused(path, "file_damaged")


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated(tmp_path: Path, writer: str, share: float) -> None:
    path = tmp_path / "x.npz"
    WRITERS[writer](path, {"x": np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(path, "file_incomplete")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(sorted(WRITERS)), st.integers(0, 10_000), st.integers(1, 255))
def test_no_flipped_byte_escapes_as_another_error(tmp_path: Path, writer: str, position: int, change: int) -> None:
    path = tmp_path / "flip.npz"
    path.unlink(missing_ok=True)
    WRITERS[writer](path, COLUMNS)
    raw = bytearray(path.read_bytes())
    raw[position % len(raw)] ^= change
    path.write_bytes(raw)
    try:
        read(path, tmp_path)
    except UserError as error:
        assert error.detail


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"),
        (b"hello, world, this is not data", "unknown_format"),
        (npy_of(np.zeros(3)), "unknown_format"),
        (struct.pack("<Q", 10**12) + b'{"x": 1}', "file_damaged"),
        (struct.pack("<Q", 3000) + b'{"x": 1}', "file_incomplete"),
        (struct.pack("<Q", 8) + b'{"x": 1}', "file_damaged"),
        (struct.pack("<Q", 8) + b"{{{{{{{{", "file_damaged"),
        (b"PAR1" + bytes(20), "file_incomplete"),
        (b"PAR1" + bytes(20) + b"PAR1", "file_damaged"),
    ],
)
def test_what_is_not_a_dataset(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    refused(path, code)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]},
        {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2**63], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": "4", "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [5], "data_offsets": [0, 16]},
        {"shape": [4], "data_offsets": [0, 16]},
        [],
    ],
)
def test_hostile_safetensors_headers(tmp_path: Path, entry: object) -> None:
    header = json.dumps({"x": entry}).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    refused(tmp_path / "x", "file_damaged")


def test_bfloat16_is_named_as_unreadable(tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "BF16", "shape": [8], "data_offsets": [0, 16]}}).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    assert "BF16" in refused(tmp_path / "x", "dataset_column_invalid").detail


def test_parquet_of_lists_and_of_arrow_tensors(tmp_path: Path) -> None:
    storage = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(12, dtype=np.float32)), 6)
    tensor = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), [2, 3]), storage)
    lists = pa.array([[[1.0, 2.0]], [[3.0, 4.0]]])
    pq.write_table(pa.table({"t": tensor, "l": lists}), tmp_path / "x")
    table = read(tmp_path / "x", tmp_path)
    np.testing.assert_array_equal(table["t"], np.arange(12, dtype=np.float32).reshape(2, 2, 3))
    np.testing.assert_array_equal(table["l"], [[[1.0, 2.0]], [[3.0, 4.0]]])


def test_parquet_larger_than_one_batch(tmp_path: Path) -> None:
    values = np.arange(3000, dtype=np.int64).reshape(1500, 2)
    write_parquet(tmp_path / "x", {"x": values})
    np.testing.assert_array_equal(read(tmp_path / "x", tmp_path)["x"], values)


@pytest.mark.parametrize(
    ("column", "code"),
    [
        (pa.array([[1.0, 2.0], [3.0]]), "dataset_column_invalid"),
        (pa.array([[1.0], [2.0, 3.0, 4.0]]), "dataset_column_invalid"),
        (pa.array([1.0, None]), "dataset_not_finite"),
        (pa.array([[1.0], None]), "dataset_not_finite"),
        (pa.array(["a", "b"]), "dataset_column_invalid"),
        (pa.array([{"a": 1}, {"a": 2}]), "dataset_column_invalid"),
    ],
)
def test_parquet_columns_that_are_not_numbers(tmp_path: Path, column: pa.Array, code: str) -> None:
    pq.write_table(pa.table({"x": column}), tmp_path / "x")
    refused(tmp_path / "x", code)


def test_parquet_bomb(tmp_path: Path) -> None:
    rows = 36_000_000
    values = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array([1.0]))
    pq.write_table(pa.table({"x": values.cast(pa.float64())}), tmp_path / "x", use_dictionary=True, compression="zstd")
    refused(tmp_path / "x", "archive_too_large")


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"x": np.array([1.0, np.nan])}, "dataset_not_finite"),
        ({"x": np.array([[1.0, -np.inf]], np.float16)}, "dataset_not_finite"),
        ({"x": np.zeros((3, 2)), "y": np.zeros((2, 2))}, "dataset_lengths_differ"),
        ({"x": np.float32(1.0)}, "dataset_column_invalid"),
        ({"x": np.zeros((0, 3))}, "dataset_too_few_samples"),
        ({}, "dataset_column_invalid"),
    ],
)
def test_columns_that_cannot_be_samples(tmp_path: Path, columns: dict, code: str) -> None:
    np.savez(tmp_path / "x.npz", **columns)
    refused(tmp_path / "x.npz", code)


def test_the_sample_with_nan_is_named(tmp_path: Path) -> None:
    values = np.zeros((100_000, 40), np.float32)
    values[91_234, 7] = np.nan
    np.savez(tmp_path / "x.npz", x=values)
    assert "91234" in refused(tmp_path / "x.npz", "dataset_not_finite").detail


@pytest.mark.parametrize("writer", WRITERS)
def test_detect(tmp_path: Path, writer: str) -> None:
    WRITERS[writer](tmp_path / "x.npz", COLUMNS)
    assert detect(tmp_path / "x.npz") == writer.removesuffix("-compressed")


def test_too_many_columns(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **{f"c{i}": np.zeros(1) for i in range(300)})
    with pytest.raises(InvalidDataset, match="256"):
        read(tmp_path / "x.npz", tmp_path)
