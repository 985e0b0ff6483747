"""Data sets, splits and loaders: from files to batches of (photo, mask).

python dataset.py prepare-celeb data/CelebAMask-HQ    # raw download -> image/<n>.jpg and mask/<n>.png
"""

import argparse
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import albumentations as A
import numpy as np
import pandas as pd
from torch import Generator, Tensor, cat, from_numpy, randint, randperm
from torch.utils.data import Dataset, Sampler, default_collate

from hair.errors import UserError, run
from hair.photos import open_photo, photos_in, read_photo
from training.augment import (
    CROWD,
    CROWD_SIZE,
    choose_composition,
    jpeg_scale,
    paste,
    put_coat,
    put_hat,
    train_transform,
)
from training.checks import check_rows
from training.folders import SPLIT_SEED, FolderIndex, by_number, is_folder, open_folder, prepare_celeb
from training.korean import KoreanIndex, open_korean
from training.labels import LabelIndex, open_labels
from training.processes import rank, world_size
from training.workers import WorkerLoader, start_worker


def open_data(
    root: Path, query: str | None = None, hair_label: Sequence[str] = ()
) -> FolderIndex | KoreanIndex | LabelIndex:
    """Open a data set; its kind is recognised from the content of the folder.

    `query` is for `open_korean`, `hair_label` for `open_labels` and `open_folder`. Raises UserError.
    """
    is_korean = any(root.glob("dataindex_*.csv")) or any(root.glob("dataset/dataindex_*.csv"))
    if query is not None and not is_korean:
        raise UserError(f"{root}: has no labels for --filter; only the Korean data set has")
    if is_korean:
        return open_korean(root, query)
    if root.is_file():
        raise UserError(f"{root}: is a file; --data_dir needs the folder that contains it and its photos")
    labels = None if is_folder(root) or not root.is_dir() else open_labels(root, hair_label)
    return open_folder(root, hair_label) if labels is None else labels


# ---------------------------------------------------------------------------------------------------- sets of photos


class PhotoSet:
    """An ordered selection of rows from one or more indexes.

    It is stored in two small arrays, because a list of 256,679 tuples would be copied into every worker.
    """

    def __init__(self, indexes: list, rows: list[np.ndarray], weights: Sequence[float] | None = None) -> None:
        """Args: `indexes` as `open_data` returns them; the `rows` of each, and the weight of each, if any."""
        self.indexes, self.weights = indexes, weights or [1.0] * len(indexes)
        self.part = np.repeat(np.arange(len(rows), dtype=np.uint8), [len(r) for r in rows])
        self.row = np.concatenate(rows).astype(np.int32)

    def __len__(self) -> int:
        return len(self.row)

    @property
    def drawn(self) -> int:
        """The number of photos per epoch."""
        return sum(self._draws())

    def _draws(self) -> list[int]:
        """The number of photos of each index per epoch, at least one."""
        counts = np.bincount(self.part, minlength=len(self.indexes)).tolist()
        return [count and max(1, round(count * weight)) for count, weight in zip(counts, self.weights, strict=True)]

    def draw(self, generator: Generator) -> Tensor:
        """The photos of an epoch, int64 (drawn,), in random order.

        The weight of an index is the number of times that an epoch uses each of its photos: with 0.3, 30% of them are
        used once; with 2.3, all of them twice and 30% a third time.
        """
        if all(weight == 1 for weight in self.weights):
            return randperm(len(self), generator=generator)
        chosen = []
        for part, draws in enumerate(self._draws()):
            photos = from_numpy(np.flatnonzero(self.part == part))
            whole, rest = divmod(draws, max(1, len(photos)))
            chosen += [photos.repeat(whole), photos[randperm(len(photos), generator=generator)[:rest]]]
        order = cat(chosen)
        return order[randperm(len(order), generator=generator)]

    def path(self, i: int) -> Path:
        """The path of photo i."""
        return self.indexes[self.part[i]].photo(self.row[i])

    def load(self, i: int, jpeg_scale: Callable[[int, int], int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Photo i as RGB uint8 (H, W, 3) and its mask as uint8 {0, 1} (H, W).

        `jpeg_scale` is passed to `hair.photos.open_photo`. It must divide both sides of the photo, because the mask is
        made at the photo's full size. Raises UserError, FileNotFoundError.
        """
        photo = open_photo(self.path(i), jpeg_scale=jpeg_scale)
        height, width = photo.pixels.shape[:2]
        mask = self.indexes[self.part[i]].mask(self.row[i], (photo.scale * height, photo.scale * width))
        centres = np.s_[photo.scale // 2 :: photo.scale]
        return photo.pixels, mask[centres, centres]

    def digests(self) -> np.ndarray:
        """A number for each photo's path, int64 in the set's order, by which a resumed run recognises its photos."""
        paths = (os.fsencode(os.path.abspath(self.path(i))) for i in range(len(self)))  # noqa: PTH100 (faster)
        return np.frombuffer(b"".join(hashlib.blake2b(p, digest_size=8).digest() for p in paths), np.int64)

    def labels(self, name: str) -> pd.Series:
        """A style label of every photo of the Korean data set. Raises UserError if there is no such label."""
        if not isinstance(self.indexes[0], KoreanIndex):
            raise UserError(f"{self.indexes[0].root}: has no labels; only the Korean data set has")
        table = self.indexes[0].labels()
        if name not in table:
            raise UserError(f"there is no label {name!r}; the labels are: {', '.join(map(str, table))}")
        return table[name].iloc[self.row]

    def check(self) -> None:
        """Raise UserError for the first missing or broken file, before training."""
        for part, index in enumerate(self.indexes):
            check_rows(index, self.row[self.part == part])


def split(
    indexes: list,
    fold: int,
    n_folds: int,
    limit: int | None = None,
    exclude: Sequence[np.ndarray] | None = None,
    weights: Sequence[float] | None = None,
) -> tuple[PhotoSet, PhotoSet]:
    """Training and validation photos of all indexes.

    Args:
        indexes: from `open_data`.
        fold: fold to validate on, counted from 0.
        n_folds: number of folds.
        limit: keep about this many photos, the same fraction of each index for training and validation.
        exclude: rows of each index to leave out. The others stay in their folds.
        weights: weight of each index, for the training photos; see `PhotoSet`.

    Raises:
        UserError: there are no photos to train on or to validate on.
    """
    parts = [index.split(fold, n_folds) for index in indexes]
    train, valid = [part["train"] for part in parts], [part["valid"] for part in parts]
    if exclude is not None:
        train, valid = (
            [np.setdiff1d(rows, out) for rows, out in zip(side, exclude, strict=True)] for side in (train, valid)
        )
    counts = sum(map(len, train)), sum(map(len, valid))
    if 0 in counts:
        raise UserError(
            f"{indexes[0].root}: {counts[0]} photos to train on and {counts[1]} to validate on; add photos, or remove "
            "CelebA-HQ-to-CelebA-mapping.txt, so that they are split into folds"
        )
    if limit is not None:
        share = min(1.0, limit / sum(counts))
        rng = np.random.default_rng(SPLIT_SEED)
        train = [_sample(rows, share, rng) for rows in train]
        valid = [_sample(rows, share, rng) for rows in valid]
    return PhotoSet(indexes, train, weights), PhotoSet(indexes, valid)


def _sample(rows: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A random fraction of the rows, at least two, in order."""
    return np.sort(rng.permutation(rows)[: max(2, round(share * len(rows)))])


def open_backgrounds(folders: Sequence[str]) -> list[Path]:
    """The photos in folders of pictures without people. Raises UserError, also for a broken file."""
    found: list[Path] = []
    for folder in map(Path, folders):
        pictures = sorted(photos_in(folder), key=by_number) if folder.is_dir() else []
        if not pictures:
            raise UserError(f"{folder}: --backgrounds found no photos there")
        found.extend(pictures)
    check_rows(_Pictures(Path(folders[0]) if folders else Path(), found), range(len(found)))
    return found


@dataclass
class _Pictures:
    """Pictures without masks, as an index that `check_rows` can check; `root` decides where the result is cached."""

    root: Path
    files: list[Path]

    def check(self, row: int, size_of: Callable[[Path], tuple[int, int]]) -> None:
        size_of(self.files[row])


# ---------------------------------------------------------------------------------------------------- loading


class HairDataset(Dataset):
    """Photos for training: photo uint8 (3, S, S), mask uint8 {0, 1} (1, S, S), and the number of the photo.

    Workers send bytes, not floats; the device normalises them much faster (`models.Normalise`).
    """

    def __init__(
        self,
        photos: PhotoSet,
        transform: A.Compose,
        backgrounds: Sequence[Path] = (),
        jpeg_scale: Callable[[int, int], int] | None = None,
    ) -> None:
        """Create a data set; for training, use `training_set`.

        Args:
            photos: the photos.
            transform: a transform from `augment`.
            backgrounds: pictures without people, for compositions.
            jpeg_scale: as for `PhotoSet.load`.
        """
        self.photos, self.transform, self.backgrounds, self.jpeg_scale = photos, transform, backgrounds, jpeg_scale

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, Tensor, int]:
        """Load photo `i`; with a key (i, seed) the augmentation follows from the seed alone."""
        i, seed = key if isinstance(key, tuple) else (key, None)
        image, mask = self.photos.load(i, self.jpeg_scale)
        if seed is not None:
            self.transform.set_random_seed(seed)
            if self.backgrounds:
                image, mask = self._compose(image, mask, np.random.default_rng(seed))
        out = self.transform(image=image, mask=mask)
        return out["image"], out["mask"][None], i

    def _compose(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Add a hat or a coat, paste the photo onto another picture or replace it, as often as COMPOSITIONS says."""
        composition = choose_composition(rng)
        if composition == "unchanged":
            return image, mask
        if composition == "on photo":
            return paste(image, mask, *self._any_photo(rng), rng)
        if composition == "coat":
            return put_coat(image, mask, *self._any_photo(rng), rng)
        background = read_photo(self.backgrounds[int(rng.integers(len(self.backgrounds)))])
        if composition == "hat":
            return put_hat(image, mask, background, rng)
        empty = np.zeros(background.shape[:2], np.uint8)
        if composition == "background":
            return background, empty
        image, mask = paste(image, mask, background, empty, rng)
        for _ in range(int(rng.integers(1, CROWD)) if composition == "crowd" else 0):
            image, mask = paste(*self._any_photo(rng), image, mask, rng, CROWD_SIZE)
        return image, mask

    def _any_photo(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self.photos.load(int(rng.integers(len(self.photos))))


def training_set(photos: PhotoSet, strength: str, size: int, backgrounds: Sequence[Path] = ()) -> HairDataset:
    """A data set for training at `size` pixels with augmentation of the given strength.

    JPEGs are decoded at a reduced size if that is enough, unless there are backgrounds.
    """
    scale = None if backgrounds else partial(jpeg_scale, strength, size)
    return HairDataset(photos, train_transform(strength, size), backgrounds, scale)


class EpochSampler(Sampler):
    """The photos of an epoch; their order and augmentation seeds depend only on (seed, epoch).

    So no two workers or epochs repeat the same augmentation, and a run that is resumed within an epoch continues with
    the same photos. With several processes, each gets its own batches of this order, all the same number; photos that
    do not fill a batch for every process are left out.

    Attributes:
        epoch: counted from 0.
        start: number of photos of this process that are skipped at the beginning of the epoch.
    """

    def __init__(
        self, photos: PhotoSet | int, seed: int, batch_size: int = 1, rank: int = 0, world_size: int = 1
    ) -> None:
        """Args: the `photos`, or their number if there are no weights."""
        self.photos, self.length = photos, photos if isinstance(photos, int) else photos.drawn
        self.seed, self.epoch, self.start = seed, 0, 0
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.batches = self.length // (batch_size * world_size)

    def __len__(self) -> int:
        return self.batches * self.batch_size - self.start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = Generator().manual_seed(self.seed * 100_003 + self.epoch)
        if isinstance(self.photos, int):
            order = randperm(self.length, generator=generator)
        else:
            order = self.photos.draw(generator)
        seeds = randint(2**31, (self.length,), generator=generator)
        yield from zip(self._own_share(order), self._own_share(seeds), strict=True)

    def _own_share(self, values: Tensor) -> list[int]:
        """The values of this process, from `start` on: values are dealt to the processes batch by batch."""
        used = values[: self.batches * self.world_size * self.batch_size]
        return used.view(-1, self.world_size, self.batch_size)[:, self.rank].flatten()[self.start :].tolist()


class HairLoader(WorkerLoader):
    """Batches of a HairDataset."""

    dataset: HairDataset

    def go_to(self, epoch: int, batch: int) -> None:
        """Let the next iteration begin after `batch` batches of an epoch; for loaders with an EpochSampler."""
        assert isinstance(self.sampler, EpochSampler)
        self.sampler.epoch, self.sampler.start = epoch, batch * self.sampler.batch_size


def build_loader(
    dataset: HairDataset, batch_size: int, num_workers: int, seed: int | None = None, pin_memory: bool = False
) -> HairLoader:
    """A loader for training (with a seed: shuffled, last short batch dropped) or validation (without one).

    Each of several processes gets its share; in validation, every photo is used exactly once.
    """
    sampler = (
        range(rank(), len(dataset), world_size())
        if seed is None
        else EpochSampler(dataset.photos, seed, batch_size, rank(), world_size())
    )
    return HairLoader(
        dataset,
        batch_size,
        sampler=sampler,
        drop_last=seed is not None,  # batch normalisation cannot work with a last batch of one photo
        num_workers=num_workers,
        collate_fn=_collate,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=start_worker,
        generator=Generator(),  # its own, so that iterating does not change the global random state
    )


def _collate(samples: list[tuple[Tensor, Tensor, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """A batch in channels_last memory order, which OpenCV produces and networks read, so that nothing is transposed."""
    photos, masks, numbers = default_collate([(photo.permute(1, 2, 0), mask, i) for photo, mask, i in samples])
    return photos.permute(0, 3, 1, 2), masks, numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare-celeb", help="raw download of CelebAMask-HQ -> image/ and mask/")
    prepare.add_argument("dir", type=Path, help="the download")
    prepare.add_argument("--output_dir", type=Path, help="folder for image/ and mask/ (default: the download's own)")
    prepare.add_argument("--keep_hairless", action="store_true", help="keep photos without hair, with an empty mask")
    args = parser.parse_args()
    print(prepare_celeb(args.dir, args.output_dir, args.keep_hairless).to_string())


if __name__ == "__main__":
    run(main)
