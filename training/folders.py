"""Data sets of photos and mask files: `image/` and `mask/`, or CelebAMask-HQ, Figaro-1k, LaPa, CIHP as downloaded."""

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold
from tqdm import tqdm

from hair.errors import UserError
from hair.files import atomic, write_png
from hair.photos import photos_in, read_photo
from training.masks import check_picture, check_proportions, read_mask

SPLIT_SEED = 0  # independent of --seed: all runs validate on the same photos, so that their scores can be compared
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
# First photo numbers of CelebA's own validation and test sets: https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html
CELEBA_PARTS = ("train", "valid", "test")
CELEBA_BORDERS = (162_771, 182_638)
# Folders of photos and of masks in other downloads; {} is the name of the split.
LAYOUTS = (
    ("Original/{}", "GT/{}"),  # Figaro-1k
    ("{}/images", "{}/labels"),  # LaPa
    ("{}/Images", "{}/Category_ids"),  # CIHP
)
# Their names of the splits: LaPa, then CIHP and Figaro-1k.
PARTS = {"train": "train", "val": "valid", "test": "test"}
PARTS |= {"Training": "train", "Validation": "valid", "Testing": "test"}
PHOTO_ENDING, MASK_ENDING = "-org", "-gt"  # in Figaro-1k Frame00001-org.jpg has the mask Frame00001-gt.pbm


@dataclass(frozen=True)
class FolderIndex:
    """Pairs of photos and mask files.

    Attributes:
        root: folder of the data set.
        images: paths of the photos, relative to `root`.
        masks: paths of their masks, relative to `root`.
        parts: for each photo `train`, `valid` or `test`; empty if the data set has no split.
        hair: class numbers of hair, for `read_mask`.
    """

    root: Path
    images: list[str]
    masks: list[str]
    parts: Sequence[str] = ()
    hair: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def photo(self, row: int) -> Path:
        """The photo file of a row."""
        return self.root / self.images[row]

    def mask(self, row: int, shape: tuple[int, int]) -> np.ndarray:
        """The hair mask, uint8 {0, 1} of `shape`, which is the photo's (height, width). Raises UserError."""
        return read_mask(self.root / self.masks[row], shape, self.hair)

    def check(self, row: int, size_of: Callable[[Path], tuple[int, int]] = check_picture) -> None:
        """Raise UserError unless the two files of a row are complete and have the same aspect ratio.

        `size_of` is `check_picture`, or a version of it that caches (see `training.checks`).
        """
        mask = self.root / self.masks[row]
        shape = size_of(self.photo(row))
        check_proportions(mask, size_of(mask), shape)

    def split(self, fold: int, n_folds: int) -> dict[str, np.ndarray]:
        """The rows of `train`, `valid` and, if the data set has one, `test`; see `split_rows`.

        With the mapping file of CelebAMask-HQ, this is CelebA's own split.
        """
        mapping = self.root / MAPPING
        if not mapping.is_file():
            return split_rows(self.root, self.parts or ["train"] * len(self), fold, n_folds)
        try:
            original = pd.read_csv(mapping, sep=r"\s+", usecols=["idx", "orig_idx"]).set_index("idx")["orig_idx"]
            original = original.loc[[int(Path(image).stem) for image in self.images]]
            if len(original) != len(self) or original.isna().any():
                raise ValueError("a photo is listed twice, or without its number in CelebA")
            original = original.to_numpy(np.int64)
        except (KeyError, ValueError) as error:
            raise UserError(f"{mapping}: does not list every photo of {self.root} ({error})") from error
        part = np.digitize(original, CELEBA_BORDERS)
        return {name: np.flatnonzero(part == number) for number, name in enumerate(CELEBA_PARTS)}


def split_rows(root: Path, parts: Sequence[str], fold: int, n_folds: int) -> dict[str, np.ndarray]:
    """Split a data set.

    Args:
        root: folder of the data set, for error messages.
        parts: `train`, `valid` or `test` for each photo.
        fold: fold to validate on, counted from 0; ignored if `parts` contains `valid`.
        n_folds: number of folds to divide the photos of `train` into, if `parts` does not contain `valid`.

    Returns:
        The rows of `train`, `valid` and, if there are any, `test`. Raises UserError for fewer photos than folds.
    """
    rows = {name: np.flatnonzero([part == name for part in parts]) for name in ("train", "valid", "test")}
    if not len(rows["test"]):
        del rows["test"]
    if not len(rows["valid"]):
        photos = rows["train"]
        if len(photos) < n_folds:
            raise UserError(f"{root}: {len(photos)} photos cannot make {n_folds} folds")
        train, valid = list(KFold(n_folds, shuffle=True, random_state=SPLIT_SEED).split(photos))[fold]
        rows |= {"train": photos[train], "valid": photos[valid]}
    return rows


def by_number(path: Path) -> tuple:
    """A key that sorts 9.jpg before 10.jpg, and names that are not numbers last."""
    return (0, int(path.stem), "") if path.stem.isdecimal() else (1, 0, path.stem)


def _pictures_by_name(folder: Path, ending: str = "") -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(photos_in(folder), key=by_number):
        name = path.stem.removesuffix(ending)
        if name in found:
            raise UserError(f"{path}: {found[name].name} has the same name; keep one of them")
        found[name] = path
    return found


def open_folder(root: Path, hair_label: Sequence[str] = ()) -> FolderIndex:
    """Index a folder of photos and masks.

    Args:
        root: a folder with `image/` and `mask/` (same file stems, formats that inference reads), or the download of
            Figaro-1k, LaPa, CIHP or CelebAMask-HQ (without its photos without hair, as in `prepare_celeb`).
        hair_label: classes of hair; for masks, only numbers are used.

    Raises:
        UserError: the folder is missing or empty, or a photo has no mask or a mask no photo.
    """
    if not root.is_dir() or not any(root.iterdir()):
        problem = "is empty" if root.is_dir() else "no such folder"
        raise UserError(f"{root}: {problem}; data/README.md says how to get the data, --data_dir names another folder")
    parts: list[str] = []
    if (root / "image").is_dir() and (root / "mask").is_dir():
        pairs = _pair(_pictures_by_name(root / "image"), _pictures_by_name(root / "mask"))
    elif (root / "CelebA-HQ-img").is_dir():
        pairs = [(photo, mask) for photo, mask, _ in scan_celeb(root) if mask is not None]
    elif folders := _part_folders(root):
        pairs = []
        for image, mask, part in folders:
            found = _pair(_pictures_by_name(image, PHOTO_ENDING), _pictures_by_name(mask, MASK_ENDING))
            pairs += found
            parts += [part] * len(found)
    else:
        raise UserError(f"{root}: has neither image/ and mask/ nor labels in it; docs/data.md describes the layouts")
    if not pairs:
        raise UserError(f"{root}: no photos in it; data/README.md says how to get the data")
    images = [str(image.relative_to(root)) for image, _ in pairs]
    masks = [str(mask.relative_to(root)) for _, mask in pairs]
    return FolderIndex(root, images, masks, parts, tuple(int(label) for label in hair_label if label.isdecimal()))


def is_folder(root: Path) -> bool:
    """Whether `open_folder` can read the layout of a folder."""
    if (root / "image").is_dir() and (root / "mask").is_dir():
        return True
    return (root / "CelebA-HQ-img").is_dir() or bool(_part_folders(root))


def _part_folders(root: Path) -> list[tuple[Path, Path, str]]:
    """The folders of photos and of masks in one of LAYOUTS, each with its split."""
    pairs = [
        (root / photos.format(name), root / masks.format(name), part)
        for name, part in PARTS.items()
        for photos, masks in LAYOUTS
    ]
    return [pair for pair in pairs if pair[0].is_dir() and pair[1].is_dir() and photos_in(pair[1])]


def _pair(images: dict[str, Path], masks: dict[str, Path]) -> list[tuple[Path, Path]]:
    """Photos with their masks, matched by name. Raises UserError if one is missing."""
    for one, other, what in ((images, masks, "mask"), (masks, images, "photo")):
        if lonely := [stem for stem in one if stem not in other]:
            raise UserError(f"{one[lonely[0]]}: has no {what} ({len(lonely)} such files); add it or remove the file")
    return [(image, masks[stem]) for stem, image in images.items()]


# ---------------------------------------------------------------------------------------------------- CelebAMask-HQ


def scan_celeb(root: Path) -> Iterator[tuple[Path, Path | None, str]]:
    """Yield each photo of the CelebAMask-HQ download, its hair mask or None, and `hair`, `no hair` or `no annotation`.

    A photo has no hair if it has masks of other parts of the face but none of hair.
    """
    annotations = root / "CelebAMask-HQ-mask-anno"
    parts: dict[str, set[str]] = {}
    for path in annotations.glob("*/*.png"):
        number, _, part = path.stem.partition("_")
        parts.setdefault(number, set()).add(part)
    for photo in _pictures_by_name(root / "CelebA-HQ-img").values():
        if not photo.stem.isdecimal():
            continue
        number = f"{int(photo.stem):05d}"
        if "hair" in parts.get(number, ()):
            yield photo, annotations / str(int(photo.stem) // 2000) / f"{number}_hair.png", "hair"
        else:
            yield photo, None, "no hair" if number in parts else "no annotation"


def prepare_celeb(root: Path, output: Path | None = None, keep_hairless: bool = False) -> pd.Series:
    """Turn the CelebAMask-HQ download into `image/<n>.jpg` and `mask/<n>.png`.

    Existing files are kept, except empty masks from an earlier run with `keep_hairless` if it is now False. Photos and
    masks are hard links if the file system supports them, else copies.

    Args:
        root: the download, with `CelebA-HQ-img/` and `CelebAMask-HQ-mask-anno/`.
        output: where `image/` and `mask/` are created; None: in `root`.
        keep_hairless: keep photos without hair, with an empty mask, instead of leaving them out.

    Returns:
        Number of photos by outcome: `hair`, `no hair, empty mask` or `no hair, left out`, `no annotation, left out`,
        `unreadable, left out`.

    Raises:
        UserError: `root` is not the download, or all of its photos are left out.
    """
    output = output or root
    if not (root / "CelebA-HQ-img").is_dir() or not (root / "CelebAMask-HQ-mask-anno").is_dir():
        raise UserError(
            f"{root}: has no CelebA-HQ-img/ and CelebAMask-HQ-mask-anno/; data/README.md says how to get them"
        )
    outcome: Counter[str] = Counter()
    for photo, mask, kind in tqdm(list(scan_celeb(root)), desc="prepare", unit="photo"):
        target = output / "mask" / f"{photo.stem}.png"
        if mask is not None or not keep_hairless:
            _remove_empty_mask(target, mask, output / "image" / photo.name)
        if kind == "no annotation" or (kind == "no hair" and not keep_hairless):
            outcome[f"{kind}, left out"] += 1
            continue
        try:
            _prepare_photo(photo, mask, target)
        except UserError as error:
            tqdm.write(f"left out: {error}")
            outcome["unreadable, left out"] += 1
        else:
            outcome[kind if mask is not None else "no hair, empty mask"] += 1
    if not outcome.keys() & {"hair", "no hair, empty mask"}:
        found = ", ".join(f"{number} {kind}" for kind, number in outcome.items()) or "no photos"
        raise UserError(f"{root}: nothing to prepare there ({found}); data/README.md says how to get the data")
    if (root / MAPPING).is_file():
        _link(root / MAPPING, output / MAPPING)
    return pd.Series(outcome, name="photos", dtype=int)


def _prepare_photo(photo: Path, mask: Path | None, target: Path) -> None:
    """Link a photo, and at `target` its mask or a new empty one. Raises UserError if a file is broken."""
    shape = check_picture(photo)
    if mask is not None:
        check_proportions(mask, check_picture(mask), shape)
    image = target.parents[1] / "image" / photo.name
    for folder in (image.parent, target.parent):
        folder.mkdir(parents=True, exist_ok=True)
    if mask is not None:
        _link(mask, target)
    elif not target.exists():
        write_png(target, np.zeros(shape, np.uint8))
    _link(photo, image)


def _remove_empty_mask(target: Path, mask: Path | None, image: Path) -> None:
    """Remove an empty mask from an earlier `keep_hairless`, and its photo; links to masks of the download are kept."""
    is_linked = mask is not None and mask.exists() and target.exists() and target.samefile(mask)
    if target.exists() and not is_linked:
        with contextlib.suppress(UserError):  # a broken mask is not an empty one
            if not read_photo(target).any():
                target.unlink()
                image.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    """Link or copy a file. An existing `target` is kept unless it is a broken image."""
    if target.exists():
        with contextlib.suppress(UserError):
            if not target.samefile(source):
                check_picture(target)
            return
        target.unlink()
    try:
        os.link(source.resolve(), target)
    except OSError:  # different file systems, or one without hard links
        with atomic(target) as temporary:
            shutil.copyfile(source, temporary)
