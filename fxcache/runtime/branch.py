"""One trajectory through the denoiser: who it belongs to, which step it is at, what it cached."""

import weakref
from enum import Enum, IntEnum
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from torch import Tensor

from fxcache._torch import version_of
from fxcache.runtime.feature_cache import FeatureCache
from fxcache.runtime.halves import Difference
from fxcache.runtime.observer import Observer
from fxcache.runtime.position import Element, Number, Place, Position, Unknown
from fxcache.runtime.record import Run

if TYPE_CHECKING:
    from fxcache.rewrite.runner import Variants
    from fxcache.runtime.prologue import Prologue
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


def tied(found: list[Identity]) -> bool:
    """Whether some tensor is the same one as at the last call."""
    return Identity.SAME in found or Identity.REWRITTEN in found


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

    def __init__(self, trust: Trust, cache: FeatureCache, name: str = "", hooks: int = 0):
        self.name = name  # the pipeline's own for it, where it has one
        self.hooks = hooks  # the number of the hooks that are set on submodules at its calls
        self.trust = trust
        self.cache = cache
        self.source: object = None  # which capture of which weights computed what is cached
        self.anchors: tuple[Anchor, ...] = ()
        self.position: Position = Unknown()
        self.varying: frozenset[int] = frozenset()
        self.step = -1
        self.last_refresh = 0  # the last step that refreshed everything
        self.observer = Observer()
        self.guided = True  # until a step's halves of the batch have different latents
        self.difference: Difference | None = None  # of the halves, where one is computed by itself
        self.full_flops = 0  # of a call of the whole batch
        self.stride = 1
        self.direction = 0  # of timesteps given as numbers: 1 if they rise, -1 if they fall
        self.unsettled = False  # whether the second call may have begun a run of its own
        self.doubt = ""
        self.forced = ""  # why this step must refresh, whatever the policy says
        self.complete = True  # False between begin and finish
        self.run = Run()
        # By kind of call, what is given to its variants.
        self.prologues: WeakKeyDictionary[Variants, Prologue] = WeakKeyDictionary()

    @property
    def nbytes(self) -> int:
        """Bytes cached."""
        return self.cache.nbytes + (self.difference.nbytes if self.difference else 0)

    def recognises(self, call: "Call", position: Position) -> bool:
        """Whether ``call`` continues this trajectory, or starts a new run of the same request.

        Something must tie the two together, and nothing alive may tell them apart.
        """
        if self.trust is Trust.KEY:
            return True
        if len(self.anchors) != len(call.conditioning):
            return False
        found = [*self._compared(call), self._compared_schedule(position)]
        if Identity.OTHER in found:
            return False
        return tied(found) or (self.trust is Trust.SESSION and not call.conditioning)

    def _compared(self, call: "Call") -> list[Identity]:
        """How each conditioning tensor compares with the last call's; all OTHER if not as many."""
        if len(self.anchors) != len(call.conditioning):
            return [Identity.OTHER] * len(call.conditioning)
        pairs = zip(self.anchors, call.conditioning, strict=True)
        return [anchor.compare(tensor) for anchor, tensor in pairs]

    def _compared_schedule(self, position: Position) -> Identity:
        if not isinstance(self.position, Element) or not isinstance(position, Element):
            return Identity.GONE
        same = self.position.same_schedule(position)
        return {True: Identity.SAME, False: Identity.OTHER, None: Identity.GONE}[same]

    @property
    def abandoned(self) -> bool:
        """Whether what identified this branch is gone, so that no call can continue it."""
        if self.anchors:
            return all(anchor.reference() is None for anchor in self.anchors)
        return isinstance(self.position, Element) and self.position.schedule() is None

    @property
    def unfinished(self) -> bool:
        """Whether the run is known to have more calls to come."""
        position = self.position
        if isinstance(position, Element | Place) and position.length is not None:
            return position.offset < position.length - 1
        return False

    def advance(self, call: "Call", position: Position) -> bool:
        """Take note of ``call``; returns whether it starts a run."""
        found = self._compared(call)
        new = frozenset(i for i, identity in enumerate(found) if identity is not Identity.SAME)
        vouched = self.trust is Trust.KEY or (self.trust is Trust.SESSION and not new)
        started = self._start_reason(position, new, vouched)
        if started:
            self._begin(Run(started))
        else:
            self.step += 1
        self.forced = started or self._forced_reason(found, new)
        self.anchors = tuple(map(Anchor, call.conditioning))
        self.position, self.complete = position, False
        self.run.waits += isinstance(position, Number) and position.waited
        return bool(started)

    def _begin(self, run: Run) -> None:
        self.step, self.stride, self.varying = 0, 1, frozenset()
        self.run, self.direction, self.unsettled = run, 0, False
        self.guided = True

    def _start_reason(self, position: Position, new: frozenset[int], vouched: bool) -> str:
        """Why this call starts a new run; empty if it does not. Sets ``doubt``."""
        if self.step < 0:
            return "first call"
        match self.position, position:
            case (Element() as last, Element() as now):
                reason, doubt = self._between_elements(last, now, vouched)
            case (Place() as last_place, Place() as place):
                reason, doubt = self._between_offsets(last_place, place, vouched)
            case (Number() as last_number, Number() as number):
                direction = (number.value > last_number.value) - (number.value < last_number.value)
                if self.trust is Trust.SESSION:
                    reason = self._between_session_numbers(direction)
                    doubt = "" if direction else "timestep repeats"
                else:
                    reason, doubt = self._between_numbers(direction, new)
            case (Unknown(), Unknown()):
                reason, doubt = "", "the timestep tells nothing"
            case _:
                reason, doubt = "the timestep is of another kind", ""
        if vouched:
            doubt = ""
        if reason or doubt:
            self.doubt = doubt
        return reason

    def _between_elements(self, last: Element, now: Element, vouched: bool) -> tuple[str, str]:
        """Whoever does not vouch must go through the tensor one element at a time, to its end."""
        if not last.same_schedule(now):
            return "new timesteps", ""
        return self._between_offsets(last, now, vouched)

    def _between_offsets(
        self, last: Element | Place, now: Element | Place, vouched: bool
    ) -> tuple[str, str]:
        stride = now.offset - last.offset
        if stride < 0 or (stride == 0 and not vouched):
            ended = last.length is not None and last.offset == last.length - 1
            return "timesteps start over", "" if ended else "timesteps start over before their end"
        self.stride = max(1, stride)
        return "", "" if stride == 1 else "timesteps are left out"

    def _between_session_numbers(self, direction: int) -> str:
        """In a session all numbers are one run's as long as they go one way, or stay."""
        self.direction = self.direction or direction
        return "timestep jumped back" if direction == -self.direction != 0 else ""

    def _between_numbers(self, direction: int, new: frozenset[int]) -> tuple[str, str]:
        """Numbers fall during a run, or rise (flow matching), and keep their conditioning.

        A second call whose number rises may have begun a run of its own. It refreshes, and the
        third call tells: one run goes on as it began. Under a key some conditioning may be new.
        """
        if new and self.trust is Trust.NONE:
            return "conditioning changed", ""
        if self.unsettled:
            self.unsettled = False
            if direction == self.direction and new >= self.varying:
                return "", ""
            own = self.run.steps[1:]
            del self.run.steps[1:]
            self._begin(Run("the call after shows it", own))
            self.last_refresh = 0
            self.cache.count_from(1)
        if self.step == 0:
            self.direction = direction
            self.unsettled = direction > 0 or bool(new)
            return "", "" if direction or new else "timestep repeats"
        if new - self.varying:
            return "conditioning changed", ""
        if direction == 0:
            return "", "timestep repeats"
        return "timestep jumped back" if direction != self.direction else "", ""

    def _forced_reason(self, found: list[Identity], new: frozenset[int]) -> str:
        """Why the cached values may not be used at this call; empty if they may.

        Conditioning tensors that are new at every step (ControlNet residuals) force nothing from
        the third call on. Those new at the second may as well be another prompt.
        """
        if not self.complete:
            return "the last call did not finish"
        if self.doubt:
            return f"caller unknown: {self.doubt}"
        if self.unsettled:
            self.varying = new
            return "perhaps another run"
        changed = new - self.varying
        self.varying = new if self.step == 1 else self.varying & new
        return "conditioning changed" if changed or Identity.REWRITTEN in found else ""

    @property
    def expected_steps(self) -> int | None:
        """How many calls the run will make, if the timesteps tensor tells."""
        if not isinstance(self.position, Element | Place) or self.position.length is None:
            return None
        left = self.position.length - self.position.offset
        return self.step + -(-left // self.stride)
