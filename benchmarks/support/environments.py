"""Where contestants run: this project's interpreter, or an environment of its own for each peer."""

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Our own environment.
OURS = "ours"


@dataclass(frozen=True)
class Peer:
    """What is installed for a peer, by which constraints, and what runs one of its quantizations.

    Attributes:
        command: behind the interpreter; its program last, a file or a module.
    """

    packages: tuple[str, ...]
    constraints: tuple[str, ...]
    command: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of what is installed and of the program: results of others are no results of this one."""
        program = self.command[-1]
        file = Path(program) if program.endswith(".py") else ROOT / f"{program.replace('.', '/')}.py"
        return hashlib.sha256(repr(self.packages).encode() + file.read_bytes()).hexdigest()[:16]


_PINNED = ("-c", str(ROOT / "constraints.txt"))
_PEER = (str(ROOT / "benchmarks" / "support" / "peer.py"),)
_TORCH = ("torch==2.13.0", "numpy")
_LANGUAGE = ("-m", "benchmarks.support.language_peers")
PEERS = {
    "onnxruntime": Peer(("onnxruntime", "onnx", "numpy"), _PINNED, _PEER),
    "nncf": Peer(("nncf", "openvino", "onnxruntime", "onnx", "numpy"), _PINNED, _PEER),
    "llmcompressor": Peer(("llmcompressor==0.14.0.1", *_TORCH), (), _LANGUAGE),
    "modelopt": Peer(("nvidia-modelopt==0.47.0", "requests", "huggingface_hub", *_TORCH), (), _LANGUAGE),
    "hqq": Peer(("hqq==0.2.8.post1", *_TORCH), (), _LANGUAGE),
    "brevitas": Peer(("brevitas==0.13.4", "pillow", *_TORCH), (), ("-m", "benchmarks.support.binary_peer")),
    "torch-pruning": Peer(
        ("torch-pruning==1.6.1", "pillow", *_TORCH), (), ("-m", "benchmarks.support.torch_pruning_peer")
    ),
    # torchvision, which it needs, settles which torch there is: some gigabytes where that is the one for GPUs.
    "aimet": Peer(("aimet_torch==2.42.0",), (), ("-m", "benchmarks.support.aimet")),
}


def command(name: str, cache: Path, program: str = "") -> list[str]:
    """What runs a contestant of this environment, which is made where it is not there yet.

    Args:
        program: a module that is run in place of the environment's own.
    Raises:
        RuntimeError: it cannot be installed; the last line of pip says why.
    """
    if name == OURS:
        return [sys.executable, "-m", "benchmarks.support.ours"]
    peer, folder = PEERS[name], cache / f"venv-{name}"
    python, stamp = folder / "bin" / "python", folder / ".ready"
    wanted = repr(peer.packages)
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"making the environment of {name} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run(
            [*install, *peer.constraints, *peer.packages], check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
        stamp.write_text(wanted)
    return [str(python), *(("-m", program) if program else peer.command)]
