"""In which precision a device trains, and up to which size its token vectors are kept ready; known without torch."""

MATERIALIZE_BYTES = 64 << 20  # of a float32 table of all token vectors


def uses_bf16(precision: str) -> bool:
    """Whether to compute in bfloat16; ``auto`` does where the hardware multiplies it natively."""
    if precision != "auto":
        return precision == "bf16"
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
