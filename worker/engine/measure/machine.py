"""What a measurement was taken on: processor, memory, library versions."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = (
    "modelpress-server", "torch", "onnx", "onnxruntime", "openvino", "executorch", "litert-torch", "ai-edge-litert",
    "tensorrt", "numpy",
)  # fmt: skip
#: Instruction sets that multiply uint8 by int8 into 32 bits.
_VNNI = ("avx512_vnni", "avx_vnni", "amx_int8")
#: Instruction sets that decide how fast integer kernels are.
_TELLING = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm",
)  # fmt: skip


def cpu_flags() -> frozenset[str]:
    """Feature flags of the processor, as the kernel names them."""
    return frozenset(_cpu_field("flags").split() or _cpu_field("Features").split())


def saturates() -> bool:
    """Whether uint8 times int8 goes through ``vpmaddubsw`` here, which adds two products in 16 bits (no VNNI)."""
    return platform.machine() == "x86_64" and not cpu_flags().intersection(_VNNI)


def hardware() -> dict[str, Any]:
    """``{"cpu", "architecture", "cores", "flags", "memory_bytes"}``; flags are those that matter for speed."""
    flags = cpu_flags()
    return {
        "cpu": _cpu_field("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in _TELLING if flag in flags],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def versions() -> dict[str, str]:
    """Python and the packages that decide what an artifact is and how fast it runs."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cpu_field(name: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
