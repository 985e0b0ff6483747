"""The command line of the `hair` command and of `inference.py`."""

import argparse
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2

from hair.backends import BACKENDS, cores
from hair.colors import parse_color
from hair.dye import Dye
from hair.effects import Looks
from hair.errors import UserError, run
from hair.files import result_names
from hair.photos import find_inputs
from hair.results import KINDS, Results, segment_file
from hair.segmenter import HairSegmenter
from hair.video import VideoPlan, is_video, segment_video

USAGE = """Find the hair in photos and videos.

    hair me.jpg                                       # result/me_overlay.png and result/me_mask.png
    hair me.jpg holiday/ "*.png" clip.mp4 --save overlay alpha json
    hair me.jpg --save recolor palette --color auburn
    hair me.jpg --save recolor --color brown blond    # an ombré, from roots to tips
"""
WORKERS = 3  # photos at a time: one is read and one is written while the network runs
MANY = 16  # from this many photos on, each worker runs the network on its own share of the cores
SMOOTHEST = 0.95
Number = TypeVar("Number", int, float)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps a description's line breaks and shows each flag's default, unless it is None, False or in the text."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, []) or "(default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


def number(kind: type[Number], low: float, high: float = math.inf) -> Callable[[str], Number]:
    """An argparse type: an int or a float within [low, high]."""

    def parse(text: str) -> Number:
        value = kind(text)
        if not low <= value <= high or math.isinf(value):
            limits = f"at least {low}" if math.isinf(high) else f"between {low} and {high}"
            raise argparse.ArgumentTypeError(f"{text} is out of range: it must be {limits}")
        return value

    parse.__name__ = kind.__name__  # argparse uses this name for text that is not a number
    return parse


def add_network_flags(parser: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """Add the flags that say how a network is run on photos."""
    parser.add_argument("--backend", choices=BACKENDS, default="auto", help="what runs the network")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps; gpu (OpenVINO)")
    parser.add_argument(
        "--img_size", type=int, help="size of the network's input in pixels (default: that of the weights)"
    )
    parser.add_argument(
        "--threshold", type=float, help="probability from which a pixel is hair (default: that of the weights)"
    )
    parser.add_argument(
        "--tta", action="store_true", help="average over the mirror image and three sizes; six times slower"
    )
    parser.add_argument("--refine", action="store_true", help="refine edges with a guided filter")
    parser.add_argument(
        "--multi_scale",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="look closer where small heads are suspected (default: yes)",
    )


def check_threshold(threshold: float | None) -> None:
    """Raise UserError for a threshold outside (0, 1)."""
    if threshold is not None and not 0 < threshold < 1:
        raise UserError(f"--threshold {threshold} is not between 0 and 1")


def build_parser(usage: str = USAGE, demo: Path | None = None) -> argparse.ArgumentParser:
    """The flags of the command line; with a folder of numbered `demo` photos also `--num`."""
    parser = argparse.ArgumentParser(description=usage, formatter_class=HelpFormatter)
    what = parser.add_argument_group("input")
    what.add_argument(
        "photos", nargs="*", metavar="PATH", help="photos, folders, globs, videos or a camera's number, in any mix"
    )
    what.add_argument("--input", nargs="+", default=[], metavar="PATH", help="the same")
    if demo is not None:
        what.add_argument("--num", type=int, default=1, help="number of the demo photo, if no PATH is given")
    what.add_argument("--recursive", action="store_true", help="include subfolders")
    out = parser.add_argument_group("output")
    out.add_argument(
        "--save",
        nargs="+",
        choices=KINDS,
        default=["overlay", "mask"],
        metavar="KIND",
        help=f"{' '.join(KINDS)} (default: overlay mask)",
    )
    out.add_argument(
        "--color",
        nargs="+",
        default=["auburn"],
        metavar="COLOR",
        help="dye of recolor: a name or #rrggbb; two for an ombré, from roots to tips (default: auburn)",
    )
    out.add_argument(
        "--bleach",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="make hair as light or dark as the dye; dark hair stays dark without (default: yes)",
    )
    out.add_argument(
        "--highlights",
        type=number(float, 0, 1),
        metavar="SHARE",
        help="dye this share of the strands, 0 to 1, in the second colour, or lighter if there is one colour",
    )
    out.add_argument("--output_dir", type=Path, default=Path("result"), help="folder of the results")
    how = parser.add_argument_group("network")
    how.add_argument("--weights", type=Path, help="a run folder or an exported file (default: the shipped weights)")
    add_network_flags(how)
    video = parser.add_argument_group("video")
    video.add_argument("--every", type=int, default=1, metavar="N", help="run the network on each Nth frame only")
    video.add_argument(
        "--smooth",
        type=float,
        default=0.6,
        metavar="S",
        help="share of the last frame where the picture stands still, 0 to 0.95",
    )
    return parser


def main(usage: str = USAGE, demo: Path | None = None) -> None:
    """Segment what the command line names.

    Args:
        usage: heads the help text.
        demo: a folder of numbered photos, `1.jpg` and so on, of which one is taken where no input is named.

    Raises:
        UserError, OSError: inputs or flags that cannot be used; after all other inputs are done.
    """
    parser = build_parser(usage, demo)
    args = parser.parse_args()
    names = args.photos + args.input
    if not names and demo is None:
        parser.error("name a photo, a folder or a video")
    dye = Dye(tuple(map(parse_color, args.color)), bleach=args.bleach, highlights=args.highlights)
    check_threshold(args.threshold)
    if args.every < 1 or not 0 <= args.smooth <= SMOOTHEST:
        raise UserError(f"--every counts from 1 and --smooth lies between 0 and {SMOOTHEST}")
    if "" in names:  # an unset variable of the shell; Path would make the current folder of it
        raise UserError("--input: an empty name")
    inputs = [Path(name) for name in names] or [Path(demo or "") / f"{args.num}.jpg"]
    files, missing = find_inputs(inputs, args.recursive, args.output_dir)
    if not files:
        raise FileNotFoundError("\nerror: ".join(missing))
    segmenter = HairSegmenter(
        weights=args.weights,
        backend=args.backend,
        device=args.device,
        img_size=args.img_size,
        tta=args.tta,
        refine=args.refine,
        multi_scale=args.multi_scale,
        threads=threads_for(files),
    )
    args.output_dir.mkdir(parents=True, exist_ok=True)
    looks = Looks(segmenter.threshold if args.threshold is None else args.threshold, dye)
    kinds = tuple(dict.fromkeys(args.save))
    plan = VideoPlan(kinds, looks, args.every, args.smooth)
    failures = missing + process_files(files, segmenter, Results(kinds, looks), plan, args.output_dir)
    if failures:
        count = len(files) + len(missing)
        if count > 1:
            failures.append(f"{len(failures)} of {count} inputs failed")
        raise UserError("\nerror: ".join(failures))


def threads_for(files: Sequence[Path]) -> int | None:
    """Cores for one call of the network: all (None), or for many photos each worker's share."""
    if len(files) < MANY or any(map(is_video, files)):
        return None
    return max(1, cores() // WORKERS)


def process_files(
    files: Sequence[Path], segmenter: HairSegmenter, results: Results, plan: VideoPlan, output_dir: Path
) -> list[str]:
    """Segment photos, several at a time so that reading, network and writing overlap, then videos.

    Args:
        files: photos and videos.
        segmenter: gives the probabilities.
        results: what to write of photos.
        plan: what to write of videos.
        output_dir: where results go.

    Returns:
        An error message for each file that failed; a line about each of the others is printed.
    """
    endings = [f"_{kind}.{suffix}" for kind, suffix in KINDS.items()] + [f"_{kind}.mp4" for kind in KINDS]
    names = dict(zip(files, result_names(files, output_dir, endings), strict=True))
    photos = [path for path in files if not is_video(path)]
    failures: list[str] = []
    one_large = threading.Lock()
    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = [pool.submit(segment_file, path, names[path], segmenter, results, one_large) for path in photos]
        try:
            for path, job in zip(photos, jobs, strict=True):
                _report(path, job.result, failures)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    for path in filter(is_video, files):
        _report(path, partial(segment_video, path, names[path], segmenter, plan), failures)
    return failures


def _report(path: Path, job: Callable[[], str], failures: list[str]) -> None:
    """Print the line that a job returns, or add its error, which names the input, to `failures`."""
    try:
        line = job()
    except (OSError, UserError, MemoryError, cv2.error) as error:
        # A full disk's error may name no file, and OpenCV's has several lines.
        reason = " ".join(str(error).splitlines()) or type(error).__name__
        failures.append(reason if str(path) in reason else f"{path}: {reason}")
    else:
        print(line)


def command() -> None:
    """The `hair` command."""
    run(main)
