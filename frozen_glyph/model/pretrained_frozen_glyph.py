"""Loading that is strict: a missing, damaged or foreign tensor is an error that names the file, never a random layer.

It also knows growth stages, checks the substrate, and freezes again what files do not remember to be frozen.
"""

import copy
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from .embedding_frozen_glyph import FrozenGlyphEmbedding
from .loading_frozen_glyph import HUB_ARGUMENTS, carry_companions, examine_shards, stage_index, write_simple_card


class StrictPreTrainedModel(PreTrainedModel):
    """What ``from_pretrained`` and ``save_pretrained`` of every model here do beyond transformers' own."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *model_args: Any,
        growth_stage: int | str | None = None,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """``PreTrainedModel.from_pretrained``, strictly, with ``growth_stage=k`` for the model after stage k.

        Raises:
            ValueError: no such stage; a file is damaged or of another checkpoint; a tensor is missing, superfluous or
                of the wrong shape; the substrate's bits are not those of the fingerprint in the configuration. The
                message names the file.
            OSError: a file is missing.
        """
        source = pretrained_model_name_or_path
        if growth_stage is not None:
            kwargs |= cls.stage_arguments(source, growth_stage, kwargs)
        kwargs["use_safetensors"] = True  # never a pickle
        kwargs["ignore_mismatched_sizes"] = True  # they are refused below, by name
        try:
            loaded: Any = super().from_pretrained(source, *model_args, output_loading_info=True, **kwargs)
        except (SafetensorError, json.JSONDecodeError) as error:
            damaged = [f"{name} {complaint}" for name, complaint in cls.weight_files(source, kwargs)[1].items()]
            raise ValueError(
                f"checkpoint {str(source)!r} is damaged: {'; '.join(damaged) or error}; fetch or write it again"
            ) from error
        model, info = loaded
        owners, complaints = cls.weight_files(source, kwargs)
        tensors = {
            "missing": sorted(info["missing_keys"]),
            "unexpected": sorted(key for key in info["unexpected_keys"] if not key.startswith("lm_head.")),
            "mismatched": sorted(key for key, *_ in info["mismatched_keys"]),
        }
        problems = [f"{name} {complaint}" for name, complaint in complaints.items()]
        for kind, keys in tensors.items():
            if keys:
                files = (owners.get(key) or owners.get(f"{cls.base_model_prefix}.{key}") for key in keys[:5])
                named = (f"{key} ({file})" if file else key for key, file in zip(keys, files, strict=False))
                problems.append(f"{kind}: {', '.join(named)}")
        if problems:
            raise ValueError(
                f"checkpoint {str(source)!r} does not fit {cls.__name__}: {'; '.join(problems)}. "
                "The folder is incomplete or was written for another configuration; fetch or write it again"
            )
        model.check_substrate(owners.get("model.embed_tokens.packed_bits", "the weights"))
        model.apply_freezing()
        return (model, info) if output_loading_info else model

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """``PreTrainedModel.save_pretrained``; the tokenizer's files go along where the model's folder has them, and a
        card where there is none. What was loaded from the Hub has a tokenizer at hand once that was loaded too."""
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            carry_companions(self.name_or_path, Path(save_directory))
            write_simple_card(Path(save_directory))

    @classmethod
    def given_config(cls, source: Any, kwargs: dict[str, Any]) -> Any:
        """The configuration among the arguments of ``from_pretrained``, or that of the checkpoint."""
        config = kwargs.get("config") or source
        if hasattr(config, "model_type"):
            return config
        config_class: Any = cls.config_class
        return config_class.from_pretrained(config, **{name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs})

    @classmethod
    def weight_files(cls, source: Any, kwargs: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
        """See ``examine_shards``; ``kwargs`` are the arguments of ``from_pretrained``."""
        if source is None:  # from_pretrained(None, config=..., state_dict=...)
            return {}, {}
        config = cls.given_config(source, kwargs)
        index = kwargs.get("transformers_weights") or getattr(config, "transformers_weights", None)
        return examine_shards(source, index, kwargs)

    @classmethod
    def stage_arguments(cls, source: Any, growth_stage: int | str, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of ``from_pretrained`` that select ``growth_stage``; nothing given is changed."""
        try:
            stage = int(str(growth_stage))
        except ValueError:
            raise ValueError(f"growth_stage={growth_stage!r} must be the number of a stage, counted from 1") from None
        config = cls.given_config(source, kwargs)
        if not hasattr(config, "stage_layers"):
            raise ValueError(f"growth_stage={stage}: a {config.model_type!r} checkpoint has no growth stages")
        blocks, frozen = config.stage_layers(stage)
        fields = {"num_hidden_layers": blocks, "num_frozen_layers": frozen, "ladder": config.ladder[:stage]}
        if stage < len(config.ladder):
            fields["transformers_weights"] = stage_index(stage)
        if config is not kwargs.get("config"):
            return fields
        config = copy.deepcopy(config)
        for name, value in fields.items():
            setattr(config, name, value)
        return {"config": config}

    @property
    def substrate(self) -> nn.Module:
        """The token embedding: see ``make_substrate``."""
        return self.get_input_embeddings()

    def check_substrate(self, file: str = "the weights") -> None:
        """Raise ``ValueError`` unless the substrate, from ``file``, has the fingerprint in the configuration."""
        expected, substrate = self.config.substrate_fingerprint, self.substrate
        if expected is None or not isinstance(substrate, FrozenGlyphEmbedding) or substrate.packed_bits.is_meta:
            return
        found = substrate.fingerprint(self.config.tokenizer_sha256)
        if found != expected:
            raise ValueError(
                f"the substrate in {file} has fingerprint {found}, the configuration names {expected}: "
                "file damaged, or config.json and tokenizer of another model; fetch the checkpoint again"
            )

    def frozen_modules(self) -> list[nn.Module]:
        """The modules that do not train."""
        return []

    def apply_freezing(self) -> None:
        """Stop the gradients of ``frozen_modules``; ``from_pretrained`` does this because files do not remember it."""
        for module in self.frozen_modules():
            module.requires_grad_(False)


__all__ = ["StrictPreTrainedModel"]
