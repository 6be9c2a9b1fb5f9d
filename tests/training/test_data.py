"""Sources become one array of ids, each document between its marks, cut into windows that cover it in order."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.data import DataLoader, RandomSampler
from transformers import PreTrainedTokenizerFast

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.text.documents import split_documents
from frozen_glyph.training import encode, sources
from frozen_glyph.training.data import IGNORED, TokenWindows, collate, open_windows, pack
from frozen_glyph.training.encode import BATCH_DOCUMENTS, document_marks
from frozen_glyph.training.recipe import DataRecipe, SourceRecipe, TrainingRecipe
from frozen_glyph.training.sources import identify


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def many(write):
    """``many(name, word, count)``: a file with ``count`` documents of different lengths."""

    def many(name: str, word: str, count: int) -> str:
        return write(name, "\n\n".join(" ".join([word] * (1 + number % 17)) for number in range(count)))

    return many


def in_memory(path, tokenizer) -> list[list[int]]:
    """The slow, obvious packing: ids of every document with its marks."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    documents = split_documents(Path(path).read_bytes().decode())
    return [[bos, *tokenizer(text, add_special_tokens=False)["input_ids"], eos] for text in documents]


def word_tokenizer(words, **special) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({word: id_ for id_, word in enumerate(words)}, unk_token=words[0]))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token=words[0], **special)


def packed_files(folder):
    return sorted(path.name for path in folder.glob("*.npy"))


class TestPack:
    def test_each_document_stands_between_its_marks(self, write, tokenizer, tmp_path):
        files = [write("one.txt", "The cat\n\nsat 😀"), write("two.txt", "Кот сидел\n")]
        documents = [
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("The cat", "sat 😀", "Кот сидел")
        ]
        expected = [id_ for ids in documents for id_ in (tokenizer.bos_token_id, *ids, tokenizer.eos_token_id)]
        tokens = pack(DataRecipe([SourceRecipe(files)]), tokenizer, "abc", tmp_path / "packed")
        assert isinstance(tokens, np.memmap)
        assert tokens.dtype == np.uint16
        assert tokens.tolist() == expected
        apart = DataRecipe([SourceRecipe([file]) for file in files])
        assert pack(apart, tokenizer, "abc", tmp_path / "packed").tolist() == expected

    @pytest.mark.parametrize("limit", [None, 1, 777, 10**9])
    def test_many_documents_are_those_packed_in_memory(self, many, tokenizer, tmp_path, limit):
        file = many("many.txt", "cat сидел", 2 * BATCH_DOCUMENTS + 3)
        tokens = pack(DataRecipe([SourceRecipe([file])], tokens=limit), tokenizer, "abc", tmp_path / "packed")
        assert tokens.tolist() == list(itertools.chain(*in_memory(file, tokenizer)))[:limit]

    def test_many_token_ids_take_32_bits(self, write, tmp_path):
        wide = word_tokenizer([f"w{number}" for number in range(70_000)], bos_token="<bos>", eos_token="<eos>")
        tokens = pack(DataRecipe([SourceRecipe([write("one.txt", "w69999 w3")])]), wide, "abc", tmp_path / "packed")
        assert tokens.dtype == np.uint32
        assert tokens.tolist() == [wide.bos_token_id, 69_999, 3, wide.eos_token_id]

    def test_one_mark_does_both_where_a_tokenizer_has_only_one(self, write, tmp_path):
        only = word_tokenizer(["unk", "cat", "hat", "end"], eos_token="end")
        assert document_marks(only) == (3, 3)
        tokens = pack(DataRecipe([SourceRecipe([write("one.txt", "cat\n\nhat")])]), only, "a", tmp_path / "packed")
        assert tokens.tolist() == [3, 1, 3, 3, 2, 3]
        with pytest.raises(FrozenGlyphError, match="neither bos_token nor eos_token"):
            document_marks(word_tokenizer(["unk", "cat"]))

    def test_truncation_of_a_stored_tokenizer_is_not_applied(self, write, tmp_path):
        short = word_tokenizer(["unk", "cat", "end"], eos_token="end")
        short.backend_tokenizer.enable_truncation(2)
        tokens = pack(DataRecipe([SourceRecipe([write("one.txt", "cat " * 9)])]), short, "a", tmp_path / "packed")
        assert tokens.tolist() == [2, *[1] * 9, 2]
        assert short.backend_tokenizer.truncation["max_length"] == 2

    def test_damaged_tokens_are_packed_again(self, write, tokenizer, tmp_path, caplog):
        data = DataRecipe([SourceRecipe([write("one.txt", "The cat sat on the mat.")])])
        first = pack(data, tokenizer, "abc", tmp_path / "packed").tolist()
        (path,) = (tmp_path / "packed").glob("*.npy")
        whole = path.read_bytes()
        for damaged in (whole[:-2] + bytes([whole[-2] ^ 1, whole[-1]]), whole[:-2], b""):
            path.write_bytes(damaged)
            assert pack(data, tokenizer, "abc", tmp_path / "packed").tolist() == first
            assert path.read_bytes() == whole
        assert caplog.text.count("has other bytes than were written; it is not used, but made again") == 3

    def test_text_that_spells_a_special_token_stays_text(self, write, tokenizer, tmp_path):
        text = "The <bos> cat <eos><pad> sat."
        ids = pack(DataRecipe([SourceRecipe([write("one.txt", text)])]), tokenizer, "abc", tmp_path / "packed").tolist()
        marks = document_marks(tokenizer)
        assert (ids[0], ids[-1]) == marks
        assert not set(ids[1:-1]) & set(tokenizer.all_special_ids)
        assert tokenizer.decode(ids[1:-1]) == text

    def test_where_a_text_was_written_does_not_tell(self, write, tokenizer, tmp_path):
        def packed(name, text, **fields):
            (tmp_path / name).write_bytes(text.encode())
            recipe = DataRecipe([SourceRecipe([str(tmp_path / name)])], **fields)
            return pack(recipe, tokenizer, "abc", tmp_path / "packed").tolist()

        windows = "\ufeffThe cat\r\nsat.\r\n\r\nThe hat."
        plain = packed("unix.txt", "The cat\nsat.\n\nThe hat.")
        assert packed("windows.txt", windows) == plain
        assert packed("windows.jsonl", '\ufeff{"text": "The cat\\r\\nsat."}\r\n{"text": "The hat."}') == plain
        kept = packed("windows.txt", windows, normalize=False)
        assert "\ufeffThe cat\r\nsat." in tokenizer.decode(kept)

    def test_packed_file_is_made_once_for_one_recipe_and_tokenizer(self, write, tokenizer, tmp_path):
        folder = tmp_path / "packed"
        data = DataRecipe([SourceRecipe([write("one.txt", "The cat sat.")])])
        first = pack(data, tokenizer, "abc", folder).tolist()
        (name,) = packed_files(folder)
        written = (folder / name).stat()
        assert pack(data, tokenizer, "abc", folder).tolist() == first
        assert packed_files(folder) == [name]
        again = (folder / name).stat()
        assert (again.st_ino, again.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
        pack(data, tokenizer, "another tokenizer", folder)
        pack(DataRecipe(data.sources, tokens=3), tokenizer, "abc", folder)
        pack(DataRecipe([SourceRecipe(data.sources[0].files, weight=1.0)]), tokenizer, "abc", folder)
        assert len(packed_files(folder)) == 4
        write("one.txt", "The cat sat!")
        assert pack(data, tokenizer, "abc", folder).tolist() != first
        assert len(packed_files(folder)) == 5

    def test_text_whose_identity_is_known_is_not_hashed_again(self, write, tokenizer, tmp_path, monkeypatch):
        data = DataRecipe([SourceRecipe([write("one.txt", "The cat sat.")])])
        known = identify(data)
        expected = pack(data, tokenizer, "abc", tmp_path / "first").tolist()
        monkeypatch.setattr(sources, "sha256_file", lambda path: 1 // 0)
        assert pack(data, tokenizer, "abc", tmp_path / "packed", identities=known.text).tolist() == expected
        assert packed_files(tmp_path / "packed") == packed_files(tmp_path / "first")

    def test_batches_at_work_come_back_in_order(self, tokenizer, monkeypatch):
        """Long and short texts by turns, more than are at work at a time: each between its marks, in its place."""
        monkeypatch.setattr(encode, "BATCH_CHARACTERS", 64)
        monkeypatch.setattr(encode, "CHARACTERS_AT_WORK", 256)
        texts = ["cat " * (60 if number % 5 else 1) + str(number) for number in range(40)]
        bos, eos = document_marks(tokenizer)
        expected = [[bos, *tokenizer(text, add_special_tokens=False)["input_ids"], eos] for text in texts]
        assert [ids.tolist() for ids in encode.encoded(texts, tokenizer)] == expected

    def test_failure_leaves_nothing(self, tokenizer, tmp_path):
        (tmp_path / "bad.jsonl").write_bytes(b'{"text": "cat"}\n' * 1000 + b"{")
        with pytest.raises(FrozenGlyphError, match="line 1001 is not JSON"):
            pack(DataRecipe([SourceRecipe([str(tmp_path / "bad.jsonl")])]), tokenizer, "abc", tmp_path / "packed")
        assert packed_files(tmp_path / "packed") == []


PACKING = """
import json, resource, sys
from pathlib import Path
from transformers import PreTrainedTokenizerFast
from frozen_glyph.training.data import pack
from frozen_glyph.training.recipe import DataRecipe, SourceRecipe
tokenizer = PreTrainedTokenizerFast.from_pretrained(sys.argv[1])
size = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
pack(DataRecipe([SourceRecipe([sys.argv[2]])], tokens=100_000), tokenizer, "abc", Path(sys.argv[3]))
before = size()
print("ready", flush=True)
tokens = pack(DataRecipe([SourceRecipe([sys.argv[2]])]), tokenizer, "abc", Path(sys.argv[3]))
print(json.dumps({"tokens": len(tokens), "megabytes": size() - before}))
"""


LINE = "cat hat cathathathathathathathathathat\n" * 64


@pytest.mark.slow
class TestProcess:
    """Packing in a process of its own."""

    @pytest.fixture
    def start(self, tmp_path):
        """``start(megabytes)`` packs a text of that size without a blank line, which would be one document."""
        words = word_tokenizer(["unk", "cat", "hat", "bos", "eos"], bos_token="bos", eos_token="eos")
        words.save_pretrained(tmp_path / "tokenizer")

        def start(megabytes):
            text = tmp_path / f"{megabytes}.txt"
            if not text.exists():
                text.write_text(LINE * (megabytes * 1_000_000 // len(LINE)))
            command = [sys.executable, "-c", PACKING, tmp_path / "tokenizer", text, tmp_path / "packed"]
            environment = os.environ | {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
            return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)

        return start

    def test_memory_is_bounded(self, start):
        """50 MB of text and its ids as Python objects would take more than 100 MB."""
        output, _ = start(50).communicate()
        used = json.loads(output.splitlines()[-1])
        assert used["tokens"] > 3_500_000
        assert used["megabytes"] < 60

    def test_killed_packing_leaves_nothing_that_is_taken_for_complete(self, start, tmp_path):
        process = start(10)
        assert process.stdout.readline() == "ready\n"
        while not list((tmp_path / "packed").glob(".tokens-*.tmp")):
            time.sleep(0.001)
        process.kill()
        process.communicate()
        assert len(list((tmp_path / "packed").glob("tokens-*.npy"))) == 1  # of the 100,000 tokens packed first
        both = [start(10), start(10)]  # two ranks at once
        first, second = (process.communicate()[0].splitlines()[-1].split(",")[0] for process in both)
        assert first == second
        whole = max((tmp_path / "packed").glob("tokens-*.npy"), key=lambda path: path.stat().st_size)
        tokens = np.load(whole)
        assert set(tokens.tolist()) == {0, 1, 2, 3, 4}
        assert (tokens == 1).sum() == 10_000_000 // len(LINE) * 64


class TestMixture:
    @pytest.fixture
    def sources(self, many):
        def sources(*weights, count=400):
            words = ["cat", "сидел", "猫坐在"]
            files = [many(f"{index}.txt", words[index], count) for index in range(len(weights))]
            return [SourceRecipe([file], weight=weight) for file, weight in zip(files, weights, strict=True)]

        return sources

    def split_by_source(self, tokens, sources, tokenizer):
        """(source, ids) of each document of ``tokens``, found by its ids in the sources packed in memory."""
        queues = [iter(in_memory(source.files[0], tokenizer)) for source in sources]
        heads = [next(queue) for queue in queues]
        at, order = 0, []
        while at < len(tokens):
            # Sources have different words, and an end mark keeps a document from beginning another.
            for index, head in enumerate(heads):
                if head is not None and tokens[at : at + len(head)].tolist() == head:
                    order.append((index, head))
                    at += len(head)
                    heads[index] = next(queues[index], None)
                    break
            else:
                raise AssertionError(f"no source goes on with the tokens at {at}")
        return order, heads

    @pytest.mark.parametrize("weights", [(1.0, 1.0), (7.0, 3.0), (0.2, 0.5, 0.3)])
    def test_shares_follow_the_weights_within_one_document(self, sources, tokenizer, tmp_path, weights):
        recipe = DataRecipe(sources(*weights))
        tokens = pack(recipe, tokenizer, "abc", tmp_path / "packed")
        order, heads = self.split_by_source(tokens, recipe.sources, tokenizer)
        longest = max(len(ids) for _, ids in order)
        taken = np.zeros(len(weights))
        for index, ids in order:
            taken[index] += len(ids)
            ahead = taken - np.array(weights) / sum(weights) * taken.sum()
            assert ahead.max() <= longest
        assert heads.count(None) == 1  # it stops when one source ends, and none repeats

    def test_same_recipe_gives_the_same_bytes(self, sources, tokenizer, tmp_path):
        recipe = DataRecipe(sources(1.0, 3.0))
        first, second = (pack(recipe, tokenizer, "abc", tmp_path / name) for name in ("one", "two"))
        assert first.tobytes() == second.tobytes()

    def test_limit_stops_a_mixture(self, sources, tokenizer, tmp_path):
        recipe = sources(1.0, 3.0)
        whole = pack(DataRecipe(recipe), tokenizer, "abc", tmp_path / "packed")
        part = pack(DataRecipe(recipe, tokens=500), tokenizer, "abc", tmp_path / "packed")
        assert len(part) == 500
        assert part.tolist() == whole[:500].tolist()


class TestWindows:
    def test_windows_cover_the_tokens_in_order(self):
        windows = TokenWindows(np.arange(35, dtype=np.uint16), 8)
        assert len(windows) == 4
        ids = [windows[index]["input_ids"].tolist() for index in range(4)]
        assert [id_ for window in ids for id_ in window] == list(range(32))
        assert all(windows[index]["labels"].tolist() == ids[index] for index in range(4))
        assert windows[0].keys() == {"input_ids", "labels"}

    def test_index_is_the_windows_number(self):
        windows = TokenWindows(np.arange(35, dtype=np.uint16), 8, with_index=True)
        assert [windows[index]["index"] for index in range(4)] == [0, 1, 2, 3]

    def test_processes_share_the_windows_of_one_mapped_file(self, write, tokenizer, tmp_path):
        """As Accelerate divides them: each reads its own, together all, and none holds a copy of the tokens."""
        tokens = pack(DataRecipe([SourceRecipe([write("a.txt", "cat " * 600)])]), tokenizer, "abc", tmp_path / "work")
        seen = []
        for rank in range(2):
            windows = TokenWindows(np.lib.format.open_memmap(tokens.filename, mode="r"), 8, with_index=True)
            assert isinstance(windows.tokens, np.memmap) and windows.tokens.flags["WRITEABLE"] is False
            sampler = RandomSampler(windows, generator=torch.Generator().manual_seed(0))
            loader = DataLoader(windows, batch_size=2, sampler=sampler, collate_fn=collate, drop_last=True)
            share = prepare_data_loader(loader, num_processes=2, process_index=rank, put_on_device=False, rng_types=[])
            seen.append([index for batch in share for index in batch["index"]])
        assert not set(seen[0]) & set(seen[1])
        assert len(seen[0]) == len(seen[1]) == len(windows) // 4 * 2
        assert len(set(seen[0]) | set(seen[1])) == len(windows) // 4 * 4

    def test_text_shorter_than_a_window_is_refused(self):
        with pytest.raises(
            FrozenGlyphError, match=r"has 7 tokens, fewer than one window of training\.context_length=8"
        ):
            TokenWindows(np.arange(7, dtype=np.uint16), 8)
        assert len(TokenWindows(np.arange(8, dtype=np.uint16), 8)) == 1

    def test_separate_documents_count_their_own_positions(self):
        tokens = np.array([1, 5, 6, 2, 1, 7, 8, 9, 9, 2, 1, 5], dtype=np.uint16)
        windows = TokenWindows(tokens, 6, attend_across_documents=False, boundary_id=1)
        assert windows[0]["position_ids"].tolist() == [0, 1, 2, 3, 0, 1]
        assert windows[0]["labels"].tolist() == [IGNORED, 5, 6, 2, IGNORED, 7]
        assert windows[1]["position_ids"].tolist() == [0, 1, 2, 3, 0, 1]
        assert windows[1]["labels"].tolist() == [8, 9, 9, 2, IGNORED, 5]

    def test_one_id_for_both_marks_is_told_apart_by_its_neighbour(self):
        tokens = np.array([1, 5, 6, 1, 1, 7, 1, 1, 8], dtype=np.uint16)
        windows = TokenWindows(tokens, 4, attend_across_documents=False, boundary_id=1)
        assert windows[0]["position_ids"].tolist() == [0, 1, 2, 3]
        assert windows[0]["labels"].tolist() == [IGNORED, 5, 6, 1]
        assert windows[1]["position_ids"].tolist() == [0, 1, 2, 0]
        assert windows[1]["labels"].tolist() == [IGNORED, 7, 1, IGNORED]

    def test_separate_documents_need_the_id_that_begins_them(self):
        with pytest.raises(FrozenGlyphError, match="needs boundary_id"):
            TokenWindows(np.arange(8), 8, attend_across_documents=False)

    def test_windows_to_train_on_and_to_evaluate_with(self, write, tokenizer, tmp_path):
        file = write("valid.txt", "The cat sat on the mat.\n\nКот сидел на окне.")
        data = DataRecipe(
            [SourceRecipe([write("train.txt", "Кот. " * 20)])], valid=[file], attend_across_documents=False
        )
        training = TrainingRecipe(context_length=8, batch_tokens=8, eval_steps=1, prefix_cache="memory")
        train, held_out = open_windows(data, training, tokenizer, "abc", tmp_path / "packed")
        expected = list(itertools.chain(*in_memory(file, tokenizer)))
        found = [id_ for window in held_out for id_ in window["input_ids"].tolist()]
        assert found == expected[: len(found)]
        assert len(expected) - len(found) < 8
        assert held_out[0].keys() == {"input_ids", "labels", "position_ids"}
        assert train[0].keys() == held_out[0].keys() | {"index"}
        without = dataclasses.replace(training, eval_steps=None)
        assert open_windows(data, without, tokenizer, "abc", tmp_path / "packed")[1] is None


@pytest.mark.parametrize("use_cache", [False, True])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("training", [False, True])
def test_documents_of_a_window_are_computed_as_if_alone(build_model, tokenizer, implementation, training, use_cache):
    """Logits and loss of a batch of windows equal those of every document run by itself."""
    model = build_model(seed=3, num_hidden_layers=2, use_cache=use_cache, attn_implementation=implementation)
    assert model.config._attn_implementation == implementation
    model.train(training)
    bos, eos = document_marks(tokenizer)
    random = np.random.default_rng(0)
    lengths = [5, 11, 16, 3, 20, 9]  # two windows of 32
    documents = [[bos, *random.integers(3, len(tokenizer), length - 2).tolist(), eos] for length in lengths]
    tokens = np.concatenate(documents).astype(np.uint16)
    windows = TokenWindows(tokens, 32, attend_across_documents=False, boundary_id=bos)
    batch = {key: torch.stack([windows[index][key] for index in range(2)]) for key in windows[0]}
    output = model(**batch)
    alone, losses = [], []
    for document in documents:
        ids = torch.tensor([document])
        logits = model(ids).logits[0]
        alone.append(logits)
        losses.append(torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none"))
    torch.testing.assert_close(output.logits.flatten(0, 1), torch.cat(alone), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.loss, torch.cat(losses).mean(), rtol=1e-4, atol=1e-4)
    joined = model(batch["input_ids"]).logits
    assert (joined[:, 16:] - output.logits[:, 16:]).abs().max() > 1e-2  # it is not so when they may see each other
