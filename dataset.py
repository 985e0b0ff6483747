"""From the disk to (image, mask): the data sets' layouts, splits, augmentations and loaders.

python dataset.py prepare-celeb data/CelebAMask-HQ    # raw download -> image/<n>.jpg and mask/<n>.png
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pandas as pd
from sklearn.model_selection import KFold
from torch import Generator, Tensor, randint, randperm
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from tqdm import tqdm

from augment import paste, put_hat
from inference import photos_in
from korean import SPLIT_SEED, KoreanIndex, open_korean
from pictures import check_picture, check_proportions, read_image, read_mask
from render import encode
from utils import UserError, atomic, keep_freed_memory

# ---------------------------------------------------------------------------------------------------- folders


@dataclass(frozen=True)
class FolderIndex:
    """Photos and mask files in pairs: a folder with `image/` and `mask/`, or CelebAMask-HQ's download as it comes."""

    root: Path
    images: list[str]
    masks: list[str]

    def __len__(self) -> int:
        return len(self.images)

    def photo(self, row: int) -> Path:
        """The row's photo file."""
        return self.root / self.images[row]

    def mask(self, row: int, shape: tuple[int, int]) -> np.ndarray:
        """The hair as uint8 {0, 1} of `shape` (height, width), the photo's own. Raises UserError."""
        return read_mask(self.root / self.masks[row], shape)

    def check(self, row: int) -> None:
        """Raise UserError unless the row's two files are whole and of the same proportions."""
        shape = check_picture(self.photo(row))
        check_proportions(self.root / self.masks[row], check_picture(self.root / self.masks[row]), shape)

    def split(self, fold: int, n_folds: int) -> dict[str, np.ndarray]:
        """Rows of `train`, `valid` and, with CelebAMask-HQ's mapping file, `test` (then `fold` has no meaning)."""
        mapping = self.root / "CelebA-HQ-to-CelebA-mapping.txt"
        if not mapping.is_file():
            if len(self) < n_folds:
                raise UserError(f"{self.root}: {len(self)} photos cannot make {n_folds} folds")
            folds = KFold(n_folds, shuffle=True, random_state=SPLIT_SEED).split(np.arange(len(self)))
            train, valid = list(folds)[fold]
            return {"train": train, "valid": valid}
        try:
            original = pd.read_csv(mapping, sep=r"\s+", usecols=["idx", "orig_idx"]).set_index("idx")["orig_idx"]
            original = original.loc[[int(Path(image).stem) for image in self.images]]
            if len(original) != len(self) or original.isna().any():
                raise ValueError("a photo is there twice, or without its number in CelebA")
            original = original.to_numpy(np.int64)
        except (KeyError, ValueError) as error:
            raise UserError(f"{mapping}: does not list every photo of {self.root} ({error})") from error
        # CelebA's own partition: https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html
        part = np.digitize(original, [162_771, 182_638])
        return {name: np.flatnonzero(part == number) for number, name in enumerate(("train", "valid", "test"))}


def _by_number(path: Path) -> tuple:
    return (0, int(path.stem), "") if path.stem.isdecimal() else (1, 0, path.stem)


def _pictures_by_name(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(photos_in(folder), key=_by_number):
        if path.stem in found:
            raise UserError(f"{path}: {found[path.stem].name} has the same name; keep one of them")
        found[path.stem] = path
    return found


def open_folder(root: Path) -> FolderIndex:
    """Index a folder of photos and masks.

    Args:
        root: has `image/` and `mask/` (formats that inference reads, same stems), or is the raw download of
            CelebAMask-HQ, whose photos without hair are left out as `prepare_celeb` does.

    Raises:
        UserError: a missing or empty folder, a photo without mask or the reverse.
    """
    if not root.is_dir() or not any(root.iterdir()):
        what = "is empty" if root.is_dir() else "no such folder"
        raise UserError(f"{root}: {what}; data/README.md says how to get the data, --data_dir names another folder")
    if (root / "image").is_dir() and (root / "mask").is_dir():
        images, masks = _pictures_by_name(root / "image"), _pictures_by_name(root / "mask")
        for one, other, what in ((images, masks, "mask"), (masks, images, "photo")):
            if lonely := [stem for stem in one if stem not in other]:
                raise UserError(f"{one[lonely[0]]}: has no {what}; {len(lonely)} such files, remove or complete them")
        pairs = [(image, masks[stem]) for stem, image in images.items()]
    elif (root / "CelebA-HQ-img").is_dir():
        pairs = [(photo, mask) for photo, mask, _ in scan_celeb(root) if mask is not None]
    else:
        raise UserError(
            f"{root}: has neither image/ and mask/ nor CelebA-HQ-img/ in it; data/README.md tells the layouts"
        )
    if not pairs:
        raise UserError(f"{root}: no photos in it; data/README.md says how to get the data")
    relative = [(str(image.relative_to(root)), str(mask.relative_to(root))) for image, mask in pairs]
    return FolderIndex(root, [image for image, _ in relative], [mask for _, mask in relative])


def scan_celeb(root: Path) -> Iterator[tuple[Path, Path | None, str]]:
    """Go through CelebAMask-HQ's download: photo, hair mask or None, and one of `hair`, `no hair`, `no annotation`.

    A photo shows no hair when it has masks of other parts but none of hair.
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
    """Turn CelebAMask-HQ's download into `image/<n>.jpg` and `mask/<n>.png`.

    What is there already is kept, but for empty masks of an earlier `keep_hairless` that are not to be there now.

    Photos and masks are linked (hard links) where the file system allows and copied elsewhere.

    Args:
        root: the download, with `CelebA-HQ-img/` and `CelebAMask-HQ-mask-anno/`.
        output: where `image/` and `mask/` go; `root` itself where not given.
        keep_hairless: give a photo without hair an empty mask instead of leaving it out.

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
            _undo_hairless(target, mask, output / "image" / photo.name)
        if kind == "no annotation" or (kind == "no hair" and not keep_hairless):
            outcome[f"{kind}, left out"] += 1
            continue
        try:
            shape = check_picture(photo)
            if mask is not None:
                check_proportions(mask, check_picture(mask), shape)
        except UserError as error:
            tqdm.write(f"left out: {error}")
            outcome["unreadable, left out"] += 1
            continue
        for folder in ("image", "mask"):
            (output / folder).mkdir(parents=True, exist_ok=True)
        if mask is not None:
            _link(mask, target)
        elif not target.exists():
            with atomic(target) as temporary:
                temporary.write_bytes(encode(np.zeros(shape, np.uint8)))
        _link(photo, output / "image" / photo.name)
        outcome[kind if mask is not None else "no hair, empty mask"] += 1
    if not outcome.keys() & {"hair", "no hair, empty mask"}:
        found = ", ".join(f"{number} {kind}" for kind, number in outcome.items()) or "no photos"
        raise UserError(f"{root}: nothing to prepare there ({found}); data/README.md says how to get the data")
    mapping = root / "CelebA-HQ-to-CelebA-mapping.txt"
    if mapping.is_file():
        _link(mapping, output / mapping.name)
    return pd.Series(outcome, name="photos", dtype=int)


def _undo_hairless(target: Path, mask: Path | None, image: Path) -> None:
    """Remove an empty mask that an earlier `keep_hairless` made, with its photo; a link to the download's own stays."""
    is_linked = mask is not None and mask.exists() and target.exists() and target.samefile(mask)
    if target.exists() and not is_linked:
        with contextlib.suppress(UserError):  # a broken mask is not an empty one
            if not read_image(target).any():
                target.unlink()
                image.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    if target.exists():
        with contextlib.suppress(UserError):
            if not target.samefile(source):
                check_picture(target)
            return
        target.unlink()
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        with atomic(target) as temporary:
            shutil.copyfile(source, temporary)


def open_data(root: Path, query: str | None = None) -> FolderIndex | KoreanIndex:
    """Open either data set, or any folder with `image/` and `mask/`, by what lies in it.

    `query` is for `open_korean`. Raises UserError.
    """
    is_korean = any(root.glob("dataindex_*.csv")) or any(root.glob("dataset/dataindex_*.csv"))
    if query is not None and not is_korean:
        raise UserError(f"{root}: has no labels for --filter; only the Korean data set has")
    return open_korean(root, query) if is_korean else open_folder(root)


# ---------------------------------------------------------------------------------------------------- sets of photos


class PhotoSet:
    """Rows of one or more indexes in one order.

    Holds two small arrays instead of a list of rows: 256,679 tuples would be copied into every worker.
    """

    def __init__(self, indexes: list, rows: list[np.ndarray]) -> None:
        self.indexes = indexes
        self.part = np.repeat(np.arange(len(rows), dtype=np.uint8), [len(r) for r in rows])
        self.row = np.concatenate(rows).astype(np.int32)

    def __len__(self) -> int:
        return len(self.row)

    def path(self, i: int) -> Path:
        return self.indexes[self.part[i]].photo(self.row[i])

    def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Photo i as RGB uint8 (H, W, 3) and its mask as uint8 {0, 1} (H, W). Raises UserError."""
        image = read_image(self.path(i))
        return image, self.indexes[self.part[i]].mask(self.row[i], image.shape[:2])

    def digests(self) -> np.ndarray:
        """A number for each photo's place on the disk, sorted int64, by which a resumed run knows it again."""
        places = (os.fsencode(os.path.abspath(self.path(i))) for i in range(len(self)))  # noqa: PTH100 (faster)
        return np.sort(np.frombuffer(b"".join(hashlib.blake2b(p, digest_size=8).digest() for p in places), np.int64))

    def labels(self, name: str) -> pd.Series:
        """A style label of every photo of the Korean data set. Raises UserError where there is none of that name."""
        if not isinstance(self.indexes[0], KoreanIndex):
            raise UserError(f"{self.indexes[0].root}: has no labels; only the Korean data set has")
        table = self.indexes[0].labels()
        if name not in table:
            raise UserError(f"there is no label {name!r}; the labels are: {', '.join(map(str, table))}")
        return table[name].iloc[self.row]

    def check(self) -> None:
        """Raise a UserError that names the first file that is missing or broken, before hours of training find it."""
        for part, row in zip(tqdm(self.part, desc="check", unit="photo", leave=False), self.row, strict=True):
            self.indexes[part].check(row)


def split(indexes: list, fold: int, n_folds: int, limit: int | None = None) -> tuple[PhotoSet, PhotoSet]:
    """Training and validation photos of all indexes; `limit` keeps about that many of both together, in shares.

    Raises UserError where there are none to train or to validate on.
    """
    rows = [index.split(fold, n_folds) for index in indexes]
    train, valid = [part["train"] for part in rows], [part["valid"] for part in rows]
    if 0 in (photos := [sum(map(len, side)) for side in (train, valid)]):
        raise UserError(
            f"{indexes[0].root}: {photos[0]} photos to train on and {photos[1]} to validate on; add photos, or take "
            "CelebA-HQ-to-CelebA-mapping.txt away, without which they are split into folds"
        )
    if limit is not None:
        share = min(1.0, limit / sum(map(len, train + valid)))
        rng = np.random.default_rng(SPLIT_SEED)
        train, valid = (
            [np.sort(rng.permutation(part)[: max(2, round(share * len(part)))]) for part in side]
            for side in (train, valid)
        )
    return PhotoSet(indexes, train), PhotoSet(indexes, valid)


def open_backgrounds(folders: list[str]) -> list[Path]:
    """The photos in folders of pictures without people. Raises UserError, also for a broken one."""
    found: list[Path] = []
    for folder in map(Path, folders):
        pictures = sorted(photos_in(folder), key=_by_number) if folder.is_dir() else []
        if not pictures:
            raise UserError(f"{folder}: --backgrounds found no photos there")
        found.extend(pictures)
    for path in found:
        check_picture(path)
    return found


# ---------------------------------------------------------------------------------------------------- loading


class HairDataset(Dataset):
    """Photos as training reads them: uint8 (3, S, S), mask uint8 {0, 1} (1, S, S), and the photo's number.

    Bytes, not floats, go from the workers to the device, which normalises them (`models.Normalise`) in no time.
    """

    def __init__(self, photos: PhotoSet, transform: A.Compose, backgrounds: Sequence[Path] = ()) -> None:
        self.photos, self.transform, self.backgrounds = photos, transform, backgrounds

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, Tensor, int]:
        """Load photo `i`; with a key (i, seed) the augmentations follow from the seed alone."""
        i, seed = key if isinstance(key, tuple) else (key, None)
        image, mask = self.photos.load(i)
        if seed is not None:
            self.transform.set_random_seed(seed)
            if self.backgrounds:
                image, mask = self._recompose(image, mask, np.random.default_rng(seed))
        out = self.transform(image=image, mask=mask)
        return out["image"], out["mask"][None], i

    def _recompose(
        self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of the photos 14% get a hat, 13% go onto a background, 6% onto another photo; 17% become a background."""
        draw = rng.random()
        if draw < 0.5:
            return image, mask
        if 0.64 <= draw < 0.7:
            return paste(image, mask, *self.photos.load(int(rng.integers(len(self.photos)))), rng)
        background = read_image(self.backgrounds[int(rng.integers(len(self.backgrounds)))])
        if draw < 0.64:
            return put_hat(image, mask, background, rng)
        empty = np.zeros(background.shape[:2], np.uint8)
        return (background, empty) if draw > 0.83 else paste(image, mask, background, empty, rng)


class HairLoader(DataLoader):
    """Batches of a HairDataset."""

    dataset: HairDataset


class EpochSampler(Sampler):
    """Photos of an epoch in an order, and with augmentation seeds, that follow from (seed, epoch) alone.

    Thus workers never repeat one another, no two epochs are the same, and a run resumed in the middle of an epoch
    (`start`, in photos of this process) sees what it would have seen. Each of several processes gets its batches of
    the one order, as many as the others; what fills no batch for all of them is left out.
    """

    def __init__(self, length: int, seed: int, batch_size: int = 1, rank: int = 0, processes: int = 1) -> None:
        self.length, self.seed, self.epoch, self.start = length, seed, 0, 0
        self.batch_size, self.rank, self.processes = batch_size, rank, processes
        self.batches = length // (batch_size * processes)

    def __len__(self) -> int:
        return self.batches * self.batch_size - self.start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = randperm(self.length, generator=generator)
        seeds = randint(2**31, (self.length,), generator=generator)
        used = self.batches * self.processes * self.batch_size
        order, seeds = (
            all_[:used].view(-1, self.processes, self.batch_size)[:, self.rank].flatten()[self.start :].tolist()
            for all_ in (order, seeds)
        )
        yield from zip(order, seeds, strict=True)


def _start_worker(_: int) -> None:
    keep_freed_memory()
    cv2.setNumThreads(0)  # each worker is one process on one core already
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches workers too; the training ends them when it is ready
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the training's handler, which a forked worker inherits


def _collate(samples: list[tuple[Tensor, Tensor, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """A batch whose photos lie in memory as OpenCV made them and channels_last networks read them: none is turned."""
    photos, masks, numbers = default_collate([(photo.permute(1, 2, 0), mask, i) for photo, mask, i in samples])
    return photos.permute(0, 3, 1, 2), masks, numbers


def build_loader(
    dataset: HairDataset,
    batch_size: int,
    num_workers: int,
    seed: int | None = None,
    pin_memory: bool = False,
    rank: int = 0,
    processes: int = 1,
) -> HairLoader:
    """A loader for training (with a seed: shuffled, last short batch dropped) or validation (without one).

    Of several processes each gets its share; in validation no photo is left out or comes twice.
    """
    sampler = (
        range(rank, len(dataset), processes)
        if seed is None
        else EpochSampler(len(dataset), seed, batch_size, rank, processes)
    )
    return HairLoader(
        dataset,
        batch_size,
        sampler=sampler,
        drop_last=seed is not None,  # batch normalisation cannot work on a last batch of one photo
        num_workers=num_workers,
        collate_fn=_collate,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        generator=Generator(),  # its own, so that making an iterator leaves the global random state as it was
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare-celeb", help="raw download of CelebAMask-HQ -> image/ and mask/")
    prepare.add_argument("dir", type=Path, help="the download")
    prepare.add_argument("--output_dir", type=Path, help="default: the download's own folder")
    prepare.add_argument("--keep_hairless", action="store_true", help="keep photos without hair, with an empty mask")
    args = parser.parse_args()
    print(prepare_celeb(args.dir, args.output_dir, args.keep_hairless).to_string())


if __name__ == "__main__":
    from utils import run

    run(main)
