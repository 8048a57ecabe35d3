"""English sentences that are on every machine: how the documentation of Python's standard library begins."""

import ast
import warnings

from benchmarks.support.text import files

_SHORTEST, _LONGEST = 5, 40  # words


def sentences(count: int, start: int = 0) -> list[str]:
    """The first sentences of different docstrings, in an order that the machine does not change."""
    found: dict[str, None] = {}
    for path in files():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(path.read_text("utf-8", errors="replace"))
        except SyntaxError:
            continue  # the standard library tests its parser with files that are wrong
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
                if text.isascii() and _SHORTEST <= len(text.split()) <= _LONGEST and text.endswith("."):
                    found.setdefault(text)
    # Neighbours are of one file: take them from all over.
    every = list(found)
    step = max(len(every) // (start + count), 1)
    return every[::step][start : start + count]
