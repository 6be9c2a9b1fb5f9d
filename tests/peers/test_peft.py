"""peft's tests of causal language models on one variant. Run by ``python tests/peers``.

Their tests load models by names on the Hub; a folder of that name in the working directory stands in for one of them.
"""

import pytest
from peers.fetch import load
from peers.targets import name_targets

pytestmark = pytest.mark.peers
STANDS_IN_FOR = (
    "peft-internal-testing/tiny-dummy-qwen2",
    "peft-internal-testing/tiny-random-OPTForCausalLM",
    "trl-internal-testing/tiny-random-LlamaForCausalLM",
    "trl-internal-testing/tiny-Qwen3ForCausalLM",
    "hf-internal-testing/tiny-random-MistralForCausalLM",
    "hf-internal-testing/tiny-random-Gemma3ForCausalLM",
)
name_targets()

TestDecoderModels = load("peft", "test_decoder_models").TestDecoderModels
