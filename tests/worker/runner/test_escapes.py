"""A job that means harm, from inside: other jobs, the worker, the services, the network, the machine."""

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.programs_inside import Inside, needs, run
from worker.runner.folder import JobFolder
from worker.runner.process import Death
from worker.runner.sandbox import Confinement, Standing

MIB = 1024**2
#: Calls by their numbers on (x86_64, aarch64), with arguments that would do something were they allowed.
CALLS = """
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    if libc.syscall(number, *arguments) == -1:
        raise OSError(ctypes.get_errno(), "refused")
column = 0 if os.uname().machine == "x86_64" else 1
room = ctypes.create_string_buffer(4096)
CALLS = {
    "keyctl": ((250, 219), (0, -3, 1)),
    "add_key": ((248, 217), (b"user", b"k", b"v", 1, -3)),
    "request_key": ((249, 218), (b"user", b"k", 0, -3)),
    "setns": ((308, 268), (0, 0)),
    "unshare-user": ((272, 97), (0x10000000,)),
    "unshare-mount": ((272, 97), (0x20000,)),
    "unshare-pid": ((272, 97), (0x20000000,)),
    "unshare-net": ((272, 97), (0x40000000,)),
    "pivot_root": ((155, 41), (b"/", b"/tmp")),
    "chroot": ((161, 51), (b"/tmp",)),
    "umount": ((166, 39), (b"/proc", 2)),
    "open_tree": ((428, 428), (-100, b"/", 1)),
    "move_mount": ((429, 429), (-100, b"/", -100, b"/tmp", 0)),
    "fsopen": ((430, 430), (b"tmpfs", 0)),
    "mount_setattr": ((442, 442), (-100, b"/", 0, room, 32)),
    "bpf": ((321, 280), (0, room, 64)),
    "perf": ((298, 241), (room, 0, -1, -1, 0)),
    "userfaultfd": ((323, 282), (1,)),
    "kcmp": ((312, 272), (1, 1, 0, 0, 0)),
    "vm_readv": ((310, 270), (os.getppid(), room, 1, room, 1, 0)),
    "vm_writev": ((311, 271), (os.getppid(), room, 1, room, 1, 0)),
    "pidfd_getfd": ((438, 438), (0, 0, 0)),
    "handle": ((304, 265), (-100, room, 0)),
    "kexec": ((246, 104), (0, 0, 0, 0)),
    "module": ((175, 105), (room, 8, b"")),
    "swap": ((167, 224), (b"/tmp/x", 0)),
    "acct": ((163, 89), (b"/tmp/x",)),
    "hostname": ((170, 161), (b"evil", 4)),
    "clock": ((227, 112), (0, room)),
    "quota": ((179, 60), (0x80000700, b"/dev/vda", 0, room)),
    "io_uring": ((425, 425), (1, room)),
    "ptrace-seize": ((101, 117), (0x4206, os.getppid(), 0, 0)),
    "ptrace-me": ((101, 117), (0, 0, 0, 0)),
    "clone-user": ((56, 220), (0x10000000 | 17, 0, 0, 0, 0)),
    "clone-pid": ((56, 220), (0x20000000 | 17, 0, 0, 0, 0)),
}
for name, (numbers, arguments) in CALLS.items():
    attempt(name, lambda: call(numbers[column], *arguments))
attempt("clone3", lambda: call(435, room, 88))
if column == 0:
    attempt("x32", lambda: call(0x40000000 | 39))
    attempt("iopl", lambda: call(172, 3))
"""


def done(found: dict[str, str]) -> dict[str, str]:
    """What succeeded."""
    return {name: answer for name, answer in found.items() if answer.startswith("done")}


def test_calls_of_the_kernel(inside: Inside, standing: Standing) -> None:
    needs(standing, "seccomp")
    found = inside(CALLS)
    assert len(found) > 35
    assert found.pop("clone3") == "OSError"  # as if it did not exist, so that the C library asks for clone
    assert {name: answer for name, answer in found.items() if answer != "PermissionError"} == {}


def test_sockets_of_every_kind(inside: Inside, standing: Standing, tmp_path: Path) -> None:
    """Also those that need no new socket: a pair of datagram sockets may send to any address."""
    needs(standing, "seccomp")
    database, log = tmp_path / ".s.PGSQL.5432", tmp_path / "log"
    with socket.socket(socket.AF_UNIX) as stream, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        stream.bind(str(database))
        stream.listen()
        datagrams.bind(str(log))
        datagrams.setblocking(False)
        for path in (database, log):
            path.chmod(0o777)
        for folder in (tmp_path, tmp_path.parent):
            folder.chmod(0o755)
        with socket.socket(socket.AF_UNIX) as abstract:
            abstract.bind(f"\0modelpress-{os.getpid()}")
            abstract.listen()
            found = inside(
                f"""
                attempt("database", lambda: socket.socket(socket.AF_UNIX).connect({str(database)!r}))
                attempt("abstract", lambda: socket.socket(socket.AF_UNIX).connect("\\0modelpress-{os.getpid()}"))
                attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
                attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
                attempt("six", lambda: socket.create_connection(("::1", 80), timeout=2))
                attempt("names", lambda: socket.getaddrinfo("example.com", 80))
                attempt("vsock", lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM))
                attempt("bluetooth", lambda: socket.socket(31, socket.SOCK_STREAM))
                attempt("alg", lambda: socket.socket(38, socket.SOCK_SEQPACKET))
                pair = lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
                attempt("pair", lambda: pair()[0].sendto(b"x", {str(log)!r}))
                attempt("listening", lambda: socket.create_server(("127.0.0.1", 0)))
                """
            )
        assert done(found) == {}
        with pytest.raises(BlockingIOError):
            datagrams.recv(10)


def test_limits_cannot_be_raised(inside: Inside) -> None:
    found = inside(
        f"""
        import resource
        everything = (resource.RLIM_INFINITY,) * 2
        for name in ("NPROC", "NOFILE", "FSIZE", "CPU"):
            attempt(name, lambda: resource.setrlimit(getattr(resource, "RLIMIT_" + name), everything))
        attempt("core", lambda: resource.setrlimit(resource.RLIMIT_CORE, everything))
        attempt("worker", lambda: resource.prlimit({os.getpid()}, resource.RLIMIT_NOFILE, (0, 0)))
        attempt("faster", lambda: os.nice(-10))
        attempt("real-time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)))
        attempt("never-a-victim", lambda: pathlib.Path("/proc/self/oom_score_adj").write_text("-1000"))
        """
    )
    if os.getuid() != 0:
        found.pop("worker")  # a worker without privileges shares its user with its jobs
    assert done(found) == {}


def test_the_worker_and_its_keeper(inside: Inside, standing: Standing) -> None:
    needs(standing, "user", "landlock")
    found = inside(
        f"""
        for name in ("environ", "mem", "maps", "auxv", "stack", "syscall"):
            attempt("worker-" + name, lambda: open("/proc/{os.getpid()}/" + name, "rb").read(1))
            attempt("keeper-" + name, lambda: open(f"/proc/{{os.getppid()}}/{{name}}", "rb").read(1))
        for name in ("cwd", "root", "exe"):
            attempt("worker-" + name, lambda: os.readlink("/proc/{os.getpid()}/" + name))
        for number in range(20):
            attempt(f"descriptor-{{number}}", lambda: os.readlink(f"/proc/{os.getpid()}/fd/{{number}}"))
        attempt("root", lambda: os.listdir("/proc/{os.getpid()}/root"))
        attempt("signal-keeper", lambda: os.kill(os.getppid(), signal.SIGKILL))
        attempt("signal-worker", lambda: os.kill({os.getpid()}, signal.SIGTERM))
        attempt("signal-all", lambda: os.kill(1, signal.SIGTERM))
        attempt("pidfd", lambda: signal.pidfd_send_signal(os.pidfd_open({os.getpid()}), signal.SIGTERM))
        """
    )
    assert done(found) == {}


def test_devices_and_settings_of_the_kernel(inside: Inside, standing: Standing) -> None:
    needs(standing, "user", "landlock")
    found = inside(
        """
        for path in ("mem", "kmsg", "kvm", "fuse", "tty", "vda", "sda", "ptmx"):
            path = "/dev/" + path
            attempt(path, lambda: open(path, "rb").read(1))
        for path in ("proc/sys/kernel/core_pattern", "proc/sysrq-trigger", "proc/sys/vm/swappiness"):
            path = "/" + path
            attempt(path, lambda: open(path, "w").write("x"))
        for path in ("/etc/passwd", "/usr/bin/evil", sys.prefix + "/evil", "/etc/ld.so.preload", "/root/.bashrc", "/x"):
            attempt(path, lambda: open(path, "a").write("x"))
        attempt("device", lambda: os.mknod(folder / "tmp" / "null", 0o020666, os.makedev(1, 3)))
        attempt("capability", lambda: os.setxattr(sys.executable, "security.capability", bytes(20)))
        attempt("owner", lambda: os.chown(folder / "tmp", 0, 0))
        attempt("hard-link", lambda: os.link("/etc/passwd", folder / "output" / "passwd"))
        attempt("through-proc", lambda: open("/proc/self/root/etc/shadow").read())
        attempt("group", lambda: os.setgroups([0]))
        """
    )
    assert done(found) == {}


def test_modules_are_not_taken_from_where_the_job_may_write(inside: Inside, folder: JobFolder) -> None:
    found = inside(
        """
        pathlib.Path("statistics.py").write_text("here = 1")
        attempt("imported", lambda: __import__("statistics").here)
        told = subprocess.run([sys.executable, "-c", "import sys; print(sys.path)"], capture_output=True, text=True)
        found["path"] = told.stdout
        """
    )
    assert found["imported"] == "AttributeError"
    assert str(folder.path) not in found["path"]
    assert "''" not in found["path"]


def test_a_full_disk(folder: JobFolder, confinement: Confinement) -> None:
    """Many files, each within its limit: their sum is watched."""
    death = run(
        folder,
        replace(confinement, file_bytes=8 * MIB),
        """
        for index in range(1000):
            (folder / "tmp" / str(index)).write_bytes(b"x" * (1 << 20))
            time.sleep(0.1)
        """,
    )
    assert isinstance(death, Death), death
    assert death.code == "storage_full"


@pytest.mark.parametrize("what", ["named", "unnamed", "mapped"])
def test_shared_memory_counts_and_is_gone_afterwards(
    what: str, folder: JobFolder, confinement: Confinement, standing: Standing
) -> None:
    """It is no private memory, and its files would outlive the job."""
    needs(standing, "user")
    if os.getuid() != 0:
        pytest.skip("a worker without privileges shares its user, and so its shared memory, with its jobs")
    opened = {
        "named": f'open("/dev/shm/modelpress-test-{os.getpid()}", "wb")',
        "unnamed": 'os.fdopen(os.memfd_create("m"), "wb")',
        "mapped": "__import__('mmap').mmap(-1, 400 << 20)",
    }
    death = run(
        folder,
        confinement,
        f"""
        held = {opened[what]}
        for _ in range(100):
            held.write(b"x" * (4 << 20))
            if not hasattr(held, "madvise"):
                held.flush()
            time.sleep(0.03)
        """,
        memory_bytes=100 * MIB,
    )
    assert isinstance(death, Death), death
    assert death.code == "out_of_memory"
    assert not Path(f"/dev/shm/modelpress-test-{os.getpid()}").exists()
