"""Stylesheet, scripts and icons, from memory, at addresses that change with their content; plotly's among them.

Modules import each other by relative paths, so that one version in the address is right for all of them.
"""

import asyncio
import gzip
import hashlib
import mimetypes
from dataclasses import dataclass, field
from importlib.metadata import version as version_of
from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response

from app.errors import NotFound

FOLDER = Path(__file__).parent / "static"
#: Where the pages find the library of the charts.
PLOTLY = "vendor/plotly.min.js"
_YEAR = "public, max-age=31536000, immutable"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

router = APIRouter(include_in_schema=False)


@dataclass
class Assets:
    """Path below `FOLDER` -> file, and the version of all of them together."""

    files: dict[str, Path]
    version: str
    _bodies: dict[tuple[str, bool], bytes] = field(default_factory=dict)

    @classmethod
    def load(cls) -> "Assets":
        """Those of this installation."""
        files = {str(path.relative_to(FOLDER)): path for path in sorted(FOLDER.rglob("*")) if path.is_file()}
        digest = hashlib.sha256(version_of("plotly").encode())
        for name, path in files.items():
            digest.update(name.encode() + path.read_bytes())
        return cls({**files, PLOTLY: _plotly()}, digest.hexdigest()[:12])

    def url(self, root: str, path: str) -> str:
        """Where a browser finds the file. Raises KeyError for one that is not there."""
        if path not in self.files:
            raise KeyError(path)
        return f"{root}/static/{self.version}/{path}"

    def body(self, path: str, *, packed: bool) -> bytes:
        """The file's bytes; packed once, however often they are asked for."""
        known = self._bodies.get((path, packed))
        if known is None:
            content = self.files[path].read_bytes()
            known = self._bodies[path, packed] = gzip.compress(content, mtime=0) if packed else content
        return known


def install(app: FastAPI) -> None:
    """Puts the assets where pages and `send_asset` find them."""
    app.state.assets = Assets.load()


@router.head("/static/{version}/{path:path}")
@router.get("/static/{version}/{path:path}")
async def send_asset(request: Request, version: str, path: str) -> Response:
    """For ever, at the address of this version; at any other the same, for this once."""
    assets: Assets = request.app.state.assets
    if path not in assets.files:
        raise NotFound("There is nothing at this path.")
    suffix = Path(path).suffix
    packed = suffix in _TYPES and "gzip" in request.headers.get("accept-encoding", "")
    body = await asyncio.to_thread(assets.body, path, packed=packed)
    headers = {
        "Cache-Control": _YEAR if version == assets.version else "no-store",
        "X-Content-Type-Options": "nosniff",
        "Vary": "Accept-Encoding",
    }
    if packed:
        headers["Content-Encoding"] = "gzip"
    media_type = _TYPES.get(suffix) or mimetypes.guess_type(path)[0] or "application/octet-stream"
    return Response(body, media_type=media_type, headers=headers)


def _plotly() -> Path:
    """The file in the installed package, which is found without being imported: that takes a second."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise RuntimeError("the package plotly is not installed; reinstall modelpress-server")
    return Path(spec.origin).parent / "package_data" / "plotly.min.js"
