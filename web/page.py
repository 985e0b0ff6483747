"""The page: its components and events."""

import base64
import hashlib
import html
import zipfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import cv2
import gradio as gr
import numpy as np
from pydantic import BaseModel, Field

from hair import HairSegmenter, UserError
from hair.colors import HAIR_COLORS, parse_color
from hair.cutout import parse_background
from hair.dye import Dye
from hair.effects import Looks
from hair.files import encode_picture, result_names
from hair.photos import Photo
from hair.results import KINDS, PICTURES, Results, describe, draw_photo, save_results
from hair.video import KINDS as VIDEO_KINDS
from hair.video import VideoPlan, VideoReader, segment_video
from web.texts import TEXTS, choose_language, translate_color, translate_note
from web.uploads import MAX_BYTES, MAX_SECONDS, MAX_UPLOAD, check_size, read_upload, unpack
from web.visitors import MAX_PIXELS, Prediction, PredictionKey, ResultStore, Turns, UserMessage

DEMO = Path(__file__).resolve().parents[1] / "demo"
MAX_STORED = 600_000_000  # bytes of predictions in memory, for all visitors together
SHOWN = tuple(kind for kind in PICTURES if kind != "palette")  # in the Photo tab, which has all colours in a list
PREVIEW_SIDE = 900  # longer side of the pictures in the page, in pixels
SQUARE = 12  # side of a square of the checkerboard behind transparent pixels, in pixels
MODULES = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}  # what each backend needs

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


BACKGROUNDS = ("transparent", "blur", "white", "black")  # behind a cut-out; the first one is none


class Controls(BaseModel, frozen=True):
    """The settings of the Photo tab. They are also the query part of a picture's URL.

    Attributes:
        threshold: probability from which a pixel counts as hair, between 0 and 1.
        color: dye colour, `#rrggbb`.
        opacity: opacity of the overlay's tint, 0 to 1.
        strength: strength of the dye, 0 to 1.
        bleach: whether hair becomes as light or dark as the dye.
        background: background of the cut-out, one of BACKGROUNDS.
        refine: whether edges are refined with a guided filter.
    """

    threshold: float = Field(gt=0, lt=1)
    color: str = Field(pattern="^#[0-9a-fA-F]{6}$")
    opacity: float = Field(ge=0, le=1)
    strength: float = Field(ge=0, le=1)
    bleach: bool = True
    background: str = Field(BACKGROUNDS[0], pattern=f"^({'|'.join(BACKGROUNDS)})$")
    refine: bool = False

    def looks(self) -> Looks:
        """The settings as `hair.effects.draw` takes them."""
        dye = Dye((parse_color(self.color),), self.strength, self.bleach)
        return Looks(self.threshold, dye, self.opacity, parse_background(self.background))


def hex_color(value: str) -> str:
    """Convert a value of Gradio's colour picker, `#rrggbb` or `rgba(12.3, 4.5, 6.7, 1)`, to `#rrggbb`."""
    if value.startswith("rgb"):
        red, green, blue = (round(float(part)) for part in value[value.index("(") + 1 : -1].split(",")[:3])
        return f"#{red:02x}{green:02x}{blue:02x}"
    return value


def session_of(request: gr.Request) -> str:
    """The visitor's name in the ResultStore: a hash, because clients choose their session and could use a path."""
    return hashlib.sha256((request.session_hash or "").encode()).hexdigest()


# ---------------------------------------------------------------------------------------------------- HTML


def alert_html(message: UserMessage, language: str) -> str:
    """A message to the visitor."""
    return f'<p class="alert" role="alert">{html.escape(message.text(language))}</p>'


def status_html(text: str) -> str:
    """A line that screen readers announce."""
    return f'<p role="status">{html.escape(text)}</p>'


def notes_html(name: str, notes: Sequence[str], language: str) -> str:
    """Notes on how a photo was read."""
    return "".join(status_html(f"{name}: {translate_note(note, language)}") for note in notes)


def image_html(image: np.ndarray, alt: str) -> str:
    """An image that is embedded in the HTML, so that no file is written. Grey, RGB or RGBA uint8."""
    image = on_checkerboard(image) if image.ndim == 3 and image.shape[2] == 4 else image
    data = base64.b64encode(encode_picture(image, ".jpg")).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/jpeg;base64,{data}">'


def link_html(address: str, text: str) -> str:
    """A button that downloads a file."""
    return f'<div class="results"><a href="{address}" download>{html.escape(text)}</a></div>'


def on_checkerboard(cut_out: np.ndarray) -> np.ndarray:
    """Blend RGBA uint8 (H, W, 4) with the checkerboard that stands for transparency. Returns RGB uint8 (H, W, 3)."""
    rows, columns = (np.arange(side) // SQUARE % 2 for side in cut_out.shape[:2])
    board = (255 - 51 * (rows[:, None] ^ columns)).astype(np.uint8)[..., None]
    alpha = cut_out[..., 3:].astype(np.uint16)
    return ((cut_out[..., :3] * alpha + board * (255 - alpha)) // 255).astype(np.uint8)


def summary_html(prediction: Prediction, controls: Controls, language: str) -> str:
    """How much of the photo is hair, its colour, and notes on how the photo was read."""
    mask = prediction.probabilities(controls.refine) >= controls.threshold
    facts = describe(prediction.name, prediction.photo.pixels, mask)
    notes = notes_html(prediction.name, prediction.photo.notes, language)
    if facts["color_name"] is None:
        return status_html(TEXTS[language]["none"]) + notes
    name = f"{translate_color(facts['color_name'], language)} ({facts['color']})"
    return status_html(TEXTS[language]["summary"].format(share=f"{facts['hair']:.1%}", name=name)) + notes


def preview(photo: Photo, size: tuple[int, int]) -> Photo:
    """A photo at a smaller size (width, height)."""
    pixels = cv2.resize(photo.pixels, size, interpolation=cv2.INTER_AREA)
    if photo.alpha is None:
        return Photo(pixels, None, pixels)
    colors, alpha = (cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in (photo.colors, photo.alpha))
    return Photo(pixels, alpha, colors)


def pictures_html(prediction: Prediction, controls: Controls, language: str, address: str) -> str:
    """A slider between the photo and the dyed photo, then each kind of result with a download button."""
    text = TEXTS[language]
    height, width = prediction.photo.pixels.shape[:2]
    scale = min(1, PREVIEW_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    photo = preview(prediction.photo, size)
    probabilities = cv2.resize(prediction.probabilities(controls.refine), size, interpolation=cv2.INTER_AREA)
    pictures = {kind: draw_photo(kind, photo, probabilities, controls.looks()) for kind in SHOWN}
    before = photo.pixels if photo.alpha is None else np.dstack([photo.colors, photo.alpha])
    query = html.escape(urlencode(controls.model_dump()))
    figures = [
        f"<figure>{image_html(image, text[kind])}"
        f'<a class="save-{kind}" href="{html.escape(address)}/{kind}.png?{query}" download>'
        f"{html.escape(text['save'].format(kind=text[kind]))}</a></figure>"
        for kind, image in pictures.items()
    ]
    compare = (
        f'<div class="compare">{image_html(before, text["before"])}{image_html(pictures["recolor"], text["after"])}'
        f'<input type="range" value="50" aria-label="{html.escape(text["slide"])}" '
        "oninput=\"this.parentElement.style.setProperty('--cut', this.value + '%')\"></div>"
    )
    return f'{compare}<div class="results">{"".join(figures)}</div>'


# ---------------------------------------------------------------------------------------------------- events


class Page:
    """The events of the page, one method each.

    Args:
        segmenter: returns a `hair.HairSegmenter` for a backend; caches them.
        folder: for uploads (in `inbox`, which must be passed to Gradio) and results; the caller deletes it.
        root_path: where visitors open the page, such as `/hair` behind a proxy; empty for the root.
    """

    def __init__(self, segmenter: Callable[..., HairSegmenter], folder: Path, root_path: str = "") -> None:
        self.inbox = folder / "uploads"
        self.inbox.mkdir(parents=True)  # Gradio creates it with the first upload, but needs it earlier
        self.store = ResultStore(folder / "results", self.inbox, MAX_STORED)
        self.segmenter = segmenter
        self.turns = Turns()
        self.root_path = root_path

    def predict(self, key: PredictionKey) -> Prediction:
        """The prediction for a photo; the network runs only if it is not stored. Raises UserMessage.

        Call it only while holding a turn, see `Turns`.
        """
        prediction = self.store.get(key)
        if prediction is None:
            path = Path(key.path)
            self.store.note_upload(key.session, path)
            photo = read_upload(path)
            try:
                segmenter = self.segmenter(key.backend)
            except (OSError, UserError) as error:  # not every backend reads every kind of weights
                raise UserMessage("no_backend", backend=key.backend) from error
            prediction = Prediction(path.name, photo, segmenter(photo.pixels), segmenter.img_size)
            self.store.put(key, prediction)
        return prediction

    def address(self, place: str) -> str:
        """The URL of a path on this server, for visitors."""
        return f"{self.root_path}/{place}" if self.root_path else place

    def show(  # noqa: PLR0913 (Gradio passes each control's value as an argument of its own)
        self,
        path: str | None,
        backend: str,
        refine: bool,
        threshold: float,
        color: str,
        opacity: float,
        strength: float,
        bleach: bool,
        background: str,
        request: gr.Request,
    ) -> tuple[str, str]:
        """A photo or a control changed. Returns the HTML of the summary and of the pictures."""
        if path is None:
            return "", ""
        language = choose_language(request.headers)
        controls = Controls(
            threshold=threshold,
            color=hex_color(color),
            opacity=opacity,
            strength=strength,
            bleach=bleach,
            background=background,
            refine=refine,
        )
        key = PredictionKey(session_of(request), path, backend)
        try:
            with self.turns.take(check_size(Path(path))):
                prediction = self.predict(key)
                address = self.address(f"picture/{self.store.token(key)}")
                summary = summary_html(prediction, controls, language)
                return summary, pictures_html(prediction, controls, language, address)
        except UserMessage as message:
            return alert_html(message, language), ""

    def segment_batch(  # noqa: PLR0913 (see `show`)
        self,
        files: list[str] | None,
        kinds: list[str],
        threshold: float,
        color: str,
        bleach: bool,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how Gradio knows to pass one)
    ) -> str:
        """Process photos and zip files into a zip file of results. Returns HTML."""
        language, session = choose_language(request.headers), session_of(request)
        text = TEXTS[language]
        self.note_uploads(files, request)
        if not files or not kinds:
            return alert_html(UserMessage("nothing"), language)
        folder = self.store.new_folder(session)
        photos, problems = unpack([Path(file) for file in files], folder)
        output = folder / "results"
        output.mkdir()
        names = result_names(photos, output, [f"_{kind}.{suffix}" for kind, suffix in KINDS.items()])
        segmenter = self.segmenter("auto")
        results = Results(tuple(kinds), Looks(threshold, Dye((parse_color(hex_color(color)),), bleach=bleach)))
        notes = ""
        for number, (path, name) in enumerate(zip(photos, names, strict=True)):
            progress((number, len(photos)), desc=text["working"].format(name=path.name))
            try:
                with self.turns.take(check_size(path), is_patient=True):
                    photo = read_upload(path)
                    save_results(name, path.name, photo, segmenter(photo.pixels), results)
            except UserMessage as message:
                problems.append(message)
            except OSError:  # a full disk
                problems.append(UserMessage("not_saved", name=path.name))
            else:
                notes += notes_html(path.name, photo.notes, language)
        alerts = "".join(alert_html(problem, language) for problem in problems)
        archive = folder / "hair.zip"
        count = zip_files(output, archive)
        if not count:
            return alerts
        ready = status_html(text["ready"].format(count=count // len(kinds)))
        link = link_html(self.address(f"file/{self.store.offer(archive)}"), f"{text['download']} (ZIP)")
        return ready + notes + alerts + link

    def segment_clip(  # noqa: PLR0913 (see `show`)
        self,
        file: str | None,
        kind: str,
        threshold: float,
        color: str,
        bleach: bool,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008 (follows the bar of segment_video)
    ) -> str:
        """Process a short video. Returns HTML."""
        language, session = choose_language(request.headers), session_of(request)
        if file is None:
            return alert_html(UserMessage("no_video"), language)
        path, text = Path(file), TEXTS[language]
        self.note_uploads(file, request)
        try:
            if is_long(VideoReader(path)):
                return alert_html(UserMessage("too_long", name=path.name, most=MAX_SECONDS), language)
            folder = self.store.new_folder(session)
            plan = VideoPlan((kind,), Looks(threshold, Dye((parse_color(hex_color(color)),), bleach=bleach)))
            segment_video(path, folder / "hair", self.segmenter("auto"), plan)
        except (OSError, UserError, cv2.error):
            return alert_html(UserMessage("bad_video", name=path.name), language)
        address = self.address(f"file/{self.store.offer(folder / f'hair_{kind}.mp4')}")
        player = f'<video controls src="{address}" style="width: 100%"></video>'
        return status_html(text["video_ready"]) + player + link_html(address, f"{text['download']} (MP4)")

    def note_uploads(self, files: str | list[str] | None, request: gr.Request) -> None:
        """Register uploaded files when they arrive: the visitor may leave without using them."""
        for file in [files] if isinstance(files, str) else files or []:
            self.store.note_upload(session_of(request), Path(file))

    def forget(self, request: gr.Request) -> None:
        """The visitor closed the page."""
        self.store.forget(session_of(request))


def zip_files(folder: Path, archive: Path) -> int:
    """Move the files of a folder into a zip file. Returns their number; if it is 0, no zip file is written."""
    files = sorted(folder.glob("*"))  # unlike iterdir, empty if the folder is gone because its visitor left
    if files:
        with zipfile.ZipFile(archive, "w") as target:  # uncompressed: PNGs do not shrink further
            for path in files:
                target.write(path, path.name)
                path.unlink()
    return len(files)


def is_long(reader: VideoReader) -> bool:
    """Whether a video is longer than MAX_SECONDS."""
    if reader.total:
        return reader.total > MAX_SECONDS * reader.rate
    # Recordings of browsers do not state their length.
    return any(time > MAX_SECONDS for _, time in reader)


# ---------------------------------------------------------------------------------------------------- components


def build_i18n() -> gr.I18n:
    """The texts of the page for Gradio; upload labels state their limits."""
    megabytes = MAX_UPLOAD // 2**20
    limits = {
        "photo": {"megapixels": MAX_PIXELS // 1_000_000, "megabytes": MAX_BYTES // 2**20},
        "files": {"megabytes": megabytes},
        "clip": {"seconds": MAX_SECONDS, "megabytes": megabytes},
    }
    labels = {
        language: {key: texts[key].format(**facts) for key, facts in limits.items()}
        for language, texts in TEXTS.items()
    }
    return gr.I18n(**{language: texts | labels[language] for language, texts in TEXTS.items()})


def build_page(page: Page) -> gr.Blocks:
    """Lay out the page's components and connect them to its events."""
    say = build_i18n()
    gr.set_static_paths([DEMO])
    with gr.Blocks(title=TEXTS["en"]["title"], analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.Markdown(say("intro"))
        with gr.Tab(say("tab_photo")):
            photo, shared = _photo_tab(page, say)
        with gr.Tab(say("tab_batch")):
            files = _batch_tab(page, say, shared)
        with gr.Tab(say("tab_video")):
            clip = _video_tab(page, say, shared)
        for upload in (photo, files, clip):
            upload.upload(page.note_uploads, upload, queue=False, show_progress="hidden", api_visibility="private")
        blocks.unload(page.forget)
    return blocks.queue(max_size=64)


def _photo_tab(page: Page, say: gr.I18n) -> tuple[gr.Image, list[gr.Component]]:
    """The tab for one photo. Returns its photo, and threshold, dye colour and bleach, which the other tabs use too."""
    backends = ["auto", *(backend for backend, module in MODULES.items() if find_spec(module))]
    demos = sorted(path for path in DEMO.glob("*.jpg") if path.stem.isdecimal())
    auburn = HAIR_COLORS["auburn"]
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            photo = gr.Image(
                label=say("photo"),
                type="filepath",
                sources=["upload", "webcam", "clipboard"],
                height=320,
                elem_id="photo",
            )
            photo.preprocess = _uploaded_path  # type: ignore[method-assign]
            gr.Examples([[str(path)] for path in demos], photo, label=say("examples"))
            color = gr.ColorPicker(auburn, label=say("color"), elem_id="color")
            preset = gr.Dropdown(list(HAIR_COLORS.items()), value=auburn, label=say("presets"), elem_id="preset")
            strength = gr.Slider(0, 1, 1, step=0.05, label=say("strength"))
            bleach = gr.Checkbox(True, label=say("bleach"), elem_id="bleach")
            background = gr.Dropdown(
                [(say(name), name) for name in BACKGROUNDS], value=BACKGROUNDS[0], label=say("background")
            )
            opacity = gr.Slider(0, 1, 0.45, step=0.05, label=say("opacity"))
            threshold = gr.Slider(
                0.05, 0.95, page.segmenter("auto").threshold, step=0.05, label=say("threshold"), elem_id="threshold"
            )
            refine = gr.Checkbox(False, label=say("refine"))
            backend = gr.Dropdown(backends, value="auto", label=say("backend"))
        with gr.Column(scale=2, min_width=280):
            summary = gr.HTML(elem_id="words")
            pictures = gr.HTML(elem_id="pictures")
    controls = (backend, refine, threshold, color, opacity, strength, bleach, background)
    preset.input(_same, preset, color, api_visibility="private")
    gr.on(
        [photo.change, *(control.change for control in controls)],
        page.show,
        [photo, *controls],
        [summary, pictures],
        concurrency_limit=4,
        trigger_mode="always_last",
        show_progress="minimal",
        api_name="show",
    )
    return photo, [threshold, color, bleach]


def _uploaded_path(payload: Any) -> str | None:
    """Replaces `gr.Image.preprocess`, which would decode the file and report errors with its own messages."""
    return payload.path if payload else None


def _same(value: str) -> str:
    return value


def _batch_tab(page: Page, say: gr.I18n, shared: list[gr.Component]) -> gr.File:
    """The tab for many photos; `shared` are controls of the Photo tab that it uses. Returns its files."""
    gr.Markdown(say("shared"))
    files = gr.File(label=say("files"), file_count="multiple", file_types=["image", ".zip"], elem_id="files")
    kinds = gr.CheckboxGroup([(say(kind), kind) for kind in KINDS], value=["overlay", "mask"], label=say("kinds"))
    start = gr.Button(say("start"), variant="primary", elem_id="start")
    result = gr.HTML(elem_id="zipped")
    start.click(page.segment_batch, [files, kinds, *shared], result, api_name="many")
    return files


def _video_tab(page: Page, say: gr.I18n, shared: list[gr.Component]) -> gr.Video:
    """The tab for a video; `shared` as for `_batch_tab`. Returns its video."""
    gr.Markdown(say("shared"))
    clip = gr.Video(label=say("clip"), sources=["upload"], elem_id="clip")
    kind = gr.Radio([(say(kind), kind) for kind in VIDEO_KINDS], value="overlay", label=say("video_kind"))
    start = gr.Button(say("start"), variant="primary", elem_id="go")
    result = gr.HTML(elem_id="film")
    start.click(page.segment_clip, [clip, kind, *shared], result, api_name="film")
    return clip
