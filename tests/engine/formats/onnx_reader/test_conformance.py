"""The operator cases that ship with the onnx package: every answer is right, or the model is refused."""

from pathlib import Path

import pytest

from tests.support.conformance import CRASHED, OUTSIDE, PASSED, WRONG, cases, count, run_all, sentence
from worker.engine.formats.onnx_reader.operators import OPERATORS

#: Thousands of cases are made on import: once, in one process.
pytestmark = pytest.mark.xdist_group("conformance")

#: Of the cases whose operators are in the table.
AT_LEAST = 0.90
#: Operators that no case uses.
WITHOUT_CASES = {"Swish", "GlobalLpPool", "CumProd"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return list(run_all(cases(), tmp_path_factory.mktemp("cases")))


@pytest.mark.filterwarnings("ignore")
def test_every_answer_is_right_or_refused(results):
    bad = [f"{r.name}: {r.why}" for r in results if r.outcome in (WRONG, CRASHED)]
    assert not bad, bad


@pytest.mark.filterwarnings("ignore")
def test_most_cases_pass(results):
    inside = [result for result in results if result.outcome != OUTSIDE]
    assert count(inside)[PASSED] >= AT_LEAST * len(inside)


@pytest.mark.filterwarnings("ignore")
def test_the_published_count_is_true(results):
    assert sentence(results) in Path("docs/formats.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore")
def test_the_cases_cover_the_table(results):
    """Operators of ONNX itself without a case of their own are few, and known."""
    covered = {name for result in results if result.outcome != OUTSIDE for name in result.operators}
    own = {name for name in OPERATORS if "." not in name}
    assert own - covered <= WITHOUT_CASES | {"SimplifiedLayerNormalization"}, own - covered
