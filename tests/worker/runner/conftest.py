"""A job's folder and walls, programs to run in them, and a database for supervisors."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.config import Settings
from tests.support.programs_inside import Inside, run
from tests.support.stage import Stage, open_stage
from worker.runner.folder import JobFolder
from worker.runner.sandbox import Confinement, Standing


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Standing:
    folder = tmp_path_factory.mktemp("probe")
    command = [sys.executable, "-m", "worker.runner.launch", "--probe", str(folder)]
    return Standing.from_json(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.fixture
def folder(tmp_path: Path, standing: Standing) -> Iterator[JobFolder]:
    made = JobFolder.create(tmp_path, "job", standing.uid(os.getpid()))
    yield made
    made.remove()


@pytest.fixture
def confinement(folder: JobFolder, standing: Standing) -> Confinement:
    return Confinement(
        walls=standing.walls,
        read=(str(folder.path),),
        write=(str(folder.output), str(folder.tmp), str(folder.home)),
        uid=standing.uid(os.getpid()),
        keep_search=standing.keep_search,
    )


@pytest.fixture
def inside(folder: JobFolder, confinement: Confinement) -> Inside:
    def call(program: str) -> dict[str, str]:
        found = run(folder, confinement, program)
        assert isinstance(found, dict), found
        return found

    return call


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def stage(database_url: str, broker_url: str) -> AsyncIterator[Stage]:
    settings = Settings(
        _env_file=None,
        database_url=database_url,
        broker_url=broker_url,
        key_pepper=SecretStr("pepper"),
        cancel_poll_s=0.05,
    )
    async with open_stage(settings) as stage:
        yield stage
