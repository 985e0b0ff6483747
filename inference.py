"""Find the hair in photos and videos.

    python inference.py --num 1                       # demo/1.jpg -> result/1_overlay.png and result/1_mask.png
    python inference.py --input me.jpg holiday/ "*.png" clip.mp4 --save overlay alpha json
    python inference.py --input me.jpg --save recolor --color auburn
    python inference.py --weights weights/<run>       # a model of your own, or a file of export.py

From Python:

    from inference import HairSegmenter
    probabilities = HairSegmenter()("me.jpg")         # float32 (H, W) in [0, 1]
"""

import argparse
import glob
import json
import os
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

import render
from backends import BACKENDS, Network, cores, fingerprint, open_network
from geometry import crops_around, letterbox, preprocess, restore

# OpenCV and Pillow would add lines of their own to the one that names a damaged file.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
if "OPENCV_LOG_LEVEL" not in os.environ:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit warns too early for MAX_PIXELS, which read_photo enforces
HERE = Path(__file__).resolve().parent
DEFAULT_WEIGHTS = HERE / "weights" / "timm-tf_efficientnet_lite0_Unet_wild"
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".3gp", ".wmv")
MAX_PIXELS = 100_000_000
LARGE = 24_000_000  # pixels from which photos go one at a time, so that a batch's memory stays bounded
WORKERS = 3  # photos at a time: one is read and one is written while the network runs
MANY = 16  # photos from which it pays that each worker runs the network on cores of its own
KINDS = {"overlay": "png", "mask": "png", "alpha": "png", "recolor": "png", "contour": "json", "json": "json"}


# ---------------------------------------------------------------------------------------------------- one photo


def read_photo(path: str | Path) -> np.ndarray:
    """Read a photo file as RGB uint8 (H, W, 3), upright; what is transparent becomes white.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a photo, cut off, or of more than 100 megapixels (seen before it is decoded).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        # Not by name: Pillow would map an uncompressed TIFF into memory, and scrambles one that lies on its side.
        with path.open("rb") as stream, Image.open(stream) as header:
            width, height = header.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"{width}×{height} is more than {MAX_PIXELS // 1_000_000} megapixels; shrink it first")
            # Pillow would cut 16 bits of grey short; OpenCV reads them, and leaves their transparency out.
            see_through = header.mode in ("RGBA", "LA", "PA") or "transparency" in header.info
            if see_through and not header.mode.startswith("I"):
                upright = ImageOps.exif_transpose(header).convert("RGBA")
                white = Image.new("RGBA", upright.size, "white")
                return np.asarray(Image.alpha_composite(white, upright))[..., :3].copy()
            data = np.fromfile(path, np.uint8)
            end = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}.get(header.format or "")
            if end and end not in data[-4096:].tobytes():
                header.load()  # OpenCV fills what is missing with grey; Pillow says that it is cut off
    except UnidentifiedImageError as error:
        raise ValueError(f"{path}: cannot be read as a photo (not a picture)") from error
    except (OSError, ValueError, SyntaxError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path}: cannot be read as a photo ({reason})") from error
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error:  # a side of more than a million pixels
        image = None
    if image is None:
        raise ValueError(f"{path}: cannot be read as a photo (damaged, or a kind that OpenCV does not know)")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Logits to probabilities, without overflow for large negative ones."""
    return 0.5 * (np.tanh(0.5 * logits) + 1)


class HairSegmenter:
    """A trained network that takes a photo and gives each pixel's probability of being hair. Threads may share one.

    Args:
        weights: a run folder, with `config.json` and `model.safetensors` or `model.onnx`; or a file of `export.py`
            (`.onnx`, `.xml`, `.torchscript`); the shipped folder if None.
        backend: `onnx`, `openvino` (both read `model.onnx`), `torch`, or `auto`: ONNX where the file is there, by
            OpenVINO if that is installed, else by ONNX Runtime; torch for a folder without one.
        device: `auto`, `cpu`, or another that the backend has (`cuda`, `mps`; `gpu` of OpenVINO).
        img_size: the network sees the photo with its longer side brought to this many pixels, a multiple of 32; the
            size that it was trained at if None.
        tta: average over the photo, its mirror image, and both at 3/4 and 5/4 of the size: better, six times slower.
        refine: draw the hair's edges to the photo's own.
        multi_scale: look again, closer, where the first look suspects heads that fill little of the frame.
        threads: of ONNX Runtime and OpenVINO on a CPU: how many cores one call uses, all if None. For many photos, as
            many threads that call and share the cores do more than one that has them all.

    Attributes:
        backend: the one chosen.
        img_size: as above.
        threshold: probability from which a pixel counts as hair, as stored with the weights.

    Raises:
        FileNotFoundError: no such weights.
        ValueError: weights that cannot be loaded, a backend that is not installed, an unknown device, a wrong size.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        backend: str = "auto",
        device: str = "auto",
        img_size: int | None = None,
        tta: bool = False,
        refine: bool = False,
        multi_scale: bool = True,
        threads: int | None = None,
    ) -> None:
        if backend not in BACKENDS:
            raise ValueError(f"--backend {backend}: choose from {', '.join(BACKENDS)}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads: {threads} is no number of cores")
        path = Path(weights) if weights is not None else DEFAULT_WEIGHTS
        opener = _open_folder if path.is_dir() else open_network
        self._network = opener(path, backend, device, threads=threads)
        self.facts = self._network.facts
        self.backend = self._network.backend
        self.threshold: float = self.facts["threshold"]
        self.img_size = self.facts["img_size"] if img_size is None else img_size
        self.tta, self.refine, self.multi_scale = tta, refine, multi_scale
        fixed = self.facts.get("fixed_size")
        if not isinstance(self.img_size, int) or self.img_size < 32 or self.img_size % 32:
            raise ValueError(f"--img_size {self.img_size} is not a multiple of 32")
        if fixed and self.img_size != fixed:
            raise ValueError(f"{path}: was exported for --img_size {fixed} only")
        scales = (1, 0.75, 1.25) if tta and not fixed else (1,)
        sizes = (max(32, round(self.img_size * scale / 32) * 32) for scale in scales)
        self._sizes = list(dict.fromkeys(sizes))  # small ones are equal

    def __call__(self, image: np.ndarray | str | Path) -> np.ndarray:
        """Segment one photo.

        Args:
            image: RGB uint8 (H, W, 3), or a file's path.

        Returns:
            float32 (H, W) in [0, 1], at the photo's own size.

        Raises:
            FileNotFoundError, ValueError: an unreadable file, or an array of another form.
        """
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[np.ndarray | str | Path]) -> list[np.ndarray]:
        """Segment several photos, of any sizes, in one run of the network, which pays on a GPU.

        Args:
            images: RGB uint8 (H, W, 3) or paths; all of them are in memory at once.

        Returns:
            One float32 (H, W) in [0, 1] each, in the same order.

        Raises:
            FileNotFoundError, ValueError: an unreadable file, or an array of another form.
        """
        photos = [image if isinstance(image, np.ndarray) else read_photo(image) for image in images]
        for photo in photos:
            if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
                raise ValueError(f"a photo is RGB uint8 (H, W, 3), not {photo.dtype} {photo.shape}")
        return [self._finish(*pair) for pair in zip(photos, self._look(photos), strict=True)] if photos else []

    def _look(self, photos: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities float32 (N, S, S) of photos in their squares."""
        total, looks = np.zeros((len(photos), self.img_size, self.img_size), np.float32), 0
        for size in self._sizes:
            inputs = np.stack([preprocess(photo, size, self.facts["mean"], self.facts["std"]) for photo in photos])
            for mirrored in (False, True)[: 1 + self.tta]:
                batch = np.ascontiguousarray(inputs[..., ::-1]) if mirrored else inputs
                found = sigmoid(self._network(batch)[:, 0])
                found = found[..., ::-1] if mirrored else found
                if size != self.img_size:
                    found = np.stack([cv2.resize(one, (self.img_size,) * 2) for one in np.ascontiguousarray(found)])
                total, looks = total + found, looks + 1
        return total / np.float32(looks)

    def _finish(self, photo: np.ndarray, square: np.ndarray) -> np.ndarray:
        """A first look's probabilities, (S, S), to the photo's own size, with closer looks and edges as asked."""
        full = restore(square, photo.shape)
        if self.multi_scale:
            small = square[letterbox(photo.shape[0], photo.shape[1], self.img_size)]
            for crop in crops_around(small, photo.shape):
                closer = np.ascontiguousarray(photo[crop])
                found = restore(self._look([closer])[0], closer.shape)
                # The closer look may add hair beside what the first one saw, but none in places that both must find:
                # texture that fills a crop is easily taken for hair.
                reach = 2 * (max(closer.shape) // 16) + 1
                beside = cv2.dilate((full[crop] >= 0.1).astype(np.uint8), np.ones((reach, reach), np.uint8))
                full[crop] = np.where(beside, found, np.minimum(full[crop], found))
        return render.refine_edges(photo, full, self.img_size) if self.refine else full


def _open_folder(folder: Path, backend: str, device: str, threads: int | None) -> Network:
    """Open a run folder: its `model.onnx` where there is one and the backend allows it, else by PyTorch."""
    onnx, tensors = folder / "model.onnx", folder / "model.safetensors"
    asked = backend in ("onnx", "openvino")
    if asked and not onnx.is_file():
        raise FileNotFoundError(f"{onnx}: no such file; python export.py --weights {folder} makes it")
    # ONNX Runtime and OpenVINO are the fastest on CPUs; another device is PyTorch's, unless the user says whose.
    if asked or (backend == "auto" and onnx.is_file() and (device in ("auto", "cpu") or not tensors.is_file())):
        network = open_network(onnx, backend, device, threads=threads)
        made_from = network.facts.get("made_from")
        if not tensors.is_file() or made_from in (None, fingerprint(tensors)):
            return network
        if asked:
            raise ValueError(f"{onnx}: was made before {tensors.name} changed; python export.py --weights {folder}")
        print(f"{onnx}: older than {tensors.name}, which is used; export.py renews it", file=sys.stderr)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: no config.json; --weights names the run folder of a training script")
    return open_network(folder, "torch", device)


# ---------------------------------------------------------------------------------------------------- files


def find_photos(inputs: Sequence[Path], recursive: bool = False, leave_out: Path | None = None) -> Iterator[Path]:
    """The files among `inputs` and, in name order, the photos in the folders among them.

    Args:
        inputs: files, folders and globs (for shells that do not expand them, and quoted ones).
        recursive: look into the folders' folders too.
        leave_out: a folder of results that may lie within an input folder or a glob's.

    Raises:
        FileNotFoundError: a glob that nothing matches, a folder without photos.
        OSError: a folder that cannot be read.
    """
    for path in inputs:
        if path.is_dir():
            found, top = photos_in(path, recursive), path
        elif not path.exists() and glob.has_magic(str(path)):
            matches = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207 (Path.glob: no absolute ones)
            if not matches:
                raise FileNotFoundError(f"{path}: nothing matches")
            found = [file for match in matches for file in (photos_in(match, recursive) if match.is_dir() else [match])]
            top = next(folder for folder in path.parents if not glob.has_magic(str(folder)))
        else:
            yield path
            continue
        results = leave_out and _real(leave_out)
        if results and _real(top) in results.parents:
            found = [file for file in found if results not in _real(file).parents]
        if not found:
            raise FileNotFoundError(f"{path}: no photos in it")
        yield from found


def photos_in(folder: Path, recursive: bool = False) -> list[Path]:
    """The photos in a folder, by their names, in order. Raises OSError."""
    return sorted(
        file for file in (folder.rglob("*") if recursive else folder.iterdir()) if is_photo(file) and not file.is_dir()
    )


def find_inputs(inputs: Sequence[Path], recursive: bool, leave_out: Path) -> tuple[list[Path], list[str]]:
    """What `find_photos` finds, each file once, and a line for each input where it finds nothing."""
    files: dict[Path, None] = {}
    missing = []
    for path in inputs:
        try:
            files |= dict.fromkeys(find_photos([path], recursive, leave_out))
        except OSError as error:
            missing.append(str(error))
    return list(files), missing


def is_video(path: Path) -> bool:
    """Whether an input is a video file or a camera's number."""
    return path.suffix.lower() in VIDEO_SUFFIXES or (str(path).isdecimal() and not path.exists())


def is_photo(path: Path) -> bool:
    """Whether a file's name is that of a photo."""
    return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".")


def result_names(inputs: Sequence[Path], output_dir: Path, endings: Sequence[str]) -> list[Path]:
    """Where each input's results go, less their `_<kind>.<ext>` endings.

    Equal stems get a number, and no result takes the place of an input.
    """
    # A result takes the place of what has its name, be it a link; an input that is one is read from where it leads.
    taken = {_plain(path) for path in inputs} | {_plain(_real(path)) for path in inputs}
    folder, last = _plain(output_dir / "x")[:-1], Counter[str]()
    names = []
    for path in inputs:
        stem = path.stem or "input"
        while True:
            last[stem.casefold()] += 1
            name = stem if last[stem.casefold()] == 1 else f"{stem}-{last[stem.casefold()]}"
            targets = {folder + (name + ending).casefold() for ending in endings}
            if not targets & taken:
                break
        taken |= targets
        names.append(output_dir / name)
    return names


def _plain(path: Path) -> str:
    return str(_real(path.parent) / path.name).casefold()  # some file systems do not tell a.png from A.png


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises RuntimeError for links that lead to each other


def save_results(
    name: Path, source: str, photo: np.ndarray, probabilities: np.ndarray, threshold: float, args: argparse.Namespace
) -> list[Path]:
    """Write each kind of `args.save` as `<name>_<kind>.<ext>`; returns the files."""
    make = {"contour": render.coco, "json": lambda source, mask: render.describe(source, photo, mask)}
    files = []
    for kind in args.save:
        path = name.with_name(f"{name.name}_{kind}.{KINDS[kind]}")
        if kind in make:
            facts = make[kind](source, probabilities >= threshold)
            text = json.dumps(facts, ensure_ascii=False) + "\n"
            render.write_whole(path, text.encode(errors="backslashreplace"))  # a source's name may be no UTF-8
        else:
            render.write_png(path, render.draw(kind, photo, probabilities, threshold, args.color))
        files.append(path)
    return files


def segment_file(
    path: Path, name: Path, segmenter: HairSegmenter, args: argparse.Namespace, one_large: threading.Lock
) -> str:
    """One photo from file to files; returns the line to print. Raises OSError or ValueError, naming the file."""
    large = _is_large(path)
    with one_large if large else nullcontext():
        photo = read_photo(path)
        probabilities = segmenter(photo)
        files = save_results(name, path.name, photo, probabilities, args.threshold, args)
        return f"{path}: {(probabilities >= args.threshold).mean():.1%} hair -> {' '.join(map(str, files))}"


def _is_large(path: Path) -> bool:
    try:
        with Image.open(path) as header:
            return header.size[0] * header.size[1] > LARGE
    except (OSError, ValueError, SyntaxError):
        return False  # read_photo says what is wrong with it


# ---------------------------------------------------------------------------------------------------- command line


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_argument_group("input")
    what.add_argument("--num", type=int, default=1, help="number of the demo photo (default: 1)")
    what.add_argument(
        *("--input",), nargs="+", metavar="PATH", help="photos, folders, globs, videos or a camera's number, mixed"
    )
    what.add_argument("--recursive", action="store_true", help="look into the folders' folders too")
    out = parser.add_argument_group("output")
    out.add_argument(
        "--save", nargs="+", choices=KINDS, default=["overlay", "mask"], metavar="KIND", help=f"{' '.join(KINDS)}"
    )
    out.add_argument("--color", default="auburn", help="dye of recolor: a name or #rrggbb (default: auburn)")
    out.add_argument("--output_dir", type=Path, default=Path("result"), help="where results go (default: result)")
    how = parser.add_argument_group("network")
    how.add_argument("--weights", type=Path, help="a run folder or an exported file (default: the shipped weights)")
    how.add_argument("--backend", choices=BACKENDS, default="auto", help="(default: auto)")
    how.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")
    how.add_argument("--img_size", type=int, help="pixels that the network sees (default: the weights' own)")
    how.add_argument("--threshold", type=float, help="probability from which a pixel is hair (default: the weights')")
    how.add_argument("--tta", action="store_true", help="average over mirror image and three sizes; six times slower")
    how.add_argument("--refine", action="store_true", help="draw edges to the photo's own")
    how.add_argument(
        *("--multi_scale",),
        action=argparse.BooleanOptionalAction,
        default=True,
        help="look again, closer, where a first look suspects small heads (default: yes)",
    )
    video = parser.add_argument_group("video")
    video.add_argument("--every", type=int, default=1, metavar="N", help="run the network on each Nth frame only")
    video.add_argument(
        *("--smooth",), type=float, default=0.6, metavar="S", help="share of the last frame in still places, 0 to 0.95"
    )
    return parser


def main() -> None:
    args = build_parser().parse_args()
    if hasattr(sys.stdout, "reconfigure"):  # names of files may be in another encoding than UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        args.color = render.parse_color(args.color)
        if args.threshold is not None and not 0 < args.threshold < 1:
            raise ValueError(f"--threshold {args.threshold} is not between 0 and 1")
        if args.every < 1 or not 0 <= args.smooth <= 0.95:
            raise ValueError("--every counts from 1 and --smooth lies between 0 and 0.95")
        args.save = list(dict.fromkeys(args.save))
        if "" in (args.input or []):  # a shell's unset variable; Path would make the present folder of it
            raise ValueError("--input: an empty name")
        inputs = [Path(text) for text in args.input or [HERE / "demo" / f"{args.num}.jpg"]]
        files, missing = find_inputs(inputs, args.recursive, args.output_dir)
        if not files:
            raise FileNotFoundError("\nerror: ".join(missing))
        segmenter = HairSegmenter(
            *(args.weights, args.backend, args.device, args.img_size, args.tta, args.refine, args.multi_scale),
            threads=threads_for(files),
        )
        args.output_dir.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    if args.threshold is None:
        args.threshold = segmenter.threshold
    failures = missing + process(files, segmenter, args)
    if failures:
        if len(files) + len(missing) > 1:
            failures.append(f"{len(failures)} of {len(files) + len(missing)} inputs failed")
        sys.exit("\n".join(f"error: {failure}" for failure in failures))


def threads_for(files: Sequence[Path]) -> int | None:
    """How many cores a call of the network gets: all (None), or for many photos each worker's share."""
    if len(files) < MANY or any(map(is_video, files)):
        return None
    return max(1, cores() // WORKERS)


def process(files: Sequence[Path], segmenter: HairSegmenter, args: argparse.Namespace) -> list[str]:
    """Segment photos, several at a time so that reading, network and writing overlap, then videos; returns failures."""
    videos = [path for path in files if is_video(path)]
    endings = [f"_{kind}.{ext}" for kind, ext in KINDS.items()] + [f"_{kind}.mp4" for kind in KINDS]
    names = dict(zip(files, result_names(files, args.output_dir, endings), strict=True))
    failures, one_large = [], threading.Lock()
    with ThreadPoolExecutor(WORKERS) as pool:
        photos = [path for path in files if path not in videos]
        jobs = [pool.submit(segment_file, path, names[path], segmenter, args, one_large) for path in photos]
        try:
            for path, job in zip(photos, jobs, strict=True):
                try:
                    line = job.result()
                except (OSError, ValueError, MemoryError, cv2.error) as error:
                    failures.append(_failure(path, error))
                else:
                    print(line)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    for path in videos:
        import video  # only now: it may load PyAV

        try:
            line = video.segment_video(path, names[path], segmenter, args)
        except (OSError, ValueError, MemoryError, cv2.error) as error:
            failures.append(_failure(path, error))
        else:
            print(line)
    return failures


def _failure(path: Path, error: Exception) -> str:
    """One line that names the input: a full disk's error names no file, and OpenCV's has several lines."""
    reason = " ".join(str(error).splitlines()) or type(error).__name__
    return reason if str(path) in reason else f"{path}: {reason}"


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `| head` has read enough; the photos are saved
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
