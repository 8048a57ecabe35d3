"""Where text goes: results to stdout, everything said meanwhile to stderr."""

import json
from typing import Any

from rich.console import Console
from rich.text import Text

from modelpress.errors import ModelpressError, ProblemError

# Files and pipes get one line per line, whatever its length.
PLAIN_WIDTH = 160


def console(*, stderr: bool = False) -> Console:
    """A console on today's stdout or stderr."""
    made = Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True)
    if not made.is_terminal:
        made.width = PLAIN_WIDTH
    return made


def printable(text: object) -> str:
    """Text from elsewhere without control characters: a log line must not steer the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in str(text))


def say(text: str, style: str = "") -> None:
    """A line for the person who waits."""
    console(stderr=True).print(Text(printable(text), style))


def show_json(data: Any) -> None:
    """JSON on stdout, for programs."""
    console().print(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def show_error(error: ModelpressError | OSError) -> None:
    """What is wrong: code, detail, and each fault with its pointer, where the detail does not name it already."""
    stderr = console(stderr=True)
    if not isinstance(error, ProblemError):
        stderr.print(Text.assemble(("error: ", "bold red"), printable(error)))
        return
    label = f"error [{error.code}, HTTP {error.status}]: "
    stderr.print(Text.assemble((printable(label), "bold red"), printable(error.detail)))
    for line in (f"{fault.pointer}: {fault.detail}" for fault in error.errors):
        if line not in error.detail:
            stderr.print(Text(f"  {printable(line)}"))
