"""Fixed share: how much each expert counts when another may take over at any token (Herbster and Warmuth 1998).

The text is taken to be written by one expert at a time. The first writer is drawn from the prior; after each token,
with probability ``rate``, the next one is drawn anew from it. What the tokens so far tell of the writer of the next
one is the forward pass of a hidden Markov model: each expert's weight is multiplied by the probability that it gave to
the token, the weights are made to sum to 1, and of each the share ``rate`` is dealt out to all by the prior.

Guarantee. A token's probability is the experts' weighted mean, so the probability of a text is the sum, over all
sequences of writers, of the probability of the sequence times that of the text written so. A sum is at least any of its
terms. Hence over T tokens the loss exceeds that of any sequence of N experts with S switches by at most

    log N + S log(N / rate) + (T - 1 - S) log(1 / (1 - rate))

nats at equal priors: an expert of prior p in place of 1 / N counts log(1 / p) for log N where the text or a run of it
begins. Several rates each have weights of their own, and count by how well they predicted the text so far (Learn-alpha,
Monteleoni and Jaakkola 2003): at most log R nats more than under the best of R rates. Rate 0 is the rule ``posterior``.

Shapes: B batch, C tokens of a piece, R rates, N experts.
"""

import math

import torch

LEAST = -1e30  # stands for the logarithm of 0, whose differences would be no numbers


def logs(numbers: torch.Tensor) -> torch.Tensor:
    """Logarithms, of which none is infinite."""
    return numbers.log().clamp_min(LEAST)


def initial_weights(log_prior_N: torch.Tensor, rates_R: torch.Tensor) -> torch.Tensor:
    """Log weights [R, N] of each rate and expert before any token: equal rates, the prior of each expert."""
    return log_prior_N.clamp_min(LEAST).expand(len(rates_R), -1) - math.log(len(rates_R))


def fixed_share(
    log_probs_BCN: torch.Tensor,
    counted_BC: torch.Tensor,
    begins_BC: torch.Tensor | None,
    before_BRN: torch.Tensor,
    log_prior_N: torch.Tensor,
    rates_R: torch.Tensor,
) -> torch.Tensor:
    """Log weights [B, C, R, N] of each rate and expert after each token; over both they sum to 1.

    Args:
        log_probs_BCN: of each token under each expert.
        counted_BC: whether the token tells anything; if not, weights stay.
        begins_BC: whether the token is the first of a document, after which weights are the initial ones. None: no one.
        before_BRN: the log weights before the first of these tokens.
    """
    initial_RN = initial_weights(log_prior_N, rates_R)
    stay_R1 = logs(1 - rates_R).unsqueeze(-1)
    share_RN = logs(rates_R).unsqueeze(-1) + log_prior_N.clamp_min(LEAST)
    weights, after = before_BRN, []
    for column in range(log_probs_BCN.shape[1]):
        told = (weights + log_probs_BCN[:, column, None]).flatten(1).log_softmax(-1).view_as(weights)
        shared = torch.logaddexp(told + stay_R1, told.logsumexp(-1, keepdim=True) + share_RN)
        weights = torch.where(counted_BC[:, column, None, None].bool(), shared, weights)
        if begins_BC is not None:
            weights = torch.where(begins_BC[:, column, None, None], initial_RN, weights)
        after.append(weights)
    return torch.stack(after, dim=1)


__all__ = ["fixed_share", "initial_weights"]
