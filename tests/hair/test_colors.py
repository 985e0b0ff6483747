"""Colours by name, from a user and for a user."""

import pytest

from hair import UserError
from hair.colors import HAIR_COLORS, color_name, parse_color


def test_colors_are_read_and_named() -> None:
    assert color_name((200, 168, 120)) == "blond"
    assert color_name((20, 18, 17)) == "black"
    assert parse_color("#ff8000") == (255, 128, 0)
    assert parse_color("dark_brown") == parse_color("Dark Brown") == (0x3B, 0x2A, 0x22)
    assert [color_name(parse_color(name)) for name in HAIR_COLORS] == list(HAIR_COLORS)


@pytest.mark.parametrize("text", ["ginger-ish", "", "rgb(300,0,0)", "#12"])
def test_what_is_no_color_is_refused_with_the_names_there_are(text: str) -> None:
    with pytest.raises(UserError) as error:
        parse_color(text)
    assert str(error.value).startswith(f"--color {text}: ") and "auburn" in str(error.value)
