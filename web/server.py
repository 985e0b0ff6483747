"""The server: the page, and addresses beside it for results at full resolution."""

from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import gradio as gr
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, Response

from hair.effects import draw
from hair.files import encode_picture
from hair.results import PICTURES
from web.page import CSS, DEMO, Controls, Page, build_page
from web.texts import TEXTS, choose_language

MAX_FILE_SIZE = 64 * 2**20  # bytes of an upload
NO_STORE = {"Cache-Control": "no-store"}


def build_server(page: Page) -> FastAPI:
    """The page at `/`, pictures of a prediction at `/picture/…`, made on request, and batch results at `/file/…`."""
    server = FastAPI(docs_url=None, openapi_url=None)

    @server.get("/picture/{token}/{kind}.png")
    def send_picture(request: Request, token: str, kind: str, controls: Annotated[Controls, Query()]) -> Response:
        prediction = page.store.by_token(token)
        if prediction is None or kind not in PICTURES:
            raise _gone(request)
        image = draw(kind, prediction.photo, prediction.probabilities(controls.refine), controls.looks())
        name = quote(f"{Path(prediction.name).stem}_{kind}.png")
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}", **NO_STORE}
        return Response(encode_picture(image), media_type="image/png", headers=headers)

    @server.get("/file/{token}")
    def send_file(request: Request, token: str) -> FileResponse:
        path = page.store.download(token)
        if path is None:
            raise _gone(request)
        return FileResponse(path, filename=path.name, headers=NO_STORE, content_disposition_type="inline")

    return _mount_page(server, build_page(page))


def _gone(request: Request) -> HTTPException:
    return HTTPException(404, TEXTS[choose_language(request.headers)]["gone"])


def _mount_page(server: FastAPI, blocks: gr.Blocks) -> FastAPI:
    # Gradio refuses paths that clients name, other than uploads, only after `launch`, which a mounted page never calls.
    # Without this line clients could read any picture on this machine. There is no public way (Gradio 6.31,
    # `_check_allowed`).
    blocks.has_launched = True
    theme = gr.themes.Default(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace"))
    return gr.mount_gradio_app(
        server,
        blocks,
        path="",
        max_file_size=MAX_FILE_SIZE,
        i18n=gr.I18n(**TEXTS),
        theme=theme,
        css=CSS,
        show_error=True,
        ssr_mode=False,
        footer_links=[],
        allowed_paths=[str(DEMO)],
    )
