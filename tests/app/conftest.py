"""The whole web process on a real database and queue, asked over ASGI as any client would."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from app.accounts import service as accounts
from app.accounts.schemas import NewKeyRequest, Role
from app.config import Settings
from app.main import create_app
from app.tables import Workspace
from app.web.services import Services
from tests.support.buckets import running_s3, s3_environment
from tests.support.stage import Stage, open_stage

PT2_LIKE = b"PK\x03\x04" + bytes(100)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def settings(database_url: str, broker_url: str, tmp_path: Path) -> Settings:
    return Settings(
        _env_file=None,
        database_url=database_url,
        broker_url=broker_url,
        store_url=f"file://{tmp_path}/store",
        key_pepper=SecretStr("pepper"),
        min_free_disk_bytes=0,
        database_pool_size=3,
    )


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 service on a socket of the loopback interface, with two buckets."""
    with running_s3("bucket", "other") as url:
        yield url


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same, and this process has its address and keys."""
    for name, value in s3_environment(s3_endpoint).items():
        monkeypatch.setenv(name, value)
    return s3_endpoint


@pytest.fixture
async def stage(settings: Settings) -> AsyncIterator[Stage]:
    """The same database without an application, for what workers and maintenance do."""
    async with open_stage(settings) as stage:
        yield stage


@dataclass
class Api:
    """The application, and keys to it."""

    app: FastAPI
    services: Services
    workspaces: dict[str, str]

    async def workspace(self, name: str) -> str:
        """Id of the workspace of that name, made at need."""
        if name not in self.workspaces:
            async with self.services.database.transaction() as session:
                workspace: Workspace = await accounts.create_workspace(session, name)
                self.workspaces[name] = workspace.id
        return self.workspaces[name]

    async def key(self, role: Role = "member", workspace: str = "ours", **options: Any) -> str:
        """A new key."""
        workspace_id = await self.workspace(workspace)
        async with self.services.database.transaction() as session:
            request = NewKeyRequest(name="test", role=role, **options)
            _, text = await accounts.create_key(session, self.services.settings.key_pepper, workspace_id, request)
            return text

    async def client(self, role: Role = "member", workspace: str = "ours") -> httpx2.AsyncClient:
        """A client with a key of its own."""
        return self.client_with({"Authorization": f"Bearer {await self.key(role, workspace)}"})

    def client_with(self, headers: dict[str, str]) -> httpx2.AsyncClient:
        """A client that sends these headers."""
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.app), base_url="http://testserver", headers=headers
        )

    async def upload(self, client: httpx2.AsyncClient, noun: str = "models", **fields: str) -> dict[str, Any]:
        """A new model or dataset, as the API shows it."""
        defaults = {"name": "n", "kind": "tensors"} if noun == "datasets" else {"name": "n"}
        filename = "d.npz" if noun == "datasets" else "m.pt2"
        response = await client.post(
            f"/v1/{noun}",
            data={**defaults, **fields},
            files={"file": (filename, PT2_LIKE + fields.get("name", "n").encode())},
        )
        assert response.status_code == 201, response.text
        body: dict[str, Any] = response.json()
        return body


MakeApi = Callable[..., Awaitable[Api]]


@pytest.fixture
async def make_api(settings: Settings) -> AsyncIterator[MakeApi]:
    """Makes the application with settings of one's own."""
    made: list[Api] = []

    async def make(**changes: Any) -> Api:
        app = create_app(settings.model_copy(update=changes))
        made.append(Api(app, app.state.services, {}))
        return made[-1]

    yield make
    for api in made:
        await api.services.close()


@pytest.fixture
async def api(make_api: MakeApi) -> Api:
    return await make_api()


@pytest.fixture
async def client(api: Api) -> httpx2.AsyncClient:
    """A member of the workspace ``ours``."""
    return await api.client()
