"""Whose call it is: a pure function of how the call compares with each known trajectory.

A comparison that leaves no doubt decides by itself. Otherwise the latents are read, and the
trajectory whose latent is closest has the call, if it is clearly closest and clearly close. A call
that is neither is ambiguous, and refreshes. It goes on in a copy of the closest trajectory that
shares no cached value with it, so that whoever continues the original finds it untouched. Where the
closest latent is far, and nothing but the latent ties the call to it, the call begins a run.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from fxcache.runtime.trajectory.evidence import Evidence
from fxcache.runtime.trajectory.latent import Likeness
from fxcache.runtime.trajectory.position import Motion
from fxcache.runtime.trajectory.tensor_ref import Match

# Bounds that `python -m bench.latents` measures, for each solver and number of steps.
CLOSE = 0.5  # cosine from which a latent may follow another
CLOSE_AGAIN = 0.9  # the same at a timestep that repeats: solvers that call twice a step move little
FIRST_DISTANCE = 0.005  # 1 - cosine that a run whose position nothing proves may begin with
GROWTH = 4.0  # of that distance from one step to the next
CHANCE = 1e-9  # at most, that random latents are as much alike as close ones
CLEARLY = 0.5  # the closest distance is at most this share of the second closest
CLEARLY_COPY = 0.8  # the same where the closest is a copy that was made at the last step


class Verdict(Enum):
    """What the evidence says, before latents are compared."""

    NO = "the call does not continue the trajectory"
    MAYBE = "the latents must tell"
    YES = "it does, unless it may as well continue another one"


class Certainty(Enum):
    """How sure an attribution is."""

    CERTAIN = "certain"
    BY_LATENT = "by the latent"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, slots=True)
class Attribution:
    """The trajectory that a call continues.

    Attributes:
        index: Its number among the candidates; None for a new trajectory.
        certainty: How sure that is.
        reason: Why the call refreshes, if it is the first of a trajectory, or ambiguous.
        distance: By how much its latent moved, where that was measured.
    """

    index: int | None
    certainty: Certainty
    reason: str = ""
    distance: float | None = None


Compare = Callable[[Sequence[int]], Sequence[Likeness]]


def judge(evidence: Evidence) -> Verdict:
    """Whether the call may continue the trajectory."""
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
    """The candidate that the call continues.

    Args:
        candidates: The evidence for each known trajectory.
        compare: Reads the latents of these candidates; called only where it is needed.
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
    """The candidate whose latent the call's clearly follows; ambiguous if there is none such."""
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
    unlike = closest.cosine < chance_cosine(closest.elements) or motion is Motion.REPEAT
    if not near and unlike:
        return Attribution(None, Certainty.BY_LATENT, "a latent unlike any other's")
    if closest.cosine < CLOSE and not candidates[best].proven:
        return Attribution(None, Certainty.AMBIGUOUS, unknown(motion))
    clear = bool(near) and is_winner(best, candidates, found)
    certainty = Certainty.BY_LATENT if clear else Certainty.AMBIGUOUS
    reason = motion.value if clear else unknown(motion)
    return Attribution(best, certainty, reason, 1 - closest.cosine)


def unknown(motion: Motion) -> str:
    """Why an ambiguous call refreshes."""
    return f"caller unknown: {motion.value}"


def is_past(evidence: Evidence) -> bool:
    """Whether the trajectory is an earlier run of a loop that now comes by the same timestep."""
    return evidence.restarted and evidence.motion is Motion.REPEAT


def is_winner(best: int, candidates: Sequence[Evidence], found: dict[int, Likeness]) -> bool:
    """Whether the call is the candidate ``best``'s rather than another one's."""
    motion, closest = candidates[best].motion, found[best]
    rivals = [i for i in found if i != best and rank(candidates[i]) <= rank(candidates[best])]
    if motion is Motion.NEXT:  # whoever leaves a step out is less likely than who does not
        rivals = [i for i in rivals if candidates[i].motion is not Motion.SKIP]
    if motion is Motion.REPEAT:  # whoever takes a step is as likely as who stays where he is
        steps = (found[i].cosine for i in rivals if candidates[i].motion is Motion.NEXT)
        again = closest.identical and not candidates[best].trusted
        if again or max(steps, default=0.0) >= CLOSE:
            return False
    original = candidates[best].copy_of
    shares = {i: CLEARLY_COPY if i == original else CLEARLY for i in rivals}
    return all(is_clear(closest, found[i], share) for i, share in shares.items())


def rank(evidence: Evidence) -> int:
    """How little alike the prompts are: 0 for the same, 1 for a new one, 2 for another caller's."""
    match = evidence.conditioning
    return (match >= Match.REWRITTEN) + (match is Match.FOREIGN)


def most_alike(candidates: Sequence[Evidence], near: Sequence[int]) -> list[int]:
    """Those of ``near`` whose prompts are most alike."""
    least = min((rank(candidates[i]) for i in near), default=0)
    return [i for i in near if rank(candidates[i]) == least]


def follows(evidence: Evidence, likeness: Likeness, on_purpose: bool) -> bool:
    """Whether a call with such a latent can be the trajectory's next.

    No sampler leaves its latent as it is. The same latent again is another call of that step, with
    other conditioning, or a run that begins where a single call did, or one that is sampled again
    from the same seed. But numbers may repeat since they were rounded.

    Args:
        evidence: Of the trajectory.
        likeness: Of the latents.
        on_purpose: Whether calls before this one had the same latent too: the loop never moves it.
    """
    if not likeness.identical:
        return True
    if evidence.motion in (Motion.REPEAT, Motion.UNKNOWN):
        rounded = not evidence.scheduled and evidence.conditioning is Match.SAME
        return rounded and (evidence.trusted or not (evidence.restarted or evidence.begun))
    return on_purpose or not evidence.begun


def is_close(evidence: Evidence, likeness: Likeness) -> bool:
    """Whether the latent is too near the trajectory's to be another request's.

    Where nothing but the latent ties the two together, it must also have moved no further than
    the trajectory did before: another request may begin with a noisy version of the same picture.
    """
    if likeness.identical:
        return True
    bound = CLOSE_AGAIN if evidence.motion is Motion.REPEAT else CLOSE
    if likeness.cosine < max(bound, chance_cosine(likeness.elements)):
        return False
    farthest = FIRST_DISTANCE if evidence.drift is None else GROWTH * evidence.drift
    return evidence.proven or 1 - likeness.cosine <= max(farthest, FIRST_DISTANCE)


def is_clear(closest: Likeness, other: Likeness, share: float) -> bool:
    """Whether the closest latent is clearly closer than another, or the two are the same.

    Args:
        closest: The likeness of the closest latent.
        other: That of another one.
        share: The closest distance is at most this share of the other.
    """
    if closest == other:
        return True
    return 1 - closest.cosine <= share * (1 - other.cosine) and closest.cosine > other.cosine


def chance_cosine(elements: int) -> float:
    """The cosine that two random vectors of so many elements exceed with the chance ``CHANCE``.

    The chance of a cosine above c is at most (1 - c²) ** ((n - 2) / 2) for n normal elements.
    """
    if elements <= 2:
        return 1.0
    return math.sqrt(1 - CHANCE ** (2 / (elements - 2)))


def why_none(candidates: Sequence[Evidence]) -> str:
    """Why the call starts a trajectory of its own."""
    alike = [e for e in candidates if e.same_kind and e.same_name and not e.busy]
    alike = [e for e in alike if e.conditioning is not Match.FOREIGN]
    return alike[-1].motion.value if alike else "first call"
