"""The page, most of it in a real browser: Chromium from the system's packages, led by Playwright."""

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import cv2
import numpy as np
import pytest

pytest.importorskip("gradio")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

import inference  # noqa: E402
from texts import TEXTS  # noqa: E402
from visitors import unpack  # noqa: E402

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "demo" / "1.jpg"


@contextmanager
def serve(folder: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """A page of its own, which keeps what it must in `folder`: its address and its process."""
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
        yield f"http://127.0.0.1:{port}/", process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The page's address, and the folder in which it keeps what it must."""
    folder = tmp_path_factory.mktemp("server")
    with serve(folder) as (address, process):
        yield address, folder
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert not list(folder.glob("hair-*"))  # nothing is left behind


@pytest.fixture(scope="module")
def browser() -> Iterator:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
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
    other.get_by_role("tab", name="여러 장").click()
    with other.expect_response("**/run/predict*"):
        other.set_input_files("#files input[type=file]", ROOT / "demo" / "2.jpg")  # and nothing is started
    of_other = lambda: [*server[1].rglob("3.jpg"), *server[1].rglob("2.jpg")]
    assert len(of_other()) == 2
    other.close()
    for _ in range(100):
        if not of_other():
            break
        time.sleep(0.1)
    assert not of_other()  # who leaves takes the photos along
    assert list(server[1].rglob("1.jpg"))


def test_a_made_up_session_leads_to_no_other_folder(server):
    """Clients choose their session's name, and what a session kept is deleted."""
    address, folder = server
    (shelf,) = folder.glob("hair-*")
    victim = folder / "victim"
    victim.mkdir()
    for session in ("../victim", f"../../{folder.name}/victim", str(victim), "..", "", "."):
        post(address, "run/predict", "forget", [], session)
        assert victim.is_dir() and shelf.is_dir()


def post(address: str, way: str, event: str, data: list, session: str) -> None:
    """Ask for an event of the page as a client without a browser does."""
    with urlopen(f"{address}config") as answer:
        (number,) = (one["id"] for one in json.load(answer)["dependencies"] if one["api_name"] == event)
    body = json.dumps({"fn_index": number, "data": data, "session_hash": session}).encode()
    with urlopen(Request(f"{address}gradio_api/{way}", body, {"Content-Type": "application/json"})) as answer:
        assert answer.status == 200


def ask(address: str, event: str, data: list) -> dict:
    """An event's answer: whether it succeeded, and its output."""
    post(address, "queue/join", event, data, "client")
    with urlopen(f"{address}gradio_api/queue/data?session_hash=client", timeout=60) as answers:
        for line in answers:
            if b'"process_completed"' in line:
                return json.loads(line.removeprefix(b"data:"))
    raise AssertionError("no answer")


@pytest.mark.parametrize("is_stream", [False, True])
def test_clients_read_and_delete_no_files_of_the_machine(server, tmp_path, is_stream):
    address, victim, demo = server[0], tmp_path / "victim.jpg", DEMO.read_bytes()
    shutil.copy(DEMO, victim)

    def named(path):
        return {"path": str(path), "is_stream": is_stream, "meta": {"_type": "gradio.FileData"}}

    try:
        for path, allowed in ((victim, False), (DEMO.parents[1] / "README.md", False), (DEMO, True)):
            shown = ask(address, "show", [named(path), "auto", False, 0.5, "#6e3325", 0.45, 1])
            made = ask(address, "many", [[named(path)], ["mask"], 0.5, "#6e3325"])
            assert (shown["success"], made["success"]) == (allowed, allowed), path
        assert "1 photos are ready" in made["output"]["data"][0]
        assert not ask(address, "film", [named(victim), "mask", 0.5, "#6e3325"])["success"]
        post(address, "run/predict", "forget", [], "client")
        assert victim.read_bytes() == demo
        assert DEMO.is_file()
    finally:
        if not DEMO.is_file():  # the fault is back: the photo is the repository's
            DEMO.write_bytes(demo)


def test_a_server_that_is_told_to_stop_leaves_nothing(tmp_path):
    with serve(tmp_path) as (address, process):
        form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="me.jpg"\r\n\r\nme\r\n--x--\r\n'
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        with urlopen(Request(f"{address}gradio_api/upload", form, headers)):
            assert list(tmp_path.glob("hair-*/**/me.jpg"))
        process.terminate()  # as `docker stop` does
        assert process.wait(30) == 128 + signal.SIGTERM
    assert not list(tmp_path.glob("hair-*"))


# ---------------------------------------------------------------------------------------------------- without a server


@pytest.fixture
def app(monkeypatch):
    """The module, with what its import sets in the environment undone."""
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1")
    import app

    return app


def test_ports(app, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", None)  # set anew by main, as are these
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for number, said in ((99999, "99999 is not between 1 and 65535"), (taken.getsockname()[1], "in use")):
            monkeypatch.setattr(sys, "argv", ["app.py", "--port", str(number)])
            with pytest.raises(SystemExit) as end:
                app.main()
            printed = capsys.readouterr()
            assert said in f"{end.value}{printed.err}"
            assert not printed.out


VISITOR = Namespace(session_hash="visitor", headers={})


@pytest.fixture
def inside(app, tmp_path):
    """What the page does, with a network that finds no hair."""
    page = app.Page(None, tmp_path / "hair")
    blind = lambda photo: np.zeros(photo.shape[:2], np.float32)
    blind.img_size = 320
    page.segmenter = lambda backend: blind
    return page


def put(page, path: Path) -> Path:
    """Upload a file."""
    return Path(shutil.copy(path, page.inbox))


def many(page, files: list, kinds=("mask",)) -> str:
    return page.many([str(file) for file in files], list(kinds), 0.5, "#6e3325", VISITOR, lambda *_, **__: None)


def test_uploads_go_without_a_result(inside):
    upload = put(inside, DEMO)
    assert "Choose photos" in many(inside, [upload], kinds=())
    inside.forget(VISITOR)
    assert not upload.exists()


def test_only_uploads_are_deleted(inside, tmp_path):
    mine = Path(shutil.copy(DEMO, tmp_path / "mine.jpg"))
    folder = inside.inbox / "folder"
    folder.mkdir()
    for path in (mine, inside.inbox / ".." / ".." / "mine.jpg", folder, inside.inbox):
        inside.arrive(str(path), VISITOR)
    upload = put(inside, DEMO)
    inside.arrive([str(upload)], VISITOR)
    inside.forget(VISITOR)
    assert mine.is_file() and folder.is_dir()
    assert not upload.exists()


def test_who_left_while_the_network_ran_is_not_kept(inside, app):
    session, blind = app.visitor(VISITOR), inside.segmenter("auto")

    def leave(photo):
        inside.forget(VISITOR)
        return blind(photo)

    leave.img_size = blind.img_size
    kept = inside.look(session, DEMO, "auto")
    assert inside.shelf.by_token(kept.token) is kept
    inside.segmenter = lambda backend: leave
    look = inside.look(session, ROOT / "demo" / "2.jpg", "auto")
    assert inside.shelf.by_token(look.token) is None


def test_a_bad_photo_loses_no_good_one(inside, tmp_path):
    from PIL import Image

    Image.new("L", (2**20 + 1, 1)).save(tmp_path / "long.png")  # of which OpenCV makes an error of its own kind
    said = many(inside, [put(inside, path) for path in (tmp_path / "long.png", DEMO)])
    assert "long.png: this is not a photo" in said
    assert "1 photos are ready" in said


def test_a_backend_that_does_not_read_the_weights(app, tmp_path):
    page = app.Page(tmp_path, tmp_path / "hair")
    said, pictures = page.show(str(DEMO), "onnx", False, 0.5, "#6e3325", 0.45, 1, VISITOR)
    assert "onnx cannot run these weights" in said
    assert not pictures


def test_a_long_video_that_does_not_tell_its_length(inside, tmp_path):
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
    said = inside.film(str(tmp_path / "long.webm"), "mask", 0.5, "#6e3325", VISITOR, None)
    assert "long.webm: longer than the 60 seconds" in said


def zipped(path: Path, **photos: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in photos.items():
            archive.writestr(f"{name}.jpg", data)
    return path


def test_several_zips(tmp_path):
    zips = [zipped(tmp_path / f"{name}.zip", same=name.encode(), other=b"") for name in ("one", "two")]
    photos, problems = unpack(zips, tmp_path)
    assert [photo.name for photo in photos] == ["same.jpg", "other.jpg"] * 2
    assert [photo.read_bytes() for photo in photos[::2]] == [b"one", b"two"]
    assert not problems


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_zip_loses_no_good_photo(tmp_path, how):
    for number in range(2):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w", how) as archive:
            archive.writestr("bad.jpg", bytes(range(256)) * 100)
            begin = archive.fp.tell()
            archive.writestr("x" * 300 + ".jpg", b"photo")
            if number:
                archive.writestr("good.jpg", b"photo")
        data = bytearray((tmp_path / f"{number}.zip").read_bytes())
        data[42:begin] = b"\xff" * (begin - 42)
        (tmp_path / f"{number}.zip").write_bytes(data)
    zips = [tmp_path / "0.zip", zipped(tmp_path / "whole.zip", whole=b"photo"), tmp_path / "1.zip"]
    photos, problems = unpack(zips, tmp_path)
    assert [photo.name for photo in photos] == ["whole.jpg", "good.jpg"]
    assert [(one.key, one.facts["name"]) for one in problems] == [
        ("bad_zip", "0.zip"),
        ("unreadable", "bad.jpg"),
        ("unreadable", "x" * 300 + ".jpg"),
    ]


def test_too_many_photos_in_a_zip_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("visitors.MAX_PHOTOS", 2)
    for count, told in ((2, []), (3, ["too_many"])):
        path = zipped(tmp_path / f"{count}.zip", **{f"photo{number}": b"" for number in range(count)})
        photos, problems = unpack([path], tmp_path)
        assert len(photos) == 2
        assert [one.key for one in problems] == told


def test_texts_are_those_that_are_said():
    source = "".join((ROOT / file).read_text() for file in ("app.py", "visitors.py"))
    said = {key for key in TEXTS["en"] if re.search(f"[\"']{key}[\"']", source)}
    assert TEXTS["en"].keys() == TEXTS["ko"].keys() == said | inference.KINDS.keys()


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
