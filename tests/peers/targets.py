"""What peft knows of the models in transformers, and users of others say in ``target_modules``: for ours, too."""

import peft.utils.constants as constants

COUNTERPARTS = {"down_proj": "fc_out", "up_proj": "fc_in", "gate_proj": "fc_in"}  # of Llama's modules
WITH_BIAS = {"TRANSFORMERS_MODELS_TO_BEFT_TARGET_MODULES_MAPPING": ["fc_out"]}  # Llama has no biases, ours here alone


def name_targets() -> None:
    """Enter our classes into peft's tables, with the counterparts of what they say of Llama."""
    for name, table in vars(constants).items():
        if name.endswith("_MODULES_MAPPING") and "llama" in table:
            modules = WITH_BIAS.get(name) or sorted({COUNTERPARTS.get(module, module) for module in table["llama"]})
            table |= {"frozen_glyph": modules, "frozen_glyph_moe": modules}
