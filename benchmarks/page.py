"""How fast the page of app.py responds, and whether it serves many visitors at once in bounded memory.

    pip install -r requirements-app.txt && python -m benchmarks.page

Starts the page, uploads a drawn photo of 2 megapixels as a browser would (over HTTP, by Gradio's client), changes a
control, then lets 20 visitors upload a photo each at once: of 2 megapixels, then of 24, then of 24 to `/api/hair`.
Linux only.
"""

import argparse
import html
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import cv2
import httpx
import numpy as np
from gradio_client import Client, handle_file

from hair.cli import HelpFormatter, number

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {
    "backend": "auto",
    "refine": False,
    "threshold": 0.5,
    "color": "#6e3325",
    "opacity": 0.45,
    "strength": 1,
    "bleach": True,
}
SMALL, LARGE = (1732, 1155), (5712, 4284)  # (width, height) of photos: 2 megapixels; a telephone's 24
TIMEOUT = 600  # seconds for one answer
STEADY_UPLOADS = 5  # whose times are printed, after one to warm up


def draw_photo(path: Path, seed: int, size: tuple[int, int] = SMALL) -> Path:
    """Write a photo of (width, height) pixels: a noisy head on a plain background."""
    rng = np.random.default_rng(seed)
    width, height = SMALL
    photo = np.full((height, width, 3), rng.integers(120, 220, 3), np.uint8)
    cv2.ellipse(photo, (866, 520), (300, 360), 0, 0, 360, tuple(map(int, rng.integers(0, 100, 3))), -1)
    cv2.ellipse(photo, (866, 620), (210, 280), 0, 0, 360, (150, 180, 225), -1)
    photo = cv2.resize(photo, size) if size != SMALL else photo
    photo = cv2.add(photo, rng.integers(0, 30, photo.shape, np.uint8))
    cv2.imwrite(str(path), photo)
    return path


def memory(process: int, kind: str = "VmRSS") -> float:
    """MB of memory that a process uses now, or with the kind VmHWM the most that it has used (Linux)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(kind)).split()[1]) / 1024


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int) -> None:
    """Wait up to a minute until something listens on a port."""
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)


def show(client: Client, photo: Path, **changed: object) -> tuple[str, str]:
    """Upload a photo. Returns the HTML of the summary and of the pictures."""
    return client.predict(handle_file(photo), **(SETTINGS | changed), api_name="/show")


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def show_and_download(address: str, client: Client, photo: Path) -> bool:
    """Upload a photo, and download its overlay at full resolution. Whether both worked."""
    _, pictures = show(client, photo)
    links = re.findall('href="([^"]+/overlay.png[^"]*)"', pictures)
    return len(links) == 1 and httpx.get(address + html.unescape(links[0]), timeout=TIMEOUT).status_code == 200


def ask(address: str, photo: Path) -> bool:
    """Send a photo to the HTTP interface. Whether a picture came back."""
    body = photo.read_bytes()
    return httpx.post(f"{address}api/hair?format=jpg", content=body, timeout=TIMEOUT).status_code == 200


def visit_at_once(name: str, server: int, visits: list[Callable[[], bool]]) -> None:
    """Let visitors come at once, and print how many were served, how long it took, and the most memory meanwhile."""
    Path(f"/proc/{server}/clear_refs").write_text("5")  # the most memory is counted from now on
    start = time.perf_counter()
    with ThreadPoolExecutor(len(visits)) as pool:
        served = sum(pool.map(lambda visit: visit(), visits))
    duration = time.perf_counter() - start
    most = memory(server, "VmHWM")
    print(f"{len(visits)} {name} at once: {served} served in {duration:.1f} s; at most {most:.0f} MB", flush=True)


def measure(address: str, server: int, photos: list[Path], large: list[Path]) -> None:
    """Print the times and the memory.

    Args:
        address: of the page.
        server: number of its process.
        photos: one for each of the visitors that come at once.
        large: the same, of 24 megapixels.
    """
    client = Client(address, verbose=False)
    summary, _ = show(client, photos[0])
    assert "hair" in summary.lower()
    uploads = [seconds(partial(show, client, photo)) for photo in photos[1 : 1 + STEADY_UPLOADS]]
    if uploads:
        print(f"from upload to overlay, 2 megapixels: {median(uploads):.2f} s (at most {max(uploads):.2f})")
    changes = [seconds(partial(show, client, photos[0], threshold=value)) for value in np.linspace(0.3, 0.7, 9)]
    print(f"a control changed (with the upload, which a browser does not repeat): {1000 * median(changes):.0f} ms")
    print(f"memory then: {memory(server):.0f} MB")
    with ThreadPoolExecutor(len(photos)) as pool:
        clients = list(pool.map(lambda _: Client(address, verbose=False), photos))
    for name, files in (("2 megapixels", photos), ("24 megapixels", large)):
        visits = [partial(show_and_download, address, one, file) for one, file in zip(clients, files, strict=True)]
        visit_at_once(f"visitors with {name}", server, visits)
    visit_at_once("requests of 24 megapixels", server, [partial(ask, address, photo) for photo in large])


def main() -> None:
    """Start the page and measure it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--visitors", type=number(int, 1), default=20, help="number of visitors at once")
    args = parser.parse_args()
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        photos = [draw_photo(Path(folder) / f"{seed}.jpg", seed) for seed in range(args.visitors)]
        large = [draw_photo(Path(folder) / f"{seed}-large.jpg", seed, LARGE) for seed in range(args.visitors)]
        server = subprocess.Popen([sys.executable, ROOT / "app.py", "--port", str(port)])
        try:
            wait_for(port)
            httpx.get(f"http://127.0.0.1:{port}/", timeout=TIMEOUT)  # the first answer takes longer
            measure(f"http://127.0.0.1:{port}/", server.pid, photos, large)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
