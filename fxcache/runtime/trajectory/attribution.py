"""Attributes a call to a trajectory: a pure function of the evidence for each known trajectory.

If the evidence is clear, it decides. Otherwise the latents are compared. The call continues the
trajectory with the closest latent, if this latent is clearly closest and close enough. If it is
not, the call is ambiguous, and refreshes. An ambiguous call continues a copy of the closest
trajectory. The copy shares no cached value with the original, which another caller may continue. If
the closest latent is far, and only the latent connects the call to it, the call begins a run.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from fxcache.runtime.trajectory.evidence import Evidence
from fxcache.runtime.trajectory.latent import Likeness
from fxcache.runtime.trajectory.position import Motion
from fxcache.runtime.trajectory.tensor_ref import Match
from fxcache.runtime.trajectory.tokens import CHANCE

# `python -m bench.latents` measures these bounds, for each solver and number of steps. A distance
# is 1 - cosine.
CLOSE = 0.5  # the least cosine of a latent and the one that it follows
CLOSE_AGAIN = 0.9  # the same for a repeated timestep: a solver's second call of a step moves little
FIRST_DISTANCE = 0.005  # the greatest distance at the first step of a run without proven position
GROWTH = 4.0  # the greatest growth of that distance from one step to the next
CLEARLY = 0.5  # the closest distance is at most this share of the second closest
CLEARLY_COPY = 0.8  # the same if the closest is a copy that was made at the last step


class Verdict(Enum):
    """The result of the evidence before latents are compared."""

    NO = "the call does not continue the trajectory"
    MAYBE = "the latents decide"
    YES = "the call continues the trajectory, unless it may continue another one too"


class Certainty(Enum):
    """How sure an attribution is."""

    CERTAIN = "certain"
    BY_LATENT = "by the latent"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, slots=True)
class Attribution:
    """The trajectory that a call continues.

    Attributes:
        index: The index of the trajectory among the candidates; None for a new trajectory.
        certainty: The certainty of the attribution.
        reason: Why the call refreshes, if it is the first of a trajectory, or ambiguous.
        distance: The distance between the latents; None if it was not measured.
    """

    index: int | None
    certainty: Certainty
    reason: str = ""
    distance: float | None = None


Compare = Callable[[Sequence[int]], Sequence[Likeness]]


def judge(evidence: Evidence) -> Verdict:
    """Return whether the call may continue the trajectory."""
    e = evidence
    if e.busy or not e.same_name or e.motion in (Motion.BACK, Motion.OTHER):
        return Verdict.NO
    if e.conditioning is Match.FOREIGN and not e.keyed:
        return Verdict.NO
    if not e.same_kind and not (e.scheduled and e.motion is Motion.NEXT):
        return Verdict.NO
    if e.motion is Motion.NEXT and e.proven:
        return Verdict.YES
    if e.motion is Motion.SKIP and e.trusted:
        return Verdict.YES
    return Verdict.MAYBE


def attribute(candidates: Sequence[Evidence], compare: Compare) -> Attribution:
    """Find the candidate that the call continues.

    Args:
        candidates: The evidence for each known trajectory.
        compare: Compares the latents of the candidates with these indices. It is called only if
            the evidence alone does not decide.
    """
    verdicts = [judge(e) for e in candidates]
    if verdicts == [Verdict.YES]:
        return Attribution(0, Certainty.CERTAIN)
    possible = [i for i, verdict in enumerate(verdicts) if verdict is not Verdict.NO]
    possible = [i for i in possible if candidates[i].same_kind] or possible
    if not possible:
        return Attribution(None, Certainty.CERTAIN, why_none(candidates))
    if len(possible) == 1 and verdicts[possible[0]] is Verdict.YES:
        return Attribution(possible[0], Certainty.CERTAIN)
    found = dict(zip(possible, compare(possible), strict=True))
    return by_latent(candidates, found)


def by_latent(candidates: Sequence[Evidence], found: dict[int, Likeness]) -> Attribution:
    """Find the candidate whose latent the call clearly follows; ambiguous if there is none."""
    on_purpose = sum(likeness.identical for likeness in found.values()) > 1
    found = {
        i: likeness for i, likeness in found.items() if follows(candidates[i], likeness, on_purpose)
    }
    if not found:
        return Attribution(None, Certainty.BY_LATENT, "the same latent again")
    near = [i for i, likeness in found.items() if is_close(candidates[i], likeness)]
    near = [i for i in near if not is_past(candidates[i])] or near
    near = most_alike(candidates, near)
    best = max(near or found, key=lambda i: (found[i].cosine, i))
    motion, closest = candidates[best].motion, found[best]
    unlike = closest.cosine < chance_of(closest) or motion is Motion.REPEAT
    if not near and unlike:
        return Attribution(None, Certainty.BY_LATENT, "a latent unlike any other's")
    if closest.cosine < CLOSE and not candidates[best].proven:
        return Attribution(None, Certainty.AMBIGUOUS, unknown(motion))
    clear = bool(near) and not is_past(candidates[best]) and is_winner(best, candidates, found)
    certainty = Certainty.BY_LATENT if clear else Certainty.AMBIGUOUS
    reason = motion.value if clear else unknown(motion)
    return Attribution(best, certainty, reason, 1 - closest.cosine)


def unknown(motion: Motion) -> str:
    """Return why an ambiguous call refreshes."""
    return f"caller unknown: {motion.value}"


def is_past(evidence: Evidence) -> bool:
    """Whether the trajectory may be an earlier run of a loop that now reaches the same timestep."""
    return evidence.restarted and evidence.motion is Motion.REPEAT


def is_winner(best: int, candidates: Sequence[Evidence], found: dict[int, Likeness]) -> bool:
    """Return whether the call clearly continues the candidate ``best``, and no other one."""
    motion, closest = candidates[best].motion, found[best]
    rivals = [i for i in found if i != best and rank(candidates[i]) <= rank(candidates[best])]
    if motion is Motion.NEXT:  # a trajectory that would skip a step is less likely
        rivals = [i for i in rivals if candidates[i].motion is not Motion.SKIP]
    if motion is Motion.REPEAT:  # a trajectory that would take a step is as likely
        steps = (found[i].cosine for i in rivals if candidates[i].motion is Motion.NEXT)
        again = closest.identical and not candidates[best].trusted
        if candidates[best].may_be_two and not closest.identical:
            return False
        if again or max(steps, default=0.0) >= CLOSE:
            return False
    original = candidates[best].copy_of
    shares = {i: CLEARLY_COPY if i == original else CLEARLY for i in rivals}
    return all(is_clear(closest, found[i], share) for i, share in shares.items())


def rank(evidence: Evidence) -> int:
    """How much the prompts differ: 0 for equal, 1 for new, 2 for another caller's prompts."""
    match = evidence.conditioning
    return (match >= Match.REWRITTEN) + (match is Match.FOREIGN)


def most_alike(candidates: Sequence[Evidence], near: Sequence[int]) -> list[int]:
    """Return the candidates in ``near`` whose prompts differ least."""
    least = min((rank(candidates[i]) for i in near), default=0)
    return [i for i in near if rank(candidates[i]) == least]


def follows(evidence: Evidence, likeness: Likeness, on_purpose: bool) -> bool:
    """Return whether a call with this latent can continue the trajectory.

    A sampler changes its latent at every step. So an identical latent means another call of the
    same step with other conditioning, a run that begins with the latent of a single call, or a new
    run with the same seed. An exception are timesteps that repeat because they were rounded.

    Args:
        evidence: The evidence for the trajectory.
        likeness: The comparison of the latents.
        on_purpose: Whether several trajectories have the identical latent: the loop never moves it.
    """
    if not likeness.identical:
        return True
    if evidence.motion in (Motion.REPEAT, Motion.UNKNOWN):
        rounded = not evidence.scheduled and evidence.conditioning is Match.SAME
        return rounded and (evidence.trusted or not (evidence.restarted or evidence.begun))
    return on_purpose or not evidence.begun


def is_close(evidence: Evidence, likeness: Likeness) -> bool:
    """Whether the latent is so close to the trajectory's that it cannot belong to another request.

    If only the latent connects the two, it must also not have moved much further than at the steps
    before: another request may begin with a noisy version of the same image.
    """
    if likeness.identical:
        return True
    bound = CLOSE_AGAIN if evidence.motion is Motion.REPEAT else CLOSE
    if likeness.chance is not None and evidence.motion is Motion.UNKNOWN:
        bound = 1.0  # requests that edit one picture share most tokens
    if likeness.cosine < max(bound, chance_of(likeness)):
        return False
    farthest = FIRST_DISTANCE if evidence.drift is None else GROWTH * evidence.drift
    return evidence.proven or 1 - likeness.cosine <= max(farthest, FIRST_DISTANCE)


def is_clear(closest: Likeness, other: Likeness, share: float) -> bool:
    """Whether the closest latent is clearly closer than another one, or both are equally close.

    Args:
        closest: The comparison with the closest latent.
        other: The comparison with another latent.
        share: The closest distance must be at most this share of the other distance.
    """
    if closest == other:
        return True
    return 1 - closest.cosine <= share * (1 - other.cosine) and closest.cosine > other.cosine


def chance_of(likeness: Likeness) -> float:
    """The cosine that unrelated latents exceed with the probability ``CHANCE``."""
    return chance_cosine(likeness.elements) if likeness.chance is None else likeness.chance


def chance_cosine(elements: int) -> float:
    """The cosine that two random vectors of this size exceed with the probability ``CHANCE``.

    For n normal elements, the probability of a cosine above c is at most
    (1 - c²) ** ((n - 2) / 2).
    """
    if elements <= 2:
        return 1.0
    return math.sqrt(1 - CHANCE ** (2 / (elements - 2)))


def why_none(candidates: Sequence[Evidence]) -> str:
    """Return why the call starts a new trajectory."""
    alike = [e for e in candidates if e.same_kind and e.same_name and not e.busy]
    alike = [e for e in alike if e.conditioning is not Match.FOREIGN]
    return alike[-1].motion.value if alike else "first call"
