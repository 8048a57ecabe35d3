"""The corpus of hostile files, through the check of an upload behind the walls: nothing runs, each has its code.

All files of a group go through one process, which an audit hook watches; some go through a process of their own.
"""

import pickle
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.hostile import ACCEPTED, FULL, GROUPS, KNOWN, QUICK, SLOW, Case, Group, counts, good, harness
from tests.support.pt2_files import Payload

DOCS = Path(__file__).parents[3] / "docs/sandbox.md"
#: Left behind by PyTorch when it is first used.
CACHES = {"tmp/inductor"}
#: A pickle that really is loaded.
CONTROL = Case(
    "control/loaded", "control", "unpickle", lambda canary: pickle.dumps(Payload(canary)), frozenset([ACCEPTED])
)
#: Some of each kind, for processes of their own; the first ones are quick to check.
ALONE = (
    "npz/header-call-tensors", "text/line-code-text", "parquet/extension-pickled-tensors", "pickles/protocol-4-model",
    "pickles/reduce-bare-tensors", "pickles/npz-objects-tensors", "text/line-open-lists-text",
    "bombs/gzip-of-its-own-head-model",
    "safetensors/header-length-64-bits-tensors", "zip-records/size-huge-tensors", "names/up-in-pt2-model",
    "code-in-pt2/expression-call-model", "pickles/stack_global-in-pt2-2.6-model", "links/symlink-as-onnx-data-model",
    "onnx/external-proc-model", "onnx/function-of-itself-model", "onnx/weight-overflow-model",
    "bombs/zeros-in-pt2-model",
    "config.json/remote-code-model", "polyglots/pickle-then-zip-model", "pt2/json-deep-lists-model",
    "bombs/line-of-4-gib-text",
)  # fmt: skip


def wrong(case: Case, answer: harness.Answer) -> list[str]:
    """What is wrong with an answer."""
    problems = list(answer.found)
    if answer.code not in case.codes:
        problems.append(f"answered {answer.code!r}, not {' or '.join(sorted(case.codes))}: {answer.detail[:500]}")
    if answer.code != ACCEPTED and len(answer.detail) < 20:
        problems.append("the detail says nothing")
    if answer.cpu_s > harness.CPU_S:
        problems.append(f"took {answer.cpu_s} s")
    if left := set(answer.left) - CACHES:
        problems.append(f"left {sorted(left)}")
    return [f"{case.name}: {problem}" for problem in problems]


def refused(groups: Sequence[Group], folder: Path) -> None:
    """Each file is answered as it must, good ones among them are accepted, and what does run is seen.

    Without the last, a watch that sees nothing would pass every file.
    """
    cases = [*good.cases(), *(case for group in groups for case in group)]
    answers = harness.check([*cases, CONTROL], folder, good.cases())
    assert [answer.name for answer in answers] == [case.name for case in (*cases, CONTROL)]
    *answers, control = answers
    assert [text for case, answer in zip(cases, answers, strict=True) for text in wrong(case, answer)] == []
    assert control.code == ACCEPTED
    assert {text.split()[0] for text in control.found} >= {"pickle.find_class", "os.system"}
    assert f"output/{harness.CANARY}" in control.left


def by_name(name: str) -> Case:
    return next(case for case in GROUPS[name.partition("/")[0]] if case.name == name)


def test_the_corpus_is_what_the_documentation_says() -> None:
    said = re.findall(r"^\| `([a-z0-9.-]+)` \| .* \| (\d+) \|$", DOCS.read_text(), re.MULTILINE)
    assert {name: int(number) for name, number in said} == counts()
    assert f"{sum(counts().values())} files" in DOCS.read_text()
    assert all(case.codes <= {ACCEPTED, FULL, *KNOWN} for group in GROUPS.values() for case in group)


def test_files_that_are_quick_to_check(tmp_path: Path) -> None:
    refused(QUICK, tmp_path)


@pytest.mark.slow
def test_files_that_take_longer(tmp_path: Path) -> None:
    refused(SLOW, tmp_path)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if i > 2 else []) for i, n in enumerate(ALONE)]
)
def test_files_in_a_process_of_their_own(name: str, tmp_path: Path) -> None:
    case = by_name(name)
    assert wrong(case, harness.check_alone(case, tmp_path)) == []
