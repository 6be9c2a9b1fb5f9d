"""Every test of the suites of others that is switched off, and why: the only list of them.

A test that is not here and does not apply skips itself. A reason that switches off nothing fails the whole run.
"""

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass

from peers.table import Outcome
from peers.variants import APART, MERGED, OURS, READING


@dataclass(frozen=True)
class Reason:
    """``tests``: patterns of names, behind which parameters of peft stand. ``variants``: where it holds; if empty,
    everywhere, the control too."""

    suite: str
    tests: tuple[str, ...]
    why: str
    variants: tuple[str, ...] = ()

    def holds(self, suite: str, variant: str, test: str) -> bool:
        meant = suite == self.suite and variant in (self.variants or (variant,))
        return meant and any(fnmatch.fnmatchcase(test, pattern) for pattern in self.tests)


EMBEDS = (
    "the rule weighs experts by the tokens read: inputs_embeds without ids, as prompts of peft, are refused by name"
)
PROMPTS = ("CPTConfig", "PromptEncoderConfig", "PromptTuningConfig")  # of peft: vectors before the text
FORWARD = tuple(
    f"test_{name}"
    for name in (
        "disable_adapter",
        "generate",
        "inference_safetensors",
        "prompt_learning_with_gradient_checkpointing",
        "training",
    )
)
REASONS = [
    Reason(
        "transformers",
        (
            "test_correct_missing_keys",
            "test_model_weights_reload_no_missing_tied_weights",
            "test_base_model_prefix_loads_base_weights",
        ),
        "a checkpoint that lacks tensors is refused: a head or block of random numbers would go unnoticed",
        OURS,
    ),
    Reason(
        "transformers",
        ("test_resize_*",),
        "token ids and glyph bits are one frozen object: resizing is refused by name",
        OURS,
    ),
    Reason(
        "transformers",
        ("test_can_load_ignoring_mismatched_shapes", "test_load_with_mismatched_shapes"),
        "asks for RuntimeError, ours is a ValueError that names tensor and file; and for token vectors made anew",
        OURS,
    ),
    Reason(
        "transformers",
        ("test_init_weights_can_init_buffers",),
        "bits cannot be computed anew: without those of its folder a substrate says that it has none, and is not used",
        OURS,
    ),
    Reason(
        "transformers",
        ("test_tied_weights_keys",),
        "the substrate is frozen and the head trains: never tied",
        OURS,
    ),
    Reason(
        "transformers",
        ("test_model_get_set_embeddings",),
        "asks for an nn.Embedding; packed bits are none (to_dense() makes one)",
        OURS,
    ),
    Reason(
        "transformers",
        ("test_retain_grad_hidden_states_attentions",),
        "asks for a gradient at the token vectors, which are frozen, or in frozen blocks",
        OURS,
    ),
    Reason(
        "transformers",
        ("test_*inputs_embeds*",),
        EMBEDS,
        READING,
    ),
    Reason(
        "transformers",
        ("test_num_layers_is_small",),
        "counts passes through blocks: the shared one for each of two experts, and one block of each, make four",
        ("trunk",),
    ),
    Reason(
        "transformers",
        ("test_training_gradient_checkpointing*",),
        "their mock knows one call of a block in a step; one that experts share with adapters runs for each of them",
        ("trunk",),
    ),
    Reason(
        "peft",
        ("test_prepare_for_training_parametrized*", "test_prompt_tuning_*prepare_for_training*"),
        "asks for a gradient at the token vectors; ours is required where training begins, behind what is frozen",
        OURS,
    ),
    Reason(
        "peft",
        ("*'trainable_token_indices':*", "test_save_pretrained_targeting_lora_to_embedding_layer*"),
        "token vectors are bits and never train: peft refuses the module by name",
        OURS,
    ),
    Reason(
        "peft",
        ("test_lora_embed_scale*", "test_prompt_tuning_trust_remote_code", "*gemma4*", "*tie_word_embeddings*"),
        "needs modules of one of their models: scaled or tied embeddings, OPT's decoder, Gemma's layers",
    ),
    Reason(
        "peft",
        ("test_lora_layer_replication",),
        "asks for Llama's names of the MLP's modules",
        OURS,
    ),
    Reason(
        "peft",
        ("test_merge_layers*BeftConfig*",),
        "tunes biases, which Llama has none of",
        ("llama",),
    ),
    Reason(
        "peft",
        ("test_passing_input_embeds_works*", *(f"{test}*{way}*" for test in FORWARD for way in PROMPTS)),
        EMBEDS,
        READING,
    ),
    Reason(
        "peft",
        ("*ShadowConfig*",),
        "makes its shadow of one stack of blocks: a merged model has one for each expert",
        MERGED,
    ),
    Reason(
        "peft",
        ("test_training_decoders_layer_indexing*",),
        "counts blocks by the first list of modules: each list here holds one block, and there are several",
        ("trunk",),
    ),
    Reason(
        "peft",
        tuple(f"test_training_decoders_gradient_checkpointing*-{way}*" for way in ("LoraConfig", "AdaLoraConfig")),
        "takes what is named lora_ for its own, the frozen adapters of an expert too, and knows one run of a block",
        ("trunk",),
    ),
    Reason(
        "peft",
        ("test_generate*ShadowConfig*", "test_disable_adapter*ShadowConfig*"),
        "runs its shadow on one token under a mask of the whole text, having lost the cache under its new name",
        ("grown",),
    ),
    Reason(
        "trl",
        ("*vlm*", "test_vision_*", "*harmony", "*gpt_oss", "*_moe_*", "*toolcall*", "test_trust_remote_code"),
        "a model or data set of theirs on the Hub, of another kind than ours",
    ),
    Reason(
        "trl",
        ("test_train_with_set_chat_template_from_path",),
        "reads a file beside their test through a plugin of pytest that they install",
    ),
    Reason(
        "trl",
        ("test_eval_packing", "test_only_train_packing"),
        "counts what their tokenizer makes of their texts",
    ),
    Reason(
        "trl",
        ("test_forward_matches_reference*", "test_backward_matches_reference*", "test_num_valid_tokens_*"),
        "makes logits by the head's weight alone: under a rule that is no sum of them it is refused by name",
        APART,
    ),
    Reason("trl", ("test_train_with_peft_config_prompt_tuning*prompt_*", "test_prompt_tuning*"), EMBEDS, READING),
    Reason(
        "trl",
        ("test_train_model_dtype",),
        "half precision under bfloat16 autocast: torch's LayerNorm refuses the mixture on a CPU, in any model",
        OURS,
    ),
]


def reason_for(suite: str, variant: str, test: str) -> str | None:
    """Why a test is switched off for a variant; None if it runs."""
    return next((reason.why for reason in REASONS if reason.holds(suite, variant, test)), None)


def stale(outcomes: Iterable[Outcome]) -> list[Reason]:
    """The reasons that switch off no test of a whole run."""
    off = {(each.suite, why) for each in outcomes for why in each.switched_off.values()}
    return [reason for reason in REASONS if (reason.suite, reason.why) not in off]
