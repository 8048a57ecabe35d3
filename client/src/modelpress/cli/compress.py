"""`modelpress compress`: from a file on this disk to a measured, smaller one, in one command."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from modelpress import Client, Job, JobRequest, Limits
from modelpress.cli import exits, report
from modelpress.cli.follow import follow
from modelpress.cli.output import console, say, show_json
from modelpress.cli.screen import transfer

INPUTS, LIMITS = "Inputs", "Limits"
STRICT = "The interval's worse end must keep --max-drop."
File = typer.Option(exists=True, dir_okay=False, readable=True, rich_help_panel=INPUTS)


def compress(
    model: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="The trained model.")],
    target: Annotated[list[str], typer.Option(help="Runtime to export to and measure in; can be repeated.")],
    method: Annotated[str | None, typer.Option(help="Method of a recipe with one step: quantize.static, ...")] = None,
    param: Annotated[list[str] | None, typer.Option(help="key=value for --method; can be repeated.")] = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe's JSON file, auto, or preset:NAME.")] = None,
    calibration: Annotated[Path | None, File] = None,
    evaluation: Annotated[Path | None, File] = None,
    training: Annotated[Path | None, File] = None,
    max_drop: Annotated[float | None, typer.Option(rich_help_panel=LIMITS, help="Most the metric may lose.")] = None,
    max_size_ratio: Annotated[float | None, typer.Option(rich_help_panel=LIMITS, help="Of the float size.")] = None,
    max_latency_ratio: Annotated[float | None, typer.Option(rich_help_panel=LIMITS, help="Of the float p50.")] = None,
    min_sqnr_db: Annotated[float | None, typer.Option(rich_help_panel=LIMITS, help="Against the float.")] = None,
    strict: Annotated[bool | None, typer.Option("--strict", rich_help_panel=LIMITS, help=STRICT)] = None,
    confidence: Annotated[float | None, typer.Option(rich_help_panel=LIMITS, help="Of that interval; 0.95.")] = None,
    task: Annotated[str | None, typer.Option(help="classification, regression, ...; told from the labels.")] = None,
    name: Annotated[str | None, typer.Option(help="The job's name; the model file's where absent.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random in the job.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("out"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the finished job as JSON.")] = False,
) -> None:
    """Uploads a model and its data, compresses it, and downloads what keeps the limits.

    Ctrl-C cancels the job; a second Ctrl-C leaves without waiting.
    """
    limits = {
        "max_metric_drop": max_drop,
        "max_size_ratio": max_size_ratio,
        "max_latency_ratio": max_latency_ratio,
        "min_sqnr_db": min_sqnr_db,
        "strict": strict,
        "confidence": confidence,
    }
    order = Order(
        model=model,
        data={"calibration": calibration, "evaluation": evaluation, "training": training},
        recipe=parse_recipe(method, param or [], recipe),
        targets=target,
        limits=Limits(**{key: value for key, value in limits.items() if value is not None}),  # type: ignore[typeddict-item]
        task=task,
        name=name or model.stem,
        seed=seed,
    )
    output.mkdir(parents=True, exist_ok=True)
    with Client() as client:
        job = follow(client, order.place(client).id, cancel_on_interrupt=True)
        files = fetch(client, job, output) if job.state == "succeeded" else []
    if as_json:
        show_json({"job": job.raw, "files": [str(file) for file in files]})
    else:
        report.show(console(), job)
    _conclude(job, files)
    raise typer.Exit(exits.of(job))


@dataclass(frozen=True, kw_only=True)
class Order:
    """What was asked for on the command line."""

    model: Path
    data: Mapping[str, Path | None]
    recipe: Mapping[str, Any] | str
    targets: Sequence[str]
    limits: Limits
    task: str | None
    name: str
    seed: int | None

    def place(self, client: Client) -> Job:
        """Uploads the files, each once, and queues the job."""
        with transfer(f"upload {self.model.name}") as progress:
            model = client.models.upload(self.model, task=self.task, progress=progress)
        uploaded: dict[Path, str] = {}
        for path in self.data.values():
            if path is not None and path.resolve() not in uploaded:
                with transfer(f"upload {path.name}") as progress:
                    uploaded[path.resolve()] = client.datasets.upload(path, progress=progress).id
        ids = {role: uploaded[path.resolve()] if path else None for role, path in self.data.items()}
        job = client.jobs.create(
            JobRequest(
                model_id=model.id,
                recipe=self.recipe,
                targets=self.targets,
                calibration_dataset_id=ids["calibration"],
                evaluation_dataset_id=ids["evaluation"],
                training_dataset_id=ids["training"],
                limits=self.limits or None,
                name=self.name,
                seed=self.seed,
            )
        )
        say(f"job {job.id}")
        return job


def parse_recipe(method: str | None, params: Sequence[str], recipe: str | None) -> Mapping[str, Any] | str:
    """The recipe that the options ask for.

    Raises:
        typer.BadParameter: both or neither of --method and --recipe, or a file or parameter that cannot be read.
    """
    if (method is None) == (recipe is None):
        raise typer.BadParameter("give either --method (see `modelpress methods list`) or --recipe")
    if recipe is None:
        return {"steps": [{"method": method, **dict(_param(text) for text in params)}]}
    if params:
        raise typer.BadParameter("--param goes with --method; a recipe's file has its parameters in itself")
    if recipe == "auto" or recipe.startswith("preset:"):
        return recipe
    try:
        data = json.loads(Path(recipe).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"--recipe {recipe}: {error}") from error
    if not isinstance(data, dict):
        raise typer.BadParameter(f'--recipe {recipe}: a recipe is like {{"steps": [{{"method": "quantize.static"}}]}}')
    return data


def _param(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f"--param {text}: expected key=value, like calibration=minmax or samples=512")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def fetch(client: Client, job: Job, folder: Path) -> list[Path]:
    """Downloads the job's artifacts and their manifests; names that two targets share get the target in front."""
    artifacts = [client.artifacts.get(artifact.id) for artifact in job.artifacts or ()]
    names = [Path(artifact.filename or artifact.id).name for artifact in artifacts]
    files = []
    for artifact, name in zip(artifacts, names, strict=True):
        file = folder / (name if names.count(name) == 1 else f"{artifact.target}-{name}")
        with transfer(f"download {file.name}") as progress:
            files.append(client.artifacts.download(artifact.id, file, progress=progress))
        manifest = file.with_name(f"{file.name}.manifest.json")
        manifest.write_text(json.dumps(client.artifacts.manifest(artifact.id), indent=2) + "\n", "utf-8")
    return files


def _conclude(job: Job, files: Sequence[Path]) -> None:
    for file in files:
        say(f"wrote {file}")
    if job.error is not None:
        say(f"job {job.state}: {job.error.detail} [{job.error.code}]", "red")
    if exits.of(job) is exits.ExitCode.LIMITS_NOT_MET:
        for artifact in job.artifacts or ():
            say(f"not downloaded; to look at it all the same: modelpress artifacts download {artifact.id}")
