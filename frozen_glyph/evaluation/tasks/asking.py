"""A loaded model as lm-eval asks it: what it answered before is not asked again, and what it cannot answer ends no run.

lm-eval asserts that every part of a request has tokens and fits into the context. Here a request that does not is
answered by the least likelihood or by no text, and ``unscored`` says why, so that its item counts as wrong.
https://github.com/EleutherAI/lm-evaluation-harness
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from frozen_glyph.evaluation.tasks.answers import GENERATION, LIKELIHOOD, NOT_A_NUMBER, ROLLING, Answers, request_key
from frozen_glyph.evaluation.tasks.lm import ScoredLogitsLM

TOO_LONG, BLANK = "too long for the context", "a blank part"
IMPOSSIBLE = (-math.inf, False)
LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # lm-eval's, the first counts


class AskedLM(ScoredLogitsLM):
    """``unscored`` are the requests that the model could not answer, by ``request_key``, and why."""

    def __init__(self, answers: Answers, **options: Any) -> None:
        super().__init__(trust_remote_code=False, **options)
        self.answers = answers
        self.unscored: dict[str, str] = {}
        self.set_cache_hook(self)

    def add_partial(self, kind: str, arguments: Sequence[Any], answer: Any) -> None:
        """Keep an answer; lm-eval calls this for each as it comes."""
        self.answers.add(kind, arguments, answer)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        def blank(arguments: Sequence[Any]) -> str | None:
            context, continuation = arguments
            return BLANK if context == "" and not self.tok_encode(continuation, add_special_tokens=False) else None

        return self._asked(LIKELIHOOD, requests, super().loglikelihood, blank, IMPOSSIBLE, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        def blank(arguments: Sequence[Any]) -> str | None:
            return None if self.tok_encode(arguments[0]) else BLANK

        found = self._asked(ROLLING, requests, super().loglikelihood_rolling, blank, -math.inf, disable_tqdm)
        for request, score in zip(requests, found, strict=True):
            if not math.isfinite(score):
                self.unscored.setdefault(request_key(request.args), NOT_A_NUMBER)
        return found

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        def problem(arguments: Sequence[Any]) -> str | None:
            prompt, options = arguments
            wanted = next((options[name] for name in LIMITS if options.get(name) is not None), self.max_gen_toks)
            if wanted >= self.max_length:
                return TOO_LONG
            return None if prompt.strip() or self.tok_encode(prompt) else BLANK

        return self._asked(GENERATION, requests, self._generate, problem, "", disable_tqdm)

    def _generate(self, requests: list[Any], disable_tqdm: bool) -> list[str]:
        try:
            return super().generate_until(requests, disable_tqdm)
        except RuntimeError as error:
            if "probability tensor" not in str(error):
                raise
            self.unscored |= {request_key(request.args): NOT_A_NUMBER for request in requests}
            return [""] * len(requests)

    def _asked(
        self,
        kind: str,
        requests: list[Any],
        ask: Callable[..., list[Any]],
        problem: Callable[[Sequence[Any]], str | None],
        impossible: Any,
        disable_tqdm: bool,
    ) -> list[Any]:
        """The answers that are known, those that ``ask`` gives, and ``impossible`` where there is a ``problem``."""
        found: list[Any] = []
        for request in requests:
            if (reason := problem(request.args)) is not None:
                self.unscored[request_key(request.args)] = reason
            found.append(self.answers.find(kind, request.args) if reason is None else impossible)
        places = [place for place, answer in enumerate(found) if answer is None]
        if places:
            given = ask([requests[place] for place in places], disable_tqdm)
            for place, answer in zip(places, given, strict=True):
                found[place] = answer
        return found

    def _loglikelihood_tokens(self, requests: list[Any], *arguments: Any, **options: Any) -> list[Any]:
        reasons = [self._problem(context, continuation) for _, context, continuation in requests]
        fitting = [request for request, reason in zip(requests, reasons, strict=True) if reason is None]
        given = iter(super()._loglikelihood_tokens(fitting, *arguments, **options) if fitting else ())
        found = []
        for (pair, *_), reason in zip(requests, reasons, strict=True):
            answer = IMPOSSIBLE if reason else next(given)
            if math.isnan(answer[0]):
                answer, reason = IMPOSSIBLE, NOT_A_NUMBER
            if reason and pair is not None:  # None: a window of a text
                self.unscored[request_key(pair)] = reason
            found.append(answer)
        return found

    def _problem(self, context: list[int], continuation: list[int]) -> str | None:
        """Why the tokens of a request cannot be scored."""
        if len(continuation) > self.max_length:
            return TOO_LONG
        return None if continuation and context and None not in context else BLANK
