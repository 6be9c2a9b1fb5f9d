"""How much of each Unicode script a vocabulary holds and a font draws."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import regex

from frozen_glyph.substrate.font import Font
from frozen_glyph.substrate.glyphs import Token

# Values of the property Script in Unicode 15; code points of later scripts count as "Unknown".
SCRIPTS: Sequence[str] = """
Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak Bengali Bhaiksuki Bopomofo
Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian Caucasian_Albanian Chakma Cham Cherokee Chorasmian Common
Coptic Cuneiform Cypriot Cypro_Minoan Cyrillic Deseret Devanagari Dives_Akuru Dogra Duployan Egyptian_Hieroglyphs
Elbasan Elymaic Ethiopic Georgian Glagolitic Gothic Grantha Greek Gujarati Gunjala_Gondi Gurmukhi Han Hangul
Hanifi_Rohingya Hanunoo Hatran Hebrew Hiragana Imperial_Aramaic Inherited Inscriptional_Pahlavi
Inscriptional_Parthian Javanese Kaithi Kannada Katakana Kawi Kayah_Li Kharoshthi Khitan_Small_Script Khmer Khojki
Khudawadi Lao Latin Lepcha Limbu Linear_A Linear_B Lisu Lycian Lydian Mahajani Makasar Malayalam Mandaic Manichaean
Marchen Masaram_Gondi Medefaidrin Meetei_Mayek Mende_Kikakui Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi
Mongolian Mro Multani Myanmar Nabataean Nag_Mundari Nandinagari New_Tai_Lue Newa Nko Nushu Nyiakeng_Puachue_Hmong
Ogham Ol_Chiki Old_Hungarian Old_Italic Old_North_Arabian Old_Permic Old_Persian Old_Sogdian Old_South_Arabian
Old_Turkic Old_Uyghur Oriya Osage Osmanya Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa Phoenician Psalter_Pahlavi
Rejang Runic Samaritan Saurashtra Sharada Shavian Siddham SignWriting Sinhala Sogdian Sora_Sompeng Soyombo Sundanese
Syloti_Nagri Syriac Tagalog Tagbanwa Tai_Le Tai_Tham Tai_Viet Takri Tamil Tangsa Tangut Telugu Thaana Thai Tibetan
Tifinagh Tirhuta Toto Ugaritic Vai Vithkuqi Wancho Warang_Citi Yezidi Yi Zanabazar_Square
""".split()  # noqa: SIM905 - a list of one-word strings would be three times as long


def script_of(characters: Iterable[str]) -> dict[str, str]:
    """The script of each of ``characters``, "Common" for digits and punctuation."""
    everything = "".join(sorted(set(characters)))
    scripts = dict.fromkeys(everything, "Unknown")
    for script in SCRIPTS:
        scripts.update(dict.fromkeys(regex.findall(rf"\p{{Script={script}}}", everything), script))
    return scripts


def coverage(tokens: Sequence[Token], font: Font | None) -> dict[str, dict[str, Any]]:
    """By script, most code points first: text tokens that hold it, its code points in them, and how many lack a glyph.

    Code points without a glyph are those that layout ``grid`` draws as their number in a box. Without a font (a
    substrate of codes) nothing is drawn, and ``without_glyph`` is None.
    """
    texts = [token.text for token in tokens if token.kind == "text"]
    scripts = script_of(set().union(*texts))
    holding = Counter(script for text in texts for script in {scripts[character] for character in text})
    code_points = Counter(scripts.values())
    missing: Counter[str] = Counter()
    if font is not None:
        missing.update(scripts[character] for character in scripts if font.glyph(ord(character)) is None)
    return {
        script: {
            "tokens": holding[script],
            "code_points": number,
            "without_glyph": missing[script] if font is not None else None,
        }
        for script, number in sorted(code_points.items(), key=lambda item: (-item[1], item[0]))
    }
