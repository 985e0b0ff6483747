"""The server: what clients without a browser may ask of it, and how it starts and stops."""

import html
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import app
from hair.errors import UserError, run
from tests.conftest import ROOT
from tests.hair import reading_files as drawn
from tests.web.conftest import DEMO, Blind, serve
from web.page import Page
from web.server import build_server


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


def test_a_made_up_session_leads_to_no_other_folder(server):
    """Clients choose their session's name, and what a session kept is deleted."""
    address, folder = server
    (kept,) = folder.glob("hair-*")
    victim = folder / "victim"
    victim.mkdir()
    for session in ("../victim", f"../../{folder.name}/victim", str(victim), "..", "", "."):
        post(address, "run/predict", "forget", [], session)
        assert victim.is_dir() and kept.is_dir()


@pytest.mark.parametrize("is_stream", [False, True])
def test_clients_read_and_delete_no_files_of_the_machine(server, tmp_path, is_stream):
    address, victim, demo = server[0], tmp_path / "victim.jpg", DEMO.read_bytes()
    shutil.copy(DEMO, victim)

    def named(path: Path) -> dict:
        return {"path": str(path), "is_stream": is_stream, "meta": {"_type": "gradio.FileData"}}

    try:
        for path, allowed in ((victim, False), (ROOT / "README.md", False), (DEMO, True)):
            shown = ask(address, "show", [named(path), "auto", False, 0.5, "#6e3325", 0.45, 1, True, "blur"])
            made = ask(address, "many", [[named(path)], ["mask"], 0.5, "#6e3325", True])
            assert (shown["success"], made["success"]) == (allowed, allowed), path
        assert "Photos processed: 1" in made["output"]["data"][0]
        assert not ask(address, "film", [named(victim), "mask", 0.5, "#6e3325", True])["success"]
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


def worst_files(folder: Path) -> list[Path]:
    """Files that make decoders fail, crash, or ask for gigabytes; and some that only look like it."""
    photo, jpeg, png = drawn.PHOTO, drawn.encoded(drawn.PHOTO, "JPEG"), drawn.encoded(drawn.PHOTO, "PNG")
    others = drawn.other_kinds()
    zeros = zlib.compress(bytes(100_000_000), 9)
    files = {
        "empty.jpg": b"",
        "text.jpg": b"not a photo\n" * 1000,
        "page.png": b"<html><script>alert(1)</script></html>",
        "drawing.svg": others["svg"],
        **{f"{kind}.png": others[kind] for kind in ("psd", "eps", "pdf", "ico", "tga", "fits", "mp4", "icns")},
        "wide.png": drawn.png_header(100_000, 100_000) + drawn.chunk(b"IDAT", zeros),
        "wide_and_damaged.png": drawn.png_header(14_000, 14_000)
        + drawn.chunk(b"pHYs", bytes(9), checksum=1)
        + drawn.chunk(b"IDAT", zeros)
        + drawn.chunk(b"IEND", b""),
        "rows.png": png[:33] + drawn.chunk(b"IDAT", zeros),
        "text.png": drawn.with_chunk(png, b"zTXt", b"Comment\0\0" + zeros),
        "wide.jpg": drawn.jpeg_with_size(65_500, 65_500),
        "wide.j2k": drawn.jpeg2000(1 << 20, 1 << 20, 1 << 20),
        "wide.avif": drawn.with_size_in_box(drawn.encoded(photo, "AVIF"), 60_000, 60_000),
        "wide.tif.png": drawn.tiff([(256, 4, 1, 1 << 20), (257, 4, 1, 1 << 20), (258, 3, 1, 8), (273, 4, 1, 8)]),
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.heic": drawn.encoded(photo, "HEIF")[:-200],
        "head_only.webp": drawn.encoded(photo, "WEBP")[:20],
        "bomb.zip.jpg": b"PK\3\4" + zeros[:1000],
        "<b>bold.jpg": b"x",
        "line.png": drawn.encoded(Image.new("L", (60_000, 1)), "PNG"),
        "moving.gif": drawn.encoded(photo, "GIF", save_all=True, append_images=[Image.fromarray(photo[::-1])]),
        "cmyk.jpg": drawn.encoded(Image.fromarray(photo).convert("CMYK"), "JPEG"),
        "deep.png": drawn.encoded(Image.fromarray(photo[..., 0].astype(np.uint16) * 257), "PNG"),
        "jpeg.png": jpeg,
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


PHOTOS = {"line.png", "moving.gif", "cmyk.jpg", "deep.png", "jpeg.png", "text.png", "rows.png"}  # of these files


def test_the_server_lives_through_the_worst_files(server, tmp_path):
    """Each of them is answered by one line or by a picture."""
    address, _ = server
    read = set()
    for path in worst_files(tmp_path):
        with httpx.Client(base_url=address, timeout=60) as client:
            answer = client.post("api/hair", files={"photo": (path.name, path.read_bytes())})
            (upload,) = client.post("gradio_api/upload", files={"files": (path.name, path.read_bytes())}).json()
        named = {"path": upload, "meta": {"_type": "gradio.FileData"}}
        summary, pictures = ask(address, "show", [named, "auto", False, 0.5, "#6e3325", 0.45, 1, True, "blur"])[
            "output"
        ]["data"]
        if answer.status_code == 200:
            Image.open(io.BytesIO(answer.content)).load()
            assert pictures.count("<img") == 6 and "alert" not in summary
            read.add(path.name)
        else:
            assert answer.status_code in (400, 413, 415, 422), path.name
            assert list(answer.json()) == ["error"] and "\n" not in answer.json()["error"]
            assert summary.count("<p") == 1 and 'role="alert"' in summary and "<b>" not in summary and not pictures
    assert read == PHOTOS


def test_below_a_path_of_a_proxy(tmp_path):
    """Both with proxies that take the path off requests and with those that leave it there."""
    with serve(tmp_path, GRADIO_ROOT_PATH="/hair/", GRADIO_SERVER_NAME="127.0.0.1") as (address, process):
        for prefix in ("", "hair/"):
            below = address + prefix
            forwarded = {"X-Forwarded-Host": "example.com", "X-Forwarded-Proto": "https"}
            with urlopen(Request(f"{below}config", headers=forwarded)) as answer:
                assert json.load(answer)["root"] == "https://example.com/hair"
            named = {"path": str(DEMO), "meta": {"_type": "gradio.FileData"}}
            shown = ask(below, "show", [named, "auto", False, 0.5, "#6e3325", 0.45, 1, True, "blur"])
            links = re.findall('href="([^"]+)"', shown["output"]["data"][1])
            assert len(links) == 4 and all(link.startswith("/hair/picture/") for link in links)
            with urlopen(below + html.unescape(links[0]).removeprefix("/hair/")) as answer:
                assert answer.headers["Content-Type"] == "image/png"
            with urlopen(Request(f"{below}api/hair?format=json", DEMO.read_bytes())) as answer:
                assert json.load(answer)["hair"] > 0
        process.terminate()


@pytest.mark.parametrize(
    ("root_path", "expected"),
    [
        ("", "http://testserver"),
        ("/hair", "http://testserver/hair"),
        ("https://example.com", "https://example.com"),
        ("https://example.com/hair", "https://example.com/hair"),
    ],
)
def test_the_page_knows_its_address(tmp_path, root_path, expected):
    page = Page({"auto": Blind()}.get, tmp_path / "hair", root_path)
    with TestClient(build_server(page)) as client:
        for prefix in {"", root_path.removeprefix("https://example.com")}:
            assert client.get(f"{prefix}/config").json()["root"] == expected
            assert client.get(f"{prefix}/file/nothing").status_code == 404
            assert client.get(f"{prefix}/").status_code == 200


def test_the_interface_alone(tmp_path):
    with serve(tmp_path, "--api_only") as (address, process):
        with urlopen(Request(f"{address}api/hair?format=json", DEMO.read_bytes())) as answer:
            assert json.load(answer)["hair"] > 0
        with urlopen(address) as answer:
            assert answer.url == f"{address}api/docs"
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"{address}config")  # of Gradio
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
    assert not list(tmp_path.glob("hair-*"))
    code = "import web.api, sys; sys.exit('gradio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    ("flags", "variables", "expected"),
    [
        ([], {}, ("127.0.0.1", 7860, "", False)),
        ([], {"NAME": "", "PORT": "", "ROOT_PATH": "", "SHARE": ""}, ("127.0.0.1", 7860, "", False)),
        ([], {"NAME": "0.0.0.0", "PORT": "80", "ROOT_PATH": "hair/", "SHARE": "True"}, ("0.0.0.0", 80, "/hair", True)),
        (
            ["--host", "::1", "--port", "81", "--root_path", "/a/b", "--no-share"],
            {"NAME": "0.0.0.0", "PORT": "80", "ROOT_PATH": "/hair", "SHARE": "true"},
            ("::1", 81, "/a/b", False),
        ),
        (["--root_path", "/"], {"ROOT_PATH": "/hair"}, ("127.0.0.1", 7860, "", False)),
        (["--root_path", "https://example.com/hair/"], {}, ("127.0.0.1", 7860, "https://example.com/hair", False)),
        (["--share"], {"SHARE": "false"}, ("127.0.0.1", 7860, "", True)),
    ],
)
def test_flags_win_over_the_variables_of_gradio(monkeypatch, flags, variables, expected):
    for name, variable in zip(("NAME", "PORT", "ROOT_PATH", "SHARE"), app.VARIABLES.values(), strict=True):
        monkeypatch.setenv(variable, variables.get(name, ""))
    monkeypatch.setattr(sys, "argv", ["app.py", *flags])
    args = app.read_arguments()
    assert (args.host, args.port, args.root_path, args.share) == expected


@pytest.mark.parametrize("root_path", ["ftp://example.com/hair", "/hair?x=1", "/hair#x"])
def test_root_paths_that_there_cannot_be(monkeypatch, root_path):
    monkeypatch.setattr(sys, "argv", ["app.py", "--root_path", root_path])
    with pytest.raises(UserError, match="--root_path"):
        app.read_arguments()


def test_a_public_address(monkeypatch):
    seen = []
    monkeypatch.setattr("gradio.networking.setup_tunnel", lambda *given: seen.append(given) or "https://x.gradio.live")
    assert app.open_tunnel("0.0.0.0", 7860) == "https://x.gradio.live"
    assert seen[0][:2] == ("127.0.0.1", 7860) and len(seen[0][2]) > 20

    def fail(*given):
        raise RuntimeError("Could not get share link\nfrom Gradio API Server.")

    monkeypatch.setattr("gradio.networking.setup_tunnel", fail)
    with pytest.raises(UserError, match=r"^--share: [^\n]*Could not get share link from Gradio[^\n]*$"):
        app.open_tunnel("127.0.0.1", 7860)


def test_ports_that_cannot_be_listened_on(monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", None)  # set anew by main, as are these
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for number, said in (
            (99999, "99999 is out of range: it must be between 1 and 65535"),
            (taken.getsockname()[1], "in use"),
        ):
            monkeypatch.setattr(sys, "argv", ["app.py", "--port", str(number)])
            with pytest.raises(SystemExit) as end:
                run(app.main)
            printed = capsys.readouterr()
            assert said in f"{end.value}{printed.err}"
            assert not printed.out
