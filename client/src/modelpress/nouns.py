"""The nouns of the API but jobs, written once as coroutines; `blocking.py` lists the same without `await`."""

import json
from collections.abc import AsyncGenerator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import quote

from modelpress.decode import View
from modelpress.downloads import download
from modelpress.errors import ProtocolError
from modelpress.multipart import MultipartFile, Progress
from modelpress.polling import poll
from modelpress.requests import Call
from modelpress.session import Session
from modelpress.views import Artifact, Dataset, Key, Model, Named, Page, Upload, Workspace

V = TypeVar("V", bound=View)
U = TypeVar("U", bound=Upload)

TEXT_SUFFIXES = (".jsonl", ".txt")


def segment(text: str) -> str:
    """An id as one segment of a path: whatever the caller passes, it stays within its noun."""
    if not text.strip("."):
        raise ValueError(f"not an id: {text!r}")
    return quote(text, safe="")


class Noun(Generic[V]):
    """`path` is its place under `/v1`, `view` what its items are."""

    path: ClassVar[str]
    view: ClassVar[type[View]]

    def __init__(self, session: Session) -> None:
        self._session = session

    def _parse(self, data: Any) -> V:
        item: V = self.view.parse(data)  # type: ignore[assignment]  # a ClassVar cannot speak of V
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
        data = await self._session.json(Call("GET", self.path, params=params))
        if not isinstance(data, dict) or not isinstance(data.get("items"), list):
            raise ProtocolError(f"{self.path}: expected a list with items")
        return Page(tuple(self._parse(item) for item in data["items"]), data.get("next_cursor"))

    async def list(
        self, *, state: str | None = None, name: str | None = None, tag: str | None = None
    ) -> AsyncGenerator[V]:
        """All items, newest first, fetched page by page as they are asked for."""
        cursor = None
        while True:
            page = await self.page(cursor=cursor, state=state, name=name, tag=tag)
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return


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

    async def _upload(self, path: Path | str, fields: Mapping[str, str | None], progress: Progress | None) -> U:
        present = {name: value for name, value in fields.items() if value is not None}
        body = MultipartFile(Path(path), present, progress)
        return self._parse(await self._session.json(Call("POST", self.path, upload=body)))

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
        progress: Progress | None = None,
    ) -> Model:
        """Uploads a file, streamed from disk; `progress` is called with the bytes done and in all."""
        extra = None if metadata is None else json.dumps(metadata)
        fields = {"name": name or Path(path).name, "format": format, "task": task, "metadata": extra}
        return await self._upload(path, fields, progress)


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
        progress: Progress | None = None,
    ) -> Dataset:
        """Uploads a file, streamed from disk. `kind`: tensors or text; told from the file's suffix where absent."""
        extra = None if metadata is None else json.dumps(metadata)
        told = kind or ("text" if Path(path).suffix.lower() in TEXT_SUFFIXES else "tensors")
        return await self._upload(path, {"name": name or Path(path).name, "kind": told, "metadata": extra}, progress)


class AsyncArtifacts(Noun[Artifact]):
    """`/v1/artifacts`: listed by their jobs."""

    path, view = "artifacts", Artifact

    async def get(self, id: str) -> Artifact:
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

    async def download(self, id: str, target: Path | str, *, progress: Progress | None = None) -> Path:
        """Writes it to `target`: a file, or a folder that gets it under its own file name.

        A broken connection is resumed, the SHA-256 verified, and the file appears whole or not at all.
        """
        artifact = await self.get(id)
        file = _file(Path(target), artifact.filename or artifact.id)
        path = f"artifacts/{segment(id)}/content"
        return await download(self._session, path, file, sha256=artifact.sha256, progress=progress)

    async def _document(self, id: str, kind: str) -> Mapping[str, Any]:
        data: Mapping[str, Any] = await self._session.json(Call("GET", f"artifacts/{segment(id)}/{kind}"))
        return data


class AsyncMethods(Collection[Named]):
    """`/v1/methods`: each with the JSON Schema of its parameters, the data it needs, the targets it can go to."""

    path, view = "methods", Named


class AsyncTargets(Collection[Named]):
    """`/v1/targets`."""

    path, view = "targets", Named


class AsyncPresets(Collection[Named]):
    """`/v1/presets`."""

    path, view = "presets", Named


class AsyncWorkspaces(Collection[Workspace]):
    """`/v1/workspaces`: for operators."""

    path, view = "workspaces", Workspace

    async def create(self, name: str) -> Workspace:
        """A new workspace."""
        return self._parse(await self._session.json(Call("POST", "workspaces", json={"name": name})))


class AsyncKeys(Collection[Key]):
    """`/v1/keys`."""

    path, view = "keys", Key

    async def create(
        self, name: str, role: str = "member", *, workspace_id: str | None = None, expires_at: datetime | None = None
    ) -> Key:
        """A new key; the answer's `key` is the secret, shown this once."""
        expiry = None if expires_at is None else expires_at.isoformat()
        fields = {"name": name, "role": role, "workspace_id": workspace_id, "expires_at": expiry}
        body = {field: value for field, value in fields.items() if value is not None}
        return self._parse(await self._session.json(Call("POST", "keys", json=body)))

    async def delete(self, id: str) -> None:
        """Revokes it."""
        await self._delete(id)


def _file(target: Path, name: str) -> Path:
    """`target`, or the file of that name in it; a name from elsewhere never leads out of the folder."""
    safe = Path(name.replace("\\", "/")).name
    return target / (safe or "download") if target.is_dir() else target
