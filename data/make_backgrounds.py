"""Collect pictures without people, small enough to load fast, for the training scripts' --backgrounds.

    apt-get install gnome-backgrounds mate-backgrounds plasma-workspace-wallpapers ukui-wallpapers \\
        lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 tuxpaint-stamps-default gcompris-qt-data supertuxkart-data \\
        0ad-data
    python data/make_backgrounds.py --input /usr/share/backgrounds /usr/share/wallpapers /usr/share/tuxpaint/stamps \\
        /usr/share/gcompris-qt/rcc /usr/share/games/supertuxkart/data /usr/share/games/0ad

These are free to use and show landscapes, plants, fabrics and patterns; what is most often taken for hair, fur and
wood, comes from the children's programs and the games' textures. scikit-image, where it is installed, adds textures.
Its photos `chelsea`, `coffee` and `rocket` stay out: benchmarks/robustness.py scores on them.
"""

import argparse
import io
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from utils import HelpFormatter, UserError, new_folder, run  # noqa: E402

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".rcc", ".zip")
TEXTURES = ["brick", "cell", "coins", "grass", "gravel", "horse", "hubble_deep_field", "ihc", "moon", "motorcycle_left"]
TEXTURES += ["page", "retina", "text", "clock_motion"]
# What is not a picture of something (screenshots, maps of surfaces, signs, drawings), and what shows people.
LEFT_OUT = re.compile(
    r"screenshot|norm|_nm|gloss|_spec|_ao\.|specular|cartoon|karts|/gui/|symbols|seasonal|town|naturalforces|/people"
    r"|military"
    r"|paintings|details|babyshapes|explore_world_music|louis-braille|digital_electricity",
    re.IGNORECASE,
)
KART_PARTS = re.compile(r"supertuxkart/data/(?!textures)(?!.*(wood|plank|bark|trunk|crate))", re.IGNORECASE)
# What models take for hair first: fur and wood, which are therefore there in close-ups, too.
MISLEADING = re.compile(r"mammal|explore_\w+_animals|erase|wood|plank|bark|trunk|crate|animal_|horse_", re.IGNORECASE)
# 0 A.D. keeps its textures in a zip: the grounds, and the skins of animals, trunks, ships and walls without figures.
GAME_TEXTURES = re.compile(
    r"art/textures/(terrain/types/.*|skins/gaia/(trunk|log|dead|.*_trunk|.*stone)[^/]*"
    r"|skins/skeletal/(animal|horse|fauna|donkey)[^/]*|skins/props/horse/blanket[^/]*"
    r"|skins/structural/(?!.*(paint|statue|foundation|plot|elief|ashoka|sele_apollo))[^/]*)\.dds"
)
PHOTO_MAGIC = re.compile(rb"\xff\xd8\xff|RIFF....WEBP", re.DOTALL)


def scikit_image_textures() -> list[Path]:
    """The pictures named in TEXTURES that the installed scikit-image ships; none without it."""
    try:
        import skimage
    except ImportError:
        return []
    return [path for path in (Path(skimage.__file__).parent / "data").iterdir() if path.stem in TEXTURES]


def game_textures(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and pixels, BGR uint8, of the textures in a zip of 0 A.D.; their alpha is gloss or a player's colour."""
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if GAME_TEXTURES.fullmatch(name) and not LEFT_OUT.search(name):
                try:
                    with Image.open(io.BytesIO(archive.read(name))) as texture:
                        picture = np.asarray(texture.convert("RGB"))[..., ::-1].copy()
                except Exception as error:  # zipfile, zlib and Pillow raise many kinds
                    reason = f"{name} in it cannot be read ({type(error).__name__})"
                    raise UserError(f"{path}: {reason}; get it anew or remove it") from error
                yield name, picture


def pictures_in(path: Path) -> Iterator[tuple[str, np.ndarray | None]]:
    """Name and pixels, BGR or BGRA uint8, of what a file holds: one picture, or those of a `.zip` or Qt's `.rcc`."""
    suffix = path.suffix.lower()
    if suffix == ".zip":
        yield from game_textures(path) if zipfile.is_zipfile(path) else ()
        return
    data = path.read_bytes()
    starts = [found.start() for found in PHOTO_MAGIC.finditer(data)] if suffix == ".rcc" else [0] * bool(data)
    for start in starts:
        bytes_ = np.frombuffer(data, np.uint8, offset=start)
        picture = cv2.imdecode(bytes_, cv2.IMREAD_UNCHANGED)
        if picture is not None and picture.ndim == 3 and picture.shape[2] == 3:
            picture = cv2.imdecode(bytes_, cv2.IMREAD_COLOR)  # now upright, as its EXIF says
        yield str(path), picture


def usable_pictures(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and pixels of the photos and cut-outs in a file, BGR or BGRA uint8; cut-outs without what is not seen."""
    for name, picture in pictures_in(path):
        if picture is None or picture.dtype != np.uint8 or min(picture.shape[:2]) < 150:
            continue
        if picture.ndim == 2:
            picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
        if picture.shape[2] == 4:
            if path.suffix.lower() == ".rcc":  # a drawing
                continue
            left, top, width, height = cv2.boundingRect((picture[..., 3] > 127).view(np.uint8))
            if 100 * min(width, height) <= max(width, height):  # nothing to be seen, or no more than a line
                continue
            picture = picture[top : top + height, left : left + width]
        yield name, picture


def put_before(cut_out: np.ndarray, behind: np.ndarray | int) -> np.ndarray:
    """A cut-out, BGRA uint8 (H, W, 4), before a grey or before BGR uint8 (H, W, 3); BGR uint8."""
    alpha = cut_out[..., 3:] / 255
    return (cut_out[..., :3] * alpha + behind * (1 - alpha)).astype(np.uint8)


def close_ups(picture: np.ndarray) -> list[np.ndarray]:
    """The upper middle of a picture, where heads are, and its centre; none of a small one."""
    height, width = picture.shape[:2]
    if min(height, width) < 150:
        return []
    upper = picture[: height * 2 // 3, width // 6 : width * 5 // 6]
    return [upper, picture[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4]]


def read_pictures(path: Path) -> Iterator[np.ndarray]:
    """The usable pictures of a file, BGR uint8, cut-outs on grey, and close-ups of the misleading ones."""
    for name, picture in usable_pictures(path):
        whole = put_before(picture, 128) if picture.shape[2] == 4 else picture
        yield from [whole, *close_ups(whole)] if MISLEADING.search(name) else [whole]


def write_small(path: Path, picture: np.ndarray) -> None:
    """Write BGR uint8 as JPEG, of 1024 pixels at most, which loads fast."""
    scale = min(1.0, 1024 / max(picture.shape[:2]))
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    path.write_bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())


def find_files(folders: list[Path]) -> list[Path]:
    """Picture files and archives in folders with all that is in them. Raises UserError for a folder that is none."""
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise UserError(f"{missing[0]}: no such folder; --input names folders with pictures")
    files = sorted((path, folder) for folder in folders for path in folder.rglob("*"))
    return [
        path
        for path, folder in files
        if path.suffix.lower() in SUFFIXES
        and path.is_file()  # no link that leads nowhere
        and path.stat().st_size > 40_000
        and not LEFT_OUT.search(f"/{path.relative_to(folder).as_posix()}")  # where the folder lies says nothing
        and not KART_PARTS.search(path.as_posix())
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--input", type=Path, nargs="+", required=True, help="folders, read with all that is in them")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "data/backgrounds", help="a new folder")
    args = parser.parse_args()

    files = find_files(args.input) + sorted(scikit_image_textures())
    seen: set[bytes] = set()
    with new_folder(args.output_dir) as folder:
        for picture in (picture for path in tqdm(files, unit="file") for picture in read_pictures(path)):
            # One wallpaper comes in many sizes and in a light and a dark form: keep what differs when seen small.
            key = (cv2.resize(picture, (16, 16), interpolation=cv2.INTER_AREA) // 24).tobytes()
            if key in seen:
                continue
            write_small(folder / f"{len(seen):03d}.jpg", picture)
            seen.add(key)
        if not seen:
            raise UserError(f"{args.input[0]}: no usable pictures there; see --help for packages that have some")
    print(f"{len(seen)} pictures in {args.output_dir}")


if __name__ == "__main__":
    run(main)
