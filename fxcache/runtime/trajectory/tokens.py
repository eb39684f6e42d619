"""Compares latents of tokens: integers that name the entries of a codebook, or are hidden.

A step of such a sampler shows some of the hidden tokens. Tokens that are shown stay, or nearly all
of them do. Numbers of tokens have no direction, so that a cosine says nothing. The most frequent
token may be the hidden one, on which unrelated latents agree too. It does not count.
"""

import math

from torch import Tensor

CHANCE = 1e-9  # the greatest probability that unrelated tokens look alike
IMPOSSIBLE = math.inf  # the bound if there are too few tokens to tell


def compare_tokens(then: Tensor, now: Tensor) -> tuple[float, int, float]:
    """Compare the tokens of two calls, ``[S]`` each.

    Returns:
        The share of the tokens in ``then``, apart from the most frequent one, that are the same in
        ``now`` (1 if nothing differs); how many tokens differ; and the share that unrelated tokens
        exceed with the probability ``CHANCE`` at most.
    """
    then, now = then.long(), now.long()  # torch finds no mode of bools
    different = int((then != now).sum())
    if not different:
        return 1.0, 0, IMPOSSIBLE
    shown = then != then.mode().values
    count = int(shown.sum())
    if not count:
        return 0.0, different, IMPOSSIBLE
    share = float((then == now)[shown].double().mean())
    expected = float((then[shown].unsqueeze(1) == now).double().mean())
    return share, different, chance_share(count, expected)


def chance_share(count: int, expected: float) -> float:
    """Return the share of ``count`` tokens that agree by chance with the probability ``CHANCE``.

    If each of n tokens agrees with the probability p, a share of at least s > p agrees with the
    probability exp(-n KL(s, p)) at most (Chernoff), where KL is the relative entropy of two coins.

    Args:
        count: The number of tokens.
        expected: The mean probability that one agrees.
    """
    needed = -math.log(CHANCE) / count
    if not 0 < expected < 1 or -math.log(expected) < needed:
        return IMPOSSIBLE
    low, high = expected, 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if relative_entropy(middle, expected) < needed else (low, middle)
    return high


def relative_entropy(share: float, expected: float) -> float:
    """Return KL(share, expected) of two coins, in nats; ``share`` < 1."""
    return share * math.log(share / expected) + (1 - share) * math.log((1 - share) / (1 - expected))
