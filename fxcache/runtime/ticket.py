"""One call of an optimised module, from its arguments to its results."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from fxcache.rewrite.runner import Variant, Variants
from fxcache.runtime.branch import Branch
from fxcache.runtime.guidance import Half, Part
from fxcache.runtime.record import Stopwatch
from fxcache.runtime.recorder import Seen, first_tensor
from fxcache.runtime.session import Session


@dataclass(slots=True, eq=False)
class Ticket:
    """A call under way: what runs next, on which ``tensors``, and where its results go.

    ``source``: which capture of which weights what is cached then comes from. ``forced``: why the
    step refreshes whatever the policy says; ``fresh``: whether that is because nothing is cached
    that it could go on from. ``part``: of a guided batch; ``half``: of a call that computes both
    halves for later ones, what those will run. ``variant``: None before the prefix has run, whose
    results ``decide`` waits for. ``signal``: what the policy observed.
    """

    variants: Variants
    tensors: tuple[Tensor, ...]
    branch: Branch | None
    session: Session | None
    source: object
    stopwatch: Stopwatch
    forced: str = ""
    fresh: bool = False
    part: Part = Part.WHOLE
    half: Half | None = None
    variant: Variant | None = None
    signal: Tensor | None = None

    @property
    def undecided(self) -> bool:
        return self.variant is None

    @property
    def module(self) -> fx.GraphModule:
        """What runs next."""
        return self.variants.prefix_module if self.variant is None else self.variant.module


def seen_by(ticket: Ticket, branch: Branch, variant: Variant, results: Sequence[Any]) -> Seen:
    """The step of ``ticket`` as a recorder is shown it."""
    variants = ticket.variants
    written = dict(zip(variant.writes, results[variants.num_outputs :], strict=True))
    numbers = {name: variants.plan.numbers({name}) for name in variants.plan.groups}
    values = {
        name: tuple(written[n] for n in found)
        for name, found in numbers.items()
        if all(n in written for n in found)
    }
    return Seen(
        branch.run,
        branch.step,
        values,
        first_tensor(results),
        ticket.signal,
        variants,
        variant,
        ticket.tensors,
    )
