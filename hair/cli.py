"""The command line of the `hair` command and of `inference.py`."""

import argparse
import math
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2

from hair.backends import BACKENDS, cores
from hair.colors import parse_color
from hair.cutout import read_background
from hair.dye import Color, Dye
from hair.effects import Looks
from hair.errors import UserError, run
from hair.files import QUALITY, STANDARD_INPUT, folders_below, result_names, results_among
from hair.photos import find_inputs, passed_over
from hair.results import ENDINGS, FORMATS, KINDS, PICTURES, Results, are_there, segment_file, segment_to_stream
from hair.segmenter import HairSegmenter
from hair.shards import Shard, parse_shard
from hair.store import list_weights
from hair.video import ALPHA_FORMATS, OPAQUE, VideoPlan, is_video, segment_video
from hair.video import ENDINGS as VIDEO_ENDINGS

USAGE = """Find the hair in photos and videos.

    hair me.jpg                                       # result/me_overlay.png and result/me_mask.png
    hair me.jpg holiday/ "*.png" clip.mp4 --save overlay alpha json
    hair me.jpg --save recolor palette --color auburn
    hair me.jpg --save recolor --color copper blond   # an ombré, from roots to tips
    hair me.jpg --save alpha --background beach.jpg   # the hair in front of a picture, a colour or blur
    hair holiday/ --recursive --format jpg --skip_existing
    hair - --save alpha --output - < me.jpg > hair.png
"""
WORKERS = 3  # photos at a time: one is read and one is written while the network runs
MANY = 16  # from this many photos on, each worker runs the network on its own share of the cores
SMOOTHEST = 0.95
WEIGHTS_HELP = (
    "a run folder, an exported file, a name of hair --list_weights, https://…/model.onnx#sha256=…, or hf://owner/name "
    "(default: the shipped weights)"
)
DEFAULT_COLOR = "auburn"
ALL_KINDS = tuple(dict.fromkeys((*KINDS, *VIDEO_ENDINGS)))  # of results, for photos and videos
ALL_ENDINGS = (
    *ENDINGS,
    *(end.replace("FORMAT", name) for end in VIDEO_ENDINGS.values() for name in (*ALPHA_FORMATS, OPAQUE)),
)
Number = TypeVar("Number", int, float)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps line breaks, and shows the default of each flag unless it is None, False or in the text."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_none = action.default is None or action.default is False or action.default == []  # 0 equals False
        if has_none or "(default" in (action.help or ""):
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
    """Add the flags for running a network."""
    parser.add_argument("--backend", choices=BACKENDS, default="auto", help="what runs the network")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps; gpu (OpenVINO)")
    parser.add_argument(
        "--img_size", type=int, help="size of the network's input in pixels (default: that of the weights)"
    )
    parser.add_argument(
        "--threshold", type=float, help="probability from which a pixel counts as hair (default: that of the weights)"
    )
    parser.add_argument(
        "--tta", action="store_true", help="average over the mirror image and three sizes; six times slower"
    )
    parser.add_argument("--refine", action="store_true", help="refine edges with a guided filter")
    parser.add_argument(
        "--multi_scale",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="take a second, closer look at small heads (default: yes)",
    )
    parser.add_argument("--verbose", action="store_true", help="say which file runs, by what and in which precision")


def open_segmenter(args: argparse.Namespace, weights: str | Path | None, threads: int | None = None) -> HairSegmenter:
    """A segmenter as the flags of `add_network_flags` describe it; see HairSegmenter for `weights` and `threads`."""
    segmenter = HairSegmenter(
        weights=weights,
        backend=args.backend,
        device=args.device,
        img_size=args.img_size,
        tta=args.tta,
        refine=args.refine,
        multi_scale=args.multi_scale,
        threads=threads,
    )
    if args.verbose:
        print(segmenter.network, file=sys.stderr)
    return segmenter


def check_threshold(threshold: float | None) -> None:
    """Raise UserError for a threshold outside (0, 1)."""
    if threshold is not None and not 0 < threshold < 1:
        raise UserError(f"--threshold {threshold} is not between 0 and 1")


def build_parser(usage: str = USAGE, demo: Path | None = None) -> argparse.ArgumentParser:
    """The parser of the command line; with a folder of numbered `demo` photos, it also has `--num`."""
    parser = argparse.ArgumentParser(description=usage, formatter_class=HelpFormatter)
    what = parser.add_argument_group("input")
    what.add_argument(
        "photos",
        nargs="*",
        metavar="PATH",
        help="photos, folders, globs, videos, the number of a camera, or - for a photo on standard input",
    )
    what.add_argument("--input", nargs="+", action="extend", default=[], metavar="PATH", help="the same")
    if demo is not None:
        what.add_argument("--num", type=int, default=1, help="number of the demo photo, if no PATH is given")
    what.add_argument("--recursive", action="store_true", help="include subfolders, and keep them in the output folder")
    what.add_argument(
        "--shard",
        type=parse_shard,
        metavar="K/N",
        help="process only share K of N of the inputs; see docs/scale.md",
    )
    what.add_argument(
        "--max_pixels",
        type=number(int, 1),
        metavar="N",
        help="reduce larger photos to 1/2, 1/3, 1/4 ... of their size (JPEG: 1/2, 1/4, 1/8), to save memory",
    )
    out = parser.add_argument_group("output")
    out.add_argument(
        "--save",
        nargs="+",
        choices=ALL_KINDS,
        default=["overlay", "mask"],
        metavar="KIND",
        help=f"kinds of results: {' '.join(ALL_KINDS)}; frames is for videos (default: overlay mask)",
    )
    out.add_argument(
        "--color",
        nargs="+",
        metavar="COLOR",
        help=f"dye for recolor: a name or #rrggbb; two for an ombré from roots to tips (default: {DEFAULT_COLOR})",
    )
    out.add_argument(
        "--bleach",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="make hair as light or dark as the dye; without it, dark hair stays dark (default: yes)",
    )
    out.add_argument(
        "--highlights",
        type=number(float, 0, 1),
        metavar="SHARE",
        help="highlight this fraction of the strands, 0 to 1: in the second colour, or lighter if there is only one",
    )
    out.add_argument(
        "--background",
        metavar="COLOR|FILE|blur",
        help="what alpha and frames show behind the hair: a colour, a picture, or the photo blurred (default: nothing)",
    )
    out.add_argument("--output_dir", type=Path, default=Path("result"), help="folder of the results")
    out.add_argument("--output", metavar="-", help="only -: write one kind of result of one photo to standard output")
    out.add_argument(
        "--format",
        choices=FORMATS,
        default="png",
        help="format of images; masks are always PNG, and transparent cut-outs PNG or WebP",
    )
    out.add_argument("--quality", type=number(int, 1, 100), default=QUALITY, help="quality of JPEG and WebP, 1 to 100")
    out.add_argument("--skip_existing", action="store_true", help="skip inputs whose results all exist")
    out.add_argument(
        "--keep_exif",
        action="store_true",
        help="copy EXIF data to the results, without location, serial numbers, owner's name and thumbnail",
    )
    how = parser.add_argument_group("network")
    how.add_argument("--weights", metavar="RUN", help=WEIGHTS_HELP)
    how.add_argument(
        "--list_weights",
        action="version",
        version=list_weights(),
        default=False,
        help="show the weights that have a name, and end",
    )
    add_network_flags(how)
    video = parser.add_argument_group("video")
    video.add_argument("--every", type=int, default=1, metavar="N", help="run the network on every Nth frame only")
    video.add_argument(
        "--smooth",
        type=float,
        default=0.6,
        metavar="S",
        help="smoothing: weight of the previous frame where the picture does not move, 0 to 0.95",
    )
    video.add_argument(
        "--alpha_format",
        choices=ALPHA_FORMATS,
        default=ALPHA_FORMATS[0],
        help="video format of --save alpha: mov (ProRes 4444, for editors) or webm (VP9, for browsers)",
    )
    return parser


def main(usage: str = USAGE, demo: Path | None = None) -> None:
    """Segment the inputs on the command line.

    Args:
        usage: first part of the help text.
        demo: a folder of numbered photos, `1.jpg` and so on; one of them is used if no input is given.

    Raises:
        UserError, OSError: an input or flag cannot be used. For inputs, this is raised after all others are done.
    """
    parser = build_parser(usage, demo)
    args = parser.parse_intermixed_args()  # paths may be between the flags
    colors, following = split_colors(args.color or [DEFAULT_COLOR])
    names = args.photos + following + args.input
    if not names and demo is None:
        parser.error("name a photo, a folder or a video")
    check_flags(args, names)
    dye = Dye(colors, bleach=args.bleach, highlights=args.highlights)
    background = None if args.background is None else read_background(args.background)
    inputs = [Path(name) for name in names] or [Path(demo or "") / f"{args.num}.jpg"]
    files, missing = find_inputs(inputs, args.recursive, args.output_dir)
    for line in passed_over(inputs, args.recursive, args.output_dir):
        print(line, file=sys.stderr)
    if not files:
        raise FileNotFoundError("\nerror: ".join(missing))
    kinds = tuple(dict.fromkeys(args.save))
    if args.output is not None:
        check_output(kinds[0], files, missing)
    targets = choose_targets(files, inputs, args)
    failures = list(missing)
    if targets:
        segmenter = open_segmenter(args, args.weights, threads_for(list(targets)))
        threshold = segmenter.threshold if args.threshold is None else args.threshold
        looks = Looks(threshold, dye, background=background)
        plan = VideoPlan(kinds, looks, args.every, args.smooth, args.alpha_format)
        results = Results(
            photo_kinds(list(targets), kinds), looks, args.max_pixels, args.format, args.quality, args.keep_exif
        )
        if args.output is not None:
            print(segment_to_stream(files[0], sys.stdout.buffer, segmenter, results), file=sys.stderr)
            return
        make_folder(args.output_dir)
        failures += process_files(targets, segmenter, results, plan)
    if failures:
        count = len(files) + len(missing)
        if count > 1:
            failures.append(f"{len(failures)} of {count} inputs failed")
        raise UserError("\nerror: ".join(failures))


def split_colors(words: Sequence[str]) -> tuple[tuple[Color, ...], list[str]]:
    """Split the words after `--color` into colours and the rest (in `--color copper blond me.jpg`, the photo).

    Raises UserError if the first word is not a colour.
    """
    colors = [parse_color(words[0])]
    for word in words[1:]:
        try:
            colors.append(parse_color(word))
        except UserError:
            break
    return tuple(colors), list(words[len(colors) :])


def check_flags(args: argparse.Namespace, names: Sequence[str]) -> None:
    """Raise UserError for flags and input names that cannot be used."""
    check_threshold(args.threshold)
    if args.every < 1 or not 0 <= args.smooth <= SMOOTHEST:
        raise UserError(f"--every counts from 1 and --smooth lies between 0 and {SMOOTHEST}")
    if "" in names:  # an unset shell variable; Path("") would be the current folder
        raise UserError("--input: an empty name")
    if str(STANDARD_INPUT) in names and sys.stdin.isatty():
        raise UserError("- is standard input, which is the terminal here; add < FILE")
    if args.color is not None and "recolor" not in args.save:
        raise UserError("--color is for dyed hair; add --save recolor")
    if args.background is not None and not {"alpha", "frames"} & set(args.save):
        raise UserError("--background is for cut-outs; add --save alpha")
    if args.output is not None and args.shard:
        raise UserError(f"--shard {args.shard} divides many inputs, but --output - takes one")
    if args.output is not None and args.output != "-":
        raise UserError(f"--output {args.output}: only - is allowed (standard output); for a folder use --output_dir")
    if args.output is not None and len(set(args.save)) > 1:
        raise UserError("--output - takes one kind of result: add --save with one of " + " ".join(KINDS))


def check_output(kind: str, files: Sequence[Path], missing: Sequence[str]) -> None:
    """Raise UserError for what standard output cannot take: several inputs, a video, an image if it is a terminal."""
    if len(files) + len(missing) > 1:
        raise UserError(f"--output - takes one photo, but {len(files) + len(missing)} inputs are given")
    if is_video(files[0]):
        raise UserError(f"--output - takes a photo, but {files[0]} is a video")
    if kind in PICTURES and sys.stdout.isatty():
        raise UserError("--output -: standard output is the terminal; add > FILE or | PROGRAM")


def make_folder(folder: Path) -> None:
    """Make the folder of the results. Raises UserError if a file is in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"--output_dir {folder}: a file is in the way; choose another folder") from error


def name_results(files: Sequence[Path], output_dir: Path, inputs: Sequence[Path] = ()) -> dict[Path, Path]:
    """Choose where results go, see `files.result_names`; subfolders of `inputs` are kept."""
    folders = folders_below(files, inputs)
    return dict(zip(files, result_names(files, output_dir, ALL_ENDINGS, folders), strict=True))


def choose_targets(files: Sequence[Path], inputs: Sequence[Path], args: argparse.Namespace) -> dict[Path, Path]:
    """The files to process, each with the path of its results; prints how many others `--shard` and so on leave out."""
    below = inputs if args.recursive else ()
    targets = name_results(files, args.output_dir, below)
    if args.output is not None or not (args.skip_existing or args.shard):
        return targets
    # Results that another run wrote next to its photos are not inputs, and must not change the numbers in names.
    made = results_among(targets, ALL_ENDINGS).difference(inputs)
    targets = name_results([path for path in targets if path not in made], args.output_dir, below)
    if args.shard:
        targets = own_share(targets, inputs, args.shard)
    return without_existing(targets, args) if args.skip_existing else targets


def own_share(targets: Mapping[Path, Path], inputs: Sequence[Path], shard: Shard) -> dict[Path, Path]:
    """The targets from `name_results` in a share, by their paths relative to the inputs; prints how many they are."""
    folders = folders_below(list(targets), inputs)
    mine = {
        path: name
        for (path, name), folder in zip(targets.items(), folders, strict=True)
        if shard.has(folder / path.name)
    }
    print(f"share {shard}: {len(mine)} of {len(targets)} inputs")
    return mine


def without_existing(targets: dict[Path, Path], args: argparse.Namespace) -> dict[Path, Path]:
    """The targets from `name_results` whose results do not all exist; prints how many inputs are skipped."""
    waiting = {path: name for path, name in targets.items() if not _is_done(path, name, args)}
    if count := len(targets) - len(waiting):
        print(f"{count} of {len(targets)} inputs skipped: their results exist")
    return waiting


def _is_done(path: Path, name: Path, args: argparse.Namespace) -> bool:
    if path == STANDARD_INPUT or not path.exists():  # a camera's number, or a mistake that is to be reported
        return False
    if not is_video(path):
        kinds = [kind for kind in args.save if kind in KINDS]
        return bool(kinds) and are_there(name, path, kinds, args.format, args.background is not None)
    ending = OPAQUE if args.background is not None else args.alpha_format
    endings = [VIDEO_ENDINGS[kind].replace("FORMAT", ending) for kind in args.save if kind in VIDEO_ENDINGS]
    return bool(endings) and all(name.with_name(name.name + ending).exists() for ending in endings)


def photo_kinds(files: Sequence[Path], kinds: Sequence[str]) -> tuple[str, ...]:
    """The kinds of results that photos support; others are reported, if there are photos. Raises UserError for none."""
    fitting = tuple(kind for kind in kinds if kind in KINDS)
    if len(fitting) < len(kinds) and not all(map(is_video, files)):
        message = f"--save frames is for videos; a photo can be {', '.join(KINDS)}"
        if not fitting:
            raise UserError(message)
        print(message, file=sys.stderr)
    return fitting


def threads_for(files: Sequence[Path]) -> int | None:
    """The number of cores for one call of the network: all (None), or, for many photos, each worker's share."""
    if len(files) < MANY or any(map(is_video, files)):
        return None
    return max(1, cores() // WORKERS)


def process_files(
    targets: Mapping[Path, Path], segmenter: HairSegmenter, results: Results, plan: VideoPlan
) -> list[str]:
    """Segment photos, several at a time so that reading, network and writing overlap, then videos.

    Args:
        targets: photos and videos, each with the path of its results without ending, see `name_results`.
        segmenter: computes the probabilities.
        results: what to write for photos.
        plan: what to write for videos.

    Returns:
        An error message for each file that failed; for each other file, a line is printed.
    """
    photos = [path for path in targets if not is_video(path)]
    failures: list[str] = []
    one_large = threading.Lock()
    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = [pool.submit(segment_file, path, targets[path], segmenter, results, one_large) for path in photos]
        try:
            for path, job in zip(photos, jobs, strict=True):
                _report(path, job.result, failures)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    for path in filter(is_video, targets):
        _report(path, partial(segment_video, path, targets[path], segmenter, plan), failures)
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
