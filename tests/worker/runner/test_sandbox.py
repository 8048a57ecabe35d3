"""Every wall, from inside: a real child program tries to get out, and must not."""

import json
import math
import os
import signal
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.jobs_below import alive_after, supervisor
from tests.support.programs_inside import Inside, needs, run
from worker.runner.folder import JobFolder
from worker.runner.process import Death
from worker.runner.sandbox import WALLS, Confinement, Standing

MIB = 1024**2


def test_every_wall_is_probed(standing: Standing) -> None:
    assert set(standing.walls) | set(standing.missing) == set(WALLS)
    assert not set(standing.walls) & set(standing.missing)
    assert {"limits", "capabilities", "no_new_privs"} <= set(standing.walls)


def test_own_inputs_and_output_are_usable(inside: Inside, folder: JobFolder) -> None:
    (folder.inputs / "data").write_text("mine")
    found = inside(
        """
        attempt("read", (folder / "inputs" / "data").read_text)
        attempt("write", lambda: (folder / "output" / "made").write_text("x"))
        attempt("temporary", lambda: __import__("tempfile").NamedTemporaryFile().write(b"x"))
        attempt("threads", lambda: [threading.Thread(target=time.sleep, args=(0,)).start() for _ in range(8)])
        attempt("grandchild", lambda: subprocess.run([sys.executable, "-c", "print(1)"], check=True))
        attempt("pair", socket.socketpair)
        attempt("access", lambda: 1 / os.access(folder / "inputs" / "data", os.R_OK))
        attempt("writable", lambda: 1 / os.access(folder / "home", os.W_OK))
        """
    )
    assert {name for name, answer in found.items() if not answer.startswith("done")} == set()
    assert folder.take("made").read_text() == "x"


def test_files_of_others_are_out_of_reach(
    inside: Inside, folder: JobFolder, standing: Standing, tmp_path: Path
) -> None:
    needs(standing, "landlock")
    other = JobFolder.create(tmp_path, "other", standing.uid(os.getpid() + 1))
    secret = other.inputs / "secret"
    secret.write_text("theirs")
    (folder.inputs / "mine").write_text("x")
    found = inside(
        f"""
        attempt("other", pathlib.Path({str(secret)!r}).read_text)
        attempt("list", lambda: os.listdir({str(other.path)!r}))
        attempt("link", lambda: os.link({str(secret)!r}, folder / "output" / "stolen"))
        attempt("symlink", lambda: os.symlink({str(secret)!r}, folder / "tmp" / "s") or open(folder / "tmp" / "s"))
        attempt("shadow", lambda: open("/etc/shadow").read())
        attempt("outside", lambda: open({str(tmp_path / "outside")!r}, "w"))
        attempt("tmp", lambda: open("/tmp/modelpress-outside", "w"))
        attempt("inputs", lambda: open(folder / "inputs" / "mine", "w"))
        attempt("chmod", lambda: os.rename(folder / "inputs", folder / "output" / "i"))
        """
    )
    other.remove()
    assert {name: answer for name, answer in found.items() if answer.startswith("done")} == {}


def test_secrets_of_the_worker_are_not_in_reach(
    inside: Inside, standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELPRESS_KEY_PEPPER", "pepper-of-the-test")
    found = inside(
        f"""
        attempt("own", lambda: [k for k in os.environ if "MODELPRESS" in k or "PEPPER" in k])
        attempt("worker", lambda: open("/proc/{os.getpid()}/environ").read())
        attempt("memory", lambda: open("/proc/{os.getpid()}/mem", "rb").read(1))
        attempt("keeper", lambda: open(f"/proc/{{os.getppid()}}/environ").read())
        attempt("kill", lambda: os.kill({os.getpid()}, 0))
        """
    )
    assert found.pop("own") == "done: []"
    if "user" not in standing.walls or "landlock" not in standing.walls:
        pytest.skip("the walls that hide other processes do not stand here")
    assert {name for name, answer in found.items() if answer != "PermissionError"} == set()


def test_no_network_and_no_sockets_of_the_services(inside: Inside, standing: Standing, tmp_path: Path) -> None:
    needs(standing, "seccomp")
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        (tmp_path / "s").chmod(0o777)
        unix.listen()
        found = inside(
            f"""
            attempt("tcp", lambda: socket.create_connection(("127.0.0.1", {tcp.getsockname()[1]}), timeout=2))
            attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)))
            attempt("unix", lambda: socket.socket(socket.AF_UNIX).connect({str(tmp_path / "s")!r}))
            attempt("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
            """
        )
    assert set(found.values()) <= {"PermissionError", "OSError"}, found


def test_no_interface_but_loopback(inside: Inside, standing: Standing) -> None:
    needs(standing, "namespaces")
    found = inside("""attempt("interfaces", lambda: open("/proc/self/net/dev").read().count(":"))""")
    assert found["interfaces"] == "done: 1"


def test_system_calls_that_escape_are_refused(inside: Inside, standing: Standing) -> None:
    needs(standing, "seccomp")
    found = inside(
        """
        libc = ctypes.CDLL(None, use_errno=True)
        def call(number, *arguments):
            if libc.syscall(number, *arguments) == -1:
                raise OSError(ctypes.get_errno(), "refused")
        x86 = os.uname().machine == "x86_64"
        attempt("ptrace", lambda: call(101 if x86 else 117, 16, os.getppid(), 0, 0))
        attempt("unshare", lambda: call(272 if x86 else 97, 0x10000000))
        attempt("mount", lambda: call(165 if x86 else 40, b"none", b"/tmp", b"tmpfs", 0, 0))
        attempt("io_uring", lambda: call(425, 1, ctypes.create_string_buffer(256)))
        attempt("clone", lambda: call(56 if x86 else 220, 0x10000000 | 17, 0, 0, 0, 0))
        attempt("root", lambda: os.setuid(0))
        """
    )
    # An ordinary worker's setuid(0) fails like a root worker's; both are EPERM.
    assert set(found.values()) == {"PermissionError"}, found


def test_modest_fork_bomb_is_contained_and_cleaned_up(
    folder: JobFolder, confinement: Confinement, standing: Standing
) -> None:
    if os.getuid() == 0:
        needs(standing, "user")
    found = run(
        folder,
        replace(confinement, processes=30),
        """
        made = []
        def bomb():
            for _ in range(200):
                pid = os.fork()
                if pid == 0:
                    os.setsid()
                    time.sleep(60)
                    os._exit(0)
                made.append(pid)
        attempt("bomb", bomb)
        found["made"] = str(len(made))
        found["pids"] = json.dumps(made)
        """,
    )
    assert isinstance(found, dict)
    assert found["bomb"] == "BlockingIOError"
    assert int(found["made"]) < 30
    assert alive_after(json.loads(found["pids"]), 0) == []


def test_memory_of_one_allocation(folder: JobFolder, confinement: Confinement) -> None:
    found = run(
        folder, replace(confinement, memory_bytes=256 * MIB), """attempt("large", lambda: len(bytearray(400 << 20)))"""
    )
    assert found == {"large": "MemoryError"}


def test_memory_of_the_whole_tree_is_watched(folder: JobFolder, confinement: Confinement) -> None:
    """Each process stays under its own limit; together they are over the job's."""
    death = run(
        folder,
        confinement,
        """
        hog = "import time; b = b'x' * (60 << 20); time.sleep(30)"
        hogs = [subprocess.Popen([sys.executable, "-c", hog]) for _ in range(3)]
        time.sleep(30)
        """,
        memory_bytes=120 * MIB,
    )
    assert isinstance(death, Death)
    assert death.code == "out_of_memory"
    assert "120 MiB" in death.detail


def test_file_size(folder: JobFolder, confinement: Confinement) -> None:
    found = run(
        folder,
        replace(confinement, file_bytes=MIB),
        """
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        attempt("large", lambda: (folder / "output" / "large").write_bytes(bytes(2 << 20)))
        """,
    )
    assert found == {"large": "OSError"}


def test_runtimes_work_inside(inside: Inside) -> None:
    """The walls leave the libraries alone: threads, shared memory, processor facts, kernels."""
    found = inside(
        """
        def torch_runs():
            import torch
            return float((torch.ones(64, 64) @ torch.ones(64, 64)).sum())
        def openvino_runs():
            import numpy, openvino
            from openvino import opset13 as ops
            x = ops.parameter([2, 3], name="x")
            model = openvino.compile_model(openvino.Model([ops.relu(x)], [x]), "CPU")
            return float(model(numpy.ones((2, 3), numpy.float32))[0].sum())
        def onnxruntime_runs():
            import numpy, onnx, onnxruntime
            from onnx import helper
            value = lambda name: helper.make_tensor_value_info(name, 1, [2, 3])
            graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value("x")], [value("y")])
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
            session = onnxruntime.InferenceSession(model.SerializeToString())
            return float(session.run(None, {"x": numpy.ones((2, 3), numpy.float32)})[0].sum())
        attempt("torch", torch_runs)
        attempt("openvino", openvino_runs)
        attempt("onnxruntime", onnxruntime_runs)
        """
    )
    assert found == {"torch": "done: 262144.0", "openvino": "done: 6.0", "onnxruntime": "done: 6.0"}


def test_a_daemon_does_not_outlive_the_job(folder: JobFolder, confinement: Confinement) -> None:
    found = run(
        folder,
        confinement,
        """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                (folder / "output" / "daemon").write_text(str(os.getpid()))
                os.closerange(3, 100)
                time.sleep(60)
            os._exit(0)
        while not (folder / "output" / "daemon").exists():
            time.sleep(0.01)
        time.sleep(0.05)
        found["pid"] = (folder / "output" / "daemon").read_text()
        found["seen"] = open(f"/proc/{found['pid']}/stat").read().split()[2]
        """,
    )
    assert isinstance(found, dict)
    assert found["seen"] == "S"
    assert not Path("/proc", found["pid"]).exists()


def test_a_killed_worker_leaves_no_process_of_its_job(folder: JobFolder, confinement: Confinement) -> None:
    command = supervisor(folder, confinement, signal.SIGKILL, left_s=math.inf)
    worker = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert worker.returncode == -signal.SIGKILL, worker.stderr
    pids = [int(pid) for pid in worker.stdout.split()]
    assert len(pids) == 3
    assert alive_after(pids, 5) == []
