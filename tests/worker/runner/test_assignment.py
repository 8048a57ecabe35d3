"""From a lease to what the job's process finds in its folder."""

import hashlib
from pathlib import Path

import pytest

from app.config import Settings
from app.jobs.outcomes import InputFile, Lease, Offer
from app.storage.local import LocalStore
from worker.runner.assignment import prepare
from worker.runner.folder import JobFolder
from worker.runner.messages import ASSIGNMENT, Assignment
from worker.runner.sandbox import Standing
from worker.runner.slot import Slot

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def stored(store: LocalStore, data: bytes) -> str:
    async with store.stage("wsp_1") as staged:
        await staged.write(data)
        await staged.finish()
        await staged.publish()
    return hashlib.sha256(data).hexdigest()


def file(input_id: str, sha256: str, filename: str, **more: str) -> InputFile:
    return InputFile(input_id, sha256, 1, filename, **more)


async def test_models_of_steps_lie_beside_the_other_inputs(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    teacher, student, data = [await stored(store, text) for text in (b"teacher", b"student", b"data")]
    inputs = {
        "model": file("mdl_1", teacher, "big.pt2", format="pt2", task="classification"),
        "mdl_2": file("mdl_2", student, "../small.onnx", format="onnx"),
        "mdl_1": file("mdl_1", teacher, "big.pt2", format="pt2"),
        "training": file("dst_1", data, "train.npz", kind="tensors"),
    }
    lease = Lease(
        job_id="job_1", token="t", workspace_id="wsp_1", kind="compress", queue="cpu", attempt=1, max_attempts=3,
        run_timeout_s=60, recipe={"steps": []}, targets=("torch",), request={}, inputs=inputs,
    )  # fmt: skip
    settings = Settings(work_dir=tmp_path / "work", key_pepper="pepper", _env_file=None)
    slot = Slot(settings, Offer(id="w", hostname="h", queue="cpu"), Standing((), {}), 2**30, 1)
    folder = JobFolder.create(tmp_path / "work", "job_1", None)
    try:
        await prepare(lease, slot, store, folder, None)
        told = Assignment.model_validate_json((folder.path / ASSIGNMENT).read_bytes())
        assert told.model is not None and told.model.read_bytes() == b"teacher"
        assert (told.model_format, told.task, told.filename) == ("pt2", "classification", "big.pt2")
        assert {name: (one.path.read_bytes(), one.format) for name, one in told.models.items()} == {
            "mdl_2": (b"student", "onnx"),
            "mdl_1": (b"teacher", "pt2"),
        }
        assert told.models["mdl_1"].path == told.model  # the same bytes are fetched once
        assert all(one.path.parent == folder.inputs for one in told.models.values())
        assert told.training is not None and told.training.read_bytes() == b"data"
        assert told.provenance["training_dataset_id"] == "dst_1"
        assert told.provenance["inputs"]["mdl_2"]["sha256"] == student
        assert not any(name.startswith("mdl_") for name in told.provenance)
    finally:
        folder.remove()
