"""Collect pictures without people for the training scripts' --backgrounds, small enough to load fast.

    apt-get install gnome-backgrounds mate-backgrounds plasma-workspace-wallpapers ukui-wallpapers \\
        lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 tuxpaint-stamps-default gcompris-qt-data supertuxkart-data \\
        0ad-data
    python -m tools.make_backgrounds --input /usr/share/backgrounds /usr/share/wallpapers /usr/share/tuxpaint/stamps \\
        /usr/share/gcompris-qt/rcc /usr/share/games/supertuxkart/data /usr/share/games/0ad

These packages are free to use and contain landscapes, plants, fabrics and patterns. Fur and wood, which models most
often mistake for hair, come from the children's programs and the games. scikit-image adds textures if it is
installed. Its photos `chelsea`, `coffee` and `rocket` are left out, because benchmarks/robustness.py scores on them.
"""

import argparse
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from hair.cli import HelpFormatter
from hair.errors import UserError, run
from hair.files import new_folder

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".rcc", ".zip")
MIN_BYTES = 40_000  # smaller files are icons
MIN_SIDE = 150  # of an input picture, in pixels
MAX_SIDE = 1024  # of an output picture, in pixels
GREY = 128  # background of cut-outs
TEXTURES = ["brick", "cell", "coins", "grass", "gravel", "horse", "hubble_deep_field", "ihc", "moon", "motorcycle_left"]
TEXTURES += ["page", "retina", "text", "clock_motion"]
# Files that show no objects (screenshots, maps of surfaces, signs, drawings) or that show people.
LEFT_OUT = re.compile(
    r"screenshot|norm|_nm|gloss|_spec|_ao\.|specular|cartoon|karts|/gui/|symbols|seasonal|town|naturalforces|/people"
    r"|military"
    r"|paintings|details|babyshapes|explore_world_music|louis-braille|digital_electricity",
    re.IGNORECASE,
)
KART_PARTS = re.compile(r"supertuxkart/data/(?!textures)(?!.*(wood|plank|bark|trunk|crate))", re.IGNORECASE)
# Fur and wood, which models most often mistake for hair: close-ups of these are written, too.
MISLEADING = re.compile(r"mammal|explore_\w+_animals|erase|wood|plank|bark|trunk|crate|animal_|horse_", re.IGNORECASE)
# Textures in the zip file of 0 A.D.: terrain, animals, trunks, ships, and walls without figures.
GAME_TEXTURES = re.compile(
    r"art/textures/(terrain/types/.*|skins/gaia/(trunk|log|dead|.*_trunk|.*stone)[^/]*"
    r"|skins/skeletal/(animal|horse|fauna|donkey)[^/]*|skins/props/horse/blanket[^/]*"
    r"|skins/structural/(?!.*(paint|statue|foundation|plot|elief|ashoka|sele_apollo))[^/]*)\.dds"
)
PHOTO_MAGIC = re.compile(rb"\xff\xd8\xff|RIFF....WEBP", re.DOTALL)  # how a JPEG or WebP file begins


# ---------------------------------------------------------------------------------------------------- reading


def scikit_image_textures() -> list[Path]:
    """The pictures of scikit-image that are named in TEXTURES; none if it is not installed."""
    try:
        import skimage
    except ImportError:
        return []
    return [path for path in (Path(skimage.__file__).parent / "data").iterdir() if path.stem in TEXTURES]


def game_textures(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the textures in a zip file of 0 A.D.

    Their alpha channel, which contains gloss or the player's colour, is dropped.

    Yields:
        Name and pixels, BGR uint8 (H, W, 3).

    Raises:
        UserError: a damaged file.
    """
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if GAME_TEXTURES.fullmatch(name) and not LEFT_OUT.search(name):
                try:
                    with Image.open(io.BytesIO(archive.read(name))) as texture:
                        picture = np.asarray(texture.convert("RGB"))[..., ::-1].copy()
                except Exception as error:  # zipfile, zlib and Pillow raise many types
                    reason = f"{name} in it cannot be read ({type(error).__name__})"
                    raise UserError(f"{path}: {reason}; download it again or remove it") from error
                yield name, picture


def pictures_in(path: Path) -> Iterator[tuple[str, np.ndarray | None]]:
    """Yield the pictures in a file: one, or several for a `.zip` of 0 A.D. or a `.rcc` of Qt.

    Yields:
        Name and pixels, BGR or BGRA or grey; None for a picture that cannot be decoded.
    """
    suffix = path.suffix.lower()
    if suffix == ".zip":
        if zipfile.is_zipfile(path):
            yield from game_textures(path)
        return
    data = path.read_bytes()
    if not data:
        return
    starts = [found.start() for found in PHOTO_MAGIC.finditer(data)] if suffix == ".rcc" else [0]
    for start in starts:
        encoded = np.frombuffer(data, np.uint8, offset=start)
        picture = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
        if picture is not None and picture.ndim == 3 and picture.shape[2] == 3:
            picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR)  # again, to apply the EXIF orientation
        yield str(path), picture


def usable_pictures(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the photos and cut-outs in a file.

    Yields:
        Name and pixels, uint8: BGR (H, W, 3), or BGRA (H, W, 4) cropped to what is visible.
    """
    for name, picture in pictures_in(path):
        if picture is None or picture.dtype != np.uint8 or min(picture.shape[:2]) < MIN_SIDE:
            continue
        if picture.ndim == 2:
            picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
        if picture.shape[2] == 4:
            if path.suffix.lower() == ".rcc":  # a drawing
                continue
            left, top, width, height = cv2.boundingRect((picture[..., 3] > 127).view(np.uint8))
            if 100 * min(width, height) <= max(width, height):  # nothing visible, or only a line
                continue
            picture = picture[top : top + height, left : left + width]
        yield name, picture


# ---------------------------------------------------------------------------------------------------- pictures


def put_before(cut_out: np.ndarray, behind: np.ndarray | int) -> np.ndarray:
    """Blend a cut-out, BGRA uint8 (H, W, 4), with a grey value or with BGR uint8 (H, W, 3). Returns BGR uint8."""
    alpha = cut_out[..., 3:] / 255
    return (cut_out[..., :3] * alpha + behind * (1 - alpha)).astype(np.uint8)


def close_ups(picture: np.ndarray) -> list[np.ndarray]:
    """The upper middle of a picture, where heads are in photos, and its centre; none of a small picture."""
    height, width = picture.shape[:2]
    if min(height, width) < MIN_SIDE:
        return []
    upper = picture[: height * 2 // 3, width // 6 : width * 5 // 6]
    return [upper, picture[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4]]


def read_pictures(path: Path) -> Iterator[np.ndarray]:
    """Yield the usable pictures of a file, BGR uint8: cut-outs on grey; of misleading pictures also close-ups."""
    for name, picture in usable_pictures(path):
        whole = put_before(picture, GREY) if picture.shape[2] == 4 else picture
        yield whole
        if MISLEADING.search(name):
            yield from close_ups(whole)


def write_small(path: Path, picture: np.ndarray) -> None:
    """Write BGR uint8 as a JPEG of at most MAX_SIDE pixels per side, which loads fast. Raises OSError."""
    scale = min(1.0, MAX_SIDE / max(picture.shape[:2]))
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    path.write_bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())


def find_files(folders: list[Path]) -> list[Path]:
    """The image files and archives in folders and their subfolders. Raises UserError for a missing folder."""
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise UserError(f"{missing[0]}: no such folder; --input names folders of pictures")
    files = sorted((path, folder) for folder in folders for path in folder.rglob("*"))
    return [
        path
        for path, folder in files
        if path.suffix.lower() in SUFFIXES
        and path.is_file()  # not a broken link
        and path.stat().st_size > MIN_BYTES
        and not LEFT_OUT.search(f"/{path.relative_to(folder).as_posix()}")  # only the part below `folder`
        and not KART_PARTS.search(path.as_posix())
    ]


def main() -> None:
    """Collect the pictures. Raises OSError or UserError."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--input", type=Path, nargs="+", required=True, help="folders, searched with their subfolders")
    parser.add_argument("--output_dir", type=Path, default=Path("data/backgrounds"), help="a new folder")
    args = parser.parse_args()

    files = find_files(args.input) + sorted(scikit_image_textures())
    seen: set[bytes] = set()
    with new_folder(args.output_dir) as folder:
        for picture in (picture for path in tqdm(files, unit="file") for picture in read_pictures(path)):
            # Wallpapers come in several sizes. Keep pictures whose thumbnails differ, such as light and dark versions.
            key = (cv2.resize(picture, (16, 16), interpolation=cv2.INTER_AREA) // 24).tobytes()
            if key in seen:
                continue
            write_small(folder / f"{len(seen):03d}.jpg", picture)
            seen.add(key)
        if not seen:
            raise UserError(f"{args.input[0]}: no usable pictures there; --help names packages that have some")
    print(f"{len(seen)} pictures in {args.output_dir}")


if __name__ == "__main__":
    run(main)
