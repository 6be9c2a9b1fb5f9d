"""Corpus BLEU on the scale from 0 to 1, through sacrebleu, as a statistic of sums over sentences.

Corpus BLEU depends on the sentences only through the sums of a few counts, so a bootstrap draws rows of counts.
Source: Papineni et al. 2002, https://aclanthology.org/P02-1040; sacrebleu: Post 2018, https://aclanthology.org/W18-6319.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from frozen_glyph.evaluation.measurements import Translations

RESAMPLES = 2_000  # of a bootstrap; sacrebleu scores every draw
_COUNTS = 10  # a row: length of hypothesis, length of reference, matching n-grams of 1..4, all n-grams of 1..4


def sentence_counts(translations: Translations) -> NDArray[np.float64]:
    """Return the counts of every sentence, [items, 10]."""
    from sacrebleu.metrics import BLEU

    # The effective order changes a sentence's own score, which is not used, and not its counts.
    bleu = BLEU(tokenize=translations["tokenize"], effective_order=True)
    pairs = zip(translations["hypotheses"], translations["references"], strict=True)
    scores = [bleu.sentence_score(hypothesis, [reference]) for hypothesis, reference in pairs]
    return np.array([[score.sys_len, score.ref_len, *score.counts, *score.totals] for score in scores], np.float64)


def run_counts(runs: Sequence[Translations]) -> NDArray[np.float64]:
    """Return the counts of repeated runs over the same sentences side by side, [items, runs x 10]."""
    return np.concatenate([sentence_counts(run) for run in runs], axis=1)


def mean_corpus_bleu(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return corpus BLEU of summed counts [draws, 10], or its mean over runs of [draws, runs x 10]."""
    from sacrebleu.metrics import BLEU

    def score(counts: NDArray[np.float64]) -> float:
        numbers = [int(count) for count in counts]
        return BLEU.compute_bleu(numbers[2:6], numbers[6:], numbers[0], numbers[1], smooth_method="exp").score / 100

    runs = sums.reshape(len(sums), -1, _COUNTS)
    return np.array([np.mean([score(run) for run in draw]) for draw in runs])


def signature(translations: Translations) -> str:
    """Return sacrebleu's description of the score, to be printed beside it."""
    from sacrebleu.metrics import BLEU

    bleu = BLEU(tokenize=translations["tokenize"])
    bleu.corpus_score(translations["hypotheses"], [translations["references"]])
    return f"sacrebleu {bleu.get_signature()}"
