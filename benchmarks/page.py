"""How long the page of app.py takes, and whether many visitors at once are all served in bounded memory.

    pip install -r requirements-app.txt && python benchmarks/page.py

Starts the page, drops a drawn photo of 2 megapixels as a browser would (over HTTP, by Gradio's client), changes a
control, then lets 20 visitors drop a photo each at once.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from gradio_client import Client, handle_file

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {"backend": "auto", "refine": False, "threshold": 0.5, "color": "#6e3325", "opacity": 0.45, "strength": 1}


def draw_photo(path: Path, number: int) -> Path:
    """A head of noise on a plain ground, 1,732 × 1,155 pixels."""
    rng = np.random.default_rng(number)
    photo = np.full((1155, 1732, 3), rng.integers(120, 220, 3), np.uint8)
    cv2.ellipse(photo, (866, 520), (300, 360), 0, 0, 360, tuple(map(int, rng.integers(0, 100, 3))), -1)
    cv2.ellipse(photo, (866, 620), (210, 280), 0, 0, 360, (150, 180, 225), -1)
    photo = cv2.add(photo, rng.integers(0, 30, photo.shape, np.uint8))
    cv2.imwrite(str(path), photo)
    return path


def memory(process: int) -> float:
    """MB that a process holds in memory now (Linux)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=20, help="at once (default: 20)")
    args = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        photos = [draw_photo(Path(name) / f"{k}.jpg", k) for k in range(args.visitors)]
        server = subprocess.Popen([sys.executable, ROOT / "app.py", "--port", str(port)], env=os.environ)
        try:
            measure(f"http://127.0.0.1:{port}/", server.pid, photos)
        finally:
            server.terminate()
            server.wait()


def measure(address: str, server: int, photos: list[Path]) -> None:
    """Print the times and the memory."""
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", int(address.rstrip("/").rsplit(":", 1)[1]))) == 0:
                break
        time.sleep(0.2)
    client = Client(address, verbose=False)
    show = lambda who, photo, **changed: who.predict(handle_file(photo), **{**SETTINGS, **changed}, api_name="/show")
    timed = lambda call: (lambda start: (call(), time.perf_counter() - start)[1])(time.perf_counter())
    timed(lambda: show(client, photos[0]))
    drops = [timed(lambda photo=photo: show(client, photo)) for photo in photos[1:6]]
    print(f"drop to overlay of 2 megapixels: {median(drops):.2f} s (at most {max(drops):.2f})")
    uploaded = client.predict(handle_file(photos[0]), **SETTINGS, api_name="/show")
    assert "hair" in uploaded[0].lower()
    changes = [
        timed(lambda value=value: show(client, photos[0], threshold=value)) for value in np.linspace(0.3, 0.7, 9)
    ]
    print(f"a control changed (with the upload, which a browser does not repeat): {1000 * median(changes):.0f} ms")
    before = memory(server)
    with ThreadPoolExecutor(len(photos)) as pool:
        clients = list(pool.map(lambda _: Client(address, verbose=False), photos))
        start = time.perf_counter()
        answers = list(pool.map(show, clients, photos))
        seconds = time.perf_counter() - start
    served = sum("<img" in answer[1] for answer in answers)
    print(
        f"{len(photos)} visitors at once: {served} served in {seconds:.1f} s; {before:.0f} -> {memory(server):.0f} MB"
    )


if __name__ == "__main__":
    main()
