"""One trajectory through the denoiser: who it belongs to, which step it is at, what it cached."""

import weakref
from enum import Enum, IntEnum
from typing import TYPE_CHECKING

from torch import Tensor

from fxcache._torch import version_of
from fxcache.runtime.feature_cache import FeatureCache
from fxcache.runtime.position import Element, Number, Position, Unknown
from fxcache.runtime.record import Run

if TYPE_CHECKING:
    from fxcache.signature import Call


class Trust(IntEnum):
    """How far the caller vouches that calls belong together."""

    NONE = 0
    SESSION = 1  # one sampling loop; its branches are told apart by their conditioning
    KEY = 2  # one branch, whatever its tensors


class Identity(Enum):
    """How a tensor of this call compares with the one of the last call."""

    SAME = "same"
    REWRITTEN = "rewritten"  # the same tensor, written in place since
    GONE = "gone"  # the old one no longer exists: nobody else can still be using it
    OTHER = "other"  # the old one is alive and somebody else's


class Anchor:
    """A conditioning tensor as it was at the last call, held weakly."""

    __slots__ = ("reference", "version")

    def __init__(self, tensor: Tensor):
        self.reference = weakref.ref(tensor)
        self.version = version_of(tensor)

    def compare(self, tensor: Tensor) -> Identity:
        held = self.reference()
        if held is tensor:
            return Identity.SAME if self.version == version_of(tensor) else Identity.REWRITTEN
        return Identity.GONE if held is None else Identity.OTHER


class Branch:
    """The state of one trajectory: of one request, or of one half of its classifier-free guidance.

    It is recognised by the conditioning tensors and the timesteps tensor that its calls share.
    Values never pass from one branch to another.
    """

    def __init__(self, trust: Trust, cache: FeatureCache):
        self.trust = trust
        self.cache = cache
        self.source: object = None  # which capture of which weights computed what is cached
        self.anchors: tuple[Anchor, ...] = ()
        self.position: Position = Unknown()
        self.varying: frozenset[int] = frozenset()
        self.step = -1
        self.stride = 1
        self.doubt = ""
        self.forced = ""  # why this step must refresh, whatever the policy says
        self.complete = True  # False between begin and finish
        self.run = Run()

    def recognises(self, call: "Call", position: Position) -> bool:
        """Whether ``call`` continues this trajectory, or starts a new run of the same request.

        Something must tie the two together, and nothing alive may tell them apart.
        """
        if self.trust is Trust.KEY:
            return True
        if len(self.anchors) != len(call.conditioning):
            return False
        pairs = zip(self.anchors, call.conditioning, strict=True)
        found = [anchor.compare(tensor) for anchor, tensor in pairs]
        if isinstance(self.position, Element) and isinstance(position, Element):
            same = self.position.same_schedule(position)
            found.append({True: Identity.SAME, False: Identity.OTHER, None: Identity.GONE}[same])
        if Identity.OTHER in found:
            return False
        tied = Identity.SAME in found or Identity.REWRITTEN in found
        return tied or (self.trust is Trust.SESSION and not call.conditioning)

    @property
    def abandoned(self) -> bool:
        """Whether what identified this branch is gone, so that no call can continue it."""
        if self.anchors:
            return all(anchor.reference() is None for anchor in self.anchors)
        return isinstance(self.position, Element) and self.position.schedule() is None

    def advance(self, call: "Call", position: Position) -> bool:
        """Take note of ``call``; returns whether it starts a run."""
        started = self._start_reason(position)
        if started:
            self.step, self.stride, self.varying = 0, 1, frozenset()
            self.run = Run(started)
        else:
            self.step += 1
        self.forced = self._forced_reason(call, started)
        if isinstance(position, Element) and isinstance(self.position, Element) and not started:
            self.stride = max(1, position.offset - self.position.offset)
        self.anchors = tuple(map(Anchor, call.conditioning))
        self.position, self.complete = position, False
        return bool(started)

    def _start_reason(self, position: Position) -> str:
        """Why this call starts a new run; empty if it does not. Sets ``doubt``."""
        if self.step < 0:
            return "first call"
        match self.position, position:
            case (Element() as last, Element() as now):
                reason, doubt = self._between_elements(last, now)
            case (Number() as last_number, Number() as number):
                reason, doubt = self._between_numbers(last_number.value, number.value)
            case (Unknown(), Unknown()):
                reason, doubt = "", "the timestep cannot be read without a device sync"
            case _:
                reason, doubt = "the timestep is of another kind", ""
        if self.trust:
            doubt = ""
        if reason or doubt:
            self.doubt = doubt
        return reason

    def _between_elements(self, last: Element, now: Element) -> tuple[str, str]:
        if not last.same_schedule(now):
            return "new timesteps", ""
        if now.offset > last.offset or (self.trust and now.offset == last.offset):
            return "", ""
        doubt = "" if last.offset == last.length - 1 else "timesteps start over before their end"
        return "timesteps start over", doubt

    def _between_numbers(self, last: float, now: float) -> tuple[str, str]:
        if now > last:
            return "timestep jumped back", ""
        return "", "timestep repeats" if now == last else ""

    def _forced_reason(self, call: "Call", started: str) -> str:
        """Why the cached values may not be used at this call; empty if they may."""
        if started:
            return started
        if not self.complete:
            return "the last call did not finish"
        if self.doubt:
            return f"caller unknown: {self.doubt}"
        changed = self._changed(call)
        if self.step == 1:
            self.varying = changed
        elif changed - self.varying:
            return "conditioning changed"
        return ""

    def _changed(self, call: "Call") -> frozenset[int]:
        """Which conditioning tensors are new since the last call.

        Those that are new at the second step already (ControlNet residuals) are taken to be new
        at every step; a change of any other is a change of the request.
        """
        if len(self.anchors) != len(call.conditioning):
            return frozenset(range(len(call.conditioning)))
        pairs = enumerate(zip(self.anchors, call.conditioning, strict=True))
        return frozenset(i for i, (a, t) in pairs if a.compare(t) is not Identity.SAME)

    @property
    def expected_steps(self) -> int | None:
        """How many calls the run will make, if the timesteps tensor tells."""
        if not isinstance(self.position, Element):
            return None
        left = self.position.length - self.position.offset
        return self.step + -(-left // self.stride)
