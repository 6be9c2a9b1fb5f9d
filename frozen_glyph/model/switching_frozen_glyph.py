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

A long piece is cut into blocks, which are followed side by side from every state that may stand before them; then the
blocks are joined one after another. That takes a few steps for each of the square root of the tokens.

Shapes: B batch, C tokens of a piece, R rates, N experts.
"""

import math

import torch

LEAST_BLOCK = 8  # tokens; shorter ones are followed one by one
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
    batch, length = counted_BC.shape
    initial_RN = initial_weights(log_prior_N, rates_R)
    stay_R1 = logs(1 - rates_R).unsqueeze(-1)
    share_RN = logs(rates_R).unsqueeze(-1) + log_prior_N.clamp_min(LEAST)
    begins = torch.zeros_like(counted_BC, dtype=torch.bool) if begins_BC is None else begins_BC
    told: tuple[torch.Tensor, ...] = (
        log_probs_BCN - log_probs_BCN.detach().amax(-1, keepdim=True),
        counted_BC.bool(),
        begins,
    )
    chain = (initial_RN, stay_R1, share_RN)
    width = math.isqrt(length - 1) + 1
    if width < LEAST_BLOCK:
        return normalised(follow(before_BRN, told, chain))

    blocks = -(-length // width)
    told = tuple(in_blocks(part, blocks, width) for part in told)
    states = initial_RN.numel()
    apart = torch.full((states, states), LEAST, device=log_probs_BCN.device).fill_diagonal_(0)
    apart = apart.view(states, *initial_RN.shape).repeat(batch * blocks, 1, 1)
    ends = follow(apart, tuple(part.repeat_interleave(states, 0) for part in told), chain)[:, -1]
    through = ends.reshape(batch, blocks, states, states)
    first = [before_BRN.flatten(1)]
    for block in range(blocks - 1):
        first.append((first[-1].unsqueeze(-1) + through[:, block]).logsumexp(1).log_softmax(-1))
    after = follow(torch.stack(first, dim=1).view(batch * blocks, *initial_RN.shape), told, chain)
    return normalised(after.reshape(batch, blocks * width, *initial_RN.shape)[:, :length])


def follow(weights: torch.Tensor, told: tuple[torch.Tensor, ...], chain: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The chain token by token, from ``weights`` [B, R, N]: [B, C, R, N], of sums that tell how likely the text was."""
    log_probs, counted, begins = told
    initial, stay, share = chain
    after = []
    for column in range(log_probs.shape[1]):
        posterior = weights + log_probs[:, column, None]
        shared = torch.logaddexp(posterior + stay, posterior.logsumexp(-1, keepdim=True) + share)
        weights = torch.where(counted[:, column, None, None], shared, weights)
        anew = weights.flatten(1).logsumexp(-1)[:, None, None] + initial
        weights = torch.where(begins[:, column, None, None], anew, weights)
        after.append(weights)
    return torch.stack(after, dim=1)


def normalised(weights: torch.Tensor) -> torch.Tensor:
    return weights.flatten(-2).log_softmax(-1).view_as(weights)


def in_blocks(part_BC: torch.Tensor, blocks: int, width: int) -> torch.Tensor:
    """[B, C, ...] as [B * blocks, width, ...]; zeros, which count for nothing, fill the last one."""
    padding = (0, 0) * (part_BC.dim() - 2) + (0, blocks * width - part_BC.shape[1])
    return torch.nn.functional.pad(part_BC, padding).unflatten(1, (blocks, width)).flatten(0, 1)


__all__ = ["fixed_share", "initial_weights"]
