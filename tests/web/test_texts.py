"""What the page says is there in both languages, and nothing else is."""

import re
from string import Formatter

import pytest

from hair.colors import HAIR_COLORS
from hair.results import KINDS
from tests.conftest import ROOT
from web.texts import TEXTS, choose_language, translate_color


def test_texts_are_those_that_are_said():
    files = ("page.py", "server.py", "visitors.py")
    source = "".join((ROOT / "web" / file).read_text(encoding="utf-8") for file in files)
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
