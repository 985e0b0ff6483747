"""The server: the routes of the page, in addition to those of the HTTP interface."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import gradio as gr
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, Response

from hair.results import PICTURES, Results, make_result
from web.api import NO_STORE, attachment, build_api
from web.page import CSS, DEMO, Controls, Page, build_i18n, build_page
from web.texts import TEXTS, choose_language
from web.uploads import MAX_UPLOAD, check_size


def build_server(page: Page) -> FastAPI:
    """The page at `/`, pictures of a prediction at `/picture/…`, made on request, and batch results at `/file/…`.

    The HTTP interface is there, too; see `api.build_api`.
    """
    server = build_api(page.segmenter, page.turns, page.root_path)

    @server.get("/picture/{token}/{kind}.png", include_in_schema=False)
    def send_picture(request: Request, token: str, kind: str, controls: Annotated[Controls, Query()]) -> Response:
        key = page.store.key_of(token)
        if key is None or kind not in PICTURES:
            raise _gone(request)
        with page.turns.take(check_size(Path(key.path))):
            prediction = page.predict(key)
            results = Results((kind,), controls.looks())
            probabilities = prediction.probabilities(controls.refine)
            _, content = make_result(kind, prediction.name, prediction.photo, probabilities, results)
        return Response(content, media_type="image/png", headers=attachment(f"{Path(prediction.name).stem}_{kind}.png"))

    @server.get("/file/{token}", include_in_schema=False)
    def send_file(request: Request, token: str) -> FileResponse:
        path = page.store.download(token)
        if path is None:
            raise _gone(request)
        return FileResponse(path, filename=path.name, headers=NO_STORE, content_disposition_type="inline")

    return _mount_page(server, build_page(page), page.root_path)


def _gone(request: Request) -> HTTPException:
    return HTTPException(404, TEXTS[choose_language(request.headers)]["gone"])


def _mount_page(server: FastAPI, blocks: gr.Blocks, root_path: str) -> FastAPI:
    # Gradio rejects file paths from clients, except uploads, only after `launch`, which a mounted page never calls.
    # Without this line, clients could read any image on this machine. There is no public API for it (Gradio 6.31,
    # `_check_allowed`).
    blocks.has_launched = True
    theme = gr.themes.Default(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace"))
    return gr.mount_gradio_app(
        server,
        blocks,
        path="",
        root_path=urlsplit(root_path).path,  # `api.RootPath` tells the rest
        max_file_size=MAX_UPLOAD,
        i18n=build_i18n(),
        theme=theme,
        css=CSS,
        show_error=True,
        ssr_mode=False,
        footer_links=[],
        allowed_paths=[str(DEMO)],
    )
