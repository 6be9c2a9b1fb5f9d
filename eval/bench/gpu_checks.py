"""What must hold on a device, each check beside the CPU in float32: logits, frozen bits, kernels; for ``gpu.py``."""

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from eval.bench.generate import build_merged
from eval.bench.models import build_model
from eval.bench.training_step import TrainingStep
from frozen_glyph.errors import FrozenGlyphError, one_line
from frozen_glyph.growth.quantize import quantize_frozen
from frozen_glyph.model.rules_frozen_glyph import RULES

# Largest |difference| / |logits| that a type's rounding, and that of a few bits a weight, may make over two blocks.
ALLOWED = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}
ALLOWED_QUANTIZED = {"int8": 0.05, "int4": 0.3, "nf4": 0.3}
NEW_TOKENS = 6


def small(arguments: argparse.Namespace, **changes: Any) -> argparse.Namespace:
    """A shape of which the CPU makes the logits in no time."""
    shape = {
        "width": min(arguments.width, 256),
        "heads": min(arguments.heads or 8, 8),
        "vocab": min(arguments.vocab, 4096),
        "batch": 2,
        "context": min(arguments.context, 64),
        "device": "cpu",
        "precision": "fp32",
    }
    return argparse.Namespace(**shape | changes)


def tried(check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``check`` finds; where it fails, why, and the next one is made all the same."""
    try:
        return check()
    except FrozenGlyphError as error:  # a library or device that is not here
        return {"skipped": one_line(str(error))}
    except Exception as error:  # whatever a device or driver raises
        return {"failed": f"{type(error).__name__}: {one_line(str(error))}"[:500], "holds": False}


def compared(found: torch.Tensor, expected: torch.Tensor, allowed: float) -> dict[str, Any]:
    difference = ((found.float().cpu() - expected).norm() / expected.norm()).item()
    return {"difference": float(f"{difference:.3g}"), "allowed": allowed, "holds": difference <= allowed}


def check_logits(arguments: argparse.Namespace) -> dict[str, Any]:
    """Logits of the device over those of the CPU, for every type, form of the substrate, cache and merge rule."""
    shape, device = small(arguments), torch.device(arguments.device)
    model = build_model(shape, 2).eval()
    ids = torch.randint(shape.vocab, (shape.batch, shape.context // 2), generator=torch.Generator().manual_seed(1))

    @torch.no_grad()
    def logits_of(model: Any, dtype: torch.dtype, where: torch.device = device) -> torch.Tensor:
        return copy.deepcopy(model).to(where, dtype)(ids.to(where)).logits

    expected = logits_of(model, torch.float32, torch.device("cpu"))

    def plain(dtype: torch.dtype) -> dict[str, Any]:
        return compared(logits_of(model, dtype), expected, ALLOWED[dtype])

    def materialised() -> dict[str, Any]:
        ready = copy.deepcopy(model).to(device)
        ready.get_input_embeddings().materialize()
        with torch.no_grad():
            return compared(ready(ids.to(device)).logits, expected, ALLOWED[torch.float32])

    def cached(kind: str) -> dict[str, Any]:
        """Logits of each token that is written, over one pass of the CPU over all of them."""
        writer = copy.deepcopy(model).to(device)
        writer.generation_config.eos_token_id = None
        options = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0, "use_cache": True}
        wanted = {"cache_implementation": kind, "output_logits": True, "return_dict_in_generate": True}
        written = writer.generate(ids.to(device), attention_mask=torch.ones_like(ids).to(device), **options, **wanted)
        with torch.no_grad():
            whole = model(written.sequences.cpu()).logits[:, -NEW_TOKENS - 1 : -1]
        return compared(torch.stack(written.logits, dim=1), whole, ALLOWED[torch.float32])

    def compiled() -> dict[str, Any]:
        if device.type == "cpu":
            raise FrozenGlyphError("torch.compile is tried on GPUs")
        faster = torch.compile(copy.deepcopy(model).to(device))
        with torch.no_grad():
            return compared(faster(ids.to(device)).logits, expected, ALLOWED[torch.float32])

    merged = build_merged(model, 2).eval()

    def ruled(rule: str) -> dict[str, Any]:
        merged.config.rule = rule
        return compared(
            logits_of(merged, torch.float32),
            logits_of(merged, torch.float32, torch.device("cpu")),
            ALLOWED[torch.float32],
        )

    checks: dict[str, Callable[[], dict[str, Any]]] = {
        **{str(dtype).removeprefix("torch."): lambda dtype=dtype: plain(dtype) for dtype in ALLOWED},
        "materialised substrate": materialised,
        "dynamic cache": lambda: cached("dynamic"),
        "static cache": lambda: cached("static"),
        "torch.compile": compiled,
        **{f"rule {rule}": lambda rule=rule: ruled(rule) for rule in RULES},
    }
    return {name: tried(check) for name, check in checks.items()}


def check_frozen(arguments: argparse.Namespace) -> dict[str, Any]:
    """Bits of what is frozen after steps in bfloat16 on the device; quantised prefixes; the attention that trains."""
    shape = small(arguments, device=arguments.device, precision="bf16")

    def frozen_bits() -> dict[str, Any]:
        model = build_model(shape, 3, frozen=2)
        frozen = [*model.buffers(), *(part for part in model.parameters() if not part.requires_grad)]
        before = [tensor.detach().cpu().clone() for tensor in frozen]
        step = TrainingStep(model, shape, learning_rate=1e-2)
        for _ in range(3):
            step()
        same = all(torch.equal(old, new.detach().cpu()) for old, new in zip(before, frozen, strict=True))
        return {"tensors": len(frozen), "holds": same}

    def quantised(kind: str) -> dict[str, Any]:
        plain = build_model(small(arguments), 2, frozen=2).eval()
        ids = torch.arange(shape.context)[None] % shape.vocab
        coarse = copy.deepcopy(plain).to(arguments.device)
        quantize_frozen(coarse, kind)
        with torch.no_grad(), torch.autocast(torch.device(arguments.device).type, torch.bfloat16):
            found = coarse(ids.to(arguments.device)).logits
        with torch.no_grad():
            return compared(found, plain(ids).logits, ALLOWED_QUANTIZED[kind])

    def flash() -> dict[str, Any]:
        """A step with no other kernel allowed: torch raises where FlashAttention is ruled out."""
        step = TrainingStep(build_model(shape, 2), shape)
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            loss = step().item()
        return {"loss": round(loss, 4), "holds": loss == loss}

    return {
        "frozen bits after steps": tried(frozen_bits),
        **{f"{kind} prefix": tried(lambda kind=kind: quantised(kind)) for kind in ALLOWED_QUANTIZED},
        "flash attention reached": tried(flash),
    }
