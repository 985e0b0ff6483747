"""Cut-outs with strands and without a rim, before any background; refined edges. All photos are drawn."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import hair.cli
import hair.cutout
import hair.opacity
import hair.refine
import hair.strips
from benchmarks.cutout import Composed, draw_photo, simulate_network
from hair.cutout import cut_out, estimate_foreground, place_on, read_background
from hair.dye import Dye
from hair.effects import Looks, draw
from hair.errors import UserError
from hair.opacity import STRANDS_EDGE, hair_opacity, soft_edge, strand_reach
from hair.refine import refine_edges

THRESHOLD = 0.5
ONE_PIXEL = np.full((1, 1, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def photos() -> list[tuple[Composed, np.ndarray]]:
    """Photos whose hair's colour and opacity are known, with what a network would find."""
    rng = np.random.default_rng(3)
    composed = [draw_photo(rng, 320) for _ in range(4)]
    return [(photo, simulate_network(photo.opacity)) for photo in composed]


@pytest.fixture
def small_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (hair.cutout, hair.opacity, hair.refine):
        monkeypatch.setattr(module, "SMALL_STRIP", 320 * 7)


def color_error(composed: Composed, found: np.ndarray) -> float:
    """Mean error of the hair's colour where the hair is half transparent, by its true opacity."""
    weight = composed.opacity * (composed.opacity < 1)
    return float((cv2.absdiff(found, composed.hair).mean(2) * weight).sum() / weight.sum())


def opacity_error(composed: Composed, opacity: np.ndarray) -> float:
    return float(np.abs(opacity / 255 - composed.opacity).mean())


# ---------------------------------------------------------------------------------------------------- opacity, colour


def test_edges_have_the_hairs_own_color(photos: list) -> None:
    plain = known = own = 0.0
    for composed, probabilities in photos:
        plain += color_error(composed, composed.photo)
        opacity = (composed.opacity * 255).round().astype(np.uint8)
        known += color_error(composed, estimate_foreground(composed.photo, opacity))
        own += color_error(composed, cut_out(composed.photo, probabilities, THRESHOLD)[..., :3])
    assert known < 0.25 * plain and own < 0.35 * plain


def test_opacity_shows_strands(photos: list) -> None:
    before = after = 0.0
    for composed, probabilities in photos:
        before += opacity_error(composed, soft_edge(probabilities, THRESHOLD))
        after += opacity_error(composed, hair_opacity(composed.photo, probabilities, THRESHOLD))
    assert after < 0.7 * before


def test_sure_hair_stays_bit_for_bit_and_no_background_bleeds(photos: list) -> None:
    composed, probabilities = photos[0]
    cut = cut_out(composed.photo, probabilities, THRESHOLD)
    sure, none = cut[..., 3] == 255, cut[..., 3] == 0
    assert sure.mean() > 0.15 and none.mean() > 0.4
    np.testing.assert_array_equal(cut[sure][:, :3], composed.photo[sure])
    assert cv2.absdiff(cut[..., :3], composed.hair)[none].mean() < 20  # the hair's colour, which spreads outwards
    assert len(np.unique(cut[none][:, :3], axis=0)) < 0.1 * np.count_nonzero(none)  # in squares that compress well


def test_opacity_follows_probabilities_where_the_photo_shows_nothing(photos: list) -> None:
    probabilities = np.tile(np.linspace(0, 1, 96, dtype=np.float32), (96, 1))
    opacity = hair_opacity(np.full((96, 96, 3), 120, np.uint8), probabilities, 0.7)[48].astype(int)
    assert opacity[0] == 0 and opacity[-1] == 255 and (np.diff(opacity) >= 0).all()
    assert abs(np.interp(0.7, probabilities[0], opacity) - 127.5) < 5
    assert abs(np.interp(0.7, probabilities[0], soft_edge(probabilities, 0.7)[0]) - 127.5) < 5
    found = photos[0][1]
    dark = np.random.default_rng(0).integers(0, 4, (*found.shape, 3), dtype=np.uint8)  # a camera's noise
    assert cv2.absdiff(hair_opacity(dark, found, THRESHOLD), soft_edge(found, THRESHOLD, STRANDS_EDGE)).max() < 8


def test_strands_are_looked_for_where_the_network_is_blurred_but_not_far_from_thin_hair() -> None:
    sharp = np.zeros((200, 200), np.float32)
    sharp[40:160, 40:160] = 1
    blurred = cv2.GaussianBlur(sharp, (0, 0), 4)
    assert strand_reach(sharp, THRESHOLD) == 5 and 8 < strand_reach(blurred, THRESHOLD) <= 12
    thin = np.zeros((200, 200), np.float32)
    thin[:, 90:110] = 1
    assert strand_reach(cv2.GaussianBlur(thin, (0, 0), 4), THRESHOLD) <= 4


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (33, 47)])
def test_nothing_or_all_is_hair(shape: tuple[int, int], value: int) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    probabilities = np.full(shape, value, np.float32)
    cut = cut_out(photo, probabilities, THRESHOLD)
    assert (cut[..., 3] == 255 * value).all()
    if value:
        np.testing.assert_array_equal(cut[..., :3], photo)
    np.testing.assert_array_equal(refine_edges(photo, probabilities, 32), probabilities)
    for background in ((1, 2, 3), photo, "blur"):
        placed = place_on(cut, background, photo)
        assert placed.shape == photo.shape and (not value or (placed == photo).all())


def test_half_transparent_hair_alone() -> None:
    photo = np.full((40, 40, 3), (200, 80, 40), np.uint8)
    assert cv2.absdiff(estimate_foreground(photo, np.full((40, 40), 77, np.uint8)), photo).max() <= 1
    assert cut_out(ONE_PIXEL, np.full((1, 1), 0.5, np.float32), THRESHOLD)[0, 0, 3] in (127, 128)


def test_strips_leave_no_seam(photos: list, request: pytest.FixtureRequest) -> None:
    composed, probabilities = photos[1]
    sideways = np.ascontiguousarray(np.rot90(composed.photo))  # np.rot90 alone gives a photo of another memory order
    works = [
        lambda: cut_out(composed.photo, probabilities, THRESHOLD),
        lambda: cut_out(np.rot90(composed.photo), np.rot90(probabilities), THRESHOLD),
        lambda: estimate_foreground(composed.photo, soft_edge(probabilities, THRESHOLD)),
        lambda: refine_edges(composed.photo, probabilities, 64),
        lambda: place_on(cut_out(composed.photo, probabilities, THRESHOLD), "blur", composed.photo),
    ]
    whole = [work() for work in works]
    np.testing.assert_array_equal(whole[1], cut_out(sideways, np.rot90(probabilities).copy(), THRESHOLD))
    request.getfixturevalue("small_strips")
    assert len(list(hair.strips.strips(composed.photo.shape, pixels=hair.cutout.SMALL_STRIP))) > 40
    for work, expected in zip(works, whole, strict=True):
        np.testing.assert_array_equal(work(), expected)


def test_cells_that_are_not_whole_and_pixels_between_them() -> None:
    rng = np.random.default_rng(0)
    small = hair.strips.Reduction((23, 40), 5, 10**6)
    assert small.size == (4, 8)
    cells = rng.random(small.size, dtype=np.float32)
    whole = np.concatenate([small.repeat(cells, slice(0, 9)), small.repeat(cells, slice(9, 23))])
    np.testing.assert_array_equal(whole[:20], cells.repeat(5, 0).repeat(5, 1))
    np.testing.assert_array_equal(whole[20:], whole[17:20])
    rows, pixels = slice(3, 20), np.arange(17 * 40, dtype=np.int32)
    found = hair.strips.Reduction.enlarge(cells, small.locate(rows, pixels), len(pixels))[0].reshape(17, 40)
    np.testing.assert_allclose(found, cv2.resize(cells, (40, 20))[3:], atol=0.03)  # OpenCV interpolates in 32 steps


# ---------------------------------------------------------------------------------------------------- backgrounds


@pytest.fixture
def cut(photos: list) -> np.ndarray:
    return cut_out(photos[0][0].photo, photos[0][1], THRESHOLD)


def test_color_behind_the_hair(photos: list, cut: np.ndarray) -> None:
    composed, probabilities = photos[0]
    placed = place_on(cut, (10, 200, 30), composed.photo)
    assert (placed[cut[..., 3] == 0] == (10, 200, 30)).all()
    np.testing.assert_array_equal(placed[cut[..., 3] == 255], composed.photo[cut[..., 3] == 255])
    opacity = cut[..., 3:] / 255
    np.testing.assert_allclose(placed, cut[..., :3] * opacity + (1 - opacity) * (10, 200, 30), atol=0.51)
    looks = Looks(THRESHOLD, Dye(((0, 0, 0),)), background=(10, 200, 30))
    np.testing.assert_array_equal(draw("alpha", composed.photo, probabilities, looks), placed)


def test_a_picture_covers_what_is_behind_the_hair() -> None:
    photo, cut = np.zeros((60, 120, 3), np.uint8), np.zeros((60, 120, 4), np.uint8)
    portrait = np.zeros((400, 120, 3), np.uint8)
    portrait[170:230] = 50, 100, 150  # the middle, in the photo's proportions
    assert (place_on(cut, portrait, photo) == (50, 100, 150)).all()
    wide = np.zeros((30, 9000, 3), np.uint8)
    wide[:, 4470:4530] = 7, 8, 9
    assert (place_on(cut, wide, photo) == (7, 8, 9)).all()
    for picture in (ONE_PIXEL, np.full((1, 30_000, 3), 90, np.uint8), np.full((30_000, 1, 3), 90, np.uint8)):
        assert (place_on(cut, picture, photo) == 90).all()
    assert place_on(np.zeros((1, 1, 4), np.uint8), portrait, ONE_PIXEL).shape == (1, 1, 3)


def test_blur_keeps_the_hair_sharp_and_out_of_the_background(photos: list, cut: np.ndarray) -> None:
    composed, _ = photos[0]
    photo = composed.photo.copy()
    photo[::2, :60:2] = 255 - photo[::2, :60:2]  # a pattern to be blurred
    placed = place_on(cut, "blur", photo)
    assert cv2.Laplacian(placed[:, :50], cv2.CV_32F).std() < 0.1 * cv2.Laplacian(photo[:, :50], cv2.CV_32F).std()
    sure = cut[..., 3] == 255
    np.testing.assert_array_equal(placed[sure], composed.photo[sure])
    dark = np.full((100, 100, 3), 240, np.uint8)
    dark[30:70, 30:70] = 10
    opacity = np.zeros((100, 100), np.uint8)
    opacity[30:70, 30:70] = 255
    behind = place_on(np.dstack([dark, opacity]), "blur", dark)
    assert behind[opacity == 0].min() > 230


# ---------------------------------------------------------------------------------------------------- command line


def test_backgrounds_that_the_command_line_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("beach.png", np.full((5, 6, 3), (30, 20, 10), np.uint8))
    Path("notes.jpg").write_text("not a picture")
    assert read_background("blur") == read_background("BLUR") == "blur"
    assert read_background("white") == (255, 255, 255) and read_background("#102030") == (16, 32, 48)
    np.testing.assert_array_equal(read_background("beach.png"), np.full((5, 6, 3), (10, 20, 30)))
    for name, reason in (("bech.png", "neither a colour, nor a file, nor blur"), ("notes.jpg", "not an image")):
        with pytest.raises(UserError, match=reason) as caught:
            read_background(name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_background_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Segmenter:
        threshold = THRESHOLD

        def __init__(self, **flags: object) -> None:
            pass

        def __call__(self, photo: np.ndarray) -> np.ndarray:
            return (photo[..., 0] < 100).astype(np.float32)

    photo = np.full((40, 50, 3), 200, np.uint8)
    photo[10:30, 10:30] = 20
    cv2.imwrite(str(tmp_path / "me.png"), photo)
    cv2.imwrite(str(tmp_path / "green.png"), np.full((9, 9, 3), (0, 255, 0), np.uint8))
    reads = []
    read = hair.cutout.read_photo
    monkeypatch.setattr(hair.cutout, "read_photo", lambda path: reads.append(path) or read(path))
    monkeypatch.setattr(hair.cli, "HairSegmenter", Segmenter)

    def run(*flags: str) -> np.ndarray:
        names = [str(tmp_path / "me.png")] * 2 + ["--output_dir", str(tmp_path / "out"), *flags]
        monkeypatch.setattr(sys, "argv", ["hair", *names])
        hair.cli.main()
        return cv2.imread(str(tmp_path / "out" / "me_alpha.png"), cv2.IMREAD_UNCHANGED)

    transparent = run("--save", "alpha")
    assert transparent.shape == (40, 50, 4) and transparent[0, 0, 3] == 0 and transparent[20, 20, 3] == 255
    opaque = run("--save", "alpha", "mask", "--background", str(tmp_path / "green.png"))
    assert opaque.shape == (40, 50, 3) and (opaque[0, 0] == (0, 255, 0)).all() and (opaque[20, 20] == 20).all()
    assert len(reads) == 1
    assert (run("--save", "alpha", "--background", "#ff0000")[0, 0] == (0, 0, 255)).all()
    assert abs(int(run("--save", "alpha", "--background", "blur")[0, 0, 0]) - 200) < 2
    with pytest.raises(UserError, match="--background is for cut-outs"):
        run("--background", "white")
    with pytest.raises(UserError, match="--background sand-ish: neither"):
        run("--save", "alpha", "--background", "sand-ish")


# ---------------------------------------------------------------------------------------------------- refined edges


def test_refined_edges_follow_the_photo() -> None:
    photo = np.full((128, 128, 3), 220, np.uint8)
    photo[:, :64] = 40
    blurred = np.tile(np.clip((70 - np.arange(128)) / 24 + 0.5, 0, 1).astype(np.float32), (128, 1))  # 6 px off

    def wrong(probabilities: np.ndarray) -> int:
        return np.count_nonzero((probabilities >= 0.5) != (photo[..., 0] < 128))

    assert wrong(refine_edges(photo, blurred, 64)) < 0.7 * wrong(blurred)


def test_probabilities_stay_away_from_edges(photos: list) -> None:
    composed, probabilities = photos[0]
    refined = refine_edges(composed.photo, probabilities, 160)
    assert refined.dtype == np.float32 and refined.min() >= 0 and refined.max() <= 1
    far = cv2.erode(((probabilities < 0.001) | (probabilities > 0.999)).astype(np.uint8), np.ones((33, 33)))
    assert far.mean() > 0.3
    np.testing.assert_array_equal(refined[far > 0], probabilities[far > 0])


def reference(photo: np.ndarray, source: np.ndarray, radius: int, softness: float) -> np.ndarray:
    """The guided filter in colour as He, Sun and Tang wrote it down, at full size, in float64."""

    def mean(plane: np.ndarray) -> np.ndarray:
        return cv2.blur(plane, (2 * radius + 1, 2 * radius + 1))

    guide, source = photo / 255, source.astype(np.float64)
    mean_guide, mean_source = mean(guide), mean(source)
    products = guide[..., :, None] * guide[..., None, :]
    spread = np.stack([mean(np.ascontiguousarray(products[..., i])) for i in range(3)], 3)
    spread += softness * np.eye(3) - mean_guide[..., :, None] * mean_guide[..., None, :]
    covariance = mean(guide * source[..., None]) - mean_guide * mean_source[..., None]
    slope = np.linalg.solve(spread, covariance[..., None])[..., 0]
    offset = mean_source - (slope * mean_guide).sum(2)
    return ((mean(slope) * guide).sum(2) + mean(offset)).clip(0, 1)


@pytest.fixture
def plain_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The filter alone: it acts everywhere, and trusts all colours."""
    monkeypatch.setattr(hair.refine, "EXPLAINED", (-9, -8))
    monkeypatch.setattr(hair.refine, "FADE", 1e9)
    monkeypatch.setattr(hair.refine, "DECIDED", -1)


def test_small_photos_are_filtered_at_full_size(photos: list, plain_filter: None) -> None:
    composed, probabilities = photos[2]
    refined = refine_edges(composed.photo, probabilities, 256)  # a radius of 5
    np.testing.assert_allclose(refined, reference(composed.photo, probabilities, 5, 1e-3), atol=1e-3)


def test_large_photos_are_filtered_nearly_as_at_full_size(photos: list, plain_filter: None) -> None:
    composed, probabilities = photos[2]
    refined = refine_edges(composed.photo, probabilities, 64)  # a radius of 20, reduced by 6
    expected = reference(composed.photo, probabilities, 20, 1e-3)
    assert np.abs(refined - expected).mean() < 0.01
    assert np.count_nonzero((refined >= 0.5) != (expected >= 0.5)) < 0.005 * refined.size
