"""The command, as a user runs it: live output, tables, exit codes, Ctrl-C."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.contract import KEY, STEPS, Service

HISTORY = [
    ("state", {"state": "running"}),
    ("progress", {"phase": "reading", "progress": 0.05, "eta_s": 42}),
    ("log", {"level": "info", "message": "12 layers\x1b[31m"}),
    ("progress", {"phase": "compressing", "progress": 0.06, "eta_s": None}),
    ("progress", {"phase": "compressing", "progress": 0.07}),
    ("end", {}),
]


@pytest.fixture
def compress(service: Service, files: dict[str, Path]) -> list[object]:
    """Arguments of a good job, on a service that is ready for it."""
    service.events = list(HISTORY)
    service.content = b"onnx" * 5000
    return [
        "compress", files["model"], "--calibration", files["calibration"], "--evaluation", files["evaluation"],
        "--method", "quantize.static", "--target", "onnxruntime", "--max-drop", "0.01",
    ]  # fmt: skip


def words(text: str) -> str:
    return " ".join(text.split())


def test_upload_follow_download_and_table(
    run: Callable[..., Any], service: Service, compress: list[object], tmp_path: Path
) -> None:
    ran = run(*compress, "--max-size-ratio", 0.3, "--param", "samples=128", "--param", "calibration=minmax",
              "--seed", 3, "-o", "results")  # fmt: skip
    assert ran.code == 0, ran.err
    assert service.job["recipe"] == {"steps": [{"method": "quantize.static", "samples": 128, "calibration": "minmax"}]}
    assert service.job["limits"] == {"max_metric_drop": 0.01, "max_size_ratio": 0.3}
    assert (service.job["seed"], service.job["name"], service.job["targets"]) == (3, "model", ["onnxruntime"])
    assert service.uploads[service.job["model_id"]][0]["filename"] == "model.pt2"
    assert service.uploads[service.job["evaluation_dataset_id"]][0]["filename"] == "evaluation.npz"
    assert (tmp_path / "results" / "model.int8.onnx").read_bytes() == service.content
    assert json.loads((tmp_path / "results" / "model.int8.onnx.manifest.json").read_text()) == {"seed": 0}
    table = words(ran.out)
    for figure in (
        "size, float │ 4 MB", "size, compressed │ 1.1 MB", "size ratio │ 0.275",
        "accuracy, float │ 98.00 % [96.00, 99.00]", "evaluation samples │ 719",
        "drop │ 0.50 points [-0.10, 1.10]", "SQNR to float │ 31.2 dB",
        "latency p50, float │ 2 ms", "latency p50, compressed │ 1 ms", "speed-up │ 2.00x", "gate │ passed",
        "note: The data says this. note: onnxruntime: a sentence.",
    ):  # fmt: skip
        assert figure in table, ran.out
    assert table.count("a sentence") == 1
    lines = ran.err.splitlines()
    assert lines[:4] == ["upload model.pt2: 5 kB", "upload calibration.npz: 11 kB", "upload evaluation.npz: 10 kB",
                         "job job_1"]  # fmt: skip
    assert "reading, 5 %, about 42 s left" in lines
    assert "  12 layers\N{REPLACEMENT CHARACTER}[31m" in lines
    assert [line for line in lines if line.startswith("compressing")] == ["compressing, 6 %"]
    assert lines[-1].endswith("model.int8.onnx")


def test_one_file_for_two_roles_is_uploaded_once(
    run: Callable[..., Any], service: Service, compress: list[object], files: dict[str, Path]
) -> None:
    compress[5] = files["calibration"]
    assert run(*compress).code == 0
    assert len(service.requests("POST", "/v1/datasets")) == 1
    assert service.job["evaluation_dataset_id"] == service.job["calibration_dataset_id"]


def test_json_is_all_of_stdout(run: Callable[..., Any], compress: list[object]) -> None:
    ran = run(*compress, "--json")
    data = json.loads(ran.out)
    assert data["job"]["gate"]["passed"] is True
    assert [Path(file).name for file in data["files"]] == ["model.int8.onnx"]


@pytest.mark.parametrize(
    ("outcome", "code", "told"),
    [("failed", 3, "limits_not_met"), ("worker_lost", 1, "worker_lost"), ("canceled", 1, "canceled")],
)
def test_exit_codes_of_jobs(
    run: Callable[..., Any],
    service: Service,
    compress: list[object],
    tmp_path: Path,
    outcome: str,
    code: int,
    told: str,
) -> None:
    service.outcome = outcome
    ran = run(*compress)
    assert ran.code == code
    assert told in ran.err
    assert list((tmp_path / "out").iterdir()) == []
    if code == 3:
        assert "gate │ failed: max_metric_drop 0.005, allowed 0.01" in words(ran.out)
        assert "modelpress artifacts download art_1" in ran.err


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["compress", "missing.pt2", "--target", "torch", "--method", "m"], "does not exist"),
        (["compress", "model.pt2", "--method", "m"], "Missing option '--target'"),
        (["compress", "model.pt2", "--target", "torch"], "either --method"),
        (["compress", "model.pt2", "--target", "torch", "--method", "m", "--recipe", "auto"], "either --method"),
        (["compress", "model.pt2", "--target", "torch", "--method", "m", "--param", "x"], "expected key=value"),
        (["compress", "model.pt2", "--target", "torch", "--recipe", "model.pt2"], "--recipe model.pt2"),
        (["compress", "model.pt2", "--target", "torch", "--recipe", "nowhere.json"], "No such file"),
        (["jobs", "explode"], "No such command"),
        (["models", "list", "--limit", "none"], "valid integer"),
    ],
)
def test_wrong_arguments_are_usage(
    run: Callable[..., Any], files: dict[str, Path], service: Service, args: list[str], told: str
) -> None:
    ran = run(*args)
    assert ran.code == 2
    assert told in words(ran.err.replace("│", "")), ran.err
    assert service.seen == []


def test_recipe_from_a_file(run: Callable[..., Any], service: Service, compress: list[object], tmp_path: Path) -> None:
    recipe = {"steps": [{"method": "prune.channels", "ratio": 0.5}, {"method": "quantize.static"}]}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    at = compress.index("--method")
    compress[at : at + 2] = ["--recipe", "recipe.json"]
    assert run(*compress).code == 0
    assert service.job["recipe"] == recipe


def test_a_refusal_shows_code_detail_and_pointers(
    run: Callable[..., Any], service: Service, compress: list[object]
) -> None:
    service.refuse("/v1/jobs", 422, "unknown_target")
    ran = run(*compress)
    assert ran.code == 4
    assert "error [unknown_target, HTTP 422]: because of unknown_target\n  /targets/0: no target 'abacus'" in ran.err


def test_no_key_and_wrong_key(run: Callable[..., Any]) -> None:
    ran = run("models", "list", MODELPRESS_KEY="")
    assert (ran.code, "MODELPRESS_KEY" in ran.err) == (2, True)
    ran = run("models", "list", MODELPRESS_KEY="mpk_other")
    assert (ran.code, "unauthenticated" in ran.err) == (4, True)


def test_no_service(run: Callable[..., Any], free_port: int, service: Service) -> None:
    ran = run("models", "list", MODELPRESS_URL="http://127.0.0.1:9")
    assert ran.code == 4
    assert "cannot reach http://127.0.0.1:9" in ran.err


def test_output_that_cannot_be_written(run: Callable[..., Any], compress: list[object], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    ran = run(*compress)
    assert ran.code == 2
    assert "File exists" in ran.err


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"no line with {text!r}")


def interrupt_at(service: Service, process: subprocess.Popen[str]) -> None:
    wait_for_line(process, "job running")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)


def test_ctrl_c_cancels_the_job(
    start: Callable[..., subprocess.Popen[str]], service: Service, compress: list[object]
) -> None:
    service.outcome = ""
    service.events = [HISTORY[0], ("wait", {}), ("end", {})]
    process = start(*compress)
    interrupt_at(service, process)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "canceling the job" in err
    assert "job canceled" in err
    assert "Traceback" not in err
    assert len(service.requests("POST", "/v1/jobs/job_1:cancel")) == 1


def test_a_second_ctrl_c_leaves(
    start: Callable[..., subprocess.Popen[str]], service: Service, compress: list[object]
) -> None:
    service.outcome, service.cancel_ends = "", False
    service.events = [HISTORY[0], ("wait", {}), ("end", {})]
    process = start(*compress)
    interrupt_at(service, process)
    wait_for_line(process, "canceling")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    service.outcome = "canceled"
    assert process.returncode == 130
    assert "modelpress jobs follow job_1" in err
    assert "Traceback" not in err


def test_lists_and_details(run: Callable[..., Any], service: Service, files: dict[str, Path]) -> None:
    service.items = 5
    table = run("models", "list", "--limit", 4)
    assert [line.split()[0] for line in table.out.splitlines()] == ["id", "mdl_0", "mdl_1", "mdl_2", "mdl_3"]
    assert [item["id"] for item in json.loads(run("models", "list", "--json").out)][-1] == "mdl_4"
    shown = run("models", "upload", files["model"])
    assert "name: model.pt2" in shown.out
    assert json.loads(run("models", "show", "mdl_1", "--json").out)["size_bytes"] == 5000
    assert run("models", "delete", "mdl_1").code == 0
    gone = run("models", "show", "mdl_1")
    assert (gone.code, "not_found" in gone.err) == (4, True)
    secret = run("keys", "create", "ci", "--role", "reader", "--expires", "2030-01-01")
    assert "key: mpk_secret" in secret.out
    assert KEY not in secret.out + secret.err


def test_jobs(run: Callable[..., Any], service: Service, compress: list[object], tmp_path: Path) -> None:
    assert run(*compress).code == 0
    assert "size ratio" in run("jobs", "report", "job_1").out
    assert run("jobs", "follow", "job_1").code == 0
    assert run("jobs", "logs", "job_1").out == "reading\n\N{REPLACEMENT CHARACTER}[31mcompressing\n"
    refused = run("jobs", "cancel", "job_1")
    assert (refused.code, "job_already_finished" in refused.err) == (4, True)
    assert json.loads(run("artifacts", "manifest", "art_1").out) == {"seed": 0}
    assert run("artifacts", "download", "art_1", "-o", tmp_path / "again.onnx").code == 0
    assert (tmp_path / "again.onnx").read_bytes() == service.content


def test_on_a_terminal_progress_is_live(
    environment: dict[str, str], service: Service, compress: list[object], tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", "from modelpress.cli.main import main; main()", *map(str, compress)],
            env={**environment, "TERM": "xterm"},
            cwd=tmp_path,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
    finally:
        os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # Linux: EIO once the other end is closed
        while data := os.read(ours, 65536):
            shown += data
    os.close(ours)
    assert process.wait(20) == 0
    text = shown.decode()
    assert "\x1b[" in text
    assert "100 %" in text or "━" in text
    assert "upload model.pt2" in text
    assert "speed-up" in text
    assert "12 layers\N{REPLACEMENT CHARACTER}" in text


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_a_job_measured_without_labels_has_a_table_too(
    run: Callable[..., Any], service: Service, compress: list[object], outcome: str
) -> None:
    service.without_labels = True
    service.outcome = outcome
    ran = run(*compress)
    assert "size ratio" in ran.out
    assert "accuracy" not in ran.out
    assert "intervals" not in ran.out


def rows(out: str) -> list[list[str]]:
    """The cells of every row of every table."""
    lines = [line.replace("┃", "│") for line in out.splitlines()]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]


def test_several_steps_have_a_table_of_their_own(
    run: Callable[..., Any], service: Service, compress: list[object]
) -> None:
    service.steps = STEPS
    ran = run(*compress)
    assert ran.code == 0, ran.err
    told = rows(ran.out)
    at = told.index(["step", "took", "weights", "not zero", "MACs", "accuracy", "SQNR"])
    assert told[at + 1 :] == [
        ["float model", "", "4 kB", "100 %", "100 %", "98.00 %", ""],
        ["prune.channels", "1 min 01 s", "2 kB", "80 %", "25 %", "95.00 % (-3.00)", "12.3 dB"],
        ["quantize.static", "2 s", "510 B", "80 %", "25 %", "95.20 % (+0.20)", "12.0 dB"],
    ]


def test_steps_without_samples_have_no_columns_of_quality(
    run: Callable[..., Any], service: Service, compress: list[object]
) -> None:
    hidden = ("metric", "fidelity_db", "change")
    bare = [{name: value for name, value in row.items() if name not in hidden} for row in STEPS["steps"]]
    before = {name: value for name, value in STEPS["before"].items() if name not in hidden}
    service.steps = {"before": before, "steps": bare}
    assert ["step", "took", "weights", "not zero", "MACs"] in rows(run(*compress).out)


@pytest.mark.parametrize("steps", [{}, {**STEPS, "steps": STEPS["steps"][:1]}, {"steps": STEPS["steps"]}])
def test_one_step_or_an_older_service_has_no_table_of_steps(
    run: Callable[..., Any], service: Service, compress: list[object], steps: dict[str, Any]
) -> None:
    service.steps = steps
    ran = run(*compress)
    assert ran.code == 0, ran.err
    assert "between the steps" not in ran.out
