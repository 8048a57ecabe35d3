"""The distribution stands alone."""

import re
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[2] / "client"


def test_importing_it_loads_nothing_of_the_server() -> None:
    code = (
        "import sys, modelpress, modelpress.cli.main\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}"
        " & {'app', 'worker', 'torch', 'numpy', 'onnx', 'google', 'fastapi', 'sqlalchemy', 'celery'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def closure(*names: str) -> set[str]:
    """The distributions that those need, themselves included, as installed here."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        needs = [Requirement(text) for text in distribution(name).requires or ()]
        waiting += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


EXPORT = """
import modelpress
try:
    modelpress.export(None, None, "model.pt2")
except modelpress.ExportError as error:
    print(error)
"""


def metadata(wheel: Path) -> list[str]:
    """What the wheel says that it requires."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode()
    return [line.removeprefix("Requires-Dist: ") for line in text.splitlines() if line.startswith("Requires-Dist: ")]


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_of_its_own(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, CLIENT]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("modelpress-*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    # What an index would give, without one: the very distributions installed here, and no others.
    for name in closure("httpx", "rich", "typer"):
        for file in distribution(name).files or ():
            target = packages / file
            if ".." in file.parts or target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(Path(str(file.locate())).resolve())
    needed = {re.split(r"[^\w-]", line)[0] for line in metadata(wheel) if "extra ==" not in line}
    assert needed == {"httpx", "rich", "typer"}
    bin = tmp_path / "venv" / "bin"
    subprocess.run([bin / "pip", "install", "--no-index", wheel], check=True, capture_output=True)
    check = subprocess.run([bin / "pip", "check"], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout
    shown = subprocess.run([bin / "modelpress", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout == f"modelpress {distribution('modelpress').version}\n"
    helped = subprocess.run([bin / "modelpress", "--help"], capture_output=True, text=True, check=True)
    assert all(noun in helped.stdout for noun in ("compress", "webhooks", "usage"))
    exported = subprocess.run([bin / "python", "-c", EXPORT], capture_output=True, text=True, check=True)
    assert "pip install torch" in exported.stdout
    typed = subprocess.run(
        [bin / "python", "-c", "import modelpress, pathlib; print(pathlib.Path(modelpress.__file__).parent)"],
        capture_output=True,
        text=True,
        check=True,
    )
    installed = Path(typed.stdout.strip())
    assert installed.is_relative_to(packages.resolve())
    assert (installed / "py.typed").exists()
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04N.")
    checked = subprocess.run([bin / "modelpress", "check", tmp_path / "model.pkl"], capture_output=True, text=True)
    assert checked.returncode == 4
    assert "unsafe_format" in checked.stdout
    assert (installed / "inspection" / "operators.json").exists()
