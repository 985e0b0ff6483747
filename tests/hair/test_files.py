"""Files are written whole or not at all, and no result takes the place of an input or of another result."""

import errno
import io
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from hair import UserError, files
from hair.errors import run
from hair.files import (
    STANDARD_INPUT,
    atomic,
    encode_picture,
    folders_below,
    new_folder,
    result_names,
    results_among,
    write_bytes,
    write_json,
    write_png,
)
from tests.pictures import become_nobody, one_line, small_disk

LONGEST = 255  # bytes of a file's name, in most file systems


def test_atomic_leaves_the_old_file_when_the_block_fails(tmp_path: Path) -> None:
    target = tmp_path / "log.csv"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic(target) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    with atomic(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError, OSError(errno.ENOSPC, "No space left on device")])
def test_whatever_ends_the_block_leaves_no_temporary_file(tmp_path: Path, stop: BaseException | type) -> None:
    for target in (tmp_path / "file", tmp_path / "folder"):
        with pytest.raises((KeyboardInterrupt, MemoryError, OSError)), atomic(target) as temporary:
            if target.name == "folder":
                temporary.mkdir()
                temporary /= "part"
            temporary.write_text("half")
            raise stop
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("letter", ["a", "머", "é"])
@pytest.mark.parametrize("length", [250, LONGEST])
def test_atomic_takes_names_as_long_as_file_systems_do(tmp_path: Path, letter: str, length: int) -> None:
    count, rest = divmod(length, len(letter.encode()))
    target = tmp_path / (letter * count + "x" * rest)
    assert len(target.name.encode()) == length
    write_bytes(target, b"old")
    write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_name_that_is_too_long_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / ("a" * (LONGEST + 1))
    with pytest.raises(OSError) as error:
        write_bytes(target, b"new")
    assert error.value.errno == errno.ENAMETOOLONG and error.value.filename == str(target)
    assert list(tmp_path.iterdir()) == []


def test_the_error_of_a_full_disk_names_the_file(tmp_path: Path) -> None:
    target = tmp_path / "mask.png"
    write_bytes(target, b"old")
    with small_disk(1000), pytest.raises(OSError) as error:
        write_bytes(target, bytes(5000))
    assert str(error.value).endswith(f": '{target}'")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_of_another_file_in_the_block_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"), atomic(tmp_path / "copy.jpg") as temporary:
        temporary.write_bytes((tmp_path / "gone.jpg").read_bytes())
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_is_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "mask.png").mkdir()
    with pytest.raises(OSError) as error:
        write_bytes(tmp_path / "mask.png", b"new")
    assert error.value.filename == str(tmp_path / "mask.png") and error.value.filename2 is None
    assert list(tmp_path.iterdir()) == [tmp_path / "mask.png"]


def test_a_folder_without_permission_is_one_line_that_names_the_file(nobody: Path) -> None:
    (nobody / "locked").mkdir()
    (nobody / "locked").chmod(0o555)
    become_nobody()
    for write in (lambda path: write_json(path, {}), lambda path: write_bytes(path, b"new")):
        with pytest.raises(SystemExit) as stop:
            run(lambda write=write: write(nobody / "locked" / "scores.json"))
        one_line(stop, nobody / "locked" / "scores.json", "Permission denied")


def test_two_that_write_the_same_result_do_not_meet(tmp_path: Path) -> None:
    """As two runs of inference.py on the same photos do."""
    errors, data = [], [bytes([i]) * 50_000 for i in range(4)]

    def write_often(mine: bytes) -> None:
        try:
            for _ in range(60):
                write_bytes(tmp_path / "mask.png", mine)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write_often, args=(mine,)) for mine in data]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and (tmp_path / "mask.png").read_bytes() in data
    assert [path.name for path in tmp_path.iterdir()] == ["mask.png"]


def test_a_new_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "made"
    with pytest.raises(RuntimeError), new_folder(target) as folder:
        (folder / "a").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with new_folder(target) as folder:
        (folder / "a").touch()
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["a"]
    with pytest.raises(UserError, match="made: already exists; remove it"), new_folder(target):
        pytest.fail("it was let in")
    assert [path.name for path in target.iterdir()] == ["a"]


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (1, 9, 3), (40, 31, 3), (6, 8, 4)])
def test_a_png_is_to_others_what_was_written(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for picture in (image, image[::-1, ::-1], np.zeros_like(image)):
        write_png(tmp_path / "머리.png", picture)
        with Image.open(tmp_path / "머리.png") as read:
            read.verify()  # its check sums, too
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "머리.png")), picture)
        assert cv2.imdecode(np.fromfile(tmp_path / "머리.png", np.uint8), cv2.IMREAD_UNCHANGED).shape == shape


@pytest.fixture
def picture() -> np.ndarray:
    """Smooth colours with a thin saturated line, as an overlay has."""
    y, x = np.mgrid[:90, :120]
    picture = np.dstack([x * 2, y * 2, 255 - x * 2]).astype(np.uint8)
    picture[40:42] = (255, 0, 110)
    return picture


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_jpeg_and_webp_are_small_and_close(picture: np.ndarray, suffix: str) -> None:
    sizes = []
    for quality, error in ((30, 15), (92, 5)):
        data = encode_picture(picture, suffix, quality)
        stored = Image.open(io.BytesIO(data))
        assert stored.format == {".jpg": "JPEG", ".webp": "WEBP"}[suffix] and stored.mode == "RGB"
        assert np.abs(np.asarray(stored).astype(int) - picture).mean() < error
        sizes.append(len(data))
    assert sizes[0] < sizes[1] < picture.size / 3
    assert encode_picture(picture, suffix) == data, "92 is the default"


def test_jpeg_keeps_the_colour_of_thin_lines(picture: np.ndarray) -> None:
    stored = np.asarray(Image.open(io.BytesIO(encode_picture(picture, ".jpg"))))
    assert np.abs(stored[40:42].astype(int) - picture[40:42]).mean() < 12, "colours lost resolution"


def test_webp_keeps_transparency(picture: np.ndarray) -> None:
    clear = np.dstack([picture, np.arange(90 * 120).reshape(90, 120).astype(np.uint8)])
    stored = np.asarray(Image.open(io.BytesIO(encode_picture(clear, ".webp"))))
    assert np.array_equal(stored[..., 3], clear[..., 3])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_exif_is_put_into_a_picture_without_changing_its_pixels(picture: np.ndarray, suffix: str) -> None:
    exif = Image.Exif()
    exif[271] = "Maker"
    tiff = exif.tobytes().removeprefix(b"Exif\0\0")
    plain, tagged = (encode_picture(picture, suffix, exif=data) for data in (b"", tiff))
    stored = Image.open(io.BytesIO(tagged))
    assert dict(stored.getexif()) == {271: "Maker"} and not Image.open(io.BytesIO(plain)).getexif()
    assert np.array_equal(np.asarray(stored), np.asarray(Image.open(io.BytesIO(plain))))
    assert np.array_equal(cv2.imdecode(np.frombuffer(tagged, np.uint8), 1)[..., ::-1], np.asarray(stored))


@pytest.mark.parametrize(("suffix", "length"), [(".webp", 16_383), (".jpg", 65_500)])
def test_a_picture_too_large_for_its_format_is_one_line(suffix: str, length: int) -> None:
    picture = np.zeros((1, length + 1, 3), np.uint8)
    with pytest.raises(UserError, match=rf"{suffix}.* {length} .*--format png"):
        encode_picture(picture, suffix)
    assert encode_picture(picture[:, :length], suffix)


# ---------------------------------------------------------------------------------------------------- names


def test_result_names_take_no_input_and_no_other_result(tmp_path: Path) -> None:
    inputs = [tmp_path / "x" / "me.jpg", tmp_path / "y" / "me.png", tmp_path / "Me.jpg", tmp_path / "me-2.jpg"]
    names = result_names(inputs, tmp_path, ["_mask.png"])
    assert [name.name.casefold() for name in names] == ["me", "me-2", "me-3", "me-2-2"]
    inputs = [tmp_path / "me.jpg", tmp_path / "me_mask.png"]
    assert result_names(inputs, tmp_path, ["_mask.png"])[0].name == "me-2"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "me_mask.png").symlink_to(tmp_path / "you.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "out" / "you_mask.png")
    inputs = [tmp_path / "me.jpg", tmp_path / "you.jpg", tmp_path / "out" / "me_mask.png", tmp_path / "link.png"]
    names = result_names(inputs, tmp_path / "out", ["_mask.png"])
    assert [name.name for name in names] == ["me-2", "you-2", "me_mask", "link"]


def test_many_photos_of_one_name_are_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up, real = [], files.os.path.realpath

    def realpath(path: Path) -> str:
        looked_up.append(path)
        return real(path)

    monkeypatch.setattr(files.os.path, "realpath", realpath)
    inputs = [tmp_path / str(number) / "front.jpg" for number in range(50)]
    assert result_names(inputs, tmp_path, ["_mask.png"])[-1].name == "front-50"
    assert len(inputs) <= len(looked_up) < 4 * len(inputs)


def test_results_are_kept_in_folders_and_only_there_get_numbers(tmp_path: Path) -> None:
    inputs = [tmp_path / folder / name for folder, name in (("a", "1.jpg"), ("b", "1.jpg"), ("a", "1.png"))]
    folders = [path.relative_to(tmp_path).parent for path in inputs]
    names = result_names(inputs, tmp_path / "out", ["_mask.png"], folders)
    assert [name.relative_to(tmp_path / "out").as_posix() for name in names] == ["a/1", "b/1", "a/1-2"]
    (beside,) = result_names([tmp_path / "a" / "1.jpg"], tmp_path, [".jpg"], [Path("a")])
    assert beside == tmp_path / "a" / "1-2", "no result replaces an input, in a folder either"
    assert result_names([STANDARD_INPUT], tmp_path, ["_mask.png"]) == [tmp_path / "stdin"]


def test_folders_below_what_was_named(tmp_path: Path) -> None:
    for folder in ("a/b", "c"):
        (tmp_path / folder).mkdir(parents=True)
    files = [tmp_path / name for name in ("1.jpg", "a/2.jpg", "a/b/3.jpg", "c/4.jpg")]

    def below(*inputs: str) -> list[str]:
        return [folder.as_posix() for folder in folders_below(files, [tmp_path / name for name in inputs])]

    assert below(".") == below("*") == below("**/*.jpg") == [".", "a", "a/b", "c"]
    assert below("a", "c") == [".", ".", "b", "."]
    assert below("a", ".") == [".", ".", "b", "c"], "the input that comes first has found the file"
    assert below(".", "a/b/3.jpg") == [".", "a", ".", "c"], "files that are named lie flat"
    assert folders_below([tmp_path / "x" / ".." / "1.jpg"], [tmp_path / "*" / ".." / "1.jpg"]) == [Path()]
    assert folders_below([Path("a/2.jpg"), Path("1.jpg")], [Path()]) == [Path("a"), Path()]


def test_results_beside_their_photos_are_known(tmp_path: Path) -> None:
    endings = ["_mask.png", "_overlay.jpg"]
    mine = [tmp_path / name for name in ("me.jpg", "me-2.jpg", "you_mask.png", "me_mask.jpg", "_mask.png")]
    made = [tmp_path / name for name in ("me_mask.png", "ME_overlay.JPG", "me-3_mask.png", "me_mask_mask.png")]
    elsewhere = tmp_path / "x" / "me_mask.png"
    names = dict.fromkeys([*mine, *made, elsewhere])
    names = dict.fromkeys(names, tmp_path / "any")
    assert results_among(names, endings) == set(made)
