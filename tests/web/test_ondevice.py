"""The page that runs in the visitor's browser: the same results as `hair`, both languages, no network."""

import functools
import http.server
import itertools
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from hair import HairSegmenter, UserError, read_photo
from hair.colors import HAIR_COLORS, parse_color
from hair.cutout import cut_out
from hair.dye import Dye, recolor
from hair.geometry import preprocess, restore
from hair.looks import look_closer
from tests.conftest import ROOT
from tests.web.conftest import CHROMIUM, save, serve
from tools import page_tables
from web.static import build_static

PAGE = ROOT / "web" / "ondevice"
NODE, NPM = shutil.which("node"), shutil.which("npm")
MEAN_DIFFERENCE = 1.5  # of 255, between a dyed photo of the page and one of `inference.py`
LEAST_IOU = 0.995  # of their masks


# ---------------------------------------------------------------------------------------------------- without a browser


def test_tables_are_up_to_date():
    assert page_tables.TABLES.read_text(encoding="utf-8") == page_tables.build(), "python -m tools.page_tables --write"


def test_the_lock_file_names_no_registry():
    assert "resolved" not in (PAGE / "package-lock.json").read_text(encoding="utf-8")


@pytest.fixture
def texts() -> dict[str, dict[str, str]]:
    if NODE is None:
        pytest.skip("no Node.js here")
    script = "import('./src/texts.js').then(({ TEXTS }) => console.log(JSON.stringify(TEXTS)))"
    return json.loads(subprocess.run([NODE, "-e", script], cwd=PAGE, check=True, capture_output=True).stdout)


def test_both_languages_have_the_texts_that_are_said(texts):
    source = "".join((PAGE / name).read_text(encoding="utf-8") for name in ("index.html", "src/page.js"))
    said = {key for key in texts["en"] if re.search(rf'"{key}"', source)}
    assert texts["en"].keys() == texts["ko"].keys() == said
    for key, english in texts["en"].items():
        assert sorted(re.findall(r"{\w+}", english)) == sorted(re.findall(r"{\w+}", texts["ko"][key])), key


@pytest.fixture
def javascript(tmp_path):
    """A function of the page, run by Node.js on a photo and a plane: its result as bytes."""
    if NODE is None:
        pytest.skip("no Node.js here")

    def run(call: str, photo: np.ndarray, plane: np.ndarray | None = None, **settings: object) -> bytes:
        (tmp_path / "photo.rgba").write_bytes(cv2.cvtColor(photo, cv2.COLOR_RGB2RGBA).tobytes())
        if plane is not None:
            (tmp_path / "plane.f32").write_bytes(np.ascontiguousarray(plane, np.float32).tobytes())
        job = {"call": call, "width": photo.shape[1], "height": photo.shape[0], "settings": settings}
        command = [NODE, "--no-warnings", ROOT / "tests" / "web" / "ondevice.mjs"]
        subprocess.run(command, cwd=tmp_path, check=True, text=True, input=json.dumps(job))
        return (tmp_path / "out.bin").read_bytes()

    return run


@pytest.fixture(scope="module")
def portrait() -> tuple[np.ndarray, np.ndarray]:
    """A photo, RGB uint8 (H, W, 3), and soft probabilities of about its hair, float32 (H, W)."""
    photo = cv2.resize(read_photo(ROOT / "demo" / "1.jpg")[:250, 60:391], (166, 125), interpolation=cv2.INTER_AREA)
    drawn = np.zeros(photo.shape[:2], np.float32)
    cv2.ellipse(drawn, (84, 40), (37, 31), 0, 0, 360, 1, -1)
    cv2.ellipse(drawn, (84, 55), (19, 31), 0, 0, 360, 0, -1)
    return photo, cv2.GaussianBlur(drawn, (0, 0), 3)


@pytest.mark.parametrize("shape", [(166, 125), (40, 61)], ids=["larger", "smaller"])
def test_the_networks_input_is_the_same(javascript, portrait, shape):
    photo = cv2.resize(portrait[0], shape)
    mean, std = [0.5, 0.4, 0.3], [0.5, 0.25, 0.3]
    expected = preprocess(photo, 128, mean, std)
    found = np.frombuffer(javascript("preprocess", photo, size=128, mean=mean, std=std), np.float32)
    one_step = 1 / 255 / 0.25
    assert np.abs(found.reshape(expected.shape) - expected).max() <= 1.01 * one_step
    assert np.abs(found.reshape(expected.shape) - expected).mean() <= 0.1 * one_step


def test_probabilities_at_the_photos_size_are_the_same(javascript, portrait):
    photo, _ = portrait
    square = np.random.default_rng(0).random((96, 96), np.float32)
    found = np.frombuffer(javascript("restore", photo, square), np.float32).reshape(photo.shape[:2])
    assert np.abs(found - restore(square, photo.shape)).max() < 1e-3


def test_dyed_hair_is_the_same(javascript, portrait):
    photo, probabilities = portrait
    dyes = [
        {"color": HAIR_COLORS[name], "strength": strength, "bleach": bleach}
        for name, strength, bleach in itertools.product(("platinum", "black", "blue"), (1, 0.6), (True, False))
    ]
    found = np.frombuffer(javascript("recolor", photo, probabilities, threshold=0.5, dyes=dyes), np.uint8)
    for settings, dyed in zip(dyes, found.reshape(len(dyes), *photo.shape[:2], 4), strict=True):
        dye = Dye((parse_color(settings["color"]),), settings["strength"], settings["bleach"])
        difference = np.abs(dyed[..., :3] - recolor(photo, probabilities, 0.5, dye).astype(int))
        assert difference[probabilities > 0.01].mean() < MEAN_DIFFERENCE, settings
        assert not difference[probabilities == 0].any(), settings


def test_cut_outs_are_the_same(javascript, portrait):
    photo, probabilities = portrait
    expected = cut_out(photo, probabilities, 0.5).astype(int)
    found = np.frombuffer(javascript("cutOut", photo, probabilities, threshold=0.5), np.uint8).reshape(expected.shape)
    assert np.abs(found - expected).mean() < 0.1 and np.abs(found - expected)[..., 3].max() <= 2


@pytest.mark.parametrize("heads", [1, 4, 12])
def test_closer_looks_are_the_same(javascript, heads):
    """With a "network" that calls hair what is dark; the same one is in ondevice.mjs."""
    photo = np.full((240, 320, 3), 200, np.uint8)
    for head in range(heads):
        cv2.circle(photo, (30 + 70 * (head % 4), 40 + 70 * (head // 4)), 8 + head % 3, (60, 50, 40), -1)

    def look(part: np.ndarray, _: float = 1) -> np.ndarray:
        return np.where(part[..., 0] < 100, np.float32(0.9), np.float32(0.05))

    expected = look(photo)
    look_closer(photo, cv2.resize(expected, (128, 96), interpolation=cv2.INTER_AREA), expected, look)
    found = np.frombuffer(javascript("lookCloser", photo, width=128, height=96), np.float32).reshape(expected.shape)
    assert np.abs(found - expected).max() < 1e-3


def test_the_server_of_files_sends_what_threads_need(tmp_path):
    with pytest.raises(UserError, match="npm ci && npm run build"):
        build_static(tmp_path / "dist")
    (tmp_path / "_headers").write_text("/*\n  Cross-Origin-Opener-Policy: same-origin\n", encoding="utf-8")
    (tmp_path / "index.html").write_text("hello", encoding="utf-8")
    (tmp_path / "ort-wasm.mjs").write_text("", encoding="utf-8")
    with TestClient(build_static(tmp_path)) as client:
        answer = client.get("/")
        assert answer.text == "hello" and answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert client.get("/ort-wasm.mjs").headers["content-type"].startswith("text/javascript")
        assert client.get("/../app.py").status_code == 404


# ---------------------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def built() -> Path:
    """The folder of the built page."""
    if NPM is None or NODE is None:
        pytest.skip("no Node.js here")
    if not (PAGE / "node_modules").is_dir():
        done = subprocess.run([NPM, "ci", "--no-audit", "--no-fund"], cwd=PAGE, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"npm ci fails here: {done.stderr.strip().splitlines()[-1:]}")
    subprocess.run([NPM, "run", "build"], cwd=PAGE, check=True, capture_output=True)
    return PAGE / "dist"


@pytest.fixture(scope="module")
def address(built, tmp_path_factory) -> Iterator[str]:
    with serve(tmp_path_factory.mktemp("static"), "--static") as (address, process):
        yield address
        process.terminate()


@pytest.fixture
def visit(browser, address):
    """Open the page as a new visitor; fails if it asks another machine for anything, or reports an error."""
    contexts, wrong = [], []

    def open_page(browser=browser, address=address, **options):
        own = (address, "data:", f"blob:{address}")
        contexts.append(browser.new_context(**{"viewport": {"width": 1100, "height": 900}, **options}))
        contexts[-1].on("request", lambda request: request.url.startswith(own) or wrong.append(request.url))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(address)
        page.wait_for_selector("main[data-engine]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def drop(page, path: Path) -> None:
    """Open a photo and wait for its picture."""
    page.set_input_files("#file", path)
    page.wait_for_selector("main[data-state=photo][data-drawn]:not([data-busy])")


def shown(page) -> str:
    """The picture that is shown, as a data URL."""
    return page.locator("#after").evaluate("canvas => canvas.toDataURL()")


def wait_for_change(page, before: str) -> None:
    page.wait_for_function("before => document.getElementById('after').toDataURL() !== before", arg=before)


@pytest.mark.slow
@pytest.mark.parametrize("demo", [1, 2, 3])
def test_results_are_those_of_inference(visit, tmp_path, demo):
    path = ROOT / "demo" / f"{demo}.jpg"
    photo, segmenter = read_photo(path), HairSegmenter(backend="onnx")
    probabilities = segmenter(photo)
    expected = probabilities >= segmenter.threshold
    page = visit()
    drop(page, path)
    found = cv2.imread(str(save(page, "[data-save=mask]", tmp_path / "mask.png")), cv2.IMREAD_GRAYSCALE) > 0
    assert (found & expected).sum() / (found | expected).sum() >= LEAST_IOU
    page.get_by_label("blue", exact=True).check()
    dyed = read_photo(save(page, "[data-save=recolor]", tmp_path / "dyed.jpg")).astype(int)
    dye = Dye((parse_color("blue"),))
    assert np.abs(dyed - recolor(photo, probabilities, segmenter.threshold, dye)).mean() <= MEAN_DIFFERENCE
    cut = cv2.imread(str(save(page, "[data-save=alpha]", tmp_path / "cut.png")), cv2.IMREAD_UNCHANGED)
    opacity = cut_out(photo, probabilities, segmenter.threshold)[..., 3].astype(int)
    assert np.abs(cut[..., 3] - opacity).mean() <= MEAN_DIFFERENCE


@pytest.mark.slow
def test_large_photos_keep_their_size(visit, tmp_path):
    photo = cv2.resize(cv2.imread(str(ROOT / "demo" / "1.jpg")), (3000, 3000), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / "large.jpg"), photo)
    page = visit()
    drop(page, tmp_path / "large.jpg")
    assert read_photo(save(page, "[data-save=recolor]", tmp_path / "dyed.jpg")).shape == photo.shape
    assert page.locator("#after").evaluate("canvas => canvas.width") <= 1000


@pytest.mark.slow
def test_the_page_works_without_a_network_after_the_first_visit(visit):
    page = visit()
    page.context.set_offline(True)
    page.reload()
    page.wait_for_selector("main[data-engine]")
    drop(page, ROOT / "demo" / "1.jpg")
    assert page.evaluate("crossOriginIsolated")  # what the service worker keeps has the headers, too


@pytest.mark.slow
def test_threads_where_the_host_sends_no_headers(visit, built):
    """Then the service worker adds them, from the second visit on."""
    handler = functools.partial(QuietHandler, directory=built)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as plain:
        threading.Thread(target=plain.serve_forever, daemon=True).start()
        page = visit(address=f"http://127.0.0.1:{plain.server_port}/")
        assert page.get_attribute("main", "data-threads") == "1"
        page.reload()
        page.wait_for_selector("main[data-engine]")
        assert page.evaluate("crossOriginIsolated")
        plain.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.slow
def test_the_keyboard_is_enough(visit):
    page = visit()
    page.get_by_role("button", name="Example photo 1").press("Enter")
    page.wait_for_selector("main[data-state=photo][data-drawn]:not([data-busy])")
    before = shown(page)
    page.get_by_label("copper", exact=True).focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_label("red", exact=True).is_checked()
    wait_for_change(page, before)
    slider = page.get_by_label("Before and after")
    cut = int(slider.input_value())
    slider.press("ArrowRight")
    assert f"--cut: {cut + 1}%" in page.get_attribute("#compare", "style")
    before = shown(page)
    page.get_by_label("New colour").press("ArrowRight")
    wait_for_change(page, before)
    focused = set()
    for _ in range(40):  # all controls can be reached
        page.keyboard.press("Tab")
        focused.add(page.evaluate("(e => e.dataset.save ?? (e.id || e.name))(document.activeElement)"))
    assert {"slide", "view", "recolor", "alpha", "mask", "language"} <= focused


@pytest.mark.slow
def test_a_telephone_in_korean(visit, tmp_path):
    page = visit(locale="ko-KR", viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="예시 사진 2").tap()
    page.wait_for_selector("main[data-state=photo][data-drawn]:not([data-busy])")
    assert "머리카락이 사진" in page.inner_text("#status")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="English").tap()
    assert "Hair covers" in page.inner_text("#status")
    (tmp_path / "text.jpg").write_text("not a photo")
    page.set_input_files("#file", tmp_path / "text.jpg")
    page.get_by_text("This file cannot be read as a photo.").wait_for()


@pytest.mark.slow
def test_pasted_photos(visit):
    page = visit()
    page.evaluate(
        """async () => {
            const blob = await (await fetch("example-1.jpg")).blob();
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([blob], "me.jpg", { type: "image/jpeg" }));
            dispatchEvent(new ClipboardEvent("paste", { clipboardData }));
        }"""
    )
    page.wait_for_selector("main[data-state=photo][data-drawn]:not([data-busy])")


MUCH_IS_BLUE = """() => {
    const [before, after] = ["before", "after"].map((id) => document.getElementById(id));
    const read = (canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const old = read(before), dyed = read(after);
    return dyed.filter((value, i) => i % 4 === 2 && value - dyed[i - 2] > old[i] - old[i - 2] + 40).length > 2000;
}"""


@pytest.mark.slow
def test_the_camera(visit, browser, tmp_path):
    picture = cv2.imread(str(ROOT / "demo" / "1.jpg"))[:384]
    frame = cv2.imencode(".jpg", cv2.resize(picture, (640, 480)))[1].tobytes()
    (tmp_path / "film.mjpeg").write_bytes(10 * frame)
    flags = ["use-fake-ui-for-media-stream", "use-fake-device-for-media-stream"]
    flags.append(f"use-file-for-fake-video-capture={tmp_path / 'film.mjpeg'}")
    arguments = ["--no-sandbox", *(f"--{flag}" for flag in flags)]
    with browser.browser_type.launch(executable_path=CHROMIUM, args=arguments) as with_camera:
        page = visit(browser=with_camera)
        page.get_by_role("button", name="Use the camera").first.click()
        page.wait_for_selector("main[data-state=live]")
        page.get_by_label("blue", exact=True).check()
        page.wait_for_function(MUCH_IS_BLUE)
        page.get_by_role("button", name="Take photo").click()
        page.wait_for_selector("main[data-state=photo][data-drawn]:not([data-busy])")
        assert "640 × 480" in page.inner_text("#status")
        page.context.close()
