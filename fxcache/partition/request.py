"""The user's ``cut`` option, and what it names: an index, a path, two paths, or last calls."""

import re
from difflib import get_close_matches
from typing import Literal

from fxcache.analysis.iteration import Iteration, calls_of
from fxcache.analysis.streams import same_kind
from fxcache.errors import ConfigError, CutError
from fxcache.partition.cut import SPAN, CachePoint, Cut
from fxcache.partition.frontier import Frontier, Points
from fxcache.program import value_of

One = int | str | tuple[str, str] | Cut
CutRequest = One | list[One]
Choice = tuple[Cut, Points, str]
AUTO: Literal["auto"] = "auto"
LAST_CALLS = re.compile(r"(?P<path>.+)\[-(?P<count>\d+):\]")  # the name of a warm start


def require_cut_request(cut: object) -> CutRequest:
    """Check the type of the option ``cut``.

    Raises:
        ConfigError: ``choose`` accepts no value of this type.
    """
    if isinstance(cut, list) and cut and not any(isinstance(one, list) for one in cut):
        return [require_cut_request(one) for one in cut]  # type: ignore[misc]
    if isinstance(cut, int | str | Cut) and not isinstance(cut, bool):
        return cut
    if isinstance(cut, tuple) and len(cut) == 2 and all(isinstance(end, str) for end in cut):
        return cut
    raise ConfigError(
        f"cut={cut!r} is a {type(cut).__name__}",
        where="optimize(cut=...)",
        remedy="pass a skip index, a module path, a pair of module paths (the first and the last "
        'to skip), the last calls of a module ("solver[-2:]"), a Cut from list_cuts(), a list of '
        'those, or "auto"',
    )


def named_cut(frontier: Frontier, request: One) -> Choice:
    """The cut that ``request`` names.

    Raises:
        CutError: There is no such cut.
    """
    if isinstance(request, int):
        return by_index(frontier, request)
    name = request.name if isinstance(request, Cut) else request
    if isinstance(name, str):
        if last_calls := LAST_CALLS.fullmatch(name):
            return by_iteration(frontier, last_calls["path"], int(last_calls["count"]))
        first, spans, last = name.partition(SPAN)
        if not spans:
            return by_path(frontier, name)
        name = (first, last)
    return by_span(frontier, *name)


def by_index(frontier: Frontier, index: int) -> Choice:
    """The cut at the skip connection with this index."""
    if not 0 <= index < len(frontier.skips):
        raise CutError(
            f"{frontier.program.model} has no skip index {index}",
            where=f"cut={index}",
            remedy=f"choose one of: {offered(frontier)}",
        )
    value = frontier.skips[index]
    reason = f"skip index {index} was requested"
    return frontier.feature(value), (CachePoint(value),), reason


def by_path(frontier: Frontier, name: str) -> Choice:
    """The cut that caches the output of the module at this path."""
    named = frontier.named_values
    if name in named:
        value = named[name]
        reason = f"{name} was requested"
        return frontier.feature(value), (CachePoint(value),), reason
    several = frontier.module_outputs.get(name, [])
    raise CutError(
        f"{name} has {len(several)} outputs that depend on the latent; a cut caches one tensor"
        if several
        else f"{frontier.program.model} has no module named {name!r} with an output to cache",
        where=f"cut={name!r}",
        remedy=f"choose one of: {nearby(name, frontier)}",
    )


def by_span(frontier: Frontier, first: str, last: str) -> Choice:
    """The residual cut that skips all modules from ``first`` to ``last``."""
    name = f"{first}{SPAN}{last}"
    for path in (first, last):
        if not frontier.nodes_of(path):
            raise CutError(
                f"{frontier.program.model} has no module named {path!r} that computes anything",
                where=f"cut={name!r}",
                remedy=f"choose one of: {nearby(path, frontier)}",
            )
    points = frontier.span(first, last)
    if not points:
        raise CutError(
            f"{last} computes nothing from the values of {first} that depend on the latent",
            where=f"cut={name!r}",
            remedy="name the first module to skip, then the last, in the order in which they run",
        )
    cut = frontier.price(points, name)
    return cut, points, f"{first} to {last} was requested"


def by_iteration(frontier: Frontier, path: str, count: int) -> Choice:
    """The warm start of an iteration, of which a reuse step runs the last ``count`` calls."""
    name = f"{path}[-{count}:]"
    calls = calls_of(frontier.program, path)
    if not 0 < count < len(calls):
        raise CutError(
            f"{frontier.program.model} calls {path!r} {len(calls)} times",
            where=f"cut={name!r}",
            remedy="name a module that is called repeatedly, and fewer of its last calls",
        )
    iteration = Iteration(frontier.needs, calls)
    points = tuple(CachePoint(end, start=v) for v, end in iteration.iterates(len(calls) - count))
    if not points or not all(same_kind(value_of(p.value), value_of(p.read_at)) for p in points):
        raise CutError(
            f"the calls of {path!r} are no iteration: no call continues from the call before",
            where=f"cut={name!r}",
            remedy="name a module whose results are arguments of its next call",
        )
    cut = frontier.price(points, name)
    return cut, points, f"the last {count} of {len(calls)} calls of {path} were requested"


def nearby(name: str, frontier: Frontier) -> str:
    """Paths that resemble ``name``, for messages."""
    inside = [path for path in frontier.named_values if path.startswith(f"{name}.")]
    near = inside[-3:] or get_close_matches(name, frontier.modules, n=3, cutoff=0.3)
    return ", ".join(near) if near else offered(frontier)


def offered(frontier: Frontier) -> str:
    """The skip connections by index and name, and the stacks of blocks, for messages."""
    listed = [f"{i} ({frontier.name(v)})" for i, v in enumerate(frontier.skips)]
    if not listed:
        ends = ((s.blocks[0], s.blocks[-1]) for s in frontier.stacks)
        listed = [f"({first!r}, {last!r})" for first, last in ends]
    return ", ".join(listed) or "a module path (there are no skip connections or repeated blocks)"
