"""The streamed body of an upload."""

import asyncio
import tracemalloc
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from modelpress.multipart import MultipartFile
from python_multipart.multipart import parse_form

text = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\n"), min_size=1, max_size=20)


def parsed(body: MultipartFile, raw: bytes) -> tuple[dict[str, bytes], tuple[str, bytes]]:
    import io

    fields: dict[str, bytes] = {}
    files: list[tuple[str, bytes]] = []

    def on_file(file: object) -> None:
        file.file_object.seek(0)
        files.append((file.file_name.decode(), file.file_object.read()))

    headers = {name: value.encode() for name, value in body.headers.items()}
    parse_form(headers, io.BytesIO(raw), lambda f: fields.update({f.field_name.decode(): f.value}), on_file)
    return fields, files[0]


@given(fields=st.dictionaries(st.sampled_from(["name", "task", "metadata"]), text), content=st.binary(max_size=300))
def test_a_server_reads_what_was_sent(tmp_path_factory: object, fields: dict[str, str], content: bytes) -> None:
    path = tmp_path_factory.mktemp("upload") / "été.pt2"
    path.write_bytes(content)
    body = MultipartFile(path, fields)
    raw = b"".join(body)
    assert len(raw) == int(body.headers["Content-Length"])
    got, file = parsed(body, raw)
    assert got == {name: value.encode() for name, value in fields.items()}
    assert file == ("été.pt2", content)


def test_a_file_name_cannot_add_headers(tmp_path: Path) -> None:
    path = tmp_path / 'a"; name="evil\r\nX-Evil: 1'
    path.write_bytes(b"x")
    head = b"".join(MultipartFile(path, {})).split(b"\r\n\r\n")[0]
    assert b"X-Evil: 1" not in head.replace(b"%0D%0AX-Evil: 1", b"")
    assert b'filename="a%22; name=%22evil' in head


def test_it_can_be_sent_again_and_asynchronously(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    path.write_bytes(bytes(3_000_000))
    seen: list[tuple[int, int]] = []
    body = MultipartFile(path, {"name": "m"}, lambda done, total: seen.append((done, total)))

    async def collect() -> bytes:
        return b"".join([piece async for piece in body])

    assert b"".join(body) == b"".join(body) == asyncio.run(collect())
    assert seen[-1] == (3_000_000, 3_000_000)
    assert len(seen) > 9
    assert [done for done, _ in seen[: len(seen) // 3]] == sorted(done for done, _ in seen[: len(seen) // 3])


def test_the_file_is_never_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.pt2"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    tracemalloc.start()
    sent = sum(len(piece) for piece in MultipartFile(path, {}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sent > 200_000_000
    assert peak < 5_000_000
