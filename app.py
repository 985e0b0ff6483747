"""A page to try it: drop a photo, see its hair, dye it, take the pictures home.

    pip install -r requirements-app.txt
    python app.py                                     # http://127.0.0.1:7860

Nothing leaves the machine and nothing outlives the visit: uploads and results are deleted when the page is closed.
"""

import argparse
import base64
import hashlib
import html
import os
import signal
import socket
import sys
import tempfile
import threading
import zipfile
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlencode

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # it would call home
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import cv2
import gradio as gr
import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, Response

import inference
import render
import video
from texts import KOREAN_COLORS, TEXTS
from visitors import Complaint, Look, Shelf, check_size, read_upload, unpack

MAX_FILE_SIZE = 64 * 2**20  # bytes of one upload
MAX_SECONDS = 60  # of a video
KEPT = 600_000_000  # bytes of photos and probabilities in memory, of all visitors together
PREVIEW = 900  # longer side, in pixels, of pictures in the page
PICTURES = ("overlay", "mask", "alpha", "recolor")

CSS = """
.results { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 12px; }
.results figure { margin: 0; } .results img { width: 100%; border-radius: 6px; }
.results a { display: block; padding: 10px; text-align: center; border-radius: 6px; margin-top: 4px;
  background: var(--button-secondary-background-fill); color: var(--button-secondary-text-color); }
.compare { position: relative; max-width: 560px; margin: 0 auto 12px; --cut: 50%; }
.compare img { width: 100%; display: block; border-radius: 6px; }
.compare img + img { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--cut)); }
.compare input { width: 100%; height: 32px; }
.alert { color: var(--error-text-color); font-weight: 600; }
"""


# ---------------------------------------------------------------------------------------------------- the page's parts


def language(request: gr.Request | Request) -> str:
    """`ko` for browsers that prefer Korean, else `en`."""
    return "ko" if request.headers.get("accept-language", "").lower().startswith("ko") else "en"


def visitor(request: gr.Request) -> str:
    """The visitor's name on the shelf. Clients make up their session, or have none: a hash leads to no other folder."""
    return hashlib.sha256((request.session_hash or "").encode()).hexdigest()


def alert(text: dict[str, str], complaint: Complaint) -> str:
    return f'<p class="alert" role="alert">{html.escape(text[complaint.key].format(**complaint.facts))}</p>'


def on_checkers(cut: np.ndarray) -> np.ndarray:
    """RGBA uint8 (H, W, 4) on the checkerboard that stands for transparency, RGB uint8."""
    rows, columns = (np.arange(side) // 12 % 2 for side in cut.shape[:2])
    board = (255 - 51 * (rows[:, None] ^ columns)).astype(np.uint8)[..., None]
    alpha = cut[..., 3:].astype(np.uint16)
    return ((cut[..., :3] * alpha + board * (255 - alpha)) // 255).astype(np.uint8)


def picture(image: np.ndarray, alt: str) -> str:
    """An HTML image that carries its data along: no file of it is written."""
    data = base64.b64encode(render.encode(image, ".jpg")).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/jpeg;base64,{data}">'


def show_look(look: Look, text: dict[str, str], settings: dict) -> tuple[str, str]:
    """A look in words and in pictures, both HTML.

    Args:
        look: what to show.
        text: of TEXTS.
        settings: threshold, color, opacity and strength of `render.draw`, and `refine`.
    """
    found = look.probabilities(settings["refine"])
    facts = render.describe(look.name, look.photo, found >= settings["threshold"])
    name = facts["color_name"]
    said = text["none"]
    if name:
        name = KOREAN_COLORS[name] if text is TEXTS["ko"] else name
        said = text["summary"].format(share=f"{facts['hair']:.1%}", name=f"{name} ({facts['color']})")
    scale = min(1, PREVIEW / max(look.photo.shape[:2]))
    size = tuple(max(1, round(side * scale)) for side in look.photo.shape[1::-1])
    photo, small = (cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (look.photo, found))
    how = {key: value for key, value in settings.items() if key != "refine"}
    how["color"] = render.parse_color(how["color"])
    pictures = {kind: render.draw(kind, photo, small, **how) for kind in PICTURES}
    pictures["alpha"] = on_checkers(pictures["alpha"])
    query = html.escape(urlencode(settings))
    figures = [
        f"<figure>{picture(image, text[kind])}"
        f'<a class="save-{kind}" href="picture/{look.token}/{kind}.png?{query}" download>'
        f"{html.escape(text['save'].format(kind=text[kind]))}</a></figure>"
        for kind, image in pictures.items()
    ]
    compare = (
        f'<div class="compare">{picture(photo, text["before"])}{picture(pictures["recolor"], text["after"])}'
        f'<input type="range" value="50" aria-label="{html.escape(text["slide"])}" '
        "oninput=\"this.parentElement.style.setProperty('--cut', this.value + '%')\"></div>"
    )
    return f'<p role="status">{html.escape(said)}</p>', f'{compare}<div class="results">{"".join(figures)}</div>'


# ---------------------------------------------------------------------------------------------------- the page


class Page:
    """What the page does: each method is one of its events.

    Args:
        weights: see `inference.HairSegmenter`.
        folder: for uploads (in `inbox`, which Gradio must be told) and results; the caller deletes it.
    """

    def __init__(self, weights: Path | None, folder: Path) -> None:
        self.inbox = folder / "uploads"
        self.inbox.mkdir(parents=True)  # Gradio makes it with the first upload, but needs it before
        self.shelf = Shelf(folder / "results", self.inbox, KEPT)
        self.segmenter = cache(lambda backend: inference.HairSegmenter(weights, backend))
        self.one_large = threading.Lock()  # photos of many megapixels go one at a time

    def look(self, session: str, path: Path, backend: str) -> Look:
        """Run the network on a photo, once. Raises Complaint."""
        key = (session, str(path), backend)
        look = self.shelf.look(key)
        if look is None:
            self.shelf.note_upload(session, path)
            photo = read_upload(path)
            try:
                segmenter = self.segmenter(backend)
            except (OSError, ValueError) as error:  # not each backend reads the file or the folder of the weights
                raise Complaint("no_backend", backend=backend) from error
            look = Look(session, path.name, photo, segmenter(photo), segmenter.img_size)
            self.shelf.keep(key, look)
        return look

    def show(
        self,
        path: str | None,
        backend: str,
        refine: bool,
        threshold: float,
        color: str,
        opacity: float,
        strength: float,
        request: gr.Request,
    ) -> tuple[str, str]:
        """A photo or a control changed: words and pictures."""
        if path is None:
            return "", ""
        text = TEXTS[language(request)]
        settings = {"threshold": threshold, "color": css_color(color), "opacity": opacity, "strength": strength}
        settings["refine"] = refine
        try:
            return show_look(self.look(visitor(request), Path(path), backend), text, settings)
        except Complaint as complaint:
            return alert(text, complaint), ""

    def many(
        self,
        files: list[str] | None,
        kinds: list[str],
        threshold: float,
        color: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how Gradio knows to pass one)
    ) -> str:
        """Photos and zips to a zip of results."""
        text = TEXTS[language(request)]
        uploads, session = [Path(file) for file in files or []], visitor(request)
        for path in uploads:
            self.shelf.note_upload(session, path)
        if not uploads or not kinds:
            return alert(text, Complaint("nothing"))
        folder = self.shelf.folder(session)
        photos, problems = unpack(uploads, folder)
        how = argparse.Namespace(save=kinds, threshold=threshold, color=render.parse_color(css_color(color)))
        (folder / "results").mkdir()
        endings = [f"_{kind}.{ending}" for kind, ending in inference.KINDS.items()]
        names = inference.result_names(photos, folder / "results", endings)
        segmenter = self.segmenter("auto")
        for number, (path, name) in enumerate(zip(photos, names, strict=True)):
            progress((number, len(photos)), desc=text["working"].format(name=path.name))
            try:
                check_size(path)
                inference.segment_file(path, name, segmenter, how, self.one_large)
            except Complaint as complaint:
                problems.append(complaint)
            except (OSError, ValueError):
                problems.append(Complaint("unreadable", name=path.name))
        made = sorted((folder / "results").glob("*"))  # unlike iterdir, of a visitor who has left: none
        said = "".join(alert(text, problem) for problem in problems)
        if not made:
            return said
        with zipfile.ZipFile(folder / "hair.zip", "w") as archive:  # PNGs do not shrink further
            for path in made:
                archive.write(path, path.name)
                path.unlink()
        ready = text["ready"].format(count=len(made) // len(kinds))
        address = f"file/{self.shelf.offer(folder / 'hair.zip')}"
        link = f'<div class="results"><a href="{address}" download>{text["download"]} (zip)</a></div>'
        return f'<p role="status">{ready}</p>{said}{link}'

    def film(
        self,
        file: str | None,
        kind: str,
        threshold: float,
        color: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008 (follows segment_video's bar)
    ) -> str:
        """A short video to one of its hair."""
        text = TEXTS[language(request)]
        if file is None:
            return alert(text, Complaint("no_video"))
        path = Path(file)
        self.shelf.note_upload(visitor(request), path)
        try:
            if is_long(video.Reader(path)):
                return alert(text, Complaint("too_long", name=path.name, most=MAX_SECONDS))
            folder = self.shelf.folder(visitor(request))
            how = argparse.Namespace(
                save=[kind], threshold=threshold, color=render.parse_color(css_color(color)), every=1, smooth=0.6
            )
            video.segment_video(path, folder / "hair", self.segmenter("auto"), how)
        except (OSError, ValueError, cv2.error):
            return alert(text, Complaint("bad_video", name=path.name))
        address = f"file/{self.shelf.offer(folder / f'hair_{kind}.mp4')}"
        return (
            f'<p role="status">{text["video_ready"]}</p><video controls src="{address}" style="width: 100%"></video>'
            f'<div class="results"><a href="{address}" download>{text["download"]} (mp4)</a></div>'
        )

    def arrive(self, files: str | list[str] | None, request: gr.Request) -> None:
        """Uploads are here, which may be all that comes of them."""
        for file in [files] if isinstance(files, str) else files or []:
            self.shelf.note_upload(visitor(request), Path(file))

    def forget(self, request: gr.Request) -> None:
        """The visitor closed the page."""
        self.shelf.forget(visitor(request))


def is_long(reader: video.Reader) -> bool:
    """Whether a video is longer than MAX_SECONDS, by its frames' times where it does not tell, as browsers' do not."""
    if reader.total:
        return reader.total > MAX_SECONDS * reader.rate
    return any(time > MAX_SECONDS for _, time in reader)


def css_color(value: str) -> str:
    """What Gradio's colour picker gives, `#rrggbb` or `rgba(12.3, 4.5, 6.7, 1)`, as `#rrggbb`."""
    if value.startswith("rgb"):
        red, green, blue = (round(float(part)) for part in value[value.index("(") + 1 : -1].split(",")[:3])
        return f"#{red:02x}{green:02x}{blue:02x}"
    return value


def build_page(page: Page) -> gr.Blocks:
    """The page's components and what they do."""
    say = gr.I18n(**TEXTS)
    backends = [
        "auto",
        *(
            b
            for b, module in (("onnx", "onnxruntime"), ("openvino", "openvino"), ("torch", "torch"))
            if find_spec(module)
        ),
    ]
    presets = [(name, color) for name, color in render.HAIR_COLORS.items()]
    gr.set_static_paths([inference.HERE / "demo"])
    with gr.Blocks(title=TEXTS["en"]["title"], analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.Markdown(say("intro"))
        with gr.Tab(say("tab_photo")):
            with gr.Row():
                with gr.Column(scale=1, min_width=280):
                    photo = gr.Image(
                        label=say("photo"),
                        type="filepath",
                        sources=["upload", "webcam", "clipboard"],
                        height=320,
                        elem_id="photo",
                    )
                    # Gradio would decode the file and complain in its own way; `inference.read_photo` does both better.
                    photo.preprocess = lambda payload: payload.path if payload else None
                    demos = sorted(path for path in (inference.HERE / "demo").glob("*.jpg") if path.stem.isdecimal())
                    gr.Examples([[str(path)] for path in demos], photo, label=say("examples"))
                    color = gr.ColorPicker(render.HAIR_COLORS["auburn"], label=say("color"), elem_id="color")
                    preset = gr.Dropdown(
                        presets, value=render.HAIR_COLORS["auburn"], label=say("presets"), elem_id="preset"
                    )
                    strength = gr.Slider(0, 1, 1, step=0.05, label=say("strength"))
                    opacity = gr.Slider(0, 1, 0.45, step=0.05, label=say("opacity"))
                    threshold = gr.Slider(
                        *(0.05, 0.95, page.segmenter("auto").threshold),
                        step=0.05,
                        label=say("threshold"),
                        elem_id="threshold",
                    )
                    refine = gr.Checkbox(False, label=say("refine"))
                    backend = gr.Dropdown(backends, value="auto", label=say("backend"))
                with gr.Column(scale=2, min_width=280):
                    words = gr.HTML(elem_id="words")
                    pictures = gr.HTML(elem_id="pictures")
            controls = (backend, refine, threshold, color, opacity, strength)
            preset.input(lambda chosen: chosen, preset, color, api_visibility="private")

            gr.on(
                [photo.change, *(control.change for control in controls)],
                page.show,
                [photo, *controls],
                [words, pictures],
                concurrency_limit=4,
                trigger_mode="always_last",
                show_progress="minimal",
                api_name="show",
            )
        with gr.Tab(say("tab_batch")):
            gr.Markdown(say("shared"))
            files = gr.File(label=say("files"), file_count="multiple", file_types=["image", ".zip"], elem_id="files")
            kinds = gr.CheckboxGroup(
                [(say(kind), kind) for kind in inference.KINDS], value=["overlay", "mask"], label=say("kinds")
            )
            start = gr.Button(say("start"), variant="primary", elem_id="start")
            zipped = gr.HTML(elem_id="zipped")

            start.click(page.many, [files, kinds, threshold, color], zipped)
        with gr.Tab(say("tab_video")):
            gr.Markdown(say("shared"))
            clip = gr.Video(label=say("video"), sources=["upload"], elem_id="clip")
            kind = gr.Radio([(say(kind), kind) for kind in video.KINDS], value="overlay", label=say("video_kind"))
            go = gr.Button(say("start"), variant="primary", elem_id="go")
            film = gr.HTML(elem_id="film")

            go.click(page.film, [clip, kind, threshold, color], film)
        for upload in (photo, files, clip):
            upload.upload(page.arrive, upload, queue=False, show_progress="hidden", api_visibility="private")
        blocks.unload(page.forget)
    return blocks.queue(max_size=64)


def build_server(page: Page) -> FastAPI:
    """The page and, beside it, addresses for results at the photo's own size: they are made when asked for."""
    server = FastAPI(docs_url=None, openapi_url=None)

    @server.get("/picture/{token}/{kind}.png")
    def download(
        request: Request,
        token: str,
        kind: str,
        threshold: float = Query(gt=0, lt=1),
        color: str = Query(pattern="^#[0-9a-fA-F]{6}$"),
        opacity: float = Query(ge=0, le=1),
        strength: float = Query(ge=0, le=1),
        refine: bool = False,
    ) -> Response:
        look = page.shelf.by_token(token)
        if look is None or kind not in PICTURES:
            raise HTTPException(404, TEXTS[language(request)]["gone"])
        dye = render.parse_color(color)
        image = render.draw(kind, look.photo, look.probabilities(refine), threshold, dye, opacity, strength)
        name = quote(f"{Path(look.name).stem}_{kind}.png")
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}", "Cache-Control": "no-store"}
        return Response(render.encode(image), media_type="image/png", headers=headers)

    @server.get("/file/{token}")
    def fetch(request: Request, token: str) -> FileResponse:
        path = page.shelf.result(token)
        if path is None:
            raise HTTPException(404, TEXTS[language(request)]["gone"])
        return FileResponse(
            path, filename=path.name, headers={"Cache-Control": "no-store"}, content_disposition_type="inline"
        )

    blocks = build_page(page)
    # Gradio lets clients name uploads only, but not before `launch`, which a mounted page never sees: without it they
    # could have any picture of this machine read. There is no other way to say so (Gradio 6.31, `_check_allowed`).
    blocks.has_launched = True
    theme = gr.themes.Default(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace"))
    return gr.mount_gradio_app(
        *(server, blocks),
        path="",
        max_file_size=MAX_FILE_SIZE,
        i18n=gr.I18n(**TEXTS),
        theme=theme,
        css=CSS,
        show_error=True,
        ssr_mode=False,
        footer_links=[],
        allowed_paths=[str(inference.HERE / "demo")],
    )


def port(text: str) -> int:
    if not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 65535")
    return int(text)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (default: 127.0.0.1)")
    parser.add_argument("--port", type=port, default=7860, help="of the page's address (default: 7860)")
    parser.add_argument("--weights", type=Path, help="a run folder or an exported file (default: the shipped weights)")
    return parser


def main() -> None:
    args = build_parser().parse_args()
    # Uvicorn ends by the signal that stopped it: this way what is below ends too, and deletes the visitors' files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="hair-") as folder:
        page = Page(args.weights, Path(folder))
        os.environ["GRADIO_TEMP_DIR"], tempfile.tempdir = str(page.inbox), folder  # what is uploaded goes with it
        try:
            family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
            listener = socket.create_server((args.host, args.port), family=family)
            page.segmenter("auto")
        except (OSError, ValueError) as error:
            raise SystemExit(f"error: {error}") from None
        print(f"http://{args.host}:{args.port}  (Ctrl-C ends it)", flush=True)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(uvicorn.Config(build_server(page), log_level="warning")).run([listener])


if __name__ == "__main__":
    main()
