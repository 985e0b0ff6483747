"""The page in a real browser: Chromium from the system's packages, led by Playwright."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import cv2
import numpy as np
import pytest

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium here", allow_module_level=True)

import inference  # noqa: E402

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "demo" / "1.jpg"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The page's address, and the folder in which it keeps what it must."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, ROOT / "app.py", "--port", str(port)]
    with subprocess.Popen(command, env=os.environ | {"TMPDIR": str(folder)}) as process:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/", folder
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert not list(folder.glob("hair-*"))  # nothing is left behind


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, server):
    """Open the page as a new visitor; fails if a page asks another machine for anything."""
    contexts, outside = [], []

    def open_page(**options):
        contexts.append(browser.new_context(viewport={"width": 1100, "height": 1000}, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        local = (server[0], "data:", "blob:")
        page.on("request", lambda request: request.url.startswith(local) or outside.append(request.url))
        page.goto(server[0])
        page.wait_for_selector("#photo input[type=file]", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not outside


def drop(page, path: Path) -> None:
    """Upload a photo and wait for its pictures."""
    page.set_input_files("#photo input[type=file]", path)
    page.wait_for_selector("#pictures figure img")


def source(page, kind: str) -> str:
    return page.get_attribute(f"#pictures figure:has(.save-{kind}) img", "src")


def wait_for_change(page, kind: str, before: str) -> None:
    selector = f"#pictures figure:has(.save-{kind}) img"
    page.wait_for_function("([s, old]) => document.querySelector(s)?.src !== old", arg=[selector, before])


def save(page, selector: str, path: Path) -> Path:
    with page.expect_download() as download:
        page.click(selector)
    download.value.save_as(path)
    return path


def test_photo(visit, tmp_path):
    page = visit()
    drop(page, DEMO)
    assert "Hair covers" in page.inner_text("#words")
    segmenter = inference.HairSegmenter()
    expected = segmenter(DEMO)
    mask = cv2.imread(str(save(page, "a.save-mask", tmp_path / "mask.png")), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(mask > 0, expected >= segmenter.threshold)  # as inference.py's, at the photo's own size

    before = source(page, "mask")
    page.fill("#threshold input[type=number]", "0.9")
    page.keyboard.press("Tab")
    wait_for_change(page, "mask", before)
    mask = cv2.imread(str(save(page, "a.save-mask", tmp_path / "mask.png")), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(mask > 0, expected >= 0.9)

    before = source(page, "recolor")
    page.click("#preset input")
    page.click("text=blue")
    wait_for_change(page, "recolor", before)
    dyed = cv2.imread(str(save(page, "a.save-recolor", tmp_path / "dyed.png")))
    sure = expected > 0.99
    photo = cv2.imread(str(DEMO))
    blueness = lambda image: float((image[..., 0][sure].astype(int) - image[..., 2][sure]).mean())
    assert blueness(dyed) > blueness(photo) + 30
    assert np.array_equal(dyed[expected < 0.1], photo[expected < 0.1])
    cut = cv2.imread(str(save(page, "a.save-alpha", tmp_path / "cut.png")), cv2.IMREAD_UNCHANGED)
    assert cut.shape == (*photo.shape[:2], 4)
    if picture := os.environ.get("SCREENSHOT"):  # the README's: SCREENSHOT=demo/app.jpg pytest tests/test_app.py
        page.screenshot(path=picture, full_page=True, type="jpeg", quality=80)


def test_bad_files_get_a_message(visit, tmp_path):
    page = visit()
    (tmp_path / "text.jpg").write_text("not a photo")
    page.set_input_files("#photo input[type=file]", tmp_path / "text.jpg")
    page.wait_for_selector("#words .alert")
    assert "text.jpg: this is not a photo" in page.inner_text("#words")
    page = visit()
    from PIL import Image

    Image.new("1", (30_000, 30_000)).save(tmp_path / "bomb.png")  # 110 kB that would be 2.7 GB
    page.set_input_files("#photo input[type=file]", tmp_path / "bomb.png")
    page.wait_for_selector("#words .alert")
    assert "900 megapixels" in page.inner_text("#words")
    drop(visit(), DEMO)  # the server lives on


def test_two_visitors_and_their_files(visit, server):
    one, other = visit(), visit(locale="ko-KR")
    one.set_input_files("#photo input[type=file]", DEMO)
    other.set_input_files("#photo input[type=file]", ROOT / "demo" / "3.jpg")
    for page in (one, other):
        page.wait_for_selector("#pictures figure img")
    assert source(one, "overlay") != source(other, "overlay")
    assert re.search("머리카락이 사진의 .*%", other.inner_text("#words"))
    assert other.get_by_role("tab", name="여러 장").is_visible()
    assert list(server[1].rglob("3.jpg"))
    other.close()
    for _ in range(100):
        if not list(server[1].rglob("3.jpg")):
            break
        time.sleep(0.1)
    assert not list(server[1].rglob("3.jpg"))  # who leaves takes the photo along
    assert list(server[1].rglob("1.jpg"))


def test_a_made_up_session_leads_to_no_other_folder(server):
    """Clients choose their session's name, and what a session kept is deleted."""
    address, folder = server
    (shelf,) = folder.glob("hair-*")
    victim = folder / "victim"
    victim.mkdir()
    with urlopen(f"{address}config") as answer:
        events = json.load(answer)["dependencies"]
    (leaving,) = (event["id"] for event in events if any("unload" in str(target) for target in event["targets"]))
    for session in ("../victim", f"../../{folder.name}/victim", str(victim), "..", "", "."):
        body = json.dumps({"fn_index": leaving, "data": [], "session_hash": session}).encode()
        request = Request(f"{address}gradio_api/run/predict", body, {"Content-Type": "application/json"})
        with urlopen(request) as answer:
            assert answer.status == 200
        assert victim.is_dir() and shelf.is_dir()


def test_examples_on_a_telephone(visit):
    page = visit(is_mobile=True, has_touch=True)
    page.set_viewport_size({"width": 390, "height": 800})
    page.locator("button.gallery-item").nth(1).tap()
    page.wait_for_selector("#pictures figure img")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    slider = page.get_by_label("Before and after")
    slider.press("ArrowRight")
    assert "51%" in page.get_attribute("#pictures .compare", "style")


def test_many_photos(visit, tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(DEMO, "../../휴가/one.jpg")
        archive.writestr("broken.png", b"nothing")
        archive.writestr("notes.txt", b"not a photo")
    page = visit()
    page.get_by_role("tab", name="Many photos").click()
    page.set_input_files("#files input[type=file]", [tmp_path / "photos.zip", ROOT / "demo" / "2.jpg"])
    page.wait_for_selector("#files >> text=photos")
    page.click("#start")
    page.wait_for_selector("#zipped a")
    assert "2 photos are ready" in page.inner_text("#zipped")
    assert "broken.png: this is not a photo" in page.inner_text("#zipped")
    with zipfile.ZipFile(save(page, "#zipped a", tmp_path / "hair.zip")) as archive:
        assert sorted(archive.namelist()) == ["2_mask.png", "2_overlay.png", "one_mask.png", "one_overlay.png"]


def test_video(visit, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (128, 128))
    for _ in range(5):
        writer.write(cv2.resize(cv2.imread(str(DEMO)), (128, 128)))
    writer.release()
    page = visit()
    page.get_by_role("tab", name="A video").click()
    page.set_input_files("#clip input[type=file]", tmp_path / "clip.mp4")
    page.wait_for_selector("#clip video", state="attached")
    page.click("#go")
    page.wait_for_selector("#film a")
    film = cv2.VideoCapture(str(save(page, "#film a", tmp_path / "film.mp4")))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 5
