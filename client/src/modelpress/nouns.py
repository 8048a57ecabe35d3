"""Models, datasets, artifacts and the catalog, written once as coroutines; `blocking.py` lists them without `await`."""

import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import urlencode

from modelpress.catalog_views import Method, Preset, Target
from modelpress.decode import View
from modelpress.downloads import download
from modelpress.errors import IntegrityError, ProtocolError
from modelpress.live import Live
from modelpress.multipart import MultipartFile, Progress
from modelpress.polling import poll
from modelpress.requests import Call, segment
from modelpress.resumable import AsyncUploads, UploadState
from modelpress.session import Session
from modelpress.views import Artifact, Dataset, Model, Package, Page, Upload

V = TypeVar("V", bound=View)
U = TypeVar("U", bound=Upload)

TEXT_SUFFIXES = (".jsonl", ".txt")
#: Below, one request does; a broken one is sent again from the start.
RESUMABLE_FROM = 32 << 20


async def paged(session: Session, path: str, parse: Callable[[Any], V], params: Mapping[str, Any]) -> Page[V]:
    """A part of the list at `path`."""
    data = await session.json(Call("GET", path, params=params))
    if not isinstance(data, dict) or not isinstance(data.get("items"), list):
        raise ProtocolError(f"{path}: expected a list with items")
    return Page(tuple(parse(item) for item in data["items"]), data.get("next_cursor"))


async def everything(
    session: Session, path: str, parse: Callable[[Any], V], params: Mapping[str, Any]
) -> AsyncGenerator[V]:
    """All items of the list at `path`, fetched part by part as they are asked for."""
    cursor = None
    while True:
        page = await paged(session, path, parse, {**params, "cursor": cursor})
        for item in page.items:
            yield item
        cursor = page.next_cursor
        if cursor is None:
            return


class Noun(Generic[V]):
    """`path` is its place under `/v1`, `view` what its items are."""

    path: ClassVar[str]
    view: ClassVar[type[View]]

    def __init__(self, session: Session) -> None:
        self._session = session

    def _parse(self, data: Any) -> V:
        item: V = self.view.parse(data)  # type: ignore[assignment]  # a ClassVar cannot speak of V
        if isinstance(item, Live):
            item._bind(self)
        return item

    async def _get(self, id: str) -> V:
        return self._parse(await self._session.json(Call("GET", f"{self.path}/{segment(id)}")))

    async def _delete(self, id: str) -> None:
        await self._session.respond(Call("DELETE", f"{self.path}/{segment(id)}"))


class Collection(Noun[V]):
    """A noun that can be listed."""

    async def page(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        state: str | None = None,
        name: str | None = None,
        tag: str | None = None,
    ) -> Page[V]:
        """A part of the list, newest first, with the filters that the noun has."""
        params = {"limit": limit, "cursor": cursor, "state": state, "name": name, "tag": tag}
        return await paged(self._session, self.path, self._parse, params)

    async def list(
        self, *, state: str | None = None, name: str | None = None, tag: str | None = None
    ) -> AsyncGenerator[V]:
        """All items, newest first, fetched page by page as they are asked for."""
        params = {"state": state, "name": name, "tag": tag}
        async for item in everything(self._session, self.path, self._parse, params):
            yield item


class Owned(Collection[V]):
    """A noun whose items can be looked at and deleted."""

    async def get(self, id: str) -> V:
        """One item; `NotFound` where this workspace has none such."""
        return await self._get(id)

    async def delete(self, id: str) -> None:
        """Deletes it; `Conflict` while something uses it."""
        await self._delete(id)


class Uploads(Owned[U]):
    """Models and datasets."""

    async def _upload(
        self, path: Path | str, fields: Mapping[str, Any], upload_id: str | None, progress: Progress | None
    ) -> U:
        file = Path(path)
        if upload_id is None and _is_small(file):
            told = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
            body = MultipartFile(file, told, progress)
            return self._parse(await self._session.json(Call("POST", self.path, upload=body)))

        async def create(state: UploadState) -> U:
            return await self._create({**fields, "upload_id": state.id})

        item = await AsyncUploads(self._session)._use(file, create, upload_id=upload_id, progress=progress)
        found = await self._session.wire.offload(_sha256, file)
        if item.sha256 not in (None, found):
            differ = f"{item.id} has SHA-256 {item.sha256}, {file.name} {found}"
            raise IntegrityError(f"{differ}: the file was changed meanwhile; delete the one, upload the other")
        return item

    async def _create(self, fields: Mapping[str, Any]) -> U:
        return self._parse(await self._session.json(Call("POST", self.path, json=fields)))

    async def wait(self, id: str, *, timeout_s: float | None = None) -> U:
        """Waits until a worker has checked the upload, and answers it: ready or rejected.

        Raises:
            WaitTimeout: it is still being checked after `timeout_s` seconds.
        """
        return await poll(self._session, lambda: self.get(id), lambda item: item.checked, timeout_s)

    async def download(self, id: str, target: Path | str, *, progress: Progress | None = None) -> Path:
        """Writes the uploaded file to `target`: a file, or a folder that gets it under its own name."""
        item = await self.get(id)
        file = _file(Path(target), item.filename or item.name or item.id)
        path = f"{self.path}/{segment(id)}/content"
        return await download(self._session, path, file, sha256=item.sha256, progress=progress)


class AsyncModels(Uploads[Model]):
    """`/v1/models`."""

    path, view = "models", Model

    async def upload(
        self,
        path: Path | str,
        *,
        name: str | None = None,
        format: str | None = None,
        task: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        upload_id: str | None = None,
        progress: Progress | None = None,
    ) -> Model:
        """Uploads a file, streamed from disk; `progress` is called with the bytes done and in all.

        Large files are sent in chunks, and the same call goes on where a process that died has left off (see
        `uploads.send`); `upload_id` goes on with that upload.
        """
        fields = {"name": name or Path(path).name, "format": format, "task": task, "metadata": metadata}
        return await self._upload(path, present(fields), upload_id, progress)

    async def create(
        self,
        name: str,
        *,
        upload_id: str | None = None,
        source: str | None = None,
        format: str | None = None,
        task: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Model:
        """Makes a model of a complete upload, or of `s3://...` in a bucket that the service allows."""
        fields = {"name": name, "upload_id": upload_id, "source": source, "format": format, "task": task}
        return await self._create(present({**fields, "metadata": metadata}))


class AsyncDatasets(Uploads[Dataset]):
    """`/v1/datasets`."""

    path, view = "datasets", Dataset

    async def upload(
        self,
        path: Path | str,
        *,
        name: str | None = None,
        kind: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        upload_id: str | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        """Uploads a file, as models are. `kind`: tensors or text; told from the file's suffix where absent."""
        fields = {"name": name or Path(path).name, "kind": kind or _kind(Path(path).name), "metadata": metadata}
        return await self._upload(path, present(fields), upload_id, progress)

    async def create(
        self,
        name: str,
        *,
        upload_id: str | None = None,
        source: str | None = None,
        kind: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Dataset:
        """Makes a dataset of a complete upload, or of `s3://...`; its kind is told from the suffix of those names."""
        told = kind or _kind(source or name)
        fields = {"name": name, "upload_id": upload_id, "source": source, "kind": told, "metadata": metadata}
        return await self._create(present(fields))


class AsyncLiveArtifact(Artifact, Live["AsyncArtifacts"]):
    """An artifact of an `AsyncClient`."""

    async def download(self, target: Path | str, *, progress: Progress | None = None) -> Path:
        """Writes it to `target`: a file, or a folder that gets it under its own file name."""
        return await self._noun.download(self.id, target, progress=progress)

    async def get_manifest(self) -> Mapping[str, Any]:
        """Where it came from: recipe, seeds, digests, library versions, hardware."""
        return await self._noun.manifest(self.id)

    async def signature(self) -> Mapping[str, Any]:
        """Its Sigstore bundle."""
        return await self._noun.signature(self.id)

    async def bom(self) -> Mapping[str, Any]:
        """Its bill of materials."""
        return await self._noun.bom(self.id)


class AsyncArtifacts(Noun[AsyncLiveArtifact]):
    """`/v1/artifacts`: listed by their jobs."""

    path, view = "artifacts", AsyncLiveArtifact

    async def get(self, id: str) -> AsyncLiveArtifact:
        """One artifact; `NotFound` where this workspace has none such."""
        return await self._get(id)

    async def manifest(self, id: str) -> Mapping[str, Any]:
        """Where it came from: recipe, seeds, digests, library versions, hardware."""
        return await self._document(id, "manifest")

    async def signature(self, id: str) -> Mapping[str, Any]:
        """Its Sigstore bundle (OpenSSF Model Signing); `NotFound` also where the service signs nothing."""
        return await self._document(id, "signature")

    async def bom(self, id: str) -> Mapping[str, Any]:
        """Its bill of materials, CycloneDX with a model card."""
        return await self._document(id, "bom")

    async def signing_key(self) -> str:
        """PEM of the public key that verifies the signatures; `NotFound` where the service signs nothing."""
        return await self._session.text(Call("GET", "signing-key", headers={"Accept": "*/*"}))

    async def download(self, id: str, target: Path | str, *, progress: Progress | None = None) -> Path:
        """Writes it to `target`: a file, or a folder that gets it under its own file name.

        A broken connection is resumed, the SHA-256 verified, and the file appears whole or not at all.
        """
        artifact = await self.get(id)
        file = _file(Path(target), artifact.filename or artifact.id)
        path = f"artifacts/{segment(id)}/content"
        return await download(self._session, path, file, sha256=artifact.sha256, progress=progress)

    async def packages(self, id: str) -> tuple[Package, ...]:
        """The layouts of inference servers, and why it does not fit one."""
        data = await self._session.json(Call("GET", f"artifacts/{segment(id)}/packages"))
        if not isinstance(data, dict) or not isinstance(data.get("items"), list):
            raise ProtocolError("packages: expected a list with items")
        return tuple(Package.parse(item) for item in data["items"])

    async def package(
        self, id: str, layout: str, target: Path | str, *, name: str | None = None, version: int = 1
    ) -> Path:
        """Writes the zip that a server of that layout (triton, kserve) reads to `target`: a file, or a folder.

        `name` and `version` are what the server's clients ask for. `InvalidRequest` where no server reads its format.
        """
        file = _file(Path(target), f"{name or segment(id)}.{segment(layout)}.zip")
        query = urlencode(present({"name": name, "version": version}))
        return await download(self._session, f"artifacts/{segment(id)}/packages/{segment(layout)}?{query}", file)

    async def _document(self, id: str, kind: str) -> Mapping[str, Any]:
        data: Mapping[str, Any] = await self._session.json(Call("GET", f"artifacts/{segment(id)}/{kind}"))
        return data


class AsyncMethods(Collection[Method]):
    """`/v1/methods`: each with the JSON Schema of its parameters, the data it needs, the targets it can go to."""

    path, view = "methods", Method


class AsyncTargets(Collection[Target]):
    """`/v1/targets`."""

    path, view = "targets", Target


class AsyncPresets(Collection[Preset]):
    """`/v1/presets`."""

    path, view = "presets", Preset


def _file(target: Path, name: str) -> Path:
    """`target`, or the file of that name in it; a name from elsewhere never leads out of the folder."""
    safe = Path(name.replace("\\", "/")).name
    return target / (safe or "download") if target.is_dir() else target


def _kind(name: str) -> str:
    return "text" if Path(name).suffix.lower() in TEXT_SUFFIXES else "tensors"


def _is_small(file: Path) -> bool:
    return file.stat().st_size < RESUMABLE_FROM


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a value; the service's defaults hold for the others."""
    return {name: value for name, value in fields.items() if value is not None}
