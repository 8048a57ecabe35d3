"""What a page may take as given (``<!-- given: NAME -->``): files in its folder, names in its Python and its shell.

Each is made once for all pages, from real data, by the code of the demo.
"""

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import modelpress
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from benchmarks.digits import train

#: Folder with what was made, folder of the page, its environment -> by language, what defines the names.
Given = Callable[[Path, Path, Mapping[str, str]], dict[str, str]]

NAMES = """
import numpy as np, torch
model = torch.load({model!r}, weights_only=False)
images, labels, test_images, test_labels = np.load({arrays!r}).values()
"""

REGISTRY = """
import os
os.environ.update(MLFLOW_TRACKING_URI={store!r}, MLFLOW_DISABLE_TELEMETRY="true")
import mlflow
mlflow.MlflowClient().create_registered_model("digits")
mlflow.MlflowClient().create_model_version("digits", source={source!r})
"""


def digits(made: Path, folder: Path, env: Mapping[str, str]) -> dict[str, str]:
    """A trained CNN as `model`; `images`, `labels`, `test_images`, `test_labels`; model.pt2, calibration.npz,
    evaluation.npz and training.npz."""
    made = made / "digits"
    if not made.exists():
        made.mkdir()
        _make_digits(made)
    for file in ("model.pt2", "calibration.npz", "evaluation.npz", "training.npz"):
        shutil.copy(made / file, folder / file)
    return {"python": NAMES.format(model=str(made / "model.torch"), arrays=str(made / "arrays.npz"))}


def artifact(made: Path, folder: Path, env: Mapping[str, str]) -> dict[str, str]:
    """The digits' network compressed in the service: ids as `$ARTIFACT`, `$JOB` and `$MODEL`; and what is given with
    `digits`."""
    names = digits(made, folder, env)
    report = made / "compressed.json"
    if not report.exists():
        files = ["model.pt2", "--calibration", "calibration.npz", "--evaluation", "evaluation.npz"]
        recipe = ["--method", "quantize.static", "--target", "onnxruntime", "-o", str(made / "out"), "--json"]
        command = ["modelpress", "compress", *files, *recipe]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        report.write_text(done.stdout)
    job = json.loads(report.read_text())["job"]
    ids = {"ARTIFACT": job["artifacts"][0]["id"], "JOB": job["id"], "MODEL": job["model_id"]}
    return {**names, "sh": "".join(f"export {name}={value}\n" for name, value in ids.items())}


def registry(made: Path, folder: Path, env: Mapping[str, str]) -> dict[str, str]:
    """What is given with `digits`, its model.pt2 being version 1 of `digits` in a registry of MLflow."""
    names = digits(made, folder, env)
    (folder / "version").mkdir()
    shutil.copy(folder / "model.pt2", folder / "version")
    return {
        "python": names["python"]
        + REGISTRY.format(store=f"sqlite:///{folder}/mlflow.db", source=str(folder / "version"))
    }


def _make_digits(folder: Path) -> None:
    pixels, classes = load_digits(return_X_y=True)
    pixels = (pixels.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    images, test_images, labels, test_labels = train_test_split(
        pixels, classes.astype(np.int64), test_size=0.4, random_state=0, stratify=classes
    )
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 10)),
    )
    train(model, torch.from_numpy(images), torch.from_numpy(labels))
    torch.save(model, folder / "model.torch")
    modelpress.export(model, torch.from_numpy(images[:2]), folder / "model.pt2")
    np.savez(folder / "arrays.npz", images, labels, test_images, test_labels)
    np.savez(folder / "calibration.npz", input=images[:256])
    np.savez(folder / "evaluation.npz", input=test_images, label=test_labels)
    np.savez(folder / "training.npz", input=images, label=labels)


GIVEN: dict[str, Given] = {"digits": digits, "artifact": artifact, "registry": registry}
