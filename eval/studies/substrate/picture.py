"""Some tokens, their cells, and their nearest neighbours before and after whitening, as a picture.

python -m eval.studies.substrate.picture --tokenizer hub_configs/tiny-trilingual --out eval/results/neighbors.png
"""

import argparse
from pathlib import Path

from PIL import Image

from frozen_glyph import GlyphSubstrate
from frozen_glyph.checkpoint.loading import load_tokenizer
from frozen_glyph.substrate.inspect import show_neighbors

TOKENS = ("e", "A", "д", "ж", "清", "的")
GEOMETRIES = {"drawn": "none", "whitened": "full"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a tokenizer")
    parser.add_argument("--tokens", nargs="+", default=TOKENS, help="default: %(default)s")
    parser.add_argument("--width", type=int, default=256, help="of the vectors (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("eval/results/neighbors.png"), help="PNG file to write")
    arguments = parser.parse_args()
    tokenizer = load_tokenizer(arguments.tokenizer)
    substrates = {
        heading: GlyphSubstrate.build(tokenizer, arguments.width, whiten=whiten)
        for heading, whiten in GEOMETRIES.items()
    }
    picture = show_neighbors(substrates, arguments.tokens)
    picture.quantize(32, dither=Image.Dither.NONE).save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
