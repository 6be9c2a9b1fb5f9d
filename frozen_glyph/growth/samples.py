"""How a stage goes on with the beginnings of held-out texts: to be read beside those of the other stages."""

from collections.abc import Sequence
from typing import Any

import torch

PROMPTS, PROMPT_CHARACTERS = 3, 24
MOST_TOKENS = 48
TRAINED_TOKENS = 50_000  # for each token that is written: so it takes next to none of a stage's time
SAMPLING = {"do_sample": True, "temperature": 0.8, "top_p": 0.95}


def write_samples(
    model: Any, tokenizer: Any, texts: Sequence[Sequence[str]], trained_tokens: int, seed: int
) -> list[dict[str, str]]:
    """Prompt and text for the first document of each of the first texts; nothing after a stage of few tokens.

    Drawn by ``seed``, the same after every stage; torch's own random state stays as it was.
    """
    length = min(MOST_TOKENS, trained_tokens // TRAINED_TOKENS)
    if not length:
        return []
    samples = []
    devices = [model.device] if model.device.type == "cuda" else []
    for documents in texts[:PROMPTS]:
        prompt = documents[0][:PROMPT_CHARACTERS]
        ids = tokenizer(prompt, return_tensors="pt").input_ids.to(model.device)
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            settings = SAMPLING | {"max_new_tokens": length, "pad_token_id": tokenizer.pad_token_id}
            whole = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        text = tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True)
        samples.append({"prompt": prompt, "text": text})
    return samples
