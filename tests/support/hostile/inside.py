"""Checks one file after another as the job's process does, behind the walls of the sandbox, and tells what happened.

Run by `tests.support.hostile.harness` as ``python -c THIS FOLDER``: tests lie outside of what a job may read. An audit
hook watches the interpreter from the first hostile file on: whatever would run code of the file, or reach for anything
but the file and the job's own folders, is told beside the answer.
"""

import json
import os
import pathlib
import resource
import sys
import time
import types

from worker.runner import child
from worker.runner.messages import MAX_LINE, REPORT_FD, Assignment, Log, Result
from worker.runner.reporting import PipeReporter

FOLDER = pathlib.Path(sys.argv[1])
OWN = tuple(str(FOLDER / name) for name in ("output", "tmp", "home"))
ROOTS = tuple(json.loads((FOLDER / "inputs" / "roots.json").read_text()))
CANARY = "modelpress-canary"
#: Events that no check of a file has a reason for.
NEVER = (
    "pickle.find_class", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.kill",
    "os.symlink", "os.link", "os.chown", "os.chmod", "subprocess.Popen", "pty.spawn", "socket.",
    "os.truncate", "urllib.Request", "ftplib.", "smtplib.", "http.client", "webbrowser.open", "code.__new__",
    "ctypes.string_at", "cpython.run_", "gc.get_referrers", "sys.setprofile", "builtins.input", "builtins.breakpoint",
)  # fmt: skip
#: Who makes code of text: classes and graphs that the libraries write out.
GENERATED = ("<string>", "<eval_with_key>", "<frozen ", "<__array_function__", "<attrs generated", "<lambdifygenerated")
#: What changes files, and which of its arguments is the folder that the path is relative to.
CHANGES = {"os.rename": 2, "os.remove": 1, "os.mkdir": 2, "os.rmdir": 1}
OPEN_FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

found: list[str] = []
current: list[str] = []


def names(code: types.CodeType) -> set[str]:
    """Every name and text in `code` and the functions inside of it."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    texts = {constant for constant in code.co_consts if isinstance(constant, str)}
    return {*code.co_names, *code.co_varnames, *texts}.union(*map(names, inner))


def below(path: object, roots: tuple[str, ...]) -> bool:
    """Whether a path lies in one of the folders; descriptors and odd things do not."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        return False
    text = os.path.normpath(os.path.join(os.getcwd(), os.fsdecode(path)))  # noqa: PTH109, PTH118 - opens nothing
    return any(text == root or text.startswith(root + os.sep) for root in roots)


def judge(event: str, arguments: tuple) -> str | None:
    """What is wrong with an event; None: nothing."""
    if event.startswith(NEVER):
        return f"{event} {arguments!r}"
    if event == "exec":
        code = arguments[0]
        at_home = code.co_filename.startswith(GENERATED) or below(code.co_filename, ROOTS)
        carries = sorted(text for text in names(code) if CANARY in text)
        return None if at_home and not carries else f"exec of {code.co_filename} {carries}"
    if event == "open" and not isinstance(arguments[0], int):
        path, _, flags = arguments
        allowed = (*OWN, "/dev/null") if flags & OPEN_FOR_WRITING else (*OWN, *ROOTS, *current, "/proc", "/sys", "/dev")
        return None if below(path, allowed) else f"open of {path!r} with {flags:#o}"
    if event in CHANGES:
        beside = arguments[CHANGES[event]] != -1  # relative to an open folder, which `open` has judged
        return None if beside or below(arguments[0], OWN) else f"{event} {arguments!r}"
    if event in ("import", "ctypes.dlopen"):
        file = arguments[1] if event == "import" else arguments[0]
        system = isinstance(file, str) and os.sep not in file  # looked up by the loader, in folders of the system
        return None if file is None or system or below(file, ROOTS) else f"{event} of {file!r}"
    return None


def watch(event: str, arguments: tuple) -> None:
    """The audit hook: only takes notes, so that a library that tries what it can do without goes on."""
    if current and len(found) < 20:
        wrong = judge(event, arguments)
        if wrong is not None:
            found.append(wrong[:300])


def assignment(case: dict) -> Assignment:
    """What the worker would say."""
    path = FOLDER / "inputs" / case["file"]
    if case["kind"] == "model":
        return Assignment(kind="check_model", output=FOLDER / "output", model=path, filename=path.name)
    return Assignment(
        kind="check_dataset", output=FOLDER / "output", dataset=path, dataset_kind=case["kind"], filename=path.name
    )


def tokenized(case: dict) -> Result:
    """What a job does that reads `texts` for a model with this tokenizer."""
    from worker.engine.data import words
    from worker.engine.network import Tokenizer

    tokenizer = Tokenizer((FOLDER / "inputs" / case["file"]).read_bytes(), 64)
    table = words.encode(FOLDER / "inputs" / "texts", tokenizer, "calibration")
    return Result(facts={name: list(array.shape) for name, array in table.items()})


def unpickled(case: dict) -> Result:
    """What no reader does: the proof that the watch sees it."""
    import pickle

    with (FOLDER / "inputs" / case["file"]).open("rb") as file:
        return Result(facts={"value": repr(pickle.load(file))})


def answer(case: dict, reporter: PipeReporter) -> dict:
    """How the check of one file ends, and what was seen meanwhile."""
    special = {"tokenizer": tokenized, "unpickle": unpickled}.get(case["kind"])
    found.clear()
    started, cpu = time.monotonic(), time.process_time()
    if case["watched"]:
        current.extend([str(FOLDER / "inputs" / case["file"]), str(FOLDER / "inputs" / "texts")])
    if special is None:
        ended = child.outcome(FOLDER, assignment(case), reporter)
    else:
        child.WORK["compress"] = "__main__"
        globals()["do"] = lambda assignment, reporter: special(case)
        ended = child.outcome(FOLDER, Assignment(kind="compress", output=FOLDER / "output"), reporter)
    current.clear()
    code = "accepted" if isinstance(ended, Result) else ended.code
    if len(ended.model_dump_json().encode()) >= MAX_LINE:
        code = "told too much"
    return {
        "name": case["name"],
        "code": code,
        "detail": "" if isinstance(ended, Result) else ended.detail[:1000],
        "seconds": round(time.monotonic() - started, 3),
        "cpu_s": round(time.process_time() - cpu, 3),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "found": list(found),
        "left": sorted(str(path.relative_to(FOLDER)) for name in OWN for path in pathlib.Path(name).rglob("*")),
    }


sys.addaudithook(watch)
pipe = PipeReporter(REPORT_FD, None, FOLDER / "output")
for each in json.loads((FOLDER / "inputs" / "cases.json").read_text()):
    pipe.send(Log(message="starting " + each["name"]))
    pipe.send(Log(message="answered " + json.dumps(answer(each, pipe))))
pipe.send(Result(facts={}))
