"""Start a web page to try the model: upload a photo, see its hair, dye it, download the results at full resolution.

    pip install -r requirements-app.txt
    python app.py                                     # http://127.0.0.1:7860

Photos stay on this machine: uploads and results are deleted when the page is closed.
"""

import argparse
import os
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from hair.cli import HelpFormatter, number
from hair.errors import run


def build_parser() -> argparse.ArgumentParser:
    """The flags of app.py."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 admits other machines")
    parser.add_argument("--port", type=number(int, 1, 65535), default=7860, help="port to listen on")
    parser.add_argument("--weights", type=Path, help="a run folder or an exported file (default: the shipped weights)")
    return parser


def main() -> None:
    """Serve the page until Ctrl-C or SIGTERM. Raises OSError or UserError."""
    args = build_parser().parse_args()
    # Imported here, so that --help and the tables of flags need no Gradio.
    import uvicorn

    from web.page import Page
    from web.server import build_server

    # By default the signal would end the process at once; this way the folder below is deleted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="hair-") as folder:
        page = Page(args.weights, Path(folder))
        os.environ["GRADIO_TEMP_DIR"] = str(page.inbox)
        tempfile.tempdir = folder  # so that whatever an upload leaves elsewhere is deleted, too
        family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
        listener = socket.create_server((args.host, args.port), family=family)
        page.segmenter("auto")  # loaded before the first visitor; wrong --weights are reported now
        print(f"http://{args.host}:{args.port}  (stop with Ctrl-C)", flush=True)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(uvicorn.Config(build_server(page), log_level="warning")).run([listener])


if __name__ == "__main__":
    run(main)
