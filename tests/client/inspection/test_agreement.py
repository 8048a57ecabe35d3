"""The check and the service say the same: over files of every kind, and over the cases of the onnx package."""

import warnings
from pathlib import Path

import pytest
from modelpress import check

from tests.support.kinds import AHEAD_OF_THE_SERVER, DEEPER, KINDS
from worker.engine import formats
from worker.engine.errors import UserError

#: Files that PyTorch versions wrote, where they are.
WRITTEN = sorted((Path(__file__).parents[2] / "engine" / "formats" / "pt2_files").glob("*/*.pt2"))
#: Details in which Python's or protobuf's own words are quoted.
QUOTED = {"file_damaged", "schema_invalid", "weights_invalid", "unsafe_format", "archive_too_large", "graph_invalid"}


def verdict(path):
    """What the server says: None, or code and detail."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            formats.read(path)
    except UserError as error:
        return error.code, error.detail
    return None


@pytest.fixture
def path(request, tmp_path):
    made = tmp_path / "model"
    KINDS[request.param](made)
    return made


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", sorted(KINDS.keys() - AHEAD_OF_THE_SERVER - DEEPER), indirect=True)
def test_the_check_says_what_the_service_says(path):
    expected, report = verdict(path), check(path)
    if expected is None:
        assert report.accepted, report.problems
        return
    code, detail = expected
    assert report.problems, f"the service says {code}: {detail}"
    assert report.problems[0].code == code, report.problems
    assert code in QUOTED or report.problems[0].detail == detail


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", sorted(AHEAD_OF_THE_SERVER | DEEPER), indirect=True)
def test_the_check_is_not_stricter_than_a_service_that_is_newer(path):
    """These lists shrink: once the service reads a kind, it belongs above."""
    report = check(path)
    if verdict(path) is None:
        assert report.accepted, report.problems


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_files_of_other_versions_of_pytorch(path):
    report = check(path)
    assert report.accepted, report.problems
    network = formats.read(path)
    assert [spec.name for spec in report.inputs] == [spec.name for spec in network.inputs]
    assert [spec.shape for spec in report.inputs] == [spec.shape for spec in network.inputs]
    assert [spec.name for spec in report.outputs] == [spec.name for spec in network.outputs]
    assert report.dynamic_batch == network.batched


@pytest.mark.parametrize("kind", ["pt2", "pt2_inner_graph", "onnx_torchscript_exporter", "onnx_dynamo_exporter"])
@pytest.mark.filterwarnings("ignore")
def test_figures_are_those_of_the_service(kind, tmp_path):
    KINDS[kind](tmp_path / "m")
    report, network = check(tmp_path / "m"), formats.read(tmp_path / "m")
    assert report.parameters == network.parameters
    assert report.format == network.format
    assert report.dynamic_batch == network.batched
    for mine, theirs in ((report.inputs, network.inputs), (report.outputs, network.outputs)):
        assert [(one.name, one.dtype) for one in mine] == [(one.name, one.dtype) for one in theirs]
        known = [[size if isinstance(size, int) else None for size in one.shape] for one in mine]
        assert known == [[size if isinstance(size, int) else None for size in one.shape] for one in theirs]


@pytest.mark.slow
@pytest.mark.xdist_group("conformance")
@pytest.mark.filterwarnings("ignore")
def test_no_case_of_the_onnx_package_is_refused_that_the_service_reads(tmp_path):
    from onnx.backend.test.loader import load_model_tests

    path, wrong, refused = tmp_path / "case.onnx", [], 0
    for case in load_model_tests(kind="node"):
        if case.model is None:
            continue
        path.write_bytes(case.model.SerializeToString())
        report = check(path)
        if report.accepted:
            continue
        refused += 1
        expected = verdict(path)
        # Of an If on data the service names the If, the check the operators in its branches.
        inside = {n.op_type for n in case.model.graph.node} & {"If"} and expected is not None
        if expected is None or (expected[0] != report.problems[0].code and not inside):
            wrong.append((case.name, report.problems, expected))
    assert not wrong, wrong[:5]
    assert refused > 100
