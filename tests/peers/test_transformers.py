"""transformers' common suite on one variant: its mixins, our tester. Run by ``python tests/peers``.

What of a model's own test file the mixins need is here; what they test is theirs.
"""

import copy
import sys
import types
import unittest

import pytest
import torch
from peers.fetch import load, suite
from peers.variants import VOCABULARY, WIDTH, chosen

pytestmark = pytest.mark.peers
VARIANT = chosen()
MIXINS = {  # module of the suite -> class; the source archive alone does not hold all of them
    "generation.test_utils": "GenerationTesterMixin",
    "exporters.test_export": "ExportTesterMixin",
    "test_modeling_common": "ModelTesterMixin",
    "test_training_mixin": "TrainingTesterMixin",
}

WRITTEN = ("model_type", "transformers_version", "auto_map")  # by every configuration into its file


def mixins() -> list[type]:
    """The mixins that were fetched; what one of them imports and is not there is an empty class."""
    found = {}
    for module, name in MIXINS.items():
        path = suite("transformers").joinpath(*module.split(".")).with_suffix(".py")
        if not path.is_file():
            stand_in = types.ModuleType(f"tests.{module}")
            setattr(stand_in, name, type(name, (), {}))
            sys.modules[stand_in.__name__] = stand_in
        found[name] = getattr(load("transformers", module), name)
    found.pop("ExportTesterMixin")  # a base of ModelTesterMixin
    return [found["ModelTesterMixin"], found["GenerationTesterMixin"], found["TrainingTesterMixin"]]


class Tester:
    """What the mixins ask of a model's tester: sizes, a configuration and inputs."""

    batch_size, seq_length = 13, 7
    vocab_size, hidden_size, num_attention_heads = VOCABULARY, WIDTH, 4
    is_training = True
    pad_token_id = 0

    def __init__(self, parent: unittest.TestCase) -> None:
        self.parent = parent
        self.num_hidden_layers = VARIANT.blocks
        self.causal_lm_class = VARIANT.model_classes()[1]

    def get_config(self):
        return VARIANT.config()

    def prepare_config_and_inputs(self):
        config, inputs = self.prepare_config_and_inputs_for_common()
        return config, *inputs.values()

    def prepare_config_and_inputs_for_common(self):
        ids = torch.randint(3, VOCABULARY, (self.batch_size, self.seq_length))
        return self.get_config(), {"input_ids": ids, "attention_mask": torch.tril(torch.ones_like(ids))}


class Test(*mixins(), unittest.TestCase):
    all_model_classes = tuple(VARIANT.model_classes())
    training_overfit_learning_rate = 1e-3 if VARIANT.experts == 1 else 1e-2  # of merged models only the head trains

    def setUp(self):
        self.model_tester = Tester(self)

    def test_config(self):
        if not suite("transformers").joinpath("utils", "test_configuration_utils.py").is_file():
            self.skipTest("the source archive lacks a file of it")
        tester = load("transformers", "test_configuration_common").ConfigTester
        config = VARIANT.config()
        fields = {name: value for name, value in config.to_diff_dict().items() if name not in WRITTEN}
        tester(self, config_class=type(config), **fields).run_common_tests()

    def _check_hidden_states_for_generate(self, batch_size, hidden_states, *args, **kwargs):
        """Theirs, of merged models for each expert's part of the last states."""
        parts = tuple((*step[:-1], *step[-1].chunk(VARIANT.experts, -1)) for step in hidden_states)
        super()._check_hidden_states_for_generate(batch_size, parts, *args, **kwargs)

    def _check_past_key_values_for_generate(self, batch_size, past_key_values, seq_length, config):
        """Theirs, for the layers of blocks; what rules that read keep is behind them, in another shape."""
        self.assertEqual(config.num_hidden_layers, len(past_key_values))
        blocks, config = copy.copy(past_key_values), copy.copy(config)
        config.num_hidden_layers = getattr(config, "evidence_layer", config.num_hidden_layers)
        blocks.layers = blocks.layers[: config.num_hidden_layers]
        super()._check_past_key_values_for_generate(batch_size, blocks, seq_length, config)
