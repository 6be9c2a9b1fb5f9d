"""Bench: encoding speed of our tokenizer beside byte-level BPE, how it scales with length, and characters per token.

Both vocabularies have the same size and are learnt from the same text with the `tokenizers` library in the same run;
both then encode the same documents by the same call, in turns: the ratio is the result, not the MB/s of this machine.

    python -m eval.bench.tokenizer --text en.txt ru.txt zh.txt --out eval/results/bench-tokenizer.json

With ``--count-gb`` it measures only the memory and time of learning from a long text: the files, repeated.

    python -m eval.bench.tokenizer --text en.txt ru.txt zh.txt --count-gb 1 --vocab bmp --out FILE
"""

import time
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from eval.bench.command import bench_arguments, circumstances, peak_mebibytes, write_report
from eval.bench.timing import alternate, timed
from frozen_glyph.substrate.ngrams import stream_text
from frozen_glyph.substrate.vocabulary import VOCABULARIES, build_tokenizer

HELD_OUT = 200_000  # characters at the end of each file, at most a tenth of it, for characters per token
DOCUMENT = 8192  # characters of a document, about
BATCH = 128  # documents encoded by one call
MB = 1_000_000


def main() -> None:
    parser = bench_arguments(__doc__, repeats=3)
    parser.add_argument("--text", nargs="+", type=Path, required=True, help="UTF-8 files, one for each language")
    parser.add_argument("--vocab", default="bmp", help="bmp, wide, compact, or a number of ids (default: bmp)")
    parser.add_argument("--train-mb", type=float, default=8, help="MB of text that both learn from (default: 8)")
    parser.add_argument("--sizes", nargs="+", type=float, default=[1, 4, 16], help="MB to encode (default: 1 4 16)")
    parser.add_argument("--large", action="store_true", help="encode 64 MB as well")
    parser.add_argument("--count-gb", type=float, help="only learn from so many GB of the files, repeated")
    arguments = parser.parse_args()
    vocab = int(arguments.vocab) if arguments.vocab.isdigit() else arguments.vocab
    if arguments.count_gb:
        about = circumstances()
        learning = measure_learning(arguments.text, vocab, arguments.count_gb)
        write_report(about | learning | {"peak_mebibytes": peak_mebibytes()}, arguments.out)
        return
    about = circumstances()
    sizes = sorted({*arguments.sizes, *([64] if arguments.large else [])})

    files = {path.stem: "".join(stream_text([path])) for path in arguments.text}
    held_out = {language: text[-min(HELD_OUT, len(text) // 10) :] for language, text in files.items()}
    training = [
        take(text[: -len(held_out[language])], arguments.train_mb / len(files)) for language, text in files.items()
    ]
    started = time.perf_counter()
    ours = build_tokenizer(training, vocab).backend_tokenizer
    trained = time.perf_counter()
    theirs = train_byte_level([line for text in training for line in text.splitlines()], vocab)
    byte_level_trained = time.perf_counter()
    contestants = {"frozen_glyph": ours, "byte_level": theirs}
    report = about | {
        "vocab": arguments.vocab,
        "vocab_size": {name: tokenizer.get_vocab_size() for name, tokenizer in contestants.items()},
        "train_mb": sum(len(text.encode()) for text in training) / MB,
        "train_seconds": {"frozen_glyph": trained - started, "byte_level": byte_level_trained - trained},
        "speed": [measure_speed(contestants, files, size, arguments.repeats) for size in sizes],
        "one_string": [measure_one_string(contestants, files, size) for size in sizes if size <= 16],
        "characters_per_token": {
            language: {name: len(held) / len(tokenizer.encode(held)) for name, tokenizer in contestants.items()}
            for language, held in held_out.items()
        },
        "peak_mebibytes": peak_mebibytes(),
    }
    write_report(report, arguments.out)


def measure_learning(paths: list[Path], vocab: int | str, gigabytes: float) -> dict:
    """Learn a vocabulary from the files, read again and again until ``gigabytes`` of UTF-8 have gone by."""
    size = 0

    def repeated() -> Iterator[str]:
        nonlocal size
        while size < gigabytes * 1000 * MB:
            for block in stream_text(paths):
                size += len(block.encode())
                yield block

    wall, processor = time.perf_counter(), time.process_time()
    tokenizer = build_tokenizer(repeated(), vocab)
    return {
        "vocab": vocab,
        "vocab_size": len(tokenizer),
        "learnt_mb": size / MB,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - processor,
    }


def train_byte_level(lines: list[str], vocab: int | str) -> Tokenizer:
    """Byte-level BPE in its usual form (GPT-2's pieces) of the same size."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab if isinstance(vocab, int) else VOCABULARIES[vocab],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def measure_speed(contestants: dict[str, Tokenizer], files: dict[str, str], size_mb: float, repeats: int) -> dict:
    """Encode ``size_mb`` of documents, all cores, each contestant ``repeats`` times in turns."""
    documents = mixture(files, size_mb)
    turns = alternate(
        {
            name: timed(lambda tokenizer=tokenizer: encode_all(tokenizer, documents))
            for name, tokenizer in contestants.items()
        },
        repeats,
    )
    seconds = {name: min(each.wall for each in own) for name, own in turns.items()}
    megabytes = sum(len(document.encode()) for document in documents) / MB
    return {
        "mb": megabytes,
        "seconds": seconds,
        "tokens": {name: encode_all(tokenizer, documents) for name, tokenizer in contestants.items()},
        "mb_per_second": {name: megabytes / value for name, value in seconds.items()},
        "ratio": seconds["byte_level"] / seconds["frozen_glyph"],
    }


def measure_one_string(contestants: dict[str, Tokenizer], files: dict[str, str], size_mb: float) -> dict:
    """Encode ``size_mb`` as one string, on one core."""
    text = "".join(mixture(files, size_mb))
    seconds = {}
    for name, tokenizer in contestants.items():
        started = time.perf_counter()
        tokenizer.encode(text)
        seconds[name] = time.perf_counter() - started
    megabytes = len(text.encode()) / MB
    return {"mb": megabytes, "mb_per_second": {name: megabytes / value for name, value in seconds.items()}}


def encode_all(tokenizer: Tokenizer, documents: list[str]) -> int:
    """Number of tokens; every batch is dropped once counted, so that memory does not grow with the text."""
    return sum(
        len(encoding)
        for start in range(0, len(documents), BATCH)
        for encoding in tokenizer.encode_batch_fast(documents[start : start + BATCH])
    )


def mixture(files: dict[str, str], size_mb: float) -> list[str]:
    """Documents of all files in turns, ``size_mb`` in UTF-8; files that end too early start again."""
    documents: list[str] = []
    size, start = 0.0, 0
    while True:
        for text in files.values():
            begin = start % max(1, len(text) - DOCUMENT)
            document = text[begin : begin + DOCUMENT]
            size += len(document.encode())
            if size > size_mb * MB:
                return documents
            documents.append(document)
        start += DOCUMENT


def take(text: str, megabytes: float) -> str:
    """The beginning of ``text``, about so many MB of UTF-8."""
    per_character = len(text.encode()) / len(text)
    return text[: int(megabytes * MB / per_character)]


if __name__ == "__main__":
    main()
