"""The tools that make pictures for --backgrounds: what is taken, and what is not."""

import sys
import zipfile
from io import BytesIO
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from PIL import Image

from hair import errors
from hair.errors import UserError
from tests.pictures import one_line, small_disk
from tools import draw_tables, hard_backgrounds, make_backgrounds, make_sample, place_animals


def encoded(seed: int, kind: str = "JPEG") -> bytes:
    """A picture of coloured noise in blocks, 400 × 300, above the 40 kB under which files are icons."""
    rng = np.random.default_rng(seed)
    blocks = cv2.resize(rng.integers(0, 256, (30, 40, 3), np.uint8), (400, 300), interpolation=cv2.INTER_NEAREST)
    picture = Image.fromarray(cv2.add(blocks, rng.integers(0, 60, blocks.shape, np.uint8)))
    stream = BytesIO()
    picture.save(stream, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return stream.getvalue()


class SegmenterOfRed:
    """Takes red for hair."""

    threshold = 0.5

    def __init__(self, weights: Path, multi_scale: bool) -> None: ...

    def predict_batch(self, photos: list[np.ndarray]) -> list[np.ndarray]:
        return [(photo[..., 0] > 200).astype(np.float32) for photo in photos]


def call(monkeypatch: pytest.MonkeyPatch, script: ModuleType, *flags: object) -> None:
    """Run a tool with flags."""
    monkeypatch.setattr(sys, "argv", ["script", *map(str, flags)])
    script.main()


def make(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[np.ndarray]:
    """What the script finds in a folder, read back in order."""
    monkeypatch.setattr(make_backgrounds, "scikit_image_textures", list)
    output = folder.parent / "found"
    call(monkeypatch, make_backgrounds, "--input", folder, "--output_dir", output)
    return [cv2.imread(str(path)) for path in sorted(output.iterdir())]


def test_each_picture_once_and_no_screenshots(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, seed in (("a.jpg", 0), ("again.jpg", 0), ("b.jpg", 1), ("screenshot.jpg", 2), ("oak_specular.jpg", 3)):
        (folder / name).write_bytes(encoded(seed))
    (folder / "icon.jpg").write_bytes(encoded(4)[:1000])
    assert len(make(monkeypatch, folder)) == 2


def test_where_a_folder_lies_does_not_matter(tmp_path, monkeypatch):
    folder = tmp_path / "town" / "cartoon"
    (folder / "gui").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(encoded(0))
    (folder / "gui" / "button.jpg").write_bytes(encoded(1))
    karts = tmp_path / "supertuxkart" / "data"
    for part in ("models", "textures"):
        (karts / part).mkdir(parents=True)
        (karts / part / "b.jpg").write_bytes(encoded(2))
    assert make_backgrounds.find_files([folder, karts]) == [karts / "textures" / "b.jpg", folder / "a.jpg"]
    assert len(place_animals.find_animals([folder, folder / "a.jpg"])) == 3
    assert len(make(monkeypatch, folder)) == 1


def test_links_that_lead_nowhere_and_folders_named_as_pictures(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(0))
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "folder.jpg").mkdir()
    assert make_backgrounds.find_files([tmp_path]) == [tmp_path / "a.jpg"]
    assert place_animals.find_animals([tmp_path]) == [tmp_path / "a.jpg"]


def test_photos_that_lie_on_their_side_are_set_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    photo = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "pet.JPG", exif=exif)
    assert [picture.shape for _, picture in make_backgrounds.usable_pictures(tmp_path / "pet.JPG")] == [(300, 200, 3)]


def test_fur_and_wood_come_in_close_ups_too(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "wood.jpg").write_bytes(encoded(0))
    found = make(monkeypatch, folder)
    assert [picture.shape[:2] for picture in found] == [(300, 400), (200, 267), (150, 200)]


def test_pictures_inside_qt_resources_and_a_games_zip(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "photos.rcc").write_bytes(b"qres" + encoded(0) + encoded(1))
    with zipfile.ZipFile(folder / "public.zip", "w") as archive:
        ground = "art/textures/terrain/types/temperate/"
        archive.writestr(f"{ground}grass.png.cached.dds", encoded(2, "DDS"))
        archive.writestr(f"{ground}grass_norm.png.cached.dds", encoded(3, "DDS"))
        archive.writestr("art/textures/ui/session/portraits/king.png.cached.dds", encoded(4, "DDS"))
        archive.writestr("art/textures/skins/skeletal/animal_bear_brown.png.cached.dds", encoded(5, "DDS"))
    assert len(make(monkeypatch, folder)) == 2 + 1 + 3  # the bear in close-ups, too


def test_stamps_stand_on_grey_and_drawings_stay_out(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    picture = Image.open(BytesIO(encoded(0))).convert("RGBA")
    picture.putalpha(Image.new("L", picture.size))
    picture.save(folder / "invisible.png")
    picture.paste(Image.open(BytesIO(encoded(0))).crop((50, 40, 350, 240)), (50, 40))
    picture.save(folder / "stamp.png")
    thin = np.zeros((400, 400, 4), np.uint8)
    thin[:, 200, 3] = 255
    Image.fromarray(np.random.default_rng(0).integers(0, 256, thin.shape, np.uint8) & thin).save(folder / "thin.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (140, 400, 3), np.uint8)).save(folder / "low.png")
    stream = BytesIO()
    picture.save(stream, "WEBP", lossless=True)
    (folder / "drawings.rcc").write_bytes(b"qres" + stream.getvalue())
    (folder / "no.zip").write_bytes(encoded(2))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff" + encoded(3)[3000:])
    (folder / "empty.png").touch()
    for name in ("thin.png", "empty.png"):
        assert list(make_backgrounds.usable_pictures(folder / name)) == []
    found = make(monkeypatch, folder)
    assert [picture.shape for picture in found] == [(200, 300, 3)]  # what can be seen of the stamp
    expected = cv2.imdecode(np.frombuffer(encoded(0), np.uint8), cv2.IMREAD_COLOR)[40:240, 50:350]
    assert np.abs(found[0].astype(int) - expected).mean() < 10


def test_half_transparent_pixels_are_mixed_with_grey(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (200, 300, 4), np.uint8)
    picture[..., 3] = 204
    cv2.imwrite(str(tmp_path / "glass.png"), picture)
    (mixed,) = make_backgrounds.read_pictures(tmp_path / "glass.png")
    assert np.abs(mixed - (picture[..., :3] * 0.8 + 128 * 0.2)).max() <= 1


def test_textures_of_scikit_image_where_it_is_installed(monkeypatch):
    names = {path.stem for path in make_backgrounds.scikit_image_textures()}
    assert {"brick", "grass", "gravel"} <= names <= set(make_backgrounds.TEXTURES)
    for path in make_backgrounds.scikit_image_textures():  # many are grey
        assert [picture.shape[2] for picture in make_backgrounds.read_pictures(path)][:1] == [3], path.stem
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert make_backgrounds.scikit_image_textures() == []


def test_folders_without_pictures_leave_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    with pytest.raises(UserError, match="in: no such folder"):
        make(monkeypatch, folder)
    folder.mkdir()
    with pytest.raises(UserError, match="no usable pictures"):
        make(monkeypatch, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        (make_backgrounds, "--input in"),
        (draw_tables, "--backgrounds in"),
        (hard_backgrounds, "--backgrounds in --weights any"),
        (place_animals, "--backgrounds in --input in"),
    ],
)
def test_an_interrupted_script_leaves_no_folder(script, flags, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(encoded(0))

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "tqdm", interrupt)
    monkeypatch.setattr(hard_backgrounds, "HairSegmenter", SegmenterOfRed)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        call(monkeypatch, script, *flags.split(), "--output_dir", "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        (make_backgrounds, "--input in"),
        (draw_tables, "--backgrounds in --number 1"),
        (place_animals, "--backgrounds in --input in"),
        (make_sample, ""),
    ],
)
def test_a_full_disk_and_an_output_that_is_no_folder_are_one_line(script, flags, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(encoded(0))
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    for output in ("out", "file/out"):
        monkeypatch.setattr(sys, "argv", ["script", *flags.split(), "--output_dir", output])
        with small_disk(2000), pytest.raises(SystemExit) as stop:
            errors.run(script.main)
        one_line(stop, output.partition("/")[0])
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


@pytest.mark.parametrize("damage", ["sum", "picture"])
def test_broken_archives_are_named(damage, tmp_path):
    path, content = tmp_path / "public.zip", encoded(0, "DDS")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("art/textures/terrain/types/a.dds", content if damage == "sum" else content[4:])
    if damage == "sum":
        path.write_bytes(path.read_bytes().replace(content[500:600], bytes(100)))
    expected = r"public\.zip: art/.*/a\.dds in it cannot be read .*; download it again"
    with pytest.raises(UserError, match=expected) as error:
        list(make_backgrounds.read_pictures(path))
    assert "\n" not in str(error.value)


def test_hard_backgrounds_are_those_taken_for_hair(tmp_path, monkeypatch):
    monkeypatch.setattr(hard_backgrounds, "HairSegmenter", SegmenterOfRed)
    picture = np.zeros((200, 200, 3), np.uint8)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "black.png"), picture)
        dotted = picture.copy()
        dotted[100:110, 100:110, 2] = 255  # 0.25% of the picture, 1% of its middle
        cv2.imwrite(str(tmp_path / folder / "dotted.png"), dotted)
    flags = ["--weights", "any", "--backgrounds", tmp_path / "a", tmp_path / "b"]
    output = tmp_path / "hard"
    call(monkeypatch, hard_backgrounds, *flags, "--output_dir", output, "--least", 0.01)
    assert [path.resolve().name for path in sorted(output.iterdir())] == ["dotted.png"] * 2
    assert {path.resolve().parent.name for path in output.iterdir()} == {"a", "b"}
    with pytest.raises(UserError, match="already exists"):
        call(monkeypatch, hard_backgrounds, *flags, "--output_dir", output)
    cv2.imwrite(str(tmp_path / "a" / "low.png"), picture[:1])
    with pytest.raises(UserError, match=r"none of the 5 pictures .*try a lower value"):
        call(monkeypatch, hard_backgrounds, *flags, "--output_dir", tmp_path / "none", "--least", 0.9)
    assert not (tmp_path / "none").exists()


def test_hard_backgrounds_leave_nothing_without_photos_or_weights(tmp_path, monkeypatch):
    flags = ["--backgrounds", tmp_path, "--weights", "any", "--output_dir", tmp_path / "hard"]
    with pytest.raises(UserError, match="found no photos"):
        call(monkeypatch, hard_backgrounds, *flags)
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(FileNotFoundError):
        call(monkeypatch, hard_backgrounds, *flags)
    assert not (tmp_path / "hard").exists()


def test_tables_stand_in_the_backgrounds_and_differ(tmp_path, monkeypatch):
    rooms = tmp_path / "rooms"
    rooms.mkdir()
    cv2.imwrite(str(rooms / "green.png"), np.full((50, 70, 3), (0, 255, 0), np.uint8))
    output = tmp_path / "tables"
    flags = ["--backgrounds", rooms, "--output_dir", output, "--number", 8]
    call(monkeypatch, draw_tables, *flags)
    tables = np.stack([cv2.imread(str(path)) for path in sorted(output.iterdir())])
    assert tables.shape == (8, draw_tables.SIDE, draw_tables.SIDE, 3)
    blue, green, red = np.moveaxis(tables.astype(int), -1, 0)
    assert ((red > green + 10) & (green > blue)).mean((1, 2)).max() > 0.3  # wood
    assert ((green > 2 * red + 10) & (green > 2 * blue + 10)).any((1, 2)).sum() > 2  # the room
    assert len(np.unique(tables.mean((1, 2, 3)))) == 8
    with pytest.raises(UserError, match="already exists"):
        call(monkeypatch, draw_tables, *flags)


def test_animals_stand_before_the_backgrounds_and_photos_come_in_close_up(tmp_path, monkeypatch):
    animals, scenes, output = tmp_path / "animals", tmp_path / "scenes", tmp_path / "out"
    (animals / "cartoon").mkdir(parents=True)
    scenes.mkdir()
    cv2.imwrite(str(scenes / "green.png"), np.full((50, 70, 3), (0, 255, 0), np.uint8))
    red = np.zeros((600, 400, 4), np.uint8)
    red[100:500, 150:350] = 0, 0, 255, 255  # 200 wide, 400 high
    cv2.imwrite(str(animals / "cut-out.png"), red)
    cv2.imwrite(str(animals / "cartoon" / "drawn.png"), red)
    (tmp_path / "photo.jpg").write_bytes(encoded(0))
    flags = ["--backgrounds", scenes, "--output_dir", output]
    call(monkeypatch, place_animals, *flags, "--input", animals, tmp_path / "photo.jpg")
    found = [cv2.imread(str(path)) for path in sorted(output.iterdir())]
    side = place_animals.SIDE
    assert [picture.shape[:2] for picture in found] == [(side, side)] * 3 + [(300, 400), (200, 267), (150, 200)]
    shares = [(picture[..., 2] > 200).mean() for picture in found[:3]]
    assert np.allclose(shares, [0.8 * 0.4, 0.8, 1], atol=0.02)  # 0.8 high and 0.4 wide; 0.8 wide; all of it
    assert (found[0][: side // 10, :, 1] > 200).all()  # it stands on the lower edge


def test_inputs_without_animals_are_named(tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "green.png"), np.full((50, 70, 3), (0, 255, 0), np.uint8))
    flags = ["--backgrounds", tmp_path, "--output_dir", tmp_path / "new"]
    with pytest.raises(UserError, match="none: no such file or folder"):
        call(monkeypatch, place_animals, *flags, "--input", tmp_path / "none")
    with pytest.raises(UserError, match="no usable pictures"):
        call(monkeypatch, place_animals, *flags, "--input", tmp_path)
    assert not (tmp_path / "new").exists()
