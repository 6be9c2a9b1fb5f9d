"""Scripts of code points, and how much of each a vocabulary and a font have."""

from frozen_glyph.substrate.glyphs import Token
from frozen_glyph.substrate.scripts import coverage, script_of


def test_scripts_of_code_points():
    scripts = script_of("aяΩ猫ひ한ا1 \u0301\u0378")
    assert list(scripts.values()) == [
        *(
            "Common",
            "Common",
            "Latin",
            "Inherited",
            "Unknown",
            "Greek",
            "Cyrillic",
            "Arabic",
            "Hiragana",
            "Han",
            "Hangul",
        )
    ]


def test_coverage_counts_tokens_code_points_and_missing_glyphs(font):
    tokens = [
        *(Token(text, "text") for text in ("a", "ca", "а猫", "猫", "猫猫", ".", " ")),
        Token("<0x41>", "byte"),
        Token("<pad>", "special"),
        Token("ħ", "text"),
    ]
    assert coverage(tokens, font) == {
        "Latin": {"tokens": 3, "code_points": 3, "without_glyph": 1},
        "Common": {"tokens": 2, "code_points": 2, "without_glyph": 1},
        "Cyrillic": {"tokens": 1, "code_points": 1, "without_glyph": 0},
        "Han": {"tokens": 3, "code_points": 1, "without_glyph": 0},
    }
    assert list(coverage(tokens, font)) == ["Latin", "Common", "Cyrillic", "Han"]
    assert coverage(tokens, None)["Han"] == {"tokens": 3, "code_points": 1, "without_glyph": None}
