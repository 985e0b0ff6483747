"""Start the web page: upload a photo, see the hair found in it, dye it, download the results at full resolution.

    pip install -r requirements-app.txt
    python app.py                                     # http://127.0.0.1:7860
    python app.py --api_only                          # without the page; POST /api/hair takes a photo
    python app.py --static                            # the page that runs in the visitor's browser

Photos stay on this machine: uploads and results are deleted when the page is closed.
"""

import argparse
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from urllib.parse import urlsplit

from hair.cli import WEIGHTS_HELP, HelpFormatter, number
from hair.errors import UserError, run

VARIABLES = {  # of Gradio, for flags that are not given
    "host": "GRADIO_SERVER_NAME",
    "port": "GRADIO_SERVER_PORT",
    "root_path": "GRADIO_ROOT_PATH",
    "share": "GRADIO_SHARE",
}


def build_parser() -> argparse.ArgumentParser:
    """The flags of app.py."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "--host",
        help="address to listen on; 0.0.0.0 lets other machines in (default: $GRADIO_SERVER_NAME or 127.0.0.1)",
    )
    parser.add_argument(
        "--port", type=number(int, 1, 65535), help="port to listen on (default: $GRADIO_SERVER_PORT or 7860)"
    )
    parser.add_argument(
        "--root_path",
        metavar="PATH",
        help="path or URL at which a reverse proxy serves the page, such as /hair (default: $GRADIO_ROOT_PATH)",
    )
    parser.add_argument(
        "--share",
        action=argparse.BooleanOptionalAction,
        help="also open a public address through Gradio's tunnel (default: $GRADIO_SHARE or no)",
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--api_only", action="store_true", help="serve only POST /api/hair, without the page")
    only.add_argument(
        "--static",
        action="store_true",
        help="serve only the page that runs in the visitor's browser (web/ondevice/dist)",
    )
    parser.add_argument("--weights", help=WEIGHTS_HELP)
    return parser


def read_arguments() -> argparse.Namespace:
    """The flags; for those not given, Gradio's environment variables, else the defaults. Raises UserError."""
    parser = build_parser()
    given = {name: os.environ[variable] for name, variable in VARIABLES.items() if os.environ.get(variable)}
    is_shared = given.pop("share", "").lower() in ("true", "1")
    parser.set_defaults(**{"host": "127.0.0.1", "port": 7860, "root_path": "", **given}, share=is_shared)
    args = parser.parse_args()
    address = urlsplit(args.root_path)
    if address.query or address.fragment or (address.netloc and address.scheme not in ("http", "https")):
        raise UserError(
            f"--root_path {args.root_path}: needs a path such as /hair, or a URL such as https://example.com"
        )
    path = address.path.strip("/")
    args.root_path = f"{address.scheme}://{address.netloc}" if address.netloc else ""
    args.root_path += f"/{path}" if path else ""
    return args


def open_tunnel(host: str, port: int) -> str:
    """Open a public address for a local one, until this process ends. Raises UserError."""
    from gradio.networking import setup_tunnel

    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    try:
        return setup_tunnel(local, port, secrets.token_urlsafe(32), None, None)
    except Exception as error:  # Gradio's own, and those of downloading the tunnel's program
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"--share: Gradio's tunnel cannot be opened ({reason}); leave it out with --no-share"
        ) from error


def build(args: argparse.Namespace, folder: Path) -> Callable:
    """What the flags ask for; uploads and results are kept in `folder`. Raises OSError or UserError."""
    # Imported here, so that --help and the tables of flags need no Gradio.
    if args.static:
        from web.static import build_static

        if args.weights:
            raise UserError("--static: the page has the weights that it was built with; leave out --weights")
        return build_static()
    from hair import HairSegmenter

    segmenter = cache(partial(HairSegmenter, args.weights))
    segmenter("auto")  # loaded before the first visitor; wrong --weights are reported now
    if args.api_only:
        from web.api import build_api
        from web.visitors import Turns

        return build_api(segmenter, Turns(), args.root_path, is_alone=True)
    from web.page import Page
    from web.server import build_server

    page = Page(segmenter, folder, args.root_path)
    os.environ["GRADIO_TEMP_DIR"] = str(page.inbox)
    return build_server(page)


def main() -> None:
    """Serve the page until Ctrl-C or SIGTERM. Raises OSError or UserError."""
    args = read_arguments()
    import uvicorn

    # By default the signal would end the process at once; this way the folder below is deleted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="hair-") as folder:
        tempfile.tempdir = folder  # so that whatever an upload leaves is deleted, too
        family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
        listener = socket.create_server((args.host, args.port), family=family)
        server = build(args, Path(folder))
        shown = f"[{args.host}]" if ":" in args.host else args.host
        print(f"http://{shown}:{args.port}  (stop with Ctrl-C)", flush=True)
        if args.share:
            print(open_tunnel(args.host, args.port), flush=True)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(uvicorn.Config(server, log_level="warning")).run([listener])


if __name__ == "__main__":
    run(main)
