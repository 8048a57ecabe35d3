"""A compression job as the assignment tells it to the engine."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from app.recipes import METHODS as PARAMETERS
from app.recipes import Step
from app.recipes.methods.distill import Distill
from tests.support.quantizable import Notebook
from worker.engine.state import Compressed, Context
from worker.runner.messages import Assignment, ModelFile
from worker.runner.work import compress


def saved(net: nn.Module, path: Path) -> Path:
    shapes = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(net.eval(), (torch.zeros(2, 6),), dynamic_shapes=shapes), path)
    return path


def taken(compressed: Compressed, step: Step, context: Context) -> Compressed:
    return replace(compressed, network=context.models[step.models[0]]())


def test_models_of_steps_reach_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARAMETERS, "distill", Distill)
    monkeypatch.setattr("worker.engine.pipeline.METHODS", {Distill: taken})
    (tmp_path / "output").mkdir()
    np.savez(tmp_path / "data.npz", input=np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32))
    student = saved(nn.Linear(6, 3), tmp_path / "student.pt2")
    assignment = Assignment(
        kind="compress",
        output=tmp_path / "output",
        model=saved(nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 3)), tmp_path / "net.pt2"),
        models={"mdl_2": ModelFile(path=student, format="pt2")},
        training=tmp_path / "data.npz",
        recipe={"steps": [{"method": "distill", "student": {"model_id": "mdl_2"}}]},
        targets=("torch",),
    )
    result = compress.do(assignment, Notebook())  # type: ignore[arg-type]  # it reports as one does
    assert result.metrics["steps"][0]["parameters"] == 21
    assert result.artifacts[0].manifest["inputs"]["mdl_2"]["size_bytes"] == student.stat().st_size
