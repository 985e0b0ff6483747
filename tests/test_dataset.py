"""Sets of photos, their splits and their loaders, and what is said of broken files and killed processes."""

import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import dataset
from hair.errors import UserError, run
from hair.pixels import turn
from tests.pictures import GOOD, one_line, write, write_picture
from training.augment import eval_transform, train_transform
from training.folders import FolderIndex
from training.workers import worker_errors

# ---------------------------------------------------------------------------------------------------- sets of photos


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "text", "mask size"])
def test_one_broken_file_among_many_is_named_before_training(pairs: Path, damage: str) -> None:
    photos = dataset.PhotoSet([dataset.open_folder(pairs)], [np.arange(10)])
    photos.check()
    photo = pairs / "image" / "7.png"
    if damage == "mask size":
        write_picture(pairs / "mask" / "7.png", np.zeros((64, 64), np.uint8))
    elif damage == "gone":
        photo.unlink()
    else:
        whole = photo.read_bytes()
        photo.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "text": b"not a photo"}[damage])
    with pytest.raises(UserError, match=r"7\.png"):
        photos.check()


def test_several_folders_make_one_set_and_limit_keeps_their_shares(pairs: Path, korean: Path) -> None:
    indexes = [dataset.open_data(pairs), dataset.open_data(korean)]
    train, valid = dataset.split(indexes, fold=0, n_folds=5)
    assert len(train) + len(valid) == 46
    assert {train.path(i).suffix for i in range(len(train))} == {".png", ".jpg"}
    image, mask = train.load(len(train) - 1)
    assert image.shape == (128, 128, 3)
    assert mask.shape == (128, 128)
    fewer = sum(map(len, dataset.split(indexes, fold=0, n_folds=5, limit=23)))
    assert 20 <= fewer <= 26


# ---------------------------------------------------------------------------------------------------- loading


def save_jpegs(root: Path, size: tuple[int, int]) -> dataset.PhotoSet:
    """A head of hair at each of EXIF's turns, as JPEGs of `size` (height, width) with masks of the upright size."""
    height, width = size
    hair = np.zeros(size, np.uint8)
    cv2.ellipse(hair, (width // 3, height // 2), (width // 5, height // 4), 20, 0, 360, 255, -1)
    for number in range(1, 9):
        turned = turn(hair, number)
        exif = Image.Exif()
        exif[0x0112] = number
        for folder, picture, options in (("image", hair, {"exif": exif, "quality": 95}), ("mask", turned, {})):
            path = root / folder / f"{number}.{'jpg' if options else 'png'}"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(picture).save(path, **options)
    return dataset.PhotoSet([dataset.open_folder(root)], [np.arange(8)])


@pytest.mark.parametrize(("size", "scale"), [((96, 128), 2), ((192, 256), 4), ((95, 128), 1), ((60, 80), 1)])
def test_masks_fit_jpegs_that_are_decoded_at_a_part_of_their_size(
    tmp_path: Path, size: tuple[int, int], scale: int
) -> None:
    photos = save_jpegs(tmp_path, size)
    data = dataset.training_set(photos, "none", 64)
    validation = dataset.HairDataset(photos, eval_transform(64))
    for i in range(8):
        image, mask = photos.load(i, data.jpeg_scale)
        assert (max(size) // scale, min(size) // scale) == (max(image.shape[:2]), min(image.shape[:2]))
        assert mask.shape == image.shape[:2]
        bright, hair = image[..., 0] > 127, mask > 0
        assert hair.any() and (bright != hair).sum() < 0.06 * hair.sum()  # a mask one pixel off gives 0.07 and more
        (small, small_mask, _), (whole, whole_mask, _) = data[(i, 0)], validation[i]
        assert torch.equal(small_mask, whole_mask)
        assert (small.float() - whole.float()).abs().mean() < 2


def test_only_photos_to_train_on_that_are_not_composed_are_decoded_at_a_part_of_their_size(tmp_path: Path) -> None:
    photos = save_jpegs(tmp_path, (96, 128))
    assert photos.load(0)[0].shape == (96, 128, 3)
    assert dataset.training_set(photos, "light", 64, [tmp_path / "image" / "1.jpg"]).jpeg_scale is None


def test_polygons_fit_photos_that_are_decoded_at_a_part_of_their_size(korean: Path) -> None:
    photos = dataset.split([dataset.open_korean(korean)], 0, 5)[0]
    data = dataset.training_set(photos, "light", 64)
    for i in range(5):
        image, mask = photos.load(i, data.jpeg_scale)
        assert image.shape == (64, 64, 3)
        assert (mask == photos.load(i)[1][1::2, 1::2]).all() and mask.any()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_come_in_channels_last(celeb: Path, num_workers: int) -> None:
    photos = dataset.split([dataset.open_folder(celeb)], 0, 5)[1]
    data = dataset.HairDataset(photos, eval_transform(64))
    images, masks, numbers = next(iter(dataset.build_loader(data, 3, num_workers)))
    assert images.is_contiguous(memory_format=torch.channels_last) and masks.shape == (3, 1, 64, 64)
    for k, i in enumerate(numbers.tolist()):
        assert torch.equal(images[k], data[i][0]) and torch.equal(masks[k], data[i][1])


def loaded(loader: DataLoader) -> list[torch.Tensor]:
    return [image for images, _, _ in loader for image in images]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_augmentations_differ_between_workers_and_epochs_and_follow_the_seed(celeb: Path, num_workers: int) -> None:
    index = dataset.open_folder(celeb)
    photos = dataset.PhotoSet([index], [np.zeros(8, int)])  # the same photo eight times
    data = dataset.HairDataset(photos, train_transform("heavy", 32))
    loader = dataset.build_loader(data, batch_size=2, num_workers=num_workers, seed=1)
    first = loaded(loader)
    loader.sampler.epoch = 1
    second = loaded(loader)
    seen = {tuple(image.flatten().tolist()) for image in first + second}
    assert len(seen) >= 12  # a few draw no change at all; workers or epochs that repeat would leave 8 or fewer
    again = loaded(dataset.build_loader(data, batch_size=2, num_workers=0, seed=1))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_the_sampler_continues_where_it_stopped() -> None:
    sampler = dataset.EpochSampler(10, seed=3)
    whole = list(sampler)
    sampler.start = 6
    assert list(sampler) == whole[6:]
    assert len(sampler) == 4
    assert sorted(i for i, _ in whole) == list(range(10))
    assert len(list(dataset.EpochSampler(10, seed=2**32 - 1))) == 10


def test_shares_of_processes_make_up_the_order_of_one() -> None:
    one = dataset.EpochSampler(23, seed=1, batch_size=2)
    shares = [list(dataset.EpochSampler(23, seed=1, batch_size=2, rank=rank, world_size=2)) for rank in range(2)]
    dealt = [photo for i in range(0, 10, 2) for share in shares for photo in share[i : i + 2]]
    assert dealt == list(one)[:20] and all(len(share) == 10 for share in shares)
    whole, one.start = list(one), 6
    assert list(one) == whole[6:] and len(one) == 16


def test_backgrounds_stand_alone_at_times_and_never_bring_hair(celeb: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "wall.png", np.full((64, 64, 3), 90, np.uint8))
    photos = dataset.PhotoSet([dataset.open_folder(celeb)], [np.arange(36)])
    transform = train_transform("none", 64)
    plain = dataset.HairDataset(photos, transform)
    pasted = dataset.HairDataset(photos, transform, dataset.open_backgrounds([str(tmp_path)]))
    shares = np.array([[data[(0, seed)][1].float().mean() for seed in range(60)] for data in (plain, pasted)])
    assert np.ptp(shares[0]) == 0
    assert (shares[1] == 0).any()
    assert ((shares[1] > 0) & (shares[1] < 0.5 * shares[0])).any()
    with pytest.raises(UserError, match="found no photos"):
        dataset.open_backgrounds([str(tmp_path / "nowhere")])
    write_picture(
        tmp_path / "wall.jpg", np.full((64, 64, 3), 90, np.uint8)
    )  # unlike photos, they need no name of their own
    assert len(dataset.open_backgrounds([str(tmp_path)])) == 2
    (tmp_path / "wall.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserError, match=r"wall\.jpg: .*replace or remove it"):
        dataset.open_backgrounds([str(tmp_path)])


def test_a_crowd_has_the_hair_of_several_people(celeb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_picture(tmp_path / "wall.png", np.full((128, 256, 3), 90, np.uint8))
    photos = dataset.PhotoSet([dataset.open_folder(celeb)], [np.arange(36)])
    monkeypatch.setattr(dataset, "choose_composition", lambda _: "crowd")
    data = dataset.HairDataset(photos, train_transform("none", 256), dataset.open_backgrounds([str(tmp_path)]))
    heads = [cv2.connectedComponents(data[(0, seed)][1][0].numpy())[0] - 1 for seed in range(30)]
    assert max(heads) >= 3 and np.median(heads) >= 2


# ---------------------------------------------------------------------------------------------------- loading processes


def kill(**_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def load_all(photos: dataset.PhotoSet) -> None:
    """Load photos in another process, which is killed if one can be read."""
    data = dataset.HairDataset(photos, kill)
    with worker_errors():
        list(dataset.build_loader(data, 2, num_workers=1))


def test_a_killed_worker_is_one_line(celeb: Path) -> None:
    photos = dataset.PhotoSet([dataset.open_folder(celeb)], [np.arange(4)])
    with pytest.raises(SystemExit) as stop:
        run(lambda: load_all(photos))
    one_line(stop, "killed", "--num_workers")


def test_a_photo_that_a_worker_cannot_read_is_one_line(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": b"no photo", "a.png": GOOD["bilevel.png"]})
    photos = dataset.PhotoSet([FolderIndex(tmp_path, ["a.jpg"] * 4, ["a.png"] * 4)], [np.arange(4)])
    with pytest.raises(SystemExit) as stop:
        run(lambda: load_all(photos))
    one_line(stop, tmp_path / "a.jpg", "cannot be read")
    assert stop.value.code.startswith(f"error: {tmp_path}")


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ValueError("a bug"), UserError("a.jpg: no such file")])
def test_other_errors_are_left_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, worker_errors():
        raise error
    assert caught.value is error
