"""MLflow: a version out of the registry, compressed, and registered with its metrics, tags and lineage.

    from modelpress import Client
    from modelpress.integrations.mlflow import compress

    with Client() as client:
        done = compress(client, "models:/digits/1", recipe="preset:fast", targets=["onnxruntime"],
                        calibration="calibration.npz", evaluation="evaluation.npz", limits={"max_metric_drop": 0.01})
    done.versions["onnxruntime"]  # version 1 of digits-onnxruntime

The tracking server, the registry and the experiment of the runs are those that MLflow is set to (MLFLOW_TRACKING_URI).
Needs the extra `modelpress[mlflow]`. Models are sent as files and never loaded here; pickled ones are refused.
"""

import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any, Final, TypedDict, Unpack

import mlflow
import mlflow.artifacts
import mlflow.pyfunc
import numpy as np
import yaml
from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model as Bundle
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from modelpress.blocking import LiveArtifact, LiveJob
from modelpress.client import Client
from modelpress.errors import ConfigurationError, JobFailed, NoModel, NotFound
from modelpress.requests import JobRequest, Limits
from modelpress.views import Dataset, Job, Measurement

#: Where a dataset is: a file to upload, or one that was uploaded.
Data = Path | str | Dataset

TAG: Final = "modelpress"
NAME: Final = "{name}-{target}"
#: The job's tag that tells which version `compress` made it of.
SOURCE: Final = f"{TAG}.source_model"
_URI: Final = re.compile(r"models:/(?P<name>[^/@:]+)(?:/(?P<version>\d+)|@(?P<alias>[^/@]+))")
#: What a registered model's name may not have: MLflow splits addresses at it, or ends a filter's text with it.
_UNNAMABLE: Final = frozenset("/:'\"")
#: Where a version's files come from, if they were logged as a model.
_LOGGED: Final = re.compile(r"models:/(m-\w+)")
#: Files that the service reads as they are.
_SUFFIXES: Final = (".pt2", ".onnx")
#: Files that MLflow writes beside a model's own.
_OWN: Final = re.compile(r"^MLmodel$|\.(yaml|txt|json)$")
#: By target: MLflow's flavor that loads its files, and the package that runs them.
_FLAVORS: Final = {"onnxruntime": ("onnx", "onnxruntime")}


class JobOptions(TypedDict, total=False):
    """Fields of a job that may be left to the service."""

    budget: Mapping[str, float]
    compute: str
    priority: int
    max_attempts: int
    seed: int
    tags: Mapping[str, str]
    timeouts: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """What `compress` made. `versions`: the registered version for each target."""

    job: LiveJob
    versions: Mapping[str, ModelVersion]


def compress(
    client: Client,
    uri: str,
    *,
    recipe: Mapping[str, Any] | str,
    targets: Sequence[str],
    calibration: Data | None = None,
    evaluation: Data | None = None,
    training: Data | None = None,
    limits: Limits | None = None,
    task: str | None = None,
    name: str = NAME,
    **options: Unpack[JobOptions],
) -> Compressed:
    """Compresses a registered version and registers what was made of it; nothing where a limit is broken.

    Args:
        uri: `models:/NAME/VERSION` or `models:/NAME@ALIAS`.
        recipe: see `JobRequest`; so are `targets`, `limits` and `options`.
        calibration: a file or an uploaded dataset; so are `evaluation` and `training`.
        task: what the model does, where labels do not tell.
        name: of the registered models; `{name}` is the source's, `{target}` the runtime.

    Raises:
        ConfigurationError: `uri` names no version, or `name` gives two targets the same name; before any upload.
        NoModel: the version holds no file that the service reads; the message says how to log one.
        JobFailed: the service rejected a file, or the job broke a limit, failed or was canceled.
    """
    source = _version(uri)
    _check_names(name, source, targets)
    uri = _uri(source)  # an alias may move while the job runs
    with tempfile.TemporaryDirectory(prefix="modelpress-") as folder:
        model = client.models.upload(_file(uri, Path(folder)), name=_label(source), task=task)
    sets = {"calibration": calibration, "evaluation": evaluation, "training": training}
    ids = {f"{role}_dataset_id": _dataset(client, data) for role, data in sets.items() if data is not None}
    options["tags"] = {**(options.get("tags") or {}), SOURCE: uri}
    request = JobRequest(
        model_id=model.id, recipe=recipe, targets=targets, limits=limits, name=_label(source), **ids, **options
    )
    job = client.jobs.wait(client.jobs.create(request).id)
    return Compressed(job=job, versions=register(job, uri, name=name))


def register(job: LiveJob, uri: str, *, name: str = NAME) -> dict[str, ModelVersion]:
    """Registers the artifacts of a finished job that was made of `uri`; those that are registered are answered.

    Each target gets a run with the figures of its artifact and of the float model, a model that MLflow loads where it
    knows the runtime (`mlflow.pyfunc.load_model` for onnxruntime), and a version whose tags lead back to `uri`. The
    version comes last: what breaks off before it is done again by the next call.

    Raises:
        ConfigurationError: `name` as for `compress`; or `compress` made the job of another version than `uri`.
        JobFailed: the job has not succeeded; nothing is registered.
    """
    if job.state != "succeeded":
        raise JobFailed(job)
    source = _version(uri)
    made_of = (job.tags or {}).get(SOURCE, _uri(source))
    if made_of != _uri(source):
        raise ConfigurationError(f"job {job.id} was made of {made_of}, not of {_uri(source)}")
    _check_names(name, source, [str(one.target) for one in job.artifacts or ()])
    with tempfile.TemporaryDirectory(prefix="modelpress-") as folder:
        # All is here before the first run begins: a download that fails registers nothing.
        fetched = [_fetch(job, str(one.target), Path(folder)) for one in job.artifacts or ()]
        return {one.target: _registered(one, source, name) for one in fetched}


@dataclass(frozen=True, kw_only=True)
class _Fetched:
    """An artifact and its papers on this disk: the flavor by which MLflow writes them as a model."""

    job: Job
    artifact: LiveArtifact
    target: str
    manifest: Mapping[str, Any]
    file: Path
    papers: Path

    def save_model(self, path: str, mlflow_model: Bundle) -> None:
        """Writes the folder of a model: the artifact byte for byte, beside it what MLflow loads it with."""
        folder = Path(path)
        shutil.copytree(self.papers, folder / "provenance")
        shutil.copy(self.file, folder)
        mlflow_model.signature = _signature(self.manifest)
        facts = {"data": self.file.name, "target": self.target, "sha256": self.artifact.sha256, "job_id": self.job.id}
        mlflow_model.add_flavor(TAG, **facts)
        if self.target in _FLAVORS and self.file.suffix == ".onnx":
            flavor, package = _FLAVORS[self.target]
            versions = self.manifest.get("versions", {})
            (folder / "requirements.txt").write_text(
                "".join(f"{one}=={versions[one]}\n" for one in ("numpy", "onnx", package) if one in versions)
            )
            python = {"python": versions.get("python"), "dependencies": ["-r requirements.txt"]}
            (folder / "python_env.yaml").write_text(yaml.safe_dump(python))
            mlflow_model.add_flavor(flavor, data=self.file.name, providers=["CPUExecutionProvider"])
            mlflow.pyfunc.add_to_model(
                mlflow_model, loader_module=f"mlflow.{flavor}", data=self.file.name, python_env="python_env.yaml"
            )
        mlflow_model.save(str(folder / "MLmodel"))


def _fetch(job: LiveJob, target: str, folder: Path) -> _Fetched:
    artifact = job.artifact(target)
    here, papers = folder / target, folder / target / "provenance"
    papers.mkdir(parents=True)
    manifest = artifact.get_manifest()
    (papers / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    (papers / "bom.json").write_text(json.dumps(artifact.bom(), indent=2) + "\n")
    with suppress(NotFound):  # this service signs nothing
        (papers / "model.sig").write_text(json.dumps(artifact.signature()) + "\n")
    file = artifact.download(here)
    return _Fetched(job=job, artifact=artifact, target=target, manifest=manifest, file=file, papers=papers)


def _registered(fetched: _Fetched, source: ModelVersion, name: str) -> ModelVersion:
    """The version that holds the artifact, made where there is none; the source's tag leads to it."""
    registry, called = MlflowClient(), _called(name, source, fetched.target)
    known = registry.search_model_versions(f"name = '{called}'")
    same = (one for one in known if one.tags.get(f"{TAG}.artifact_id") == fetched.artifact.id)
    version = next(same, None) or _logged(fetched, source, called)
    tag = f"{TAG}.compressed.{fetched.target}"
    registry.set_model_version_tag(source.name, source.version, tag, _uri(version))
    return version


def _logged(fetched: _Fetched, source: ModelVersion, called: str) -> ModelVersion:
    """A new version of `called`, once its run and its model are there whole."""
    tags = {
        SOURCE: _uri(source),
        f"{TAG}.job_id": fetched.job.id,
        f"{TAG}.artifact_id": fetched.artifact.id,
        f"{TAG}.target": fetched.target,
        f"{TAG}.sha256": str(fetched.artifact.sha256),
        **({f"{TAG}.gate": "passed"} if fetched.job.gate and fetched.job.gate.passed else {}),
    }
    recipe = fetched.job.recipe
    nested = mlflow.active_run() is not None
    with mlflow.start_run(run_name=called, nested=nested, tags=tags) as run:
        logged = _LOGGED.fullmatch(source.source or "")
        if logged:
            MlflowClient().log_inputs(run.info.run_id, models=[LoggedModelInput(logged[1])])
        methods = ", ".join(str(step["method"]) for step in recipe["steps"])
        mlflow.log_params({"methods": methods, "seed": fetched.job.seed})
        mlflow.log_dict(recipe, "recipe.json")  # a parameter holds 6000 characters
        model = Bundle.log(None, fetched, name=fetched.target, tags=tags)
        mlflow.log_metrics(figures(fetched.job, fetched.target), model_id=model.model_id)
        return mlflow.register_model(model.model_uri, called, tags=tags)


def figures(job: Job, target: str) -> dict[str, float]:
    """What was measured of the artifact for `target`, by the names of MLflow's metrics.

    `size_bytes`, `latency_p50_ms`, ... and the metric by its own name, those of the float model with `baseline_` in
    front; ratios are of artifact to float model.
    """
    metrics = job.metrics
    before = _row((metrics.baseline or {}).get(target)) if metrics else {}
    after = _row((metrics.artifacts or {}).get(target)) if metrics else {}
    ratios = {
        f"{title}_ratio": after[key] / before[key]
        for title, key in (("size", "size_bytes"), ("latency", "latency_p50_ms"), ("macs", "macs"))
        if key in after and before.get(key)
    }
    return {**after, **ratios, **{f"baseline_{key}": value for key, value in before.items()}}


def _row(measured: Measurement | None) -> dict[str, float]:
    if measured is None:
        return {}
    found: dict[str, float | None] = {
        key: getattr(measured, key)
        for key in ("size_bytes", "parameters", "nonzero_parameters", "macs", "throughput_per_s", "peak_memory_bytes")
    }
    found |= {f"latency_{quantile}_ms": value for quantile, value in (measured.latency_ms or {}).items()}
    if measured.metric:
        found[measured.metric.name] = measured.metric.value
        found |= _interval(measured.metric.name, measured.metric.ci95)
    if measured.metric_drop:
        found["metric_drop"] = measured.metric_drop.value
        found |= _interval("metric_drop", measured.metric_drop.ci95)
    if measured.fidelity:
        found |= {"sqnr_db": measured.fidelity.sqnr_db, "agreement": measured.fidelity.agreement}
    return {key: float(value) for key, value in found.items() if value is not None}


def _interval(key: str, ci95: tuple[float, ...] | None) -> dict[str, float]:
    return dict(zip((f"{key}_ci95_low", f"{key}_ci95_high"), ci95 or (), strict=False))


def _signature(manifest: Mapping[str, Any]) -> ModelSignature | None:
    """Names, types and shapes as MLflow checks them before a prediction; a size that is free is -1."""
    sides = [
        [
            TensorSpec(
                np.dtype(one["dtype"]),
                tuple(size if isinstance(size, int) else -1 for size in one["shape"]),
                one["name"],
            )
            for one in manifest.get("tensors", {}).get(side, ())
        ]
        for side in ("inputs", "outputs")
    ]
    return ModelSignature(*map(Schema, sides)) if all(sides) else None


def _version(uri: str) -> ModelVersion:
    match, registry = _URI.fullmatch(uri), MlflowClient()
    if match is None:
        raise ConfigurationError(
            f"not a registered version: {uri!r}; expected models:/NAME/VERSION or models:/NAME@ALIAS"
        )
    if match["alias"]:
        return registry.get_model_version_by_alias(match["name"], match["alias"])
    return registry.get_model_version(match["name"], match["version"])


def _uri(version: ModelVersion) -> str:
    return f"models:/{version.name}/{version.version}"


def _called(name: str, source: ModelVersion, target: str) -> str:
    """What the registered model for `target` is called."""
    return name.format(name=source.name, target=target)


def _check_names(name: str, source: ModelVersion, targets: Sequence[str]) -> None:
    """Raises `ConfigurationError` where `name` does not give each target a name that MLflow takes."""
    try:
        places = [place for _, *place in Formatter().parse(name) if place[0] is not None]
    except ValueError as error:
        raise ConfigurationError(f"name={name!r}: {error}") from error
    if any(place not in (["name", "", None], ["target", "", None]) for place in places):
        raise ConfigurationError(f"name={name!r} has other places to fill in than {{name}} and {{target}}")
    called = {_called(name, source, target) for target in targets}
    for one in called:
        if not one.strip() or set(one) & _UNNAMABLE:
            raise ConfigurationError(f"name={name!r} gives {one!r}: MLflow takes no name with / : or quotes, nor none")
    if len(called) < len(targets):
        raise ConfigurationError(f"name={name!r} gives several targets one name: put {{target}} into it")


def _label(source: ModelVersion) -> str:
    return f"{source.name} {source.version}"


def _dataset(client: Client, data: Data) -> str:
    return data.id if isinstance(data, Dataset) else client.datasets.upload(data).id


def _file(uri: str, folder: Path) -> Path:
    """The version's model as one file that the service reads, in `folder`."""
    root = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder / "mlflow")))
    recorded = root / "MLmodel"
    flavors: Mapping[str, Any] = yaml.safe_load(recorded.read_text())["flavors"] if recorded.exists() else {}
    if "transformers" in flavors:
        saved = (root / str(flavors["transformers"].get("model_binary", "model"))).resolve()
        if not saved.is_relative_to(root.resolve()) or not saved.is_dir():  # whoever logs a model writes this path
            raise NoModel(f"{uri}: its MLmodel names no folder of its own as model_binary: log the model anew")
        parts = [saved, root / "components" / "tokenizer"]
        return _packed(folder / "model.zip", [file for part in parts for file in sorted(part.glob("*"))])
    files = [file for file in sorted(root.rglob("*")) if file.suffix in _SUFFIXES]
    if len(files) == 1:
        beside = [file for file in sorted(files[0].parent.iterdir()) if file.is_file() and not _OWN.search(file.name)]
        # MLflow's onnx flavor writes the weights into a file of any name.
        return files[0] if beside == files else _packed(folder / "model.zip", beside)
    held = ", ".join(file.name for file in files) or f"the flavors {', '.join(flavors) or 'none'}"
    raise NoModel(
        f"{uri} holds {held}; what can be compressed is one .onnx or .pt2, or a model of transformers. Log it with "
        'mlflow.onnx.log_model, mlflow.pytorch.log_model(serialization_format="pt2") or mlflow.transformers.log_model'
    )


def _packed(path: Path, files: Sequence[Path]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:  # stored: weights hardly shrink
        for file in files:
            archive.write(file, file.name)
    return path
