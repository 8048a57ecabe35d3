"""Downloads: resumed, verified, whole or not at all."""

import base64
import os
from pathlib import Path

import pytest
from modelpress import Client, ConnectionFailed, IntegrityError

from tests.support.contract import Service

CONTENT = "/v1/artifacts/art_1/content"


@pytest.fixture
def content(service: Service) -> bytes:
    service.content = os.urandom(700_000)
    return service.content


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_into_a_folder_under_its_own_name(client: Client, content: bytes, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    file = client.artifacts.download("art_1", tmp_path, progress=lambda *p: seen.append(p))
    assert file == tmp_path / "model.int8.onnx"
    assert file.read_bytes() == content
    assert seen[-1] == (len(content), len(content))
    assert names(tmp_path) == ["model.int8.onnx"]


def test_a_broken_connection_is_resumed(client: Client, service: Service, content: bytes, tmp_path: Path) -> None:
    service.cut_content.extend([100_000, 50_000, 1])
    file = client.artifacts.download("art_1", tmp_path / "x.onnx")
    assert file.read_bytes() == content
    asked = [seen.headers.get("range") for seen in service.requests("GET", CONTENT)]
    assert asked[0] is None
    assert asked[1:] == ["bytes=100000-", "bytes=150000-", "bytes=150001-"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(
    client: Client, service: Service, content: bytes, tmp_path: Path
) -> None:
    service.cut_content.append(600_000)
    new = os.urandom(1000)

    def change(done: int, total: int) -> None:
        if done == 600_000:
            service.content, service.etag = new, '"two"'

    with pytest.raises(IntegrityError, match="its record"):  # the record was that of the first file
        client.artifacts.download("art_1", tmp_path / "x.onnx", progress=change)
    assert names(tmp_path) == []
    assert client.artifacts.download("art_1", tmp_path / "x.onnx").read_bytes() == new


def test_a_server_without_ranges_starts_again(client: Client, service: Service, content: bytes, tmp_path: Path) -> None:
    service.etag = ""
    service.cut_content.extend([300_000, 400_000])
    assert client.artifacts.download("art_1", tmp_path / "x.onnx").read_bytes() == content


def test_other_bytes_than_announced_leave_the_old_file(
    client: Client, service: Service, content: bytes, tmp_path: Path
) -> None:
    target = tmp_path / "x.onnx"
    target.write_bytes(b"old")
    service.digest = base64.b64encode(bytes(32)).decode()
    with pytest.raises(IntegrityError, match="Content-Digest"):
        client.artifacts.download("art_1", target)
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["x.onnx"]


def test_breaks_without_progress_end(client: Client, service: Service, content: bytes, tmp_path: Path) -> None:
    service.cut_content.extend([5000] + [0] * 20)
    with pytest.raises(ConnectionFailed, match="after 5000 of 700000 bytes"):
        client.artifacts.download("art_1", tmp_path / "x.onnx")
    assert names(tmp_path) == []


def test_breaks_with_progress_do_not(client: Client, service: Service, content: bytes, tmp_path: Path) -> None:
    service.cut_content.extend([50_000] * 12)
    assert client.artifacts.download("art_1", tmp_path / "x.onnx").read_bytes() == content


def test_no_folder_is_a_plain_error(client: Client, content: bytes, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client.artifacts.download("art_1", tmp_path / "nowhere" / "x.onnx")
