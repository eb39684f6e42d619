"""Hoisting: finds values that do not depend on the latent and can be computed before the steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from torch import fx

from fxcache._torch import draws, is_collective, returns_view
from fxcache.analysis.dependence import Dependence
from fxcache.program import Program, Role, is_tensor


class HoistLevel(IntEnum):
    """How many of the hoistable values are computed before the steps."""

    NOTHING = 0
    PER_RUN = 1  # values that depend on the conditioning alone, computed once per run
    PER_STEP = 2  # also values that depend on the timestep, computed for all steps of a run


@dataclass(frozen=True, eq=False)
class Hoisted:
    """The values of one program that can be computed before the steps.

    Attributes:
        per_run: Values that depend on the conditioning, not on the latent or the timestep.
        per_step: Values that depend on the timestep and perhaps the conditioning.
        inputs: The indices of the conditioning inputs that these values depend on.
    """

    per_run: tuple[fx.Node, ...]
    per_step: tuple[fx.Node, ...]
    inputs: tuple[int, ...]

    def at(self, level: HoistLevel) -> tuple[fx.Node, ...]:
        """Return the values that are inputs of variants at this level, in order."""
        return ((), self.per_run, (*self.per_run, *self.per_step))[level]


def find_hoisted(program: Program, needs: Dependence) -> Hoisted:
    """Find the last values that do not depend on the latent. Views of them are not hoisted.

    Random values are never hoisted, because each step draws new ones. Values that other processes
    take part in are never hoisted, because their runs may begin at other steps. Values from state
    objects are never hoisted, because any step may write to the objects.
    """
    each_step = (n for n in needs.nodes if draws(n.target) or is_collective(n.target))
    kept = needs.mask(each_step)
    with_latent = [
        n
        for n in needs.nodes
        if needs.on_latent(n) or needs.on(n, Role.STATE) or needs.ancestors(n) & kept
    ]
    per_step = [n for n in read_by(with_latent) if needs.on(n, Role.TIMESTEP)]
    behind = needs.members(needs.between(program.placeholders_of(Role.TIMESTEP), per_step))
    per_run = [
        n
        for n in read_by([*behind, *with_latent])
        if needs.on(n, Role.CONDITIONING) and not needs.on(n, Role.TIMESTEP)
    ]
    used = needs.between(program.placeholders_of(Role.CONDITIONING), [*per_run, *per_step])
    numbers = (i for i, node in enumerate(program.placeholders) if used >> needs.index[node] & 1)
    return Hoisted(tuple(per_run), tuple(per_step), tuple(numbers))


def read_by(readers: Sequence[fx.Node]) -> list[fx.Node]:
    """Return the computed tensors outside ``readers`` that they read, directly or through views."""
    inside = set(readers)
    sources = (source for node in readers for source in node.all_input_nodes)
    bases = dict.fromkeys(behind_views(source) for source in sources if source not in inside)
    return [b for b in bases if b.op == "call_function" and is_tensor(b)]


def behind_views(node: fx.Node) -> fx.Node:
    """Return the value that ``node`` is a view or an item of."""
    while node.op == "call_function" and node.all_input_nodes:
        source = node.all_input_nodes[0]
        piece = not is_tensor(source) and source.op == "call_function"
        if piece and not returns_view(source.target):
            break
        if not piece and not returns_view(node.target):
            break
        node = source
    return node
