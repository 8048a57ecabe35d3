"""The commands that every noun has: list, show, delete, each with `--json`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Protocol

import typer
from rich.table import Table
from rich.text import Text

from modelpress import Client
from modelpress.cli.completion import ids
from modelpress.cli.output import console, printable, say, show_json
from modelpress.cli.text import NONE
from modelpress.decode import View

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Id = Annotated[str, typer.Argument(metavar="ID", autocompletion=ids)]
Limit = Annotated[int, typer.Option(min=1, help="At most so many, newest first.")]


class Listed(Protocol):
    """A noun of the client that can be listed."""

    def list(self) -> Iterable[View]:
        """All items."""


class Shown(Protocol):
    """A noun of the client whose items have ids."""

    def get(self, id: str) -> View:
        """One item."""


class Deleted(Protocol):
    """A noun of the client whose items can be deleted."""

    def delete(self, id: str) -> None:
        """Deletes one."""


Columns = Mapping[str, Callable[[Any], object]]


@dataclass(frozen=True, slots=True)
class Noun:
    """A group of commands. `columns` are those of its table; what an item lacks shows as a dash."""

    group: typer.Typer
    columns: Columns

    def listed(self, noun: Callable[[Client], Listed]) -> None:
        """Adds `list`."""

        @self.group.command("list")
        def list_items(limit: Limit = 20, as_json: Json = False) -> None:
            """Lists them, newest first."""
            with Client() as client:
                items = list(islice(noun(client).list(), limit))
            if as_json:
                show_json([item.raw for item in items])
            else:
                show_table(items, self.columns)

    def shown(self, noun: Callable[[Client], Shown]) -> None:
        """Adds `show`."""

        @self.group.command("show")
        def show_item(id: Id, as_json: Json = False) -> None:
            """Shows one in full."""
            with Client() as client:
                show_fields(noun(client).get(id).raw, as_json=as_json)

    def deleted(self, noun: Callable[[Client], Deleted], verb: str = "delete") -> None:
        """Adds `delete`, under another name where that says it better."""

        @self.group.command(verb, help=f"{verb.capitalize()}s one.")
        def delete_item(id: Id, as_json: Json = False) -> None:
            with Client() as client:
                noun(client).delete(id)
            show_done(f"{verb}d {id}", {"id": id, f"{verb}d": True}, as_json=as_json)


def show_done(said: str, data: Any, *, as_json: bool) -> None:
    """What was done: for people a sentence, for programs JSON."""
    if as_json:
        show_json(data)
    else:
        say(said)


def show_table(items: Iterable[View], columns: Columns) -> None:
    """One row each."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in columns:
        table.add_column(title)
    for item in items:
        cells = (figure(item) for figure in columns.values())
        table.add_row(*(Text(NONE if cell is None else printable(cell)) for cell in cells))
    console().print(table, soft_wrap=False)


def show_fields(data: Mapping[str, Any], *, as_json: bool) -> None:
    """One line for each field that has a value; values that have an inside as JSON."""
    if as_json:
        show_json(data)
        return
    stdout = console()
    for name, value in data.items():
        if isinstance(value, dict | list):
            if value:
                stdout.print(Text(f"{printable(name)}:"))
                show_json(value)
        elif value is not None:
            stdout.print(Text(f"{printable(name)}: {printable(value)}"))
