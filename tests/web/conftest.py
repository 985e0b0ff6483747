"""A served page, a browser that visits it (the system's Chromium, led by Playwright), and the page's events."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from web.page import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DEMO = ROOT / "demo" / "1.jpg"
VISITOR = Namespace(session_hash="visitor", headers={})  # what Gradio passes to an event


class Blind:
    """Stands in for a segmenter: finds no hair.

    Args:
        meanwhile: called while "the network runs".
    """

    img_size = 320
    threshold = 0.5

    def __init__(self, meanwhile: Callable[[], object] | None = None) -> None:
        self.meanwhile = meanwhile

    def __call__(self, photo: np.ndarray) -> np.ndarray:
        if self.meanwhile is not None:
            self.meanwhile()
        return np.zeros(photo.shape[:2], np.float32)


@contextmanager
def serve(folder: Path, *flags: str, **variables: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """A page of its own, which keeps what it must in `folder`: its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, ROOT / "app.py", *flags]
    environment = os.environ | {"TMPDIR": str(folder), "GRADIO_SERVER_PORT": str(port)} | variables
    with subprocess.Popen(command, env=environment) as process:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/", process


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The page's address, and the folder in which it keeps what it must."""
    folder = tmp_path_factory.mktemp("server")
    with serve(folder) as (address, process):
        yield address, folder
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert not list(folder.glob("hair-*"))  # nothing is left behind


@pytest.fixture(scope="package")
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


@pytest.fixture
def events(tmp_path) -> Page:
    """What the page does, without a server and with a network that finds no hair."""
    return Page({"auto": Blind()}.get, tmp_path / "hair")


def put(page: Page, path: Path) -> Path:
    """Upload a file."""
    return Path(shutil.copy(path, page.inbox))


def segment_batch(page: Page, files: list[Path], kinds: tuple[str, ...] = ("mask",)) -> str:
    """What the page says after a batch."""
    names = [str(file) for file in files]
    return page.segment_batch(names, list(kinds), 0.5, "#6e3325", True, VISITOR, lambda *_, **__: None)


def save(page, selector: str, path: Path) -> Path:
    """Click a download button of a page in the browser."""
    with page.expect_download() as download:
        page.click(selector)
    download.value.save_as(path)
    return path
