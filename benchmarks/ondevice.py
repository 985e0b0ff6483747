"""Time and transfer of the page that runs in the browser, in headless Chromium.

    npm --prefix web/ondevice ci && npm --prefix web/ondevice run build
    python -m benchmarks.ondevice

Prints what a first visit transfers from a host that does not compress files; then the best and the median of several
times: the first mask of a photo of 12 megapixels with the model loaded, a change of the dye in the preview, and frames
of a camera.
"""

import argparse
import functools
import http.server
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import cv2

from hair.cli import HelpFormatter, number
from hair.errors import UserError, run
from web.static import BUILT, read_headers

PHOTO = Path(__file__).resolve().parents[1] / "demo" / "1.jpg"
SIZE = (4000, 3000)  # 12 megapixels
FRAME = (1280, 720)  # of the camera
FRAMES = 40
READY = "main[data-state=photo][data-drawn]:not([data-busy])"


class Server(http.server.SimpleHTTPRequestHandler):
    """Sends the page, and counts the bytes of its files."""

    sent = 0

    def end_headers(self) -> None:
        for name, value in read_headers(BUILT).items():
            self.send_header(name, value)
        super().end_headers()

    def copyfile(self, source, outputfile) -> None:  # noqa: ANN001 (as in the base class)
        Server.sent += Path(source.name).stat().st_size
        super().copyfile(source, outputfile)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve() -> Iterator[str]:
    """The page's address."""
    handler = functools.partial(Server, directory=BUILT)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def report(what: str, times: list[float]) -> None:
    """Print the best and the median of times in milliseconds."""
    print(f"{what}: best {min(times):.0f} ms, median {median(times):.0f} ms of {len(times)}")


def measure(page, folder: Path, times: int) -> None:  # noqa: ANN001 (Playwright may not be installed)
    """Measure a page that has loaded its model."""
    fact = functools.partial(page.get_attribute, "main")
    print(f"engine: {fact('data-engine')}, threads: {fact('data-threads')}")
    print(f"first visit: {Server.sent / 1e6:.2f} MB")
    cv2.imwrite(str(folder / "large.jpg"), cv2.resize(cv2.imread(str(PHOTO)), SIZE, interpolation=cv2.INTER_CUBIC))
    opened, drawn = [], []
    for _ in range(times):
        page.locator("main").evaluate("main => delete main.dataset.drawn")
        page.set_input_files("#file", folder / "large.jpg")
        page.wait_for_selector(READY)
        opened.append(float(fact("data-opened")))
    report("first mask of 12 megapixels", opened)
    for swatch in page.locator("[data-dye]").all():
        page.locator("main").evaluate("main => delete main.dataset.drawn")
        swatch.check()
        page.wait_for_selector("main[data-drawn]")
        drawn.append(float(fact("data-drawn")))
    report("dye changed in the preview", drawn)
    page.locator(".again .camera").click()
    while int(fact("data-frames") or 0) < FRAMES:
        page.wait_for_timeout(100)
    frames = page.locator("main").evaluate("main => main.dataset.frames / main.dataset.seconds")
    best = 1000 / float(fact("data-fastest"))
    print(f"camera of {FRAME[0]} × {FRAME[1]} pixels: {frames:.1f} frames/s, at best {best:.1f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--times", type=number(int, 1), default=5, help="how often the large photo is opened")
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise UserError("this benchmark needs Chromium, from the packages of the system")
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, serve() as address, sync_playwright() as tool:
        film = Path(name) / "film.mjpeg"
        film.write_bytes(10 * cv2.imencode(".jpg", cv2.resize(cv2.imread(str(PHOTO))[:288], FRAME))[1].tobytes())
        flags = ["no-sandbox", "use-fake-ui-for-media-stream", "use-fake-device-for-media-stream"]
        flags.append(f"use-file-for-fake-video-capture={film}")
        browser = tool.chromium.launch(executable_path=chromium, args=[f"--{flag}" for flag in flags])
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto(address)
        page.wait_for_selector("main[data-engine]")
        measure(page, Path(name), args.times)
        browser.close()


if __name__ == "__main__":
    run(main)
