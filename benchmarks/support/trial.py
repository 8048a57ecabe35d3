"""One recipe as a job of the engine, from the float file to the measured artifact; in a process of its own.

``python -m benchmarks.support.trial '{"model": ..., "steps": [...], "data": {...}, "output": ..., ...}'`` prints what
came out as JSON. It goes on from the last checkpoint in its folder, within a training too.
"""

import json
import shutil
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from app.recipes import parse_recipe
from benchmarks.support.spending import order
from worker.engine.errors import UserError
from worker.engine.pipeline import JobInput, ModelFile, run

#: The last checkpoint.
CURRENT = "current.zip"


class Teller:
    """Tells on stderr how it goes, and keeps the last checkpoint."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def progress(self, phase: str, fraction: float) -> None: ...
    def metric(self, name: str, value: Any) -> None: ...

    def log(self, message: str, level: str = "info") -> None:
        print(f"    {message}", file=sys.stderr, flush=True)

    def checkpoint(self, label: str, file: Path) -> None:
        shutil.copyfile(file, self._folder / "current.part")
        (self._folder / "current.part").rename(self._folder / CURRENT)

    def measuring(self) -> AbstractContextManager[None]:
        return nullcontext()


def main() -> None:
    told = order()
    output = Path(told["output"])
    work = output / "work"
    shutil.rmtree(work, ignore_errors=True)
    current = output / CURRENT
    job = JobInput(
        model=Path(told["model"]),
        recipe=parse_recipe({"steps": told["steps"]}),
        targets=(told["target"],),
        output=work,
        data={role: Path(path) for role, path in told["data"].items()},
        models={name: ModelFile(Path(path)) for name, path in told.get("models", {}).items()},
        task=told.get("task"),
        threads=told["threads"],
        resume=current if current.exists() else None,
    )
    try:
        result = run(job, Teller(output))
    except UserError as error:
        print(json.dumps({"error": f"refused: {error.detail}"[:500]}))
        return
    (made,) = result.artifacts
    artifact = output / f"artifact{made.path.suffix}"
    made.path.rename(artifact)
    shutil.rmtree(work)
    print(json.dumps({"metrics": result.metrics}))


if __name__ == "__main__":
    main()
