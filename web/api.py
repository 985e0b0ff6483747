"""The HTTP interface: one photo in, one result out, with the limits and messages of the page. Does not need Gradio."""

import json
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Depends, FastAPI, File, HTTPException, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Field, ValidationInfo, field_validator
from starlette.datastructures import UploadFile as FormFile
from starlette.exceptions import HTTPException as StarletteException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hair import HairSegmenter, UserError
from hair.colors import HAIR_COLORS, parse_color
from hair.cutout import parse_background
from hair.dye import Dye
from hair.effects import Looks
from hair.exif import read_exif
from hair.files import QUALITY
from hair.results import FORMATS, KINDS, NO_EXIF, PICTURES, TEXTS, Results, describe, make_result
from web.texts import choose_language, translate_note
from web.uploads import MAX_BYTES, check_size, read_upload
from web.visitors import MAX_PIXELS, Prediction, Turns, UserMessage

STATUS = {"no_photo": 400, "big_file": 413, "large": 413, "unreadable": 415, "busy": 503}  # of messages; else 422
RETRY_AFTER = "5"  # seconds after which a client may try again if too many photos are waiting
MEDIA_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "json": "application/json"}
ACCEPTED = re.compile(r"([\w.+-]+/[\w.+-]+)\s*(?:;\s*q=(\d(?:\.\d+)?))?")  # a media type and its weight
FORM = "application/x-www-form-urlencoded"  # `curl --data-binary` sends this type with any body
ROOM_FOR_FORM = 2**16  # bytes around the photo in a multipart body
LONGEST_NAME = 60  # characters of an upload's file name that are kept
CHOICES = {"save": tuple(KINDS), "format": (*FORMATS, "json")}
NO_STORE = {"Cache-Control": "no-store"}
DOCS = "/api/docs"
SUMMARY = f"""Send a photo as the only file of a multipart form, or as the request body. It may have up to
{MAX_PIXELS // 1_000_000} megapixels and {MAX_BYTES // 2**20} MB, in any format that the command line reads.

The response is an image, or JSON with `format=json` or `Accept: application/json`. The header `X-Hair-Notes` is a JSON
list of notes on how the photo was read. Errors are `{{"error": "…"}}`, in English or Korean depending on the header
`Accept-Language`.
"""


class Options(BaseModel, frozen=True, extra="forbid"):
    """The query: the flags of `inference.py` that make sense for one photo, and the page's opacity and strength."""

    save: str | None = Field(
        None,
        description=f"kind of result: {', '.join(KINDS)} (default: overlay, or json if the format is json)",
        json_schema_extra={"enum": list(KINDS)},
    )
    format: str | None = Field(
        None,
        description="png, jpg or webp for images, as `--format`; or json (default: from the header Accept, else png)",
        json_schema_extra={"enum": [*FORMATS, "json"]},
    )
    quality: int = Field(QUALITY, ge=1, le=100, description="of JPEG and WebP")
    color: list[str] = Field(
        ["auburn"],
        max_length=2,
        description=f"dye colour: {', '.join(HAIR_COLORS)}, a CSS colour or %23rrggbb; two for an ombré",
    )
    bleach: bool = Field(True, description="make hair as light or dark as the dye; without it, dark hair stays dark")
    highlights: float | None = Field(
        None,
        ge=0,
        le=1,
        description="highlight this fraction of the strands: in the second colour, or lighter if there is one",
    )
    background: str | None = Field(
        None, description="what alpha shows behind the hair: a CSS colour, %23rrggbb or blur (default: nothing)"
    )
    strength: float = Field(1, ge=0, le=1, description="of the dye")
    opacity: float = Field(0.45, ge=0, le=1, description="of the overlay's tint")
    threshold: float | None = Field(
        None, gt=0, lt=1, description="probability from which a pixel counts as hair (default: that of the weights)"
    )
    refine: bool = Field(False, description="refine edges with a guided filter")
    tta: bool = Field(False, description="average over the mirror image and three sizes; six times slower")
    multi_scale: bool = Field(True, description="look closer where small heads are suspected")
    max_pixels: int | None = Field(None, ge=1, description="reduce larger photos to 1/2, 1/3, 1/4 … of their size")
    keep_exif: bool = Field(False, description="copy the photo's EXIF data, without location and serial numbers")

    @field_validator("save", "format")
    @classmethod
    def _is_choice(cls, value: str | None, info: ValidationInfo) -> str | None:
        choices = CHOICES[info.field_name or ""]
        if value not in (None, *choices):
            raise ValueError(f"choose from {', '.join(choices)}")
        return value

    @field_validator("color")
    @classmethod
    def _are_colors(cls, value: list[str]) -> list[str]:
        try:
            for name in value:
                parse_color(name)
        except UserError as error:
            raise ValueError(f"{error}; in an address # is written %23") from error
        return value

    @field_validator("background")
    @classmethod
    def _is_background(cls, value: str | None) -> str | None:
        if value is not None and parse_background(value) is None:  # a file would be one of this machine
            raise ValueError("neither a CSS colour, nor #rrggbb (in an address %23rrggbb), nor blur")
        return value

    def results(self, default_threshold: float, accept: str) -> Results:
        """The one kind of result to make. Raises UserError for invalid combinations.

        Args:
            default_threshold: threshold of the weights.
            accept: header `Accept` of the request.
        """
        wanted = self.format or preferred_format(accept)
        kind = self.save or ("json" if wanted == "json" else "overlay")
        if self.format == "json" and kind not in TEXTS:
            raise UserError(f"format: json is for save={', '.join(TEXTS)}")
        if self.background is not None and kind != "alpha":
            raise UserError("background: this is for save=alpha")
        threshold = default_threshold if self.threshold is None else self.threshold
        dye = Dye(tuple(map(parse_color, self.color)), self.strength, self.bleach, self.highlights)
        background = None if self.background is None else parse_background(self.background)
        looks = Looks(threshold, dye, self.opacity, background)
        picture_format = wanted if wanted in FORMATS else FORMATS[0]
        return Results((kind,), looks, self.max_pixels, picture_format, self.quality, self.keep_exif)


class Problem(BaseModel):
    """The error response."""

    error: str


def preferred_format(accept: str) -> str | None:
    """The name in MEDIA_TYPES of the type with the highest weight in the header `Accept`; None if it has none."""
    formats = {media_type: name for name, media_type in MEDIA_TYPES.items()}
    weights = {formats[kind]: float(weight or 1) for kind, weight in ACCEPTED.findall(accept) if kind in formats}
    best = max(weights, key=weights.__getitem__, default=None)
    return best if best and weights[best] else None


def attachment(name: str) -> dict[str, str]:
    """Response headers that make a browser save the file under this name."""
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}", **NO_STORE}


# ---------------------------------------------------------------------------------------------------- requests


class LimitedRoute(APIRoute):
    """Reads bodies up to MAX_BYTES. FastAPI has such a limit (`max_body_size`), but answers in plain text."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_limited(request: Request) -> Response:
            most, size = MAX_BYTES + ROOM_FOR_FORM, 0

            async def receive() -> Message:
                nonlocal size
                message = await request.receive()
                size += len(message.get("body", b""))
                if size > most:
                    raise HTTPException(413)
                return message

            if int(request.headers.get("content-length", 0)) > most:  # digits: the server has checked it
                raise HTTPException(413)
            scope = dict(request.scope)
            # The body is not read as a form then, but below.
            scope["headers"] = [item for item in scope["headers"] if item != (b"content-type", FORM.encode())]
            return await handle(Request(scope, receive))

        return handle_limited


async def receive_photo(
    request: Request, photo: Annotated[UploadFile | None, File(description="the photo")] = None
) -> AsyncIterator[Path]:
    """The photo of a request as a file, which is deleted after the response. Raises UserMessage if there is none."""
    form = await request.form()
    upload = next((value for value in form.values() if isinstance(value, FormFile)), None)  # whatever its field's name
    name = re.sub(r"[\x00-\x1f]", "", re.split(r"[/\\]", (upload and upload.filename) or "")[-1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (name[-LONGEST_NAME:].strip(". ") or "photo")
        with path.open("wb") as file:
            if upload:
                while block := await upload.read(1 << 20):
                    file.write(block)
            elif not request.headers.get("content-type", "").startswith("multipart/"):
                async for block in request.stream():
                    file.write(block)
            size = file.tell()
        if not size:
            raise UserMessage("no_photo")
        yield path


class RootPath:
    """Tells the routes where visitors find the server, whether or not a proxy removes the path from requests.

    Args:
        app: the server.
        root_path: such as `/hair`, or `https://example.com/hair`, which counts more than what a proxy says.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        address = urlsplit(root_path)
        self._app, self._root = app, address.path
        self._forwarded: list[tuple[bytes, bytes]] = []
        if address.netloc:
            said = {"x-forwarded-host": address.netloc, "x-forwarded-proto": address.scheme}
            self._forwarded = [(name.encode(), value.encode()) for name, value in said.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if self._root and path == self._root and scope["type"] == "http":  # relative links would lead beside the page
            await RedirectResponse(f"{path}/")(scope, receive, send)
            return
        if not path.startswith(f"{self._root}/"):
            path = self._root + path
        names = {name for name, _ in self._forwarded}
        headers = [item for item in scope["headers"] if item[0] not in names] + self._forwarded
        await self._app({**scope, "root_path": self._root, "path": path, "headers": headers}, receive, send)


# ---------------------------------------------------------------------------------------------------- answers


def _answer(upload: Path, prediction: Prediction, refine: bool, results: Results, language: str) -> Response:
    """The one result of a prediction. Raises UserError if an image is too large for its format."""
    kind, photo, notes = results.kinds[0], prediction.photo, list(prediction.photo.notes)
    probabilities = prediction.probabilities(refine)
    exif = read_exif(upload) if results.keep_exif and kind in PICTURES else b""
    notes += [NO_EXIF] if exif is None else []
    notes = [translate_note(note, language) for note in notes]
    headers = {"X-Hair-Notes": json.dumps(notes)} if notes else {}
    if kind == "json":
        facts = describe(upload.name, photo.pixels, probabilities >= results.looks.threshold)
        return JSONResponse(facts | {"notes": notes}, headers=headers | NO_STORE)
    suffix, content = make_result(kind, upload.name, photo, probabilities, results, exif or b"")
    headers |= attachment(f"{upload.stem}_{kind}.{suffix}")
    return Response(content, media_type=MEDIA_TYPES[suffix], headers=headers)


def _tell_visitor(request: Request, error: Exception) -> Response:
    """A UserMessage in the client's language."""
    assert isinstance(error, UserMessage)
    headers = {"Retry-After": RETRY_AFTER} if error.key == "busy" else {}
    text = error.text(choose_language(request.headers))
    return JSONResponse({"error": text}, STATUS.get(error.key, 422), headers)


def _tell_user(request: Request, error: Exception) -> Response:
    """The response to a UserError; flags in its message are named as parameters."""
    return JSONResponse({"error": without_dashes(str(error))}, 422)


def _tell_what_is_invalid(request: Request, error: Exception) -> Response:
    """The response to an invalid query."""
    assert isinstance(error, RequestValidationError)
    lines = []
    for item in error.errors():
        name, line = str(item["loc"][-1]), without_dashes(item["msg"].removeprefix("Value error, "))
        if item["type"] == "extra_forbidden":
            line = f"there is no such parameter; choose from {', '.join(Options.model_fields)}"
        lines.append(line if line.startswith(name) else f"{name}: {line}")
    return JSONResponse({"error": "; ".join(lines)}, 422)


def _tell_http(request: Request, error: Exception) -> Response:
    """Errors of HTTP itself."""
    assert isinstance(error, StarletteException)
    if error.status_code == 413:
        return _tell_visitor(request, UserMessage("big_file", name="photo", most=MAX_BYTES // 2**20))
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def without_dashes(text: str) -> str:
    """Turn a message about flags into one about parameters."""
    return re.sub(r"--(?=\w)", "", text)


# ---------------------------------------------------------------------------------------------------- the server


def build_api(
    segmenter: Callable[..., HairSegmenter], turns: Turns, root_path: str = "", is_alone: bool = False
) -> FastAPI:
    """`POST /api/hair`, and its documentation at `/api/docs`.

    Args:
        segmenter: returns a `hair.HairSegmenter` for a backend and options; caches them.
        turns: the queue, shared with the page.
        root_path: where clients reach the server behind a proxy, such as `/hair` or `https://example.com/hair`.
        is_alone: there is no page; `/` redirects to the documentation.
    """
    server = FastAPIOffline(
        docs_url=DOCS,
        redoc_url=None,
        title="Hair segmentation",
        openapi_url="/api/openapi.json",
        static_url="/api/static",
        swagger_ui_oauth2_redirect_url=f"{DOCS}/oauth2-redirect",
        servers=[{"url": root_path}] if root_path else None,
        root_path_in_servers=False,
    )
    server.add_middleware(RootPath, root_path=root_path)
    server.add_exception_handler(UserMessage, _tell_visitor)
    server.add_exception_handler(UserError, _tell_user)
    server.add_exception_handler(RequestValidationError, _tell_what_is_invalid)
    server.add_exception_handler(StarletteException, _tell_http)
    router = APIRouter(route_class=LimitedRoute)

    @router.post(
        "/api/hair",
        summary="Find the hair in a photo",
        description=SUMMARY,
        response_class=Response,
        responses={
            200: {"content": {media_type: {} for media_type in MEDIA_TYPES.values()}, "description": "the result"},
            400: {"model": Problem, "description": "no photo in the request"},
            413: {"model": Problem, "description": "too many megapixels or bytes"},
            415: {"model": Problem, "description": "not a photo"},
            422: {"model": Problem, "description": "a wrong parameter, or a photo that is damaged"},
            503: {"model": Problem, "description": "too many photos are waiting; see the header Retry-After"},
        },
        openapi_extra={"requestBody": {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}},
    )
    def find_hair(
        request: Request, upload: Annotated[Path, Depends(receive_photo)], options: Annotated[Options, Query()]
    ) -> Response:
        language = choose_language(request.headers)
        with turns.take(check_size(upload)):
            changed = options.model_dump(include={"tta", "multi_scale"}, exclude_defaults=True)
            segment = segmenter("auto", **changed)
            results = options.results(segment.threshold, request.headers.get("accept", ""))
            photo = read_upload(upload, options.max_pixels)
            prediction = Prediction(upload.name, photo, segment(photo.pixels), segment.img_size)
            return _answer(upload, prediction, options.refine, results, language)

    server.include_router(router)
    if is_alone:

        @server.get("/", include_in_schema=False)
        def show_documentation(request: Request) -> RedirectResponse:
            return RedirectResponse(f"{root_path or request.scope.get('root_path', '')}{DOCS}")

    return server
