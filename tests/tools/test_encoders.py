"""The table of encoders and decoders in docs/: complete, the same in both languages, and right where it is tried."""

import pytest
import segmentation_models_pytorch as smp

import models
from tools import encoders


def test_the_table_is_complete_and_the_same_in_both_languages() -> None:
    english, korean = (encoders.stated(page.read_text(encoding="utf-8")) for page in encoders.PAGES)
    assert english == korean
    assert set(english) == {*smp.encoders.encoders, *encoders.TIMM}
    assert {len(marks) for marks in english.values()} == {len(models.DECODERS)}


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [("resnet18", "Unet"), ("vgg11", "DeepLabV3"), ("mit_b0", "Linknet"), ("tu-vit_tiny_patch16_224", "DPT")],
)
def test_what_the_table_says_is_so(encoder: str, decoder: str) -> None:
    """A few pairs; `pytest -m slow tests/test_models.py` goes through all."""
    marks = encoders.stated(encoders.PAGES[0].read_text(encoding="utf-8"))[encoder]
    assert (marks[models.DECODERS.index(decoder)] == "✓") == encoders.fits(encoder, decoder)


def test_encoders_with_equal_rows_share_one() -> None:
    yes, no = ("✓",) * len(models.DECODERS), ("–",) * len(models.DECODERS)
    rows = {"a": yes, "b": no, "c": yes}
    assert encoders.table(rows).count("\n") == 4 and "| `a`, `c` | ✓" in encoders.table(rows)
    page = f"before\n{encoders.START}{encoders.END}after\n"
    assert encoders.stated(encoders.update(page, rows)) == rows
    assert encoders.update(encoders.update(page, rows), rows) == encoders.update(page, rows)
