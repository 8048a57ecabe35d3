"""What the server's wheel carries besides Python: migrations and presets."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_carries_migrations_and_presets(tmp_path: Path) -> None:
    source = tmp_path / "source"  # setuptools leaves things beside the sources, and takes up what an older run left
    for folder in ("app", "migrations"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / file, source)
    (source / "README.md").touch()
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert names >= {"migrations/env.py", "migrations/script.py.mako"}
    for folder, kind in (("migrations/versions", "*.py"), ("app/recipes/presets", "*.json")):
        expected = {str(path.relative_to(ROOT)) for path in (ROOT / folder).glob(kind)}
        assert expected
        assert expected <= names
