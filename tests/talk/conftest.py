"""Models to talk to: opened once, and one that was saved with a chat template, as a trainer of messages does."""

import pytest

from frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.checkpoint.loading import load_tokenizer
from frozen_glyph.talk.speakers import Speaker

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[a]{% endif %}"
)


@pytest.fixture
def grown(experts):
    return Speaker(str(experts[0]), "cpu")


@pytest.fixture
def merged(merged_folder):
    return Speaker(str(merged_folder), "cpu")


@pytest.fixture(scope="session")
def chatting_folder(experts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat") / "tuned"
    FrozenGlyphForCausalLM.from_pretrained(experts[0]).save_pretrained(folder)
    tokenizer = load_tokenizer(experts[0])
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder
