"""Measuring processes: what they compute, and every way in which a runtime can fail in them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from worker.engine.data.samples import Samples
from worker.engine.errors import RuntimeFailure
from worker.engine.measure.latency import alternate
from worker.engine.measure.remote import Remote

WEIGHT = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def write_model(path: Path, batch: str | int = "batch") -> Path:
    """``scores = x @ WEIGHT`` and ``ids = argmax(scores)``."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["scores"]),
            helper.make_node("ArgMax", ["scores"], ["ids"], axis=1, keepdims=0),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 6])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 4]),
            helper.make_tensor_value_info("ids", TensorProto.INT64, [batch]),
        ],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "net.onnx")


def inputs(samples: int = 50) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(samples, 6)).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_outputs_do_not_depend_on_the_batch(model: Path, tmp_path: Path, batch: int) -> None:
    with Remote("onnxruntime", model, 1, tmp_path / "run") as remote:
        remote.load({"x": inputs()})
        scores, ids = remote.run(batch)
    np.testing.assert_allclose(scores, inputs() @ WEIGHT, rtol=1e-5)
    np.testing.assert_array_equal(ids, (inputs() @ WEIGHT).argmax(axis=1))


def test_mapped_inputs_are_shared_by_position_in_the_file(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", pad=np.zeros(3), x=inputs())
    offset = (tmp_path / "x.npz").read_bytes().index(inputs().tobytes())
    mapped = np.memmap(tmp_path / "x.npz", np.float32, "r", offset, (50, 6))
    with Remote("onnxruntime", model, 1, tmp_path / "run") as remote:
        remote.load({"x": mapped})
        assert not list((tmp_path / "run").glob("input-*"))
        np.testing.assert_allclose(remote.run(16)[0], inputs() @ WEIGHT, rtol=1e-5)
        remote.load({"x": mapped[10:20]})  # a part starts elsewhere than its mapping
        np.testing.assert_allclose(remote.run(16)[0], inputs()[10:20] @ WEIGHT, rtol=1e-5)


def test_the_runtime_is_alone_in_its_process(model: Path, tmp_path: Path) -> None:
    with Remote("onnxruntime", model, 1, tmp_path / "run") as remote:
        mapped = Path(f"/proc/{remote._process.pid}/maps").read_text()
        assert "onnxruntime" in mapped
        assert "libtorch" not in mapped
        assert 10 * 1024**2 < remote.peak_memory() < 250 * 1024**2


def test_times_are_those_of_single_runs(model: Path, tmp_path: Path) -> None:
    with Remote("onnxruntime", model, 1, tmp_path / "run") as remote:
        remote.load({"x": inputs()})
        taken = remote.time(1, seconds=0, least=9, most=100)
        assert len(taken) == 9
        assert all(0 < seconds < 5 for seconds in taken)
        assert len(remote.time(1, seconds=60, least=1, most=30)) == 30


def test_alternating_sides(model: Path, tmp_path: Path) -> None:
    with Remote("onnxruntime", model, 1, tmp_path / "a") as one, Remote("onnxruntime", model, 1, tmp_path / "b") as two:
        for remote in (one, two):
            remote.load({"x": inputs()})
        before, after = alternate((one, two), batch=16, rounds=2)
    for times in (before.to_json(), after.to_json()):
        assert times["latency_runs"] >= 6
        assert times["throughput_per_s"] > 0


def test_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"not a model")
    with (
        pytest.raises(RuntimeFailure, match="could not open") as caught,
        Remote("onnxruntime", tmp_path / "net.onnx", 1, tmp_path / "run"),
    ):
        pass
    assert caught.value.code == "runtime_failed"


def test_inputs_that_the_file_does_not_take(model: Path, tmp_path: Path) -> None:
    with Remote("onnxruntime", model, 1, tmp_path / "run") as remote:
        remote.load({"x": inputs()[:, :5].copy()})
        with pytest.raises(RuntimeFailure) as caught:
            remote.run(4)
    assert caught.value.code == "runtime_failed"


def test_outputs_that_do_not_belong_to_samples(tmp_path: Path) -> None:
    model = onnx.load(write_model(tmp_path / "net.onnx"))
    model.graph.node.append(helper.make_node("ReduceSum", ["scores"], ["sum"], keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, []))
    onnx.save(model, tmp_path / "net.onnx")
    with Remote("onnxruntime", tmp_path / "net.onnx", 1, tmp_path / "run") as remote:
        remote.load({"x": inputs()})
        assert remote.run(1)[2].shape == (50,)
        with pytest.raises(RuntimeFailure, match=r"shape \(\) for 10 samples"):
            remote.run(10)


@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGKILL])
def test_crash(model: Path, tmp_path: Path, how: signal.Signals) -> None:
    with Remote("onnxruntime", model, 1, tmp_path / "run") as remote:
        os.kill(remote._process.pid, how)
        with pytest.raises(RuntimeFailure, match=how.name) as caught:
            remote.peak_memory()
    assert caught.value.code == "runtime_crashed"


def test_hang(model: Path, tmp_path: Path) -> None:
    with Remote("onnxruntime", model, 1, tmp_path / "run", silence_s=5) as remote:
        remote._silence_s = 0.2
        process = psutil.Process(remote._process.pid)
        os.kill(remote._process.pid, signal.SIGSTOP)
        with pytest.raises(RuntimeFailure, match="no sign of life") as caught:
            remote.peak_memory()
        assert not process.is_running()
    assert caught.value.code == "runtime_timeout"


def test_no_process_is_left_behind(model: Path, tmp_path: Path) -> None:
    with Remote("onnxruntime", model, 1, tmp_path / "run") as remote:
        pid = remote._process.pid
    assert not psutil.pid_exists(pid)


def test_it_ends_with_its_parent(model: Path, tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from worker.engine.measure.remote import Remote\n"
        f"with Remote('onnxruntime', Path({str(model)!r}), 1, Path({str(tmp_path / 'run')!r})) as remote:\n"
        "    print(remote._process.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        measuring = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    deadline = time.monotonic() + 10
    while measuring.is_running() and measuring.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not measuring.is_running() or measuring.status() == psutil.STATUS_ZOMBIE


def test_samples_hand_out_writable_copies() -> None:
    frozen = inputs()
    frozen.flags.writeable = False
    for batch in Samples({"x": frozen}).batches(8):
        batch["x"][:] = 0
    np.testing.assert_array_equal(frozen, inputs())
