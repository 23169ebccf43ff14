"""What a reader sees of a text, and no more of it than there is room for."""

import pytest

from synthesis.text.visible import shortened, visible


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain text, über 3 € 😀", "plain text, über 3 € 😀"),
        ("a\tb\nc\r\nd", "a\tb\nc\nd"),
        ("\x1b[1;31mred\x1b[0m \x1b]0;title\x07end", "red end"),
        ("to\u202emoc.live\u202c", "tomoc.live"),
        ("z\u200be\u200dr\ufeffo\u2060", "zero"),
        ("nul\x00 bell\x07 c1\x9b", "nul bell c1"),
        ("tag\U000e0041\U000e0042 selector\U000e0100", "tag selector"),
        ("half \ud800 pair", "half  pair"),
    ],
)
def test_only_what_can_be_seen_stays(text, seen):
    assert visible(text) == seen


def test_a_long_text_is_cut_after_what_cannot_be_seen_is_gone() -> None:
    assert shortened("a\x00b\x1b[31mc\u202e\nd\te", 100) == "abc\nd\te"
    assert shortened("x" * 300, 200) == "x" * 197 + "..."
    assert shortened("x" * 200, 200) == "x" * 200
    assert shortened("\u200b" * 300 + "seen", 4) == "seen"
