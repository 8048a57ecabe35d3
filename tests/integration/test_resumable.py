"""Large files through bad networks and processes that die, against a real service."""

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from modelpress import AsyncClient, Client, ConnectionFailed, IntegrityError, NotFound, Retries, nouns, resumable

from tests.support.cutting import Cutting, cutting
from tests.support.service import Service

pytestmark = pytest.mark.xdist_group("service")
CHUNK = 1 << 18
SIZE = 5 * CHUNK + 7
DYING = f"""
import os, signal, sys
from modelpress import Client, resumable
resumable.CHUNK = {CHUNK}
def progress(done, total):
    if done > total // 2:
        os.kill(os.getpid(), signal.SIGKILL)
with Client() as client:
    client.uploads.send(sys.argv[1], progress=progress)
"""


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(resumable, "CHUNK", CHUNK)
    monkeypatch.setattr(nouns, "RESUMABLE_FROM", CHUNK)
    return tmp_path / "cache" / "modelpress" / "uploads"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def network(running_service: Service) -> Iterator[Cutting]:
    with cutting(urlsplit(running_service.url).port or 80) as proxy:
        yield proxy


@pytest.fixture
def client(running_service: Service, network: Cutting) -> Iterator[Client]:
    url = f"http://127.0.0.1:{network.port}"
    with Client(url, running_service.key(), retries=Retries(base_s=0.01, cap_s=0.05)) as made:
        yield made


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_broken_connections_are_gone_on_from(client: Client, network: Cutting, file: Path, memory: Path) -> None:
    network.cuts.extend([CHUNK + 9_000, CHUNK // 2, 50_000, 2 * CHUNK])
    seen: list[tuple[int, int]] = []
    dataset = client.datasets.upload(file, progress=lambda *told: seen.append(told))
    assert (dataset.sha256, dataset.size_bytes, dataset.kind) == (digest(file), SIZE, "tensors")
    assert network.broken == 4
    assert network.sent < 2 * SIZE
    assert seen[-1] == (SIZE, SIZE)
    assert list(memory.iterdir()) == []


def test_it_gives_up_where_nothing_goes_through(client: Client, network: Cutting, file: Path, memory: Path) -> None:
    network.cuts.extend([CHUNK] + [200] * 40)
    with pytest.raises(ConnectionFailed):
        client.datasets.upload(file)
    assert len(list(memory.iterdir())) == 1
    network.cuts.clear()
    assert client.datasets.upload(file).sha256 == digest(file)


def test_a_new_process_goes_on_where_one_died(
    client: Client, running_service: Service, network: Cutting, file: Path, memory: Path
) -> None:
    environment = os.environ | {"MODELPRESS_URL": client.uploads._noun._session.url}
    environment |= {"MODELPRESS_KEY": running_service.key()}
    died = subprocess.run([sys.executable, "-c", DYING, str(file)], env=environment, timeout=60)
    assert died.returncode == -9
    sent = network.sent
    seen: list[int] = []
    dataset = client.datasets.upload(file, progress=lambda done, total: seen.append(done))
    assert dataset.sha256 == digest(file)
    assert network.sent - sent < SIZE - CHUNK
    assert seen[0] > CHUNK
    assert list(memory.iterdir()) == []


def test_a_file_that_changed_is_another_upload(client: Client, network: Cutting, file: Path) -> None:
    network.cuts.extend([CHUNK + 9_000] + [200] * 40)
    with pytest.raises(ConnectionFailed):
        client.datasets.upload(file)
    network.cuts.clear()
    file.write_bytes(os.urandom(SIZE))
    os.utime(file, ns=(1, 1))
    assert client.datasets.upload(file).sha256 == digest(file)


def test_two_at_once_make_an_upload_each(client: Client, file: Path, memory: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(client.datasets.upload, [file, file]))
    assert {one.sha256 for one in made} == {digest(file)}
    assert made[0].id != made[1].id
    assert list(memory.iterdir()) == []


def test_a_given_upload_is_gone_on_with(client: Client, file: Path, tmp_path: Path) -> None:
    state = client.uploads.send(file)
    assert (state.complete, client.uploads.get(state.id).offset) == (True, SIZE)
    dataset = client.datasets.upload(file, upload_id=state.id)
    assert dataset.sha256 == digest(file)
    assert client.datasets.create("again", upload_id=state.id, kind="tensors").sha256 == digest(file)
    (tmp_path / "other").write_bytes(b"x")
    with pytest.raises(IntegrityError, match="is of a file of"):
        client.datasets.upload(tmp_path / "other", upload_id=state.id)
    (tmp_path / "same_size").write_bytes(b"x" * SIZE)
    with pytest.raises(IntegrityError, match="changed meanwhile"):
        client.datasets.upload(tmp_path / "same_size", upload_id=state.id)


def test_an_upload_can_be_given_up(client: Client, network: Cutting, file: Path, memory: Path) -> None:
    network.cuts.extend([CHUNK + 9_000] + [200] * 40)
    with pytest.raises(ConnectionFailed):
        client.uploads.send(file)
    network.cuts.clear()
    (kept,) = memory.iterdir()
    id = kept.read_text().split('"')[3]
    client.uploads.delete(id)
    with pytest.raises(NotFound):
        client.uploads.get(id)
    assert client.uploads.send(file).complete, "what is remembered and gone is begun anew"
    assert "sha256" in client.uploads.limits().checksums


def test_where_nothing_can_be_remembered_it_works_all_the_same(
    client: Client, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blocked").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "blocked"))
    assert client.datasets.upload(file).sha256 == digest(file)


def test_the_same_without_blocking(running_service: Service, network: Cutting, file: Path) -> None:
    async def send() -> str | None:
        url = f"http://127.0.0.1:{network.port}"
        async with AsyncClient(url, running_service.key(), retries=Retries(base_s=0.01)) as client:
            made = await asyncio.gather(client.datasets.upload(file), client.models.upload(file, name="x"))
            return made[0].sha256 if made[0].sha256 == made[1].sha256 else None

    network.cuts.extend([CHUNK + 9_000, CHUNK // 2])
    assert asyncio.run(send()) == digest(file)
