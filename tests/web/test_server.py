"""The server: what clients without a browser may ask of it, and how it starts and stops."""

import json
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

import app
from hair.errors import run
from tests.conftest import ROOT
from tests.web.conftest import DEMO, serve


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
            shown = ask(address, "show", [named(path), "auto", False, 0.5, "#6e3325", 0.45, 1, True])
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
