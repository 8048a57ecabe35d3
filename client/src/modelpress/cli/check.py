"""`modelpress check`: what the service will say to a file, before it is uploaded."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from modelpress import CheckReport, TensorSpec
from modelpress import check as check_file
from modelpress.cli import text
from modelpress.cli.exits import ExitCode
from modelpress.cli.listing import Json
from modelpress.cli.output import console, printable, show_json

ModelPath = Annotated[Path, typer.Argument(exists=True, readable=True, metavar="FILE", help="A model, or its folder.")]


class Format(StrEnum):
    """What an upload can announce."""

    PT2 = "pt2"
    ONNX = "onnx"
    TRANSFORMERS = "transformers"


def check(
    file: ModelPath,
    format: Annotated[Format | None, typer.Option(help="What it has to be; told from its bytes.")] = None,
    as_json: Json = False,
) -> None:
    """Tells what the service will say to a model, before it is uploaded; exit code 4 where it will be refused.

    It reads the structure of the file, never its weights, and asks nobody.
    """
    report = check_file(file, format=None if format is None else format.value)
    if as_json:
        show_json(report.as_dict())
    else:
        show(report)
    raise typer.Exit(ExitCode.OK if report.accepted else ExitCode.SERVICE)


def show(report: CheckReport) -> None:
    """The verdict, what the file holds, and what is wrong with it."""
    stdout = console()
    style = "bold green" if report.accepted else "bold red"
    stdout.print(Text.assemble((report.verdict, style), f" {printable(report.file)}, {text.size(report.size_bytes)}"))
    for label, value in _lines(report):
        stdout.print(Text(f"{label:<12}{printable(value)}"))
    for problem in report.problems:
        stdout.print(Text.assemble((f"[{problem.code}] ", "bold red"), printable(problem.detail)))
    for note in report.notes:
        stdout.print(Text(f"note: {printable(note)}"))


def _lines(report: CheckReport) -> list[tuple[str, str]]:
    """Label and value of each thing that the file told."""
    about = ", ".join(part for part in (report.format, report.version) if part)
    lines = [("format", about), ("producer", report.producer or ""), ("class", ", ".join(report.architectures))]
    if report.parameters is not None:
        lines.append(("parameters", f"{report.parameters:,}; weights {text.size(report.weight_bytes)}"))
    lines += [("input", _tensor(spec)) for spec in report.inputs]
    lines += [("output", _tensor(spec)) for spec in report.outputs]
    if report.dynamic_batch is not None:
        lines.append(("batch", "dynamic" if report.dynamic_batch else "fixed"))
    calls = (f"{one.name} {one.count}" + ("" if one.supported else " (not read)") for one in report.operators)
    return [*((label, value) for label, value in lines if value), ("operators", ", ".join(calls) or text.NONE)]


def _tensor(spec: TensorSpec) -> str:
    sizes = "unknown shape" if spec.shape is None else f"[{', '.join(str(size or '?') for size in spec.shape)}]"
    return f"{spec.name} {spec.dtype or 'unknown type'} {sizes}"
