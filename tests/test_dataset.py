"""Disk to (image, mask): both layouts, splits, augmentations, and what is said of broken files."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from make_sample import make_celeb
from torch.utils.data import DataLoader

import augment
import dataset
from utils import UserError


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A folder with image/ and mask/: 10 photos of 64×48, left half hair."""
    for number in range(10):
        write(tmp_path / "image" / f"{number}.png", np.full((48, 64, 3), 20 * number, np.uint8))
        mask = np.zeros((48, 64), np.uint8)
        mask[:, :32] = 255
        write(tmp_path / "mask" / f"{number}.png", mask)
    return tmp_path


def write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    assert cv2.imwrite(str(path), picture)


# ---------------------------------------------------------------------------------------------------- folders


def test_raw_celeb_leaves_out_bald_heads_and_brings_masks_to_the_photo_size(celeb: Path) -> None:
    index = dataset.open_folder(celeb)
    assert len(index) == 36
    assert [index.photo(i).name for i in (0, 8, 9)] == ["0.jpg", "8.jpg", "10.jpg"]  # by number, 9 is bald
    mask = index.mask(0, (128, 128))
    assert mask.shape == (128, 128)
    assert set(np.unique(mask)) == {0, 1}


def test_prepared_celeb_reads_like_the_raw_download(celeb: Path, tmp_path: Path) -> None:
    outcome = dataset.prepare_celeb(celeb, tmp_path)
    assert outcome.to_dict() == {"hair": 36, "no hair, left out": 4}
    raw, prepared = dataset.open_folder(celeb), dataset.open_folder(tmp_path)
    assert [raw.photo(i).name for i in range(36)] == [prepared.photo(i).name for i in range(36)]
    np.testing.assert_array_equal(raw.mask(5, (128, 128)), prepared.mask(5, (128, 128)))


def test_prepare_celeb_again_changes_nothing_and_can_keep_bald_heads(celeb: Path, tmp_path: Path) -> None:
    dataset.prepare_celeb(celeb, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    outcome = dataset.prepare_celeb(celeb, tmp_path, keep_hairless=True)
    assert outcome["no hair, empty mask"] == 4
    assert before.items() <= {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}.items()
    assert not dataset.read_mask(tmp_path / "mask" / "9.png", (128, 128)).any()


def test_prepare_celeb_leaves_out_photos_nobody_annotated_and_broken_ones(tmp_path: Path) -> None:
    make_celeb(tmp_path, photos=3)
    for part in ("hair", "skin"):
        (tmp_path / "CelebAMask-HQ-mask-anno" / "0" / f"00001_{part}.png").unlink()
    photo = tmp_path / "CelebA-HQ-img" / "2.jpg"
    photo.write_bytes(photo.read_bytes()[:500])
    outcome = dataset.prepare_celeb(tmp_path)
    assert outcome.to_dict() == {"hair": 1, "no annotation, left out": 1, "unreadable, left out": 1}
    assert [path.name for path in (tmp_path / "image").iterdir()] == ["0.jpg"]


def test_prepare_celeb_again_mends_what_keep_hairless_left(tmp_path: Path) -> None:
    make_celeb(tmp_path, photos=12)
    hair = tmp_path / "CelebAMask-HQ-mask-anno" / "0" / "00003_hair.png"
    whole = hair.read_bytes()
    hair.unlink()
    dataset.prepare_celeb(tmp_path, keep_hairless=True)
    hair.write_bytes(whole)
    write(tmp_path / "mask" / "5.png", np.full((64, 64), 255, np.uint8))  # a mask mended by hand is kept
    dataset.prepare_celeb(tmp_path)
    assert dataset.read_mask(tmp_path / "mask" / "3.png", (128, 128)).any()
    assert dataset.read_mask(tmp_path / "mask" / "5.png", (128, 128)).all()
    for folder in ("image", "mask"):
        assert sorted(int(path.stem) for path in (tmp_path / folder).iterdir()) == [*range(9), 10, 11]


def test_prepare_celeb_again_mends_broken_copies(celeb: Path, tmp_path: Path) -> None:
    dataset.prepare_celeb(celeb, tmp_path)
    for name in ("image/0.jpg", "mask/1.png"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()  # the download's own is linked
        (tmp_path / name).write_bytes(content[:-20])
    dataset.prepare_celeb(celeb, tmp_path)
    for row in range(2):
        dataset.open_folder(tmp_path).check(row)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0 1 1.jpg", *(f"{n} {n} {n}.jpg" for n in range(40))], "there twice"),
        (["0  ", "1 1 1.jpg"], "list every photo"),
    ],
)
def test_a_mapping_file_that_is_not_whole(celeb: Path, tmp_path: Path, lines: list[str], message: str) -> None:
    dataset.prepare_celeb(celeb, tmp_path)
    mapping = tmp_path / "CelebA-HQ-to-CelebA-mapping.txt"
    mapping.write_text("\n".join(["idx orig_idx orig_file", *lines]))
    with pytest.raises(UserError, match=message):
        dataset.open_folder(tmp_path).split(0, 3)


@pytest.mark.parametrize("photos", [0, 3])
def test_prepare_celeb_with_nothing_to_prepare_is_an_error(tmp_path: Path, photos: int) -> None:
    make_celeb(tmp_path, photos=photos)
    for path in (tmp_path / "CelebAMask-HQ-mask-anno").rglob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match="3 no annotation" if photos else "no photos"):
        dataset.prepare_celeb(tmp_path)
    assert not (tmp_path / "image").exists()


def test_jpeg_masks_and_masks_of_zero_and_one_are_read(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 1
    write(tmp_path / "one.png", mask)
    write(tmp_path / "lossy.jpg", mask * 255)
    for name in ("one.png", "lossy.jpg"):
        np.testing.assert_array_equal(dataset.read_mask(tmp_path / name, (64, 64)), mask)


def test_transparent_parts_of_a_mask_are_not_hair(tmp_path: Path) -> None:
    mask = np.full((64, 64, 4), 255, np.uint8)  # as painted on a layer of its own
    mask[:, :32, 3] = 0
    write(tmp_path / "layer.png", mask)
    np.testing.assert_array_equal(dataset.read_mask(tmp_path / "layer.png", (64, 64)), mask[..., 3] // 255)


def test_an_empty_mask_stays_empty_and_a_mask_of_other_proportions_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "empty.png", np.zeros((32, 32), np.uint8))
    assert not dataset.read_mask(tmp_path / "empty.png", (64, 64)).any()
    with pytest.raises(UserError, match=r"empty\.png: the mask is 32×32 but its photo 64×128"):
        dataset.read_mask(tmp_path / "empty.png", (128, 64))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "mask" / "3.png").unlink(), r"image/3\.png: has no mask"),
        (lambda root: (root / "image" / "3.png").unlink(), r"mask/3\.png: has no photo"),
        (lambda root: [path.unlink() for path in root.rglob("*.png")], "no photos in it"),
        (lambda root: (root / "mask").rename(root / "masks"), "has neither image/ and mask/ nor CelebA-HQ-img/"),
        (lambda root: write(root / "image" / "3.jpg", np.zeros((48, 64, 3), np.uint8)), "has the same name"),
    ],
)
def test_folders_that_cannot_be_read_are_named(pairs: Path, spoil, message: str) -> None:
    spoil(pairs)
    with pytest.raises(UserError, match=message):
        dataset.open_folder(pairs)


def test_missing_and_empty_folders_say_how_to_get_the_data(tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        for opener in (dataset.open_folder, dataset.open_korean):
            with pytest.raises(UserError, match=r"data/README\.md"):
                opener(folder)


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "text", "mask size"])
def test_one_broken_file_among_many_is_named_before_training(pairs: Path, damage: str) -> None:
    photos = dataset.PhotoSet([dataset.open_folder(pairs)], [np.arange(10)])
    photos.check()
    photo = pairs / "image" / "7.png"
    if damage == "mask size":
        write(pairs / "mask" / "7.png", np.zeros((64, 64), np.uint8))
    elif damage == "gone":
        photo.unlink()
    else:
        whole = photo.read_bytes()
        photo.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "text": b"not a photo"}[damage])
    with pytest.raises(UserError, match=r"7\.png"):
        photos.check()


def test_a_jpeg_cut_off_is_found_and_one_with_a_tail_is_fine(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    path = tmp_path / "photo.jpg"
    write(path, noise)
    whole = path.read_bytes()
    path.write_bytes(whole + b"maker's notes")
    assert dataset.check_picture(path) == (64, 80)
    path.write_bytes(whole[:-300])
    with pytest.raises(UserError, match=r"photo\.jpg: not a whole picture"):
        dataset.check_picture(path)


def test_lying_photos_are_read_upright(tmp_path: Path) -> None:
    from PIL import Image

    picture = Image.new("RGB", (40, 20), "red")
    exif = picture.getexif()
    exif[274] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert dataset.read_image(tmp_path / "turned.jpg").shape == (40, 20, 3)
    assert dataset.check_picture(tmp_path / "turned.jpg") == (40, 20)


# ---------------------------------------------------------------------------------------------------- splits


def test_folds_are_apart_and_cover_everything(pairs: Path) -> None:
    index = dataset.open_folder(pairs)
    folds = [index.split(fold, 5) for fold in range(5)]
    for parts in folds:
        assert not set(parts["train"]) & set(parts["valid"])
        assert len(parts["train"]) == 8
    assert sorted(np.concatenate([parts["valid"] for parts in folds])) == list(range(10))


def test_celeb_follows_the_official_partition_where_the_mapping_is_there(tmp_path: Path) -> None:
    make_celeb(tmp_path, photos=9)
    lines = ["idx orig_idx orig_file"]
    # The borders of CelebA's parts: the last of one and the first of the next.
    originals = [5, 162_770, 162_771, 182_637, 182_638, 202_598, 1, 2, 3]
    lines += [f"{number} {original} {original + 1:06d}.jpg" for number, original in enumerate(originals)]
    (tmp_path / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(lines))
    parts = dataset.open_folder(tmp_path).split(fold=0, n_folds=5)
    assert {name: rows.tolist() for name, rows in parts.items()} == {
        "train": [0, 1, 6, 7, 8],
        "valid": [2, 3],
        "test": [4, 5],
    }
    (tmp_path / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(line for line in lines if "2637" not in line))
    for path in (tmp_path / "CelebAMask-HQ-mask-anno" / "0").glob("0000[23]_*"):
        path.unlink()
    with pytest.raises(UserError, match="5 photos to train on and 0 to validate on"):
        dataset.split([dataset.open_folder(tmp_path)], fold=0, n_folds=5)


def test_no_person_is_on_both_sides_of_a_korean_split(korean: Path) -> None:
    index = dataset.open_korean(korean)
    source = index.labels()["source"].to_numpy()
    for fold in range(3):
        parts = index.split(fold, 3)
        assert not set(source[parts["train"]]) & set(source[parts["valid"]])
        assert len(parts["train"]) + len(parts["valid"]) == len(index) == 36


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


# ---------------------------------------------------------------------------------------------------- transforms


@pytest.mark.parametrize("strength", ["none", "light", "heavy"])
def test_augmentations_keep_the_mask_on_the_photo(strength: str) -> None:
    """Where the photo is white the mask is 1: after any geometry the two still agree."""
    image = np.zeros((96, 128, 3), np.uint8)
    cv2.circle(image, (70, 50), 30, (255, 255, 255), -1)
    transform = augment.train_transform(strength, 64)
    overlaps = []
    for seed in range(30):
        transform.set_random_seed(seed)
        out = transform(image=image, mask=(image[..., 0] > 0).astype(np.uint8))
        assert out["image"].shape == (3, 64, 64)
        assert out["mask"].shape == (64, 64)
        assert set(out["mask"].unique().tolist()) <= {0, 1}
        photo = out["image"].float()
        bright, hair = photo.mean(0) > photo.mean(), out["mask"] > 0
        overlaps.append(((bright & hair).sum() + 1) / ((bright | hair).sum() + 1))
    assert np.median(overlaps) > 0.9


def test_paste_puts_photo_and_mask_at_the_same_place() -> None:
    rng = np.random.default_rng(0)
    image, mask = np.full((60, 40, 3), 255, np.uint8), np.ones((60, 40), np.uint8)
    canvas, empty = np.zeros((100, 200, 3), np.uint8), np.zeros((100, 200), np.uint8)
    for _ in range(20):
        out, out_mask = augment.paste(image, mask, canvas, empty, rng)
        np.testing.assert_array_equal(out[..., 0] > 0, out_mask > 0)
        assert 100 / 8 - 1 <= np.flatnonzero(out_mask.any(1)).size <= 100 * 2 / 3 + 1
    assert not canvas.any()
    for low in (canvas[:3], canvas[:, :1]):
        assert augment.paste(image, mask, low, empty[: low.shape[0], : low.shape[1]], rng)[0].shape == low.shape


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_come_in_channels_last(celeb: Path, num_workers: int) -> None:
    photos = dataset.split([dataset.open_folder(celeb)], 0, 5)[1]
    data = dataset.HairDataset(photos, augment.eval_transform(64))
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
    data = dataset.HairDataset(photos, augment.train_transform("heavy", 32))
    loader = dataset.build_loader(data, batch_size=2, num_workers=num_workers, seed=1)
    first = loaded(loader)
    loader.sampler.epoch = 1
    second = loaded(loader)
    seen = {tuple(image.flatten().tolist()) for image in first + second}
    assert len(seen) >= 12  # a few draw no change at all; workers or epochs that repeat would leave 8 or fewer
    again = loaded(dataset.build_loader(data, batch_size=2, num_workers=0, seed=1))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_the_sampler_goes_on_where_it_stopped() -> None:
    sampler = dataset.EpochSampler(10, seed=3)
    whole = list(sampler)
    sampler.start = 6
    assert list(sampler) == whole[6:]
    assert len(sampler) == 4
    assert sorted(i for i, _ in whole) == list(range(10))
    assert len(list(dataset.EpochSampler(10, seed=2**32 - 1))) == 10


def test_backgrounds_stand_alone_at_times_and_never_bring_hair(celeb: Path, tmp_path: Path) -> None:
    write(tmp_path / "wall.png", np.full((64, 64, 3), 90, np.uint8))
    photos = dataset.PhotoSet([dataset.open_folder(celeb)], [np.arange(36)])
    transform = augment.train_transform("none", 64)
    plain = dataset.HairDataset(photos, transform)
    pasted = dataset.HairDataset(photos, transform, dataset.open_backgrounds([str(tmp_path)]))
    shares = np.array([[data[(0, seed)][1].float().mean() for seed in range(60)] for data in (plain, pasted)])
    assert np.ptp(shares[0]) == 0
    assert (shares[1] == 0).any()
    assert ((shares[1] > 0) & (shares[1] < 0.5 * shares[0])).any()
    with pytest.raises(UserError, match="found no photos"):
        dataset.open_backgrounds([str(tmp_path / "nowhere")])
    write(tmp_path / "wall.jpg", np.full((64, 64, 3), 90, np.uint8))  # unlike photos, they need no name of their own
    assert len(dataset.open_backgrounds([str(tmp_path)])) == 2
    (tmp_path / "wall.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserError, match=r"wall\.jpg: .*replace or remove it"):
        dataset.open_backgrounds([str(tmp_path)])


def test_a_hat_covers_hair_from_above() -> None:
    image, mask = np.full((120, 160, 3), 90, np.uint8), np.zeros((120, 160), np.uint8)
    cv2.ellipse(mask, (80, 60), (40, 50), 0, 0, 360, 1, -1)
    cv2.ellipse(mask, (80, 75), (22, 30), 0, 0, 360, 0, -1)  # the face
    fabric = np.full((40, 50, 3), 200, np.uint8)
    for seed in range(20):
        out, out_mask = augment.put_hat(image, mask, fabric, np.random.default_rng(seed))
        covered = (mask > 0) & (out_mask == 0)
        assert covered.any() and out_mask.any()
        assert not (out_mask & ~mask).any()  # a hat adds no hair
        assert np.nonzero(covered)[0].mean() < np.nonzero(out_mask)[0].mean()
        below = np.nonzero((out != image).any(2))[0].max() + 1
        np.testing.assert_array_equal(out[below:], image[below:])
    bald = np.zeros_like(mask)
    assert augment.put_hat(image, bald, fabric, np.random.default_rng(0))[0] is image
