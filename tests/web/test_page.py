"""The page in a real browser, and its events without one."""

import io
import os
import re
import time
import zipfile
from argparse import Namespace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from hair import HairSegmenter
from hair.dye import SURELY_NOT
from tests.conftest import ROOT
from tests.web.conftest import DEMO, VISITOR, put, save, segment_batch
from web.page import Page

SCREENSHOT = os.environ.get("SCREENSHOT")  # the README's: SCREENSHOT=demo/app.jpg pytest tests/web/test_page.py


def drop(page, path: Path) -> None:
    """Upload a photo and wait for its pictures."""
    page.set_input_files("#photo input[type=file]", path)
    page.wait_for_selector("#pictures figure img")


def source(page, kind: str) -> str:
    return page.get_attribute(f"#pictures figure:has(.save-{kind}) img", "src")


def wait_for_change(page, kind: str, before: str) -> None:
    selector = f"#pictures figure:has(.save-{kind}) img"
    page.wait_for_function("([s, old]) => document.querySelector(s)?.src !== old", arg=[selector, before])


def blueness(image: np.ndarray, where: np.ndarray) -> float:
    """How much more blue than red BGR pixels are."""
    return float((image[..., 0][where].astype(int) - image[..., 2][where]).mean())


def test_photo(visit, tmp_path):
    page = visit()
    drop(page, DEMO)
    assert "Hair covers" in page.inner_text("#words")
    segmenter = HairSegmenter()
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
    photo = cv2.imread(str(DEMO))
    assert blueness(dyed, expected > 0.99) > blueness(photo, expected > 0.99) + 30
    assert np.array_equal(dyed[expected < SURELY_NOT], photo[expected < SURELY_NOT])
    cut = cv2.imread(str(save(page, "a.save-alpha", tmp_path / "cut.png")), cv2.IMREAD_UNCHANGED)
    assert cut.shape == (*photo.shape[:2], 4)
    if SCREENSHOT:
        page.screenshot(path=SCREENSHOT, full_page=True, type="jpeg", quality=80)


def test_bad_files_get_a_message(visit, tmp_path):
    page = visit()
    (tmp_path / "text.jpg").write_text("not a photo")
    page.set_input_files("#photo input[type=file]", tmp_path / "text.jpg")
    page.wait_for_selector("#words .alert")
    assert "text.jpg: this file cannot be read as a photo" in page.inner_text("#words")
    page = visit()
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
    other.get_by_role("tab", name="여러 장").click()
    with other.expect_response("**/run/predict*"):
        other.set_input_files("#files input[type=file]", ROOT / "demo" / "2.jpg")  # and nothing is started

    def files_of_other() -> list[Path]:
        return [*server[1].rglob("3.jpg"), *server[1].rglob("2.jpg")]

    assert len(files_of_other()) == 2
    other.close()
    for _ in range(100):
        if not files_of_other():
            break
        time.sleep(0.1)
    assert not files_of_other()  # who leaves takes the photos along
    assert list(server[1].rglob("1.jpg"))


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
    page.get_by_role("tab", name="Multiple photos").click()
    page.set_input_files("#files input[type=file]", [tmp_path / "photos.zip", ROOT / "demo" / "2.jpg"])
    page.wait_for_selector("#files >> text=photos")
    page.click("#start")
    page.wait_for_selector("#zipped a")
    assert "Photos processed: 2" in page.inner_text("#zipped")
    assert "broken.png: this file cannot be read as a photo" in page.inner_text("#zipped")
    with zipfile.ZipFile(save(page, "#zipped a", tmp_path / "hair.zip")) as archive:
        assert sorted(archive.namelist()) == ["2_mask.png", "2_overlay.png", "one_mask.png", "one_overlay.png"]


def test_video(visit, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (128, 128))
    for _ in range(5):
        writer.write(cv2.resize(cv2.imread(str(DEMO)), (128, 128)))
    writer.release()
    page = visit()
    page.get_by_role("tab", name="Video").click()
    page.set_input_files("#clip input[type=file]", tmp_path / "clip.mp4")
    page.wait_for_selector("#clip video", state="attached")
    page.click("#go")
    page.wait_for_selector("#film a")
    film = cv2.VideoCapture(str(save(page, "#film a", tmp_path / "film.mp4")))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 5


# ---------------------------------------------------------------------------------------------------- without a browser


def test_uploads_go_without_a_result(events):
    upload = put(events, DEMO)
    assert "Choose photos" in segment_batch(events, [upload], kinds=())
    events.forget(VISITOR)
    assert not upload.exists()


def test_a_bad_photo_loses_no_good_one(events, tmp_path):
    Image.new("L", (2**20 + 1, 1)).save(tmp_path / "long.png")  # of which OpenCV makes an error of its own kind
    said = segment_batch(events, [put(events, path) for path in (tmp_path / "long.png", DEMO)])
    assert "long.png: this photo is damaged, incomplete or of a type that cannot be read" in said
    assert "Photos processed: 1" in said


def test_a_backend_that_does_not_read_the_weights(tmp_path):
    page = Page(partial(HairSegmenter, tmp_path), tmp_path / "hair")
    said, pictures = page.show(str(DEMO), "onnx", False, 0.5, "#6e3325", 0.45, 1, True, "blur", VISITOR)
    assert "onnx cannot run these weights" in said
    assert not pictures


def test_a_long_video_that_does_not_tell_its_length(events, tmp_path):
    """As browsers record them."""
    av = pytest.importorskip("av")
    written = io.BytesIO()
    one_way = Namespace(write=written.write)  # not back to the head, where the length would be
    with av.open(one_way, "w", "webm") as container:
        stream = container.add_stream("libvpx", rate=1)
        stream.width = stream.height = 32
        for _ in range(63):
            container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode())
    (tmp_path / "long.webm").write_bytes(written.getvalue())
    said = events.segment_clip(str(tmp_path / "long.webm"), "mask", 0.5, "#6e3325", True, VISITOR, None)
    assert "long.webm: the video is longer than the limit of 60 seconds" in said
