"""Agreement: processes that share a model take the same decision at each step.

The graph of a sharded model exchanges data with other processes. If one process refreshes while
another one reuses, each waits for an exchange that the other one never begins.
"""

from hashlib import blake2b

import torch

from fxcache._torch import greatest_of
from fxcache.analysis.collectives import collectives
from fxcache.rewrite.variants import Variants
from fxcache.step import Decision

ELSEWHERE = "another process refreshes"
DIFFERENT = "other processes reuse other values"
DIGEST_BYTES = 7  # an int64 holds the digest and its negative


def agreed(variants: Variants, decision: Decision, device: torch.device) -> Decision:
    """Return the decision that all processes take, which may be another than ``decision``.

    A graph that exchanges no data needs no agreement. Otherwise all processes refresh if one of
    them does, or if they would reuse different values.

    Args:
        variants: The variants of the step. Their graph names the process groups.
        decision: The decision of this process.
        device: The device of the model.
    """
    groups = variants.frontier.process_groups
    if not groups:
        return decision
    reused = variants.reused_by(decision)
    digest = digest_of(variants, reused)
    own = [int(not reused), digest, -digest]
    refresh, greatest, least = greatest_of(own, groups, device)
    if not reused:
        return decision
    if refresh:
        return Decision(True, ELSEWHERE)
    return decision if greatest == -least else Decision(True, DIFFERENT)


def digest_of(variants: Variants, reused: frozenset[str]) -> int:
    """Return a number for the values that a step reuses, and for the exchanges that it makes.

    Processes may have captures of different sizes, which are cut at different places.
    """
    points = tuple(variants.plan.points[number] for number in variants.plan.numbers(reused))
    exchanges = [node.name for node in collectives(variants.frontier.live(points))]
    content = repr((sorted(reused), exchanges)).encode()
    return int.from_bytes(blake2b(content, digest_size=DIGEST_BYTES).digest())
