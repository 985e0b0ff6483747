"""Serve the page that runs in the visitor's browser, `web/ondevice/`."""

import mimetypes
from pathlib import Path

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from hair.errors import UserError

BUILT = Path(__file__).resolve().parent / "ondevice" / "dist"
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".webmanifest": "application/manifest+json"}


def read_headers(folder: Path) -> dict[str, str]:
    """What `_headers` of the built page asks for. Raises UserError if it was not built."""
    file = folder / "_headers"
    if not file.is_file():
        raise UserError(f"{folder}: the page is not built; run npm ci && npm run build in {folder.parent}")
    lines = file.read_text(encoding="utf-8").splitlines()
    return dict(line.strip().split(": ", 1) for line in lines if line.startswith(" "))


class _Files(StaticFiles):
    """Files with the headers that `dist/_headers` asks for: threads need them."""

    def __init__(self, folder: Path) -> None:
        self.extra = read_headers(folder)
        super().__init__(directory=folder, html=True)

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(self.extra | {"Cache-Control": "no-cache"})  # a new build is seen at once
        return response


def build_static(folder: Path = BUILT) -> Starlette:
    """The page at `/`. Raises UserError if it was not built."""
    files = _Files(folder)
    for suffix, kind in TYPES.items():  # some systems know others
        mimetypes.add_type(kind, suffix)
    return Starlette(routes=[Mount("/", files)])
