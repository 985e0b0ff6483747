"""The HTTP interface: every kind of request and every kind of answer, without a server's process and a network."""

import io
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from hair.colors import parse_color
from hair.dye import Dye
from hair.effects import Looks
from hair.photos import open_photo
from hair.results import FORMATS, KINDS, NO_EXIF, Results, make_result
from tests.conftest import ROOT
from tests.hair import reading_files as drawn
from tests.web.conftest import DEMO
from web.api import Options, build_api, preferred_format
from web.visitors import Turns

JPEG = DEMO.read_bytes()
FORM = "application/x-www-form-urlencoded"


class Half:
    """Stands in for a segmenter: the upper half of a photo is hair."""

    img_size, threshold = 320, 0.5

    def __call__(self, photo: np.ndarray) -> np.ndarray:
        probabilities = np.zeros(photo.shape[:2], np.float32)
        probabilities[: len(photo) // 2] = 1
        return probabilities


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(build_api(lambda backend, **options: Half(), Turns(), is_alone=True)) as client:
        client.headers["accept"] = "*/*"
        yield client


def post(client: TestClient, data: bytes = JPEG, name: str = "me.jpg", **query: object):
    return client.post("/api/hair", params=query, files={"photo": (name, data)})


def error_of(answer, status: int) -> str:
    """The line of an error, which is all that there is."""
    assert answer.status_code == status, answer.text
    (said,) = answer.json().values()
    assert list(answer.json()) == ["error"] and said and "\n" not in said
    return said


# ---------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("picture_format", FORMATS)
def test_answers_are_what_the_command_line_writes(client, kind, picture_format):
    answer = post(client, save=kind, format=picture_format, color="blue", threshold=0.4, quality=80)
    photo = open_photo(DEMO)
    results = Results((kind,), Looks(0.4, Dye((parse_color("blue"),))), format=picture_format, quality=80)
    suffix, content = make_result(kind, "me.jpg", photo, Half()(photo.pixels), results)
    assert answer.status_code == 200
    if kind == "json":
        assert answer.json() == json.loads(content) | {"notes": []}
        return
    assert answer.content == content
    assert f"me_{kind}.{suffix}" in answer.headers["content-disposition"]
    expected = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "json": "application/json"}[suffix]
    assert answer.headers["content-type"] == expected


@pytest.mark.parametrize(
    "request_of",
    [
        {"files": {"photo": ("me.jpg", JPEG)}},
        {"files": {"whatever": ("me.jpg", JPEG, "text/plain")}},
        {"content": JPEG, "headers": {"content-type": "image/jpeg"}},
        {"content": JPEG, "headers": {"content-type": "application/x-www-form-urlencoded"}},  # curl --data-binary
        {"content": iter([JPEG[:1000], JPEG[1000:]])},  # without its length
        {"content": JPEG},
    ],
)
def test_a_photo_may_come_as_a_form_or_as_the_body(client, request_of):
    answer = client.post("/api/hair?format=json", **request_of)
    assert answer.json()["hair"] == 0.5
    assert answer.json()["file"] == ("me.jpg" if "files" in request_of else "photo")


def test_the_client_in_the_docs_gets_its_picture(client, tmp_path, monkeypatch):
    def send(request: Request) -> io.BytesIO:
        # The type is what urllib says of any body.
        answer = client.post(request.full_url, content=request.data, headers={"content-type": FORM})
        return io.BytesIO(answer.raise_for_status().content)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("urllib.request.urlopen", send)
    Path("me.jpg").write_bytes(JPEG)
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    exec(next(body for body in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "urlopen" in body), {})
    assert Image.open("dyed.jpg").size == Image.open(DEMO).size


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "image/png"),
        ("image/jpeg", "image/jpeg"),
        ("application/json, text/plain, */*", "application/json"),
        ("image/webp;q=0.5, image/jpeg;q=0.8, image/png;q=0", "image/jpeg"),
        ("text/html", "image/png"),
        ("nonsense;;q=,", "image/png"),
    ],
)
def test_the_header_accept_chooses_the_format(client, accept, media_type):
    client.headers["accept"] = accept
    try:
        assert post(client).headers["content-type"] == media_type
        assert post(client, format="webp").headers["content-type"] == "image/webp"  # said more plainly
        assert post(client, save="mask").headers["content-type"] == "image/png"
    finally:
        client.headers["accept"] = "*/*"
    assert preferred_format("image/png;q=0") is None


def test_dyes_are_those_of_the_command_line(client):
    query = {"save": "recolor", "color": ["copper", "#aabbcc"], "highlights": 0.3, "bleach": False, "strength": 0.5}
    photo = open_photo(DEMO)
    dye = Dye((parse_color("copper"), (0xAA, 0xBB, 0xCC)), strength=0.5, bleach=False, highlights=0.3)
    expected = make_result("recolor", "", photo, Half()(photo.pixels), Results(("recolor",), Looks(0.5, dye)))[1]
    assert post(client, **query).content == expected


@pytest.mark.parametrize(
    ("background", "color"), [("blur", None), ("#102030", (0x10, 0x20, 0x30)), ("white", (255,) * 3)]
)
def test_backgrounds_are_those_of_the_command_line(client, background, color):
    photo = open_photo(DEMO)
    looks = Looks(0.5, Dye((parse_color("auburn"),)), background=color or background)
    expected = make_result("alpha", "", photo, Half()(photo.pixels), Results(("alpha",), looks, format="jpg"))
    answer = post(client, save="alpha", background=background, format="jpg")
    assert (answer.headers["content-type"], answer.content) == ("image/jpeg", expected[1])


def test_transparency_is_kept_and_remarks_are_told(client):
    pixels = np.dstack([drawn.PHOTO, drawn.ALPHA])
    for kind in ("recolor", "alpha"):
        made = np.asarray(
            Image.open(io.BytesIO(post(client, drawn.encoded(pixels, "PNG"), "cut.png", save=kind).content))
        )
        assert made.shape[2] == 4 and (made[..., 3][drawn.ALPHA == 0] == 0).all()
    frames = [Image.fromarray(np.roll(drawn.PHOTO, shift, 1)) for shift in (1, 2)]
    moving = drawn.encoded(drawn.PHOTO, "GIF", save_all=True, append_images=frames)
    said = "is animated; only the first frame was read"
    assert post(client, moving, "a.gif", format="json").json()["notes"] == [said]
    assert json.loads(post(client, moving, "a.gif").headers["x-hair-notes"]) == [said]
    korean = client.post("/api/hair", files={"photo": moving}, headers={"accept-language": "ko"})
    assert json.loads(korean.headers["x-hair-notes"]) == ["애니메이션입니다. 첫 번째 장면만 읽었습니다."]
    without_end = post(client, JPEG[:-2], format="json")
    assert without_end.json()["notes"] == ["damaged, but the image is complete"]
    assert "x-hair-notes" not in post(client).headers


def test_large_photos_may_be_processed_smaller_and_exif_kept(client, monkeypatch):
    exif = Image.Exif()
    exif[271] = "maker of the camera"
    photo = drawn.encoded(drawn.PHOTO, "JPEG", exif=exif)
    small = Image.open(io.BytesIO(post(client, photo, max_pixels=1000, format="jpg", keep_exif=True).content))
    assert small.width * small.height <= 1000 and small.getexif()[271] == exif[271]
    assert not Image.open(io.BytesIO(post(client, photo, format="jpg").content)).getexif()
    monkeypatch.setattr("web.api.read_exif", lambda path: None)
    assert json.loads(post(client, photo, keep_exif=True).headers["x-hair-notes"]) == [NO_EXIF]
    assert post(client, photo, keep_exif=True, format="json").json()["notes"] == []  # which has no EXIF anyway


def test_options_of_the_network_are_passed_on():
    seen = []

    def segmenter(backend: str, **options: bool) -> Half:
        seen.append((backend, options))
        return Half()

    with TestClient(build_api(segmenter, Turns())) as client:
        assert post(client).status_code == 200
        assert post(client, tta=True, multi_scale=False, refine=True).status_code == 200
    assert seen == [("auto", {}), ("auto", {"tta": True, "multi_scale": False})]  # the first one is the page's


# ---------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"save": "frames"}, "save: choose from overlay, mask"),
        ({"format": "tiff"}, "format: choose from png, jpg, webp, json"),
        ({"save": "mask", "format": "json"}, "format: json is for save=contour, rle, json"),
        ({"color": "blurple"}, "color blurple: not #rrggbb"),
        ({"color": ["red", "blue", "green"]}, "color: "),
        ({"highlights": 0.5, "bleach": False}, "highlights: lighter strands need bleach"),
        ({"background": str(DEMO), "save": "alpha"}, "background: neither a CSS colour"),
        ({"background": "blur"}, "background: this is for save=alpha"),
        ({"threshold": 1}, "threshold: "),
        ({"threshold": "nan"}, "threshold: "),
        ({"quality": 0}, "quality: "),
        ({"strength": 2, "opacity": -1}, "strength: .*; opacity: "),
        ({"max_pixels": 0}, "max_pixels: "),
        ({"colour": "blue"}, "colour: there is no such parameter; choose from save, format"),
    ],
)
def test_wrong_parameters_are_one_line(client, query, said):
    line = error_of(post(client, **query), 422)
    assert re.match(said, line), line
    assert "--" not in line


def test_requests_without_a_photo(client):
    assert "no photo" in error_of(client.post("/api/hair"), 400)
    assert "no photo" in error_of(post(client, b""), 400)
    error_of(client.post("/api/hair", data={"photo": "me.jpg"}), 415)  # a form without files
    broken = {"content-type": "multipart/form-data; boundary=x"}
    error_of(client.post("/api/hair", content=b"--y\r\nnothing", headers=broken), 400)
    error_of(client.get("/api/hair"), 405)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "C:\\me.jpg", "..", "x" * 3000 + ".jpg", "é\n\0.jpg", "머리.jpg", ""]
)
def test_names_lead_to_no_other_folder(client, name):
    form = f'--x\r\nContent-Disposition: form-data; name="photo"; filename="{name}"\r\n\r\n'.encode() + JPEG
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post("/api/hair?format=json", content=form + b"\r\n--x--\r\n", headers=headers)
    if answer.status_code == 200:
        assert not {"/", "\\", "\n", "\0"} & set(answer.json()["file"])
    else:
        error_of(answer, 400)


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("is_form", [False, True])
def test_uploads_are_limited(client, monkeypatch, is_chunked, is_form):
    monkeypatch.setattr("web.api.MAX_BYTES", 2**20)
    body = b"--x\r\nContent-Disposition: form-data; name=photo; filename=a.jpg\r\n\r\n" + bytes(2**21)
    headers = {"content-type": "multipart/form-data; boundary=x" if is_form else "image/jpeg"}
    content = (body[place : place + 2**16] for place in range(0, len(body), 2**16)) if is_chunked else body
    answer = client.post("/api/hair", content=content, headers=headers)
    assert "larger than the limit of 1 MB" in error_of(answer, 413)


def test_a_photo_that_is_too_large(client):
    said = error_of(post(client, drawn.png_header(10_000, 5_101), "big.png"), 413)
    assert said == "big.png: the photo has 51.1 megapixels; the limit is 51."
    answer = client.post("/api/hair", files={"p": drawn.png_header(10_000, 9_000)}, headers={"accept-language": "ko"})
    assert "90메가픽셀" in error_of(answer, 413)


def test_more_requests_than_may_wait():
    started, go_on = threading.Event(), threading.Event()

    class Slow(Half):
        def __call__(self, photo: np.ndarray) -> np.ndarray:
            started.set()
            assert go_on.wait(60)
            return super().__call__(photo)

    with TestClient(build_api(lambda backend: Slow(), Turns(at_once=1, waiting=0))) as client:
        found = []
        first = threading.Thread(target=lambda: found.append(post(client)))
        first.start()
        assert started.wait(60)
        answer = post(client)
        go_on.set()
        first.join()
        assert "Too many photos" in error_of(answer, 503) and int(answer.headers["retry-after"]) > 0
        assert found[0].status_code == 200


# ---------------------------------------------------------------------------------------------------- documentation


def test_documentation_needs_no_other_machine(client):
    page = client.get("/").text  # leads there
    assert "/api/openapi.json" in page and "http" not in page.replace("http-equiv", "")
    assert client.get("/api/static/swagger-ui-bundle.js").status_code == 200
    operation = client.get("/api/openapi.json").json()["paths"]["/api/hair"]["post"]
    assert set(operation["requestBody"]["content"]) == {"multipart/form-data", "image/*"}
    assert {"200", "400", "413", "415", "422", "503"} <= operation["responses"].keys()
    parameters = {one["name"]: one for one in operation["parameters"]}
    assert parameters.keys() == Options.model_fields.keys()
    assert parameters["save"]["schema"]["enum"] == list(KINDS)
    assert all(one["description"] for one in parameters.values())


@pytest.mark.parametrize("root_path", ["/hair", "https://example.com/hair"])
@pytest.mark.parametrize("prefix", ["", "/hair"])  # a proxy may take it off
def test_below_a_path(root_path, prefix):
    with TestClient(build_api(lambda backend: Half(), Turns(), root_path, is_alone=True)) as client:
        answer = client.post(f"{prefix}/api/hair?format=json", content=JPEG)
        assert answer.json()["hair"] == 0.5
        assert client.get(f"{prefix}/", follow_redirects=False).headers["location"] == f"{root_path}/api/docs"
        assert client.get("/hair", follow_redirects=False).headers["location"] == "/hair/"
        assert "'/hair/api/openapi.json'" in client.get(f"{prefix}/api/docs").text
        assert client.get(f"{prefix}/api/openapi.json").json()["servers"] == [{"url": root_path}]
        assert client.get(f"{prefix}/api/static/swagger-ui.css").status_code == 200
        assert client.post("/hairy/api/hair", content=JPEG).status_code == 404
