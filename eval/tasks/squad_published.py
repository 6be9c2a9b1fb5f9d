"""The published SQuAD protocol, which needs a token budget of its own for every question.

A YAML alone gives all questions one budget, so this task class sets ``max_gen_toks`` of each request to the number of
characters of its gold answer. Source: the protocol of the "Growing Transformers" experiments, arXiv 2507.07129.
"""

from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask


class PublishedSquad(ConfigurableTask):
    """``fg_squad_published``: an ordinary YAML task but for the budget of each request."""

    def __init__(self, config: dict[str, Any]) -> None:
        # "class" names this class in the YAML and is no field of a task configuration.
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> Instance:
        """Build the request and give it as many new tokens as its gold answer has characters."""
        request = super().construct_requests(doc, ctx, **kwargs)
        prompt, generation = request.args
        request.arguments = (prompt, {**generation, "max_gen_toks": len(doc["answer"])})
        return request


def score_substring(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Hit if the gold answer is a case-insensitive substring of the completion."""
    return {"hit": float(doc["answer"].lower() in results[0].lower())}
