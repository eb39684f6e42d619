"""One call of an optimised module, from its arguments to its results."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from fxcache.call import Call
from fxcache.rewrite.runner import Variant, Variants
from fxcache.runtime.guidance import Half, Part
from fxcache.runtime.prologue import Given
from fxcache.runtime.record import Stopwatch
from fxcache.runtime.recorder import Seen, first_tensor
from fxcache.runtime.session import Session
from fxcache.runtime.trajectory.trajectory import Trajectory


@dataclass(slots=True, eq=False)
class Ticket:
    """A call under way: the ``module`` that runs next, on which ``tensors``, and what comes after.

    ``call``: what runs, ``given``: what was hoisted; ``shared``: what the prefix computed.
    ``source``: which capture of which weights what is cached then comes from. ``forced``: why the
    step refreshes whatever the policy says; ``fresh``: whether that is because nothing is cached
    that it could go on from. ``part``: of a guided batch; ``half``: of a call that computes both
    halves for later ones, what those will run. ``variant``: None before the prefix has run, whose
    results ``decide`` waits for; ``cached``: what it reads. ``signal``: what the policy observed.
    """

    variants: Variants
    call: Call
    trajectory: Trajectory
    session: Session | None
    source: object
    stopwatch: Stopwatch
    given: Given = Given()  # noqa: RUF009, immutable
    shared: tuple[Tensor, ...] = ()
    forced: str = ""
    fresh: bool = False
    part: Part = Part.WHOLE
    half: Half | None = None
    variant: Variant | None = None
    cached: tuple[Tensor, ...] = ()
    signal: Tensor | None = None
    module: fx.GraphModule = field(init=False)
    tensors: tuple[Tensor, ...] = field(init=False)

    @property
    def undecided(self) -> bool:
        return self.variant is None

    def ready(self) -> "Ticket":
        """Itself, what runs next prepared: Dynamo then finds nothing to trace but that."""
        following = self.variant or self.variants.prefix(self.given.level)
        self.module = following.module
        self.tensors = (
            self.call.tensors + self.given.take(following.given) + self.shared + self.cached
        )
        return self


def seen_by(ticket: Ticket, variant: Variant, results: Sequence[Any]) -> Seen:
    """The step of ``ticket`` as a recorder is shown it."""
    variants, trajectory = ticket.variants, ticket.trajectory
    written = dict(zip(variant.writes, results[variants.num_outputs :], strict=True))
    numbers = {name: variants.plan.numbers({name}) for name in variants.plan.groups}
    values = {
        name: tuple(written[n] for n in found)
        for name, found in numbers.items()
        if all(n in written for n in found)
    }
    return Seen(
        trajectory.run,
        trajectory.step,
        values,
        first_tensor(results),
        ticket.signal,
        variants,
        variant,
        ticket.tensors,
    )
