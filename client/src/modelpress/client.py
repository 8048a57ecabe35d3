"""`Client` and `AsyncClient`: the same nouns, with and without an event loop."""

import os
from typing import Self

import httpx

from modelpress import administration, blocking, nouns
from modelpress.errors import ConfigurationError
from modelpress.jobs import AsyncJobs
from modelpress.resumable import AsyncUploads
from modelpress.retries import Retries
from modelpress.session import Session
from modelpress.wire import AsyncWire, BlockingWire, Wire, drive

DEFAULT_URL = "http://127.0.0.1:8000"


class AsyncClient:
    """A Modelpress service, for use within an event loop. Close it, or use it as `async with`."""

    def __init__(self, url: str | None = None, key: str | None = None, *, retries: Retries | None = None) -> None:
        """`url` and `key` default to MODELPRESS_URL and MODELPRESS_KEY; the URL then to a local service's.

        Raises:
            ConfigurationError: no key, or a URL that is none.
        """
        self._session = session = _session(AsyncWire(httpx.AsyncClient()), url, key, retries)
        self.uploads = AsyncUploads(session)
        self.models = nouns.AsyncModels(session)
        self.datasets = nouns.AsyncDatasets(session)
        self.jobs = AsyncJobs(session)
        self.artifacts = nouns.AsyncArtifacts(session)
        self.methods = nouns.AsyncMethods(session)
        self.targets = nouns.AsyncTargets(session)
        self.presets = nouns.AsyncPresets(session)
        self.workspaces = administration.AsyncWorkspaces(session)
        self.keys = administration.AsyncKeys(session)
        self.webhooks = administration.AsyncWebhooks(session)
        self.audit = administration.AsyncAudit(session)
        self.usage = administration.AsyncUsage(session)

    async def aclose(self) -> None:
        """Closes its connections."""
        await self._session.wire.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *details: object) -> None:
        await self.aclose()


class Client:
    """A Modelpress service. Close it, or use it as `with`."""

    def __init__(self, url: str | None = None, key: str | None = None, *, retries: Retries | None = None) -> None:
        """`url` and `key` default to MODELPRESS_URL and MODELPRESS_KEY; the URL then to a local service's.

        Raises:
            ConfigurationError: no key, or a URL that is none.
        """
        self._session = session = _session(BlockingWire(httpx.Client()), url, key, retries)
        self.uploads = blocking.Uploads(AsyncUploads(session))
        self.models = blocking.Models(nouns.AsyncModels(session))
        self.datasets = blocking.Datasets(nouns.AsyncDatasets(session))
        self.jobs = blocking.Jobs(AsyncJobs(session))
        self.artifacts = blocking.Artifacts(nouns.AsyncArtifacts(session))
        self.methods = blocking.Methods(nouns.AsyncMethods(session))
        self.targets = blocking.Targets(nouns.AsyncTargets(session))
        self.presets = blocking.Presets(nouns.AsyncPresets(session))
        self.workspaces = blocking.Workspaces(administration.AsyncWorkspaces(session))
        self.keys = blocking.Keys(administration.AsyncKeys(session))
        self.webhooks = blocking.Webhooks(administration.AsyncWebhooks(session))
        self.audit = blocking.Audit(administration.AsyncAudit(session))
        self.usage = blocking.UsageNow(administration.AsyncUsage(session))

    def close(self) -> None:
        """Closes its connections."""
        drive(self._session.wire.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def _session(wire: Wire, url: str | None, key: str | None, retries: Retries | None) -> Session:
    place = (url or os.environ.get("MODELPRESS_URL") or DEFAULT_URL).rstrip("/").removesuffix("/v1")
    secret = key or os.environ.get("MODELPRESS_KEY")
    if not secret:
        raise ConfigurationError("no key: set MODELPRESS_KEY, or pass key= (a local service writes DATA/admin.key)")
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise ConfigurationError("the key has characters that no key has; is it the content of the key file?")
    try:
        parsed = httpx.URL(place)
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"not a URL: {place!r}: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigurationError(f"not a URL of a service: {place!r}; one is like {DEFAULT_URL}")
    return Session(wire, place, secret, retries or Retries())
