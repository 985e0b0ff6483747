"""Dyed hair, on hair drawn by code: strands on a head before a textured wall."""

import sys

import cv2
import numpy as np
import pytest
from skimage.color import deltaE_ciede2000

import hair.dye
import hair.strips
from benchmarks.cutout import draw_photo, simulate_network
from benchmarks.dye import ciede2000
from hair.cli import main
from hair.colors import HAIR_COLORS, parse_color, to_lab
from hair.dye import SURELY_NOT, Dye, recolor
from hair.effects import COLUMNS, Looks, draw, draw_palette
from hair.errors import UserError
from hair.opacity import hair_opacity, soft_edge
from hair.results import KINDS
from hair.strands import roots_to_tips, strand_ranks
from hair.strips import enlarge, sample
from hair.tones import LEVELS, LIGHTNESS, lightness_curve, shades

SIZE = (320, 240)
NATURAL = {"blond": (190, 160, 115), "brown": (92, 64, 46), "black": (22, 19, 18)}
DYES = ("black", "dark brown", "auburn", "copper", "blond", "platinum", "pink", "blue")


def draw_hair(color: tuple[int, int, int], wall: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Long hair that is lit from the left. Returns RGB uint8 (H, W, 3) and probabilities, float32 (H, W)."""
    rng = np.random.default_rng(0)
    alpha = np.zeros(SIZE, np.float32)
    cv2.ellipse(alpha, (120, 110), (75, 80), 0, 0, 360, 1, -1)
    cv2.rectangle(alpha, (45, 110), (195, 290), 1, -1)
    cv2.ellipse(alpha, (120, 160), (35, 50), 0, 0, 360, 0, -1)  # a face
    alpha = cv2.GaussianBlur(alpha, (0, 0), 1.5)
    strands = 1 + 0.35 * cv2.GaussianBlur(rng.standard_normal((1, SIZE[1])).astype(np.float32), (0, 0), 1)
    light = np.linspace(1.2, 0.8, SIZE[1], dtype=np.float32)
    hair = np.float32(color) * (strands * light)[..., None] + rng.normal(0, 1, (*SIZE, 1)).astype(np.float32)
    other = np.float32([wall, wall - 5, wall - 10]) + rng.normal(0, 4, (*SIZE, 3)).astype(np.float32)
    photo = alpha[..., None] * hair + (1 - alpha[..., None]) * other
    return photo.round().clip(0, 255).astype(np.uint8), alpha


def sure_hair(probabilities: np.ndarray) -> np.ndarray:
    return cv2.erode(probabilities, np.ones((9, 9))) > 0.99


@pytest.mark.parametrize("name", DYES)
@pytest.mark.parametrize("natural", NATURAL)
def test_any_color_on_any_hair(natural: str, name: str) -> None:
    photo, probabilities = draw_hair(NATURAL[natural])
    dyed = recolor(photo, probabilities, 0.5, Dye((parse_color(name),)))
    assert dyed.dtype == np.uint8 and dyed.shape == photo.shape and dyed.flags.c_contiguous
    sure = sure_hair(probabilities)
    before, after, goal = to_lab(photo)[sure], to_lab(dyed)[sure], to_lab(parse_color(name))
    assert ciede2000(after.mean(axis=0), goal) < 8
    own, left = (min(lightness, 100 - lightness) for lightness in (before[:, 0].mean(), goal[0]))
    assert after[:, 0].std() >= 0.5 * before[:, 0].std() * min(1, left / own)
    # Each strand keeps its place: what was lighter is lighter.
    assert np.corrcoef(before[:, 0], after[:, 0])[0, 1] > 0.85
    np.testing.assert_array_equal(dyed[probabilities < SURELY_NOT], photo[probabilities < SURELY_NOT])


def test_old_hue_is_gone() -> None:
    photo, probabilities = draw_hair((60, 90, 160))
    lab = to_lab(recolor(photo, probabilities, 0.5, Dye((parse_color("copper"),))))[sure_hair(probabilities)]
    assert lab[:, 2].min() > 5  # b of a blue pixel is negative


def test_shadows_do_not_glow_and_gloss_is_pale() -> None:
    for name in ("copper", "pink", "blue", "#ff0000", "#0000ff"):
        table = to_lab(shades(parse_color(name)))
        chroma = np.hypot(table[:, 1], table[:, 2])
        at_dye = int(to_lab(parse_color(name))[0] / 100 * (LEVELS - 1))
        assert chroma[LEVELS // 100] < 0.5 * chroma[at_dye]
        assert chroma[-LEVELS // 50] < 0.6 * chroma[at_dye]
        np.testing.assert_allclose(table[:, 0], LIGHTNESS, atol=1.5)


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (0, 0, 255), (200, 0, 0)])
def test_extreme_colors_on_extreme_hair(color: tuple[int, int, int]) -> None:
    for grey in (0, 255):
        photo, probabilities = draw_hair((grey, grey, grey))
        dyed = recolor(photo, probabilities, 0.5, Dye((color,)))
        assert ciede2000(to_lab(dyed)[sure_hair(probabilities)].mean(axis=0), to_lab(color)) < 12


def test_lightness_rises_with_lightness() -> None:
    rng = np.random.default_rng(0)
    for target in (1, 9, 40, 84, 99):
        for middle in (2, 20, 60, 97):
            values = rng.normal(middle, 6, 5000).clip(0, 100)
            weights = np.histogram(values, LEVELS, (0, 100))[0].astype(float)
            curve = lightness_curve(weights, target)
            assert np.isfinite(curve).all() and (np.diff(curve) >= 0).all()
            assert curve[0] >= 0 and curve[-1] <= 100
            assert abs(np.average(curve, weights=weights) - target) < 7


def test_noise_of_black_hair_is_not_blown_up() -> None:
    rng = np.random.default_rng(0)
    flat = np.full((*SIZE, 3), 12, np.float32)
    noisy = (flat + rng.normal(0, 1.5, (*SIZE, 1))).round().clip(0, 255).astype(np.uint8)
    blocks = rng.normal(0, 1.5, (SIZE[0] // 8, SIZE[1] // 8, 1)).repeat(8, 0).repeat(8, 1)
    blocky = (flat + blocks).round().clip(0, 255).astype(np.uint8)
    for photo in (noisy, blocky):
        dyed = recolor(photo, np.ones(SIZE, np.float32), 0.5, Dye((parse_color("platinum"),)))
        assert to_lab(dyed)[..., 0].std() < 3


@pytest.mark.parametrize(
    ("natural", "name", "wall"),
    [("black", "platinum", 150), ("black", "platinum", 240), ("blond", "black", 150), ("blond", "black", 240)],
)
def test_edge_has_no_rim(natural: str, name: str, wall: int) -> None:
    """Mixed pixels lie between dyed hair and wall, as in a photo of hair of that colour."""
    photo, probabilities = draw_hair(NATURAL[natural], wall)
    dyed = recolor(photo, probabilities, 0.5, Dye((parse_color(name),)))
    # A head's side away from the face, column by column.
    before, after = (to_lab(picture)[150:280, 30:60, 0].mean(axis=0) for picture in (photo, dyed))
    alpha = probabilities[150:280, 30:60].mean(axis=0)
    edge = (alpha > 0.02) & (alpha < 0.98)
    inside, outside = after[alpha > 0.999].mean(), before[alpha < 0.001].mean()
    assert edge.sum() > 4
    low, high = sorted((inside, outside))
    assert (after[edge] > low - 10).all() and (after[edge] < high + 10).all()


def test_skin_in_the_mask_does_not_glow() -> None:
    """Bleach does not lighten skin that a mask of dark hair holds at its edge."""
    photo, probabilities = draw_hair(NATURAL["black"])
    photo[110:211, 85:156][probabilities[110:211, 85:156] < 0.5] = (200, 150, 125)
    generous = cv2.dilate(probabilities, np.ones((13, 13)))
    dyed = recolor(photo, generous, 0.5, Dye((parse_color("platinum"),)))
    skin = (generous > 0.9) & (probabilities < 0.02)
    skin[:110] = skin[211:] = skin[:, :85] = skin[:, 156:] = False
    assert skin.sum() > 200
    assert np.abs(dyed[skin].astype(int) - photo[skin]).mean() < 12


@pytest.mark.parametrize("name", ["black", "platinum"])
def test_single_strands_are_dyed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network knows no strands, but the photo shows them; the same hair alone, dyed and laid there, is the goal."""
    rng, dye = np.random.default_rng(1), Dye((parse_color(name),))
    errors = []
    for _ in range(3):
        composed = draw_photo(rng, 256)
        probabilities = simulate_network(composed.opacity)
        alone = recolor(composed.hair, np.ones_like(probabilities), 0.5, dye)
        goal = composed.photo + composed.opacity[..., None] * (alone.astype(np.float32) - composed.hair)
        strands = (composed.opacity > 0.3) & (probabilities < 0.3) & (probabilities >= SURELY_NOT)
        for opacity in (hair_opacity, lambda _, found, threshold: soft_edge(found, threshold)):
            monkeypatch.setattr(hair.dye, "hair_opacity", opacity)
            errors.append(np.abs(recolor(composed.photo, probabilities, 0.5, dye) - goal)[strands].mean())
    assert sum(errors[::2]) < 0.6 * sum(errors[1::2])


def test_a_photo_without_hair_is_not_dyed() -> None:
    photo, probabilities = draw_hair(NATURAL["brown"])
    faint = np.minimum(probabilities, 0.49)  # a pet's coat
    for bleach in (True, False):
        dyed = recolor(photo, faint, 0.5, Dye(((9, 9, 99),), bleach=bleach))
        np.testing.assert_array_equal(dyed, photo)


def test_without_bleach_lightness_stays() -> None:
    photo, probabilities = draw_hair(NATURAL["brown"])
    for name, strength in (("blue", 1.0), ("platinum", 0.6)):
        lab = cv2.cvtColor(photo.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        color = to_lab(parse_color(name))
        opacity = hair_opacity(photo, probabilities, 0.4) * (probabilities >= SURELY_NOT)
        cover = opacity * np.float32(strength / 255)
        room = np.minimum(lab[..., 0] / color[0], (100 - lab[..., 0]) / (100 - color[0])).clip(0, 1) ** 0.75
        for channel in (1, 2):
            lab[..., channel] += cover * (color[channel] * room - lab[..., channel])
        expected = (cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) * 255).round().clip(0, 255).astype(np.uint8)
        expected[cover == 0] = photo[cover == 0]
        dyed = recolor(photo, probabilities, 0.4, Dye((parse_color(name),), strength, bleach=False))
        np.testing.assert_array_equal(dyed, expected)


def test_strength_mixes() -> None:
    photo, probabilities = draw_hair(NATURAL["brown"])
    sure = sure_hair(probabilities)
    whole, half, none = (
        recolor(photo, probabilities, 0.5, Dye((parse_color("pink"),), strength)) for strength in (1, 0.5, 0)
    )
    np.testing.assert_array_equal(none, photo)
    between = (photo.astype(float) + whole)[sure] / 2
    assert np.abs(half[sure] - between).max() <= 1


# ----------------------------------------------------------------------------------------------------- two colours


@pytest.mark.parametrize("bleach", [True, False])
def test_ombre_runs_from_roots_to_tips(bleach: bool) -> None:
    photo, probabilities = draw_hair(NATURAL["brown"])
    two, roots, tips = (
        to_lab(recolor(photo, probabilities, 0.5, Dye(colors, bleach=bleach)))
        for colors in (((160, 40, 40), (40, 60, 160)), ((160, 40, 40),), ((40, 60, 160),))
    )
    sure = sure_hair(probabilities)
    top, bottom = sure.copy(), sure.copy()
    top[70:], bottom[:265] = False, False
    for place, one in ((top, roots), (bottom, tips)):
        assert np.abs(two[place].mean(axis=0) - one[place].mean(axis=0)).max() < 3
    blue = [-two[row][sure[row]][:, 2].mean() for row in range(40, 280, 20)]
    assert (np.diff(blue) > -2).all()  # no way back
    assert np.diff(blue).max() < 0.4 * (blue[-1] - blue[0])  # no step


def test_way_leads_through_the_hair() -> None:
    tied = np.zeros((200, 200), np.uint8)
    cv2.circle(tied, (70, 70), 50, 255, -1)
    cv2.line(tied, (115, 70), (175, 70), 255, 16)  # a ponytail that goes away and comes up again
    cv2.line(tied, (175, 70), (175, 32), 255, 16)
    cv2.circle(tied, (70, 150), 8, 255, -1)  # a lock of its own, below the neck
    along = roots_to_tips(tied)
    assert along.shape == tied.shape and along.min() >= 0 and along.max() <= 1
    assert along[22:28, 60:80].max() < 0.15
    assert along[27, 175] > 0.9  # as high as the roots, far along the hair
    assert along[150, 70] > along[80, 70]
    two = np.zeros((100, 300), np.uint8)
    cv2.circle(two, (50, 30), 25, 255, -1)
    cv2.circle(two, (240, 60), 30, 255, -1)
    along = roots_to_tips(two)
    assert along[8, 50] < 0.2 and along[33, 240] < 0.2 and along[52, 50] > 0.8 and along[86, 240] > 0.8


@pytest.mark.parametrize("share", [0, 0.1, 0.3, 0.6, 1])
def test_share_of_highlights(share: float) -> None:
    photo, probabilities = draw_hair(NATURAL["black"])
    sure = sure_hair(probabilities)
    colors = ((200, 20, 20), (20, 20, 200))
    dyed = recolor(photo, probabilities, 0.5, Dye(colors, highlights=share)).astype(float)
    ends = [recolor(photo, probabilities, 0.5, Dye((color,))).astype(float) for color in colors]
    found = (dyed - ends[0])[sure][:, 2].sum() / (ends[1] - ends[0])[sure][:, 2].sum()
    assert abs(found - share) < 0.06
    np.testing.assert_array_equal(dyed[probabilities < SURELY_NOT], photo[probabilities < SURELY_NOT])


def test_highlights_follow_the_hair() -> None:
    photo, probabilities = draw_hair(NATURAL["brown"])
    opacity = soft_edge(probabilities, 0.5)
    ranks = strand_ranks(to_lab(photo)[..., 0], opacity, roots_to_tips(opacity))
    straight = ranks[220:280, 60:180]  # strands run down here
    across, down = np.abs(np.diff(straight, axis=1)).mean(), np.abs(np.diff(straight, axis=0)).mean()
    assert across > 4 * down


def test_highlights_of_one_color_are_lighter() -> None:
    photo, probabilities = draw_hair(NATURAL["black"])
    sure = sure_hair(probabilities)
    plain, with_highlights = (
        to_lab(recolor(photo, probabilities, 0.5, Dye((parse_color("auburn"),), highlights=share)))[sure]
        for share in (None, 0.3)
    )
    lift = with_highlights[:, 0] - plain[:, 0]
    assert 3 < lift.mean() < 20 and lift.min() > -3 and np.quantile(lift, 0.95) > 15


# ----------------------------------------------------------------------------------------------------- edges of use


@pytest.mark.parametrize(
    "dye",
    [
        Dye(((230, 220, 200),)),
        Dye(((20, 20, 20),)),
        Dye(((20, 20, 20), (230, 220, 200))),
        Dye(((120, 60, 40),), highlights=0.3),
        Dye(((120, 60, 40), (20, 60, 40)), bleach=False),
    ],
)
class TestAnyDye:
    def test_strips_leave_no_seam(self, dye: Dye, monkeypatch: pytest.MonkeyPatch) -> None:
        photo, probabilities = draw_hair(NATURAL["black"])
        whole = recolor(photo, probabilities, 0.5, dye)
        monkeypatch.setattr(hair.dye, "SMALL_STRIP", SIZE[1] * 7)
        monkeypatch.setattr(hair.strips, "STRIP", SIZE[1] * 7)
        strips = recolor(photo, probabilities, 0.5, dye)
        # Sums of a box filter are rounded differently here and there.
        assert np.abs(strips.astype(int) - whole).max() <= 2
        assert (strips != whole).mean() < 1e-3

    def test_no_hair(self, dye: Dye) -> None:
        photo, probabilities = draw_hair(NATURAL["brown"])
        for none in (np.zeros_like(probabilities), np.full_like(probabilities, 0.1)):
            dyed = recolor(photo, none, 0.5, dye)
            np.testing.assert_array_equal(dyed, photo)
            assert dyed is not photo

    def test_nothing_but_hair(self, dye: Dye) -> None:
        photo, _ = draw_hair(NATURAL["brown"])
        dyed = recolor(photo, np.ones(SIZE, np.float32), 0.5, dye)
        assert (dyed != photo).any(axis=2).mean() > 0.9

    @pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 3)])
    def test_tiny_photos(self, dye: Dye, shape: tuple[int, int]) -> None:
        photo = np.full((*shape, 3), 30, np.uint8)
        dyed = recolor(photo, np.ones(shape, np.float32), 0.5, dye)
        assert dyed.shape == photo.shape and dyed.dtype == np.uint8

    def test_one_pixel_of_hair(self, dye: Dye) -> None:
        photo, probabilities = draw_hair(NATURAL["brown"])
        for probability in (1, 0.5, 0.16):
            probabilities[:] = 0
            probabilities[100, 100] = probability
            changed = (recolor(photo, probabilities, 0.5, dye) != photo).any(axis=2)
            changed[100, 100] = False
            assert not changed.any()

    def test_turned_and_mirrored_arrays(self, dye: Dye) -> None:
        photo, probabilities = draw_hair(NATURAL["brown"])
        turned = np.ascontiguousarray(np.rot90(photo)), np.ascontiguousarray(np.rot90(probabilities))
        views = np.rot90(photo), np.rot90(probabilities)
        np.testing.assert_array_equal(recolor(*turned, 0.5, dye), recolor(*views, 0.5, dye))

    def test_photo_is_not_changed(self, dye: Dye) -> None:
        photo, probabilities = draw_hair(NATURAL["brown"])
        before = photo.copy(), probabilities.copy()
        photo.flags.writeable = probabilities.flags.writeable = False
        recolor(photo, probabilities, 0.5, dye)
        np.testing.assert_array_equal(photo, before[0])
        np.testing.assert_array_equal(probabilities, before[1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"colors": ()},
        {"colors": ((1, 2, 3),) * 3},
        {"colors": ((1, 2, 3),), "strength": 1.5},
        {"colors": ((1, 2, 3),), "highlights": -0.1},
        {"colors": ((1, 2, 3),), "highlights": 0.2, "bleach": False},
    ],
)
def test_wrong_dyes(wrong: dict) -> None:
    with pytest.raises(UserError):
        Dye(**wrong)


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize(
    ("small", "large"), [((5, 7), (50, 70)), ((1, 1), (4, 3)), ((9, 4), (9, 4)), ((3, 8), (64, 9))]
)
def test_enlarged_fields(small: tuple[int, int], large: tuple[int, int], channels: tuple[int, ...]) -> None:
    field = np.random.default_rng(0).random((*small, *channels)).astype(np.float32)
    whole = enlarge(field, large, slice(0, large[0]))
    np.testing.assert_allclose(whole, cv2.resize(field, large[::-1], interpolation=cv2.INTER_LINEAR), atol=1e-5)
    parts = [enlarge(field, large, slice(row, row + 1)) for row in range(large[0])]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)
    points = np.nonzero(np.ones((2, large[1])))
    some = sample(field, large, slice(1, 3), points)
    np.testing.assert_allclose(some.reshape(2, large[1], *channels), whole[1:3], atol=1e-6)


# ---------------------------------------------------------------------------------------------------- what is around


def test_ciede2000_is_scikit_images() -> None:
    rng = np.random.default_rng(0)
    colors = rng.uniform((0, -100, -100), (100, 100, 100), (400, 2, 3))
    colors[:50, 1] = colors[:50, 0] + rng.normal(0, 2, (50, 3))  # near each other
    colors[50:60, 0, 1:] = 0  # grey
    colors[60:70, :, 1:] = 0
    for first, second in colors:
        assert ciede2000(first, second) == pytest.approx(float(deltaE_ciede2000(first, second)), abs=1e-6)


def test_palette_shows_all_colors() -> None:
    photo, probabilities = (np.ascontiguousarray(drawn[::4, ::4]) for drawn in draw_hair(NATURAL["brown"]))
    sheet = draw("palette", photo, probabilities, Looks(0.5, Dye(((1, 2, 3),))))
    rows = -(-(len(HAIR_COLORS) + 1) // COLUMNS)
    assert sheet.dtype == np.uint8 and sheet.shape[0] > rows * len(photo) and sheet.shape[1] > COLUMNS * photo.shape[1]
    pictures = [recolor(photo, probabilities, 0.5, Dye((parse_color(name),))) for name in [*HAIR_COLORS][::8]]
    for picture in [photo, *pictures]:
        left, top = cv2.minMaxLoc(cv2.matchTemplate(sheet, picture, cv2.TM_SQDIFF))[2]
        np.testing.assert_array_equal(sheet[top : top + len(photo), left : left + photo.shape[1]], picture)
    wide = np.pad(photo, ((0, 0), (0, 225), (0, 0)), mode="edge"), np.pad(probabilities, ((0, 0), (0, 225)))
    assert draw_palette(*wide, 0.5, Dye(((1, 2, 3),))).shape[1] < 1.7 * sheet.shape[1]  # the photo around the hair
    small = draw_palette(photo[:9, :4].copy(), probabilities[:9, :4].copy(), 0.5, Dye(((1, 2, 3),), bleach=False))
    assert small.ndim == 3
    assert KINDS["palette"] == "png"


def test_looks_take_a_dye() -> None:
    photo, probabilities = draw_hair(NATURAL["brown"])
    dye = Dye(((20, 60, 200),))
    drawn = draw("recolor", photo, probabilities, Looks(0.5, dye))
    np.testing.assert_array_equal(drawn, recolor(photo, probabilities, 0.5, dye))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--save", "recolor", "--color", "red", "blond", "blue"], "one colour or two"),
        (["--color", "ginger-ish"], "--color ginger-ish"),
        (["--highlights", "0.2", "--no-bleach"], "--highlights"),
    ],
)
def test_flags_that_cannot_be_used(flags: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["hair", "me.jpg", *flags])
    with pytest.raises(UserError, match=message):
        main()
