"""What this machine offers, found out without importing a heavy runtime."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil

from app.recipes import TARGETS

#: Target -> packages that its engine file imports; where one is absent the target is not offered.
RUNTIMES: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript", "torch"),
    "openvino": ("openvino", "onnx", "onnxscript", "torch"),
    "torch": ("torch",),
    "executorch": ("executorch", "torch"),
    "litert": ("litert_torch", "ai_edge_litert", "torch"),
    "tensorrt": ("tensorrt", "onnx", "onnxscript", "torch"),
}
_ON_GPU = ("tensorrt",)
_DEVICES = Path("/dev")
_VERSIONS = (
    "modelpress-server", "torch", "onnx", "onnxruntime", "openvino", "executorch", "litert-torch", "ai-edge-litert",
    "tensorrt", "numpy",
)  # fmt: skip
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class CannotServeError(Exception):
    """This worker cannot do what it was started for; the message says why and what would help."""


def targets(*, gpu: bool) -> tuple[str, ...]:
    """The targets whose runtimes are installed here; `gpu`: whether jobs may open the GPU, which some need."""
    return tuple(
        name
        for name in TARGETS
        if all(importlib.util.find_spec(package) for package in RUNTIMES.get(name, ()))
        and (name not in _ON_GPU or (gpu and any(_DEVICES.glob("nvidia[0-9]*"))))
    )


def memory_bytes() -> int:
    """Memory of the machine, or of the container where that is less."""
    limits = [int(psutil.virtual_memory().total)]
    for path in map(Path, _CGROUP_LIMITS):
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return min(limits)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def gpus() -> list[dict[str, Any]]:
    """Name, memory and driver of each NVIDIA GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[field.strip() for field in line.split(",")] for line in lines if line.count(",") == 2]
    return [
        {"name": name, "memory_bytes": int(memory) * 1024**2 if memory.isdigit() else None, "driver": driver}
        for name, memory, driver in rows
    ]


def gpu_devices() -> tuple[str, ...]:
    """Device files that CUDA opens."""
    return tuple(sorted(str(path) for path in _DEVICES.glob("nvidia*")))


def require_gpu() -> None:
    """Raises CannotServeError where CUDA jobs cannot run here."""
    if not gpus():
        raise CannotServeError("no NVIDIA GPU answers nvidia-smi; serve the queue cpu, or give the container the GPU")
    torch = _version("torch")
    if torch is None or torch.endswith("+cpu"):
        raise CannotServeError(f"torch {torch} has no CUDA; install a CUDA build of torch (README, GPU)")


def describe() -> dict[str, Any]:
    """Facts about the machine for ``capabilities`` and provenance."""
    return {
        "cpu": {"model": _cpu_model(), "architecture": platform.machine(), "processors": processors()},
        "memory_bytes": memory_bytes(),
        "gpus": gpus(),
        "versions": {name: version for name in _VERSIONS if (version := _version(name))},
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
