"""The groups `models`, `datasets`, `uploads`, `artifacts`, `methods`, `targets` and `presets`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from modelpress import Client
from modelpress.cli import text
from modelpress.cli.exits import ExitCode
from modelpress.cli.listing import Id, Json, Noun, show_done, show_fields, show_table
from modelpress.cli.output import console, printable, say, show_json
from modelpress.cli.screen import transfer
from modelpress.decode import View

Target = Annotated[Path, typer.Option("--output", "-o", help="A file, or a folder for it.")]
UploadFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)]
Name = Annotated[str | None, typer.Option(help="Its name; the file's where absent.")]
Wait = Annotated[bool, typer.Option(help="Wait until a worker has checked it.")]

models = typer.Typer(no_args_is_help=True, help="Uploaded models.")
datasets = typer.Typer(no_args_is_help=True, help="Uploaded datasets.")
artifacts = typer.Typer(no_args_is_help=True, help="Compressed models.")
methods = typer.Typer(no_args_is_help=True, help="What a recipe can do.")
targets = typer.Typer(no_args_is_help=True, help="The runtimes that an artifact can be for.")
presets = typer.Typer(no_args_is_help=True, help="Ready recipes.")
uploads = typer.Typer(no_args_is_help=True, help="Uploads of large files that are not complete yet.")


def _field(name: str) -> Any:
    """A column that shows a field which only `raw` has; a list is joined."""

    def cell(item: View) -> object:
        value = item.raw.get(name)
        return ", ".join(map(str, value)) if isinstance(value, list) else value

    return cell


UPLOAD_COLUMNS = {
    "id": lambda item: item.id,
    "name": lambda item: item.name,
    "state": lambda item: item.state,
    "size": lambda item: text.size(item.size_bytes),
    "created": lambda item: text.when(item.created_at),
}
PACKAGE_COLUMNS = {
    "layout": lambda item: item.layout,
    "available": lambda item: "yes" if item.available else item.code,
    "": lambda item: item.summary if item.available else item.detail,
}
NAMED_COLUMNS = {"name": lambda item: item.name}

_models = Noun(models, {**UPLOAD_COLUMNS, "format": lambda item: item.format})
_models.listed(lambda client: client.models)
_models.shown(lambda client: client.models)
_models.deleted(lambda client: client.models)

_datasets = Noun(datasets, {**UPLOAD_COLUMNS, "samples": lambda item: item.samples})
_datasets.listed(lambda client: client.datasets)
_datasets.shown(lambda client: client.datasets)
_datasets.deleted(lambda client: client.datasets)

_artifacts = Noun(artifacts, {})
_artifacts.shown(lambda client: client.artifacts)

_methods = Noun(
    methods, {**NAMED_COLUMNS, "needs": _field("needs"), "targets": _field("targets"), "": _field("summary")}
)
_methods.listed(lambda client: client.methods)

_targets = Noun(
    targets,
    {**NAMED_COLUMNS, "artifact": _field("artifact"), "runs on": _field("runs_on"), "offered": _field("offered")},
)
_targets.listed(lambda client: client.targets)

Noun(uploads, {}).deleted(lambda client: client.uploads)
Noun(presets, {**NAMED_COLUMNS, "": _field("summary")}).listed(lambda client: client.presets)


@models.command("upload")
def upload_model(file: UploadFile, name: Name = None, wait: Wait = True, as_json: Json = False) -> None:
    """Uploads a model; exit code 4 where it is rejected."""
    with Client() as client:
        with transfer(f"upload {file.name}") as progress:
            model = client.models.upload(file, name=name, progress=progress)
        _show_upload(client.models.wait(model.id) if wait else model, as_json)


@models.command("download")
def download_model(id: Id, output: Target = Path(), as_json: Json = False) -> None:
    """Downloads the file that was uploaded."""
    with Client() as client, transfer(f"download {id}") as progress:
        file = client.models.download(id, output, progress=progress)
    show_done(f"wrote {file}", {"file": str(file)}, as_json=as_json)


@datasets.command("upload")
def upload_dataset(
    file: UploadFile,
    name: Name = None,
    kind: Annotated[str | None, typer.Option(help="tensors or text; told from the suffix.")] = None,
    wait: Wait = True,
    as_json: Json = False,
) -> None:
    """Uploads a dataset; exit code 4 where it is rejected."""
    with Client() as client:
        with transfer(f"upload {file.name}") as progress:
            dataset = client.datasets.upload(file, name=name, kind=kind, progress=progress)
        _show_upload(client.datasets.wait(dataset.id) if wait else dataset, as_json)


@datasets.command("download")
def download_dataset(id: Id, output: Target = Path(), as_json: Json = False) -> None:
    """Downloads the file that was uploaded."""
    with Client() as client, transfer(f"download {id}") as progress:
        file = client.datasets.download(id, output, progress=progress)
    show_done(f"wrote {file}", {"file": str(file)}, as_json=as_json)


@artifacts.command("download")
def download_artifact(id: Id, output: Target = Path(), as_json: Json = False) -> None:
    """Downloads a compressed model, verified by its SHA-256."""
    with Client() as client, transfer(f"download {id}") as progress:
        file = client.artifacts.download(id, output, progress=progress)
    show_done(f"wrote {file}", {"file": str(file)}, as_json=as_json)


@artifacts.command("packages")
def list_packages(id: Id, as_json: Json = False) -> None:
    """Lists the layouts of inference servers, and why it does not fit one."""
    with Client() as client:
        found = client.artifacts.packages(id)
    if as_json:
        show_json([one.raw for one in found])
    else:
        show_table(found, PACKAGE_COLUMNS)


@artifacts.command("package")
def download_package(
    id: Id,
    layout: Annotated[str, typer.Argument(help="triton, kserve, ...; see `packages`.")],
    name: Annotated[str | None, typer.Option(help="By which the server's clients ask for the model.")] = None,
    version: Annotated[int, typer.Option(min=1, help="Of the model in the repository.")] = 1,
    output: Target = Path(),
    as_json: Json = False,
) -> None:
    """Downloads it as the zip of a repository that an inference server reads."""
    with Client() as client:
        file = client.artifacts.package(id, layout, output, name=name, version=version)
    show_done(f"wrote {file}", {"file": str(file)}, as_json=as_json)


@artifacts.command("manifest")
def artifact_manifest(id: Id, as_json: Json = False) -> None:
    """Prints where it came from, as JSON."""
    with Client() as client:
        show_json(client.artifacts.manifest(id))


@artifacts.command("signature")
def artifact_signature(id: Id, as_json: Json = False) -> None:
    """Prints its Sigstore bundle, as JSON."""
    with Client() as client:
        show_json(client.artifacts.signature(id))


@artifacts.command("bom")
def artifact_bom(id: Id, as_json: Json = False) -> None:
    """Prints its bill of materials, CycloneDX as JSON."""
    with Client() as client:
        show_json(client.artifacts.bom(id))


@artifacts.command("signing-key")
def signing_key(as_json: Json = False) -> None:
    """Prints the public key that verifies signatures, as PEM."""
    with Client() as client:
        pem = client.artifacts.signing_key()
    if as_json:
        show_json({"pem": pem})
    else:
        console().print(printable(pem), end="")


@uploads.command("show")
def show_resumable(id: Id, as_json: Json = False) -> None:
    """Shows how far it has come."""
    with Client() as client:
        show_fields(asdict(client.uploads.get(id)), as_json=as_json)


def _show_upload(item: Any, as_json: bool) -> None:
    show_fields(item.raw, as_json=as_json)
    if item.state == "rejected":
        say(f"rejected: {item.error.detail} [{item.error.code}]" if item.error else "rejected", "red")
        raise typer.Exit(ExitCode.SERVICE)
