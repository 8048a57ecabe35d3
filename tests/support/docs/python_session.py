"""A Python that runs files, one after the other, in one namespace; `await` works anywhere, as in notebooks.

What the shell of the page has exported is in its environment.
"""

import ast
import asyncio
import inspect
import os
import sys
from pathlib import Path


def main() -> None:
    mark, exported = sys.argv[1], Path(sys.argv[2])
    namespace = vars(sys.modules["__main__"])
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            if exported.exists():
                lines = exported.read_text("utf-8").split("\0")
                os.environ.update(entry.split("=", 1) for entry in lines if "=" in entry)
            source = Path(line.strip()).read_text("utf-8")
            code = compile(source, line.strip(), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            answer = eval(code, namespace)
            if inspect.iscoroutine(answer):
                runner.run(answer)
            sys.stdout.write(f"\n{mark}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
