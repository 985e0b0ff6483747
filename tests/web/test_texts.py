"""What the page says is there in both languages, and nothing else is."""

import re
from string import Formatter

import pytest

from hair.colors import HAIR_COLORS
from hair.decoding import DAMAGED
from hair.results import KINDS, NO_EXIF
from tests.conftest import ROOT
from web.texts import KOREAN_NOTES, TEXTS, choose_language, translate_color, translate_note


def test_texts_are_those_that_are_said():
    files = [path for path in (ROOT / "web").glob("*.py") if path.name != "texts.py"]
    source = "".join(path.read_text(encoding="utf-8") for path in files)
    said = {key for key in TEXTS["en"] if re.search(f"[\"']{key}[\"']", source)}
    assert TEXTS["en"].keys() == TEXTS["ko"].keys() == said | KINDS.keys()


@pytest.mark.parametrize("key", TEXTS["en"])
def test_both_languages_tell_the_same_facts(key):
    fields = [{field for _, field, *_ in Formatter().parse(TEXTS[language][key]) if field} for language in TEXTS]
    assert fields[0] == fields[1]


def test_every_colour_has_a_name_in_korean():
    names = [translate_color(name, "ko") for name in HAIR_COLORS]
    assert len(set(names)) == len(names) and all(re.search("[가-힣]", name) for name in names)


@pytest.mark.parametrize(
    ("accepted", "language"), [("ko-KR,ko;q=0.9,en;q=0.8", "ko"), ("KO", "ko"), ("en,ko;q=0.5", "en"), ("", "en")]
)
def test_the_language_is_the_browsers(accepted, language):
    assert choose_language({"accept-language": accepted}) == language
    assert choose_language({}) == "en"


@pytest.mark.parametrize(
    "note",
    [
        DAMAGED,
        NO_EXIF,
        "is animated; only the first frame was read",
        "has several pages; only the first was read",
        "contains several images; only the main one was read",
        "read at 1/4 of its size: 1000×750 pixels",
        "its colour profile is damaged or does not fit, and was ignored",
        "its HDR colours (PQ) were read as ordinary (SDR) colours",
    ],
)
def test_remarks_on_photos_are_there_in_korean(note):
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "hair").glob("*.py"))
    words = re.split(r"1/4|1000×750|\bPQ\b", note)  # the parts that are filled in
    assert all(word in source for word in words), "hair says something else now"
    assert re.search("[가-힣]", translate_note(note, "ko"))
    assert set(re.findall(r"1/4|1000×750|PQ", note)) <= set(re.findall(r"1/4|1000×750|PQ", translate_note(note, "ko")))
    assert translate_note(note, "en") == note
    assert sum(bool(re.fullmatch(pattern, note)) for pattern in KOREAN_NOTES) == 1
