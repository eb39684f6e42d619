"""The steps of a run without a policy: a table of the graph that each step runs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from fxcache.codecs.identity import Identity
from fxcache.effect import named as effect_names
from fxcache.errors import ArtifactError, ConfigError
from fxcache.graph_inputs import InputKind
from fxcache.policies import Policy
from fxcache.rewrite.variant import Variant
from fxcache.rewrite.variants import NOTHING, Variants
from fxcache.runtime.capture_keys import CaptureKey
from fxcache.runtime.engine import Engine
from fxcache.runtime.pipeline import require_engine
from fxcache.runtime.settings import Settings
from fxcache.step import Step

FULL, SKIP = "full", "cached_skip"
CALLER = "fxcache.step_table"
MAX_STEPS = 65_536


class StepTable(NamedTuple):
    """The graphs of a run, and which of them each step runs.

    A graph is a pure function with a ``signature``: the arguments of the call and cached values go
    in, results and values to cache come out.

    Attributes:
        variants: The graphs by name: ``full`` refreshes, ``cached_skip`` reuses everything, and
            ``reuse_1`` and so on reuse a part.
        steps: The name of the graph that each step runs.
    """

    variants: Mapping[str, Variant]
    steps: tuple[str, ...]

    def run(
        self, step: int, arguments: Sequence[Tensor], cache: dict[int, Tensor]
    ) -> Sequence[Any]:
        """Run one step of one trajectory.

        Args:
            step: The number of the step, from 0.
            arguments: The tensors of the call, in the order of the graph's inputs.
            cache: The values that this trajectory cached so far, by the number of their cache
                point; empty before the first step. The step adds and replaces values.

        Returns:
            The flat results of the model.
        """
        graph = self.variants[self.steps[step]]
        cached = [cache[number] for number, _ in graph.signature.keys(InputKind.CACHED)]
        outputs = graph.signature.unpack(graph.function(*arguments, *cached))
        cache.update(outputs.cached)
        return outputs.results


def step_table(model: nn.Module, num_steps: int) -> StepTable:
    """Return the graphs of a run of ``num_steps`` steps, for loops without fxcache.

    Nothing is hoisted: each graph computes everything that it returns.

    Args:
        model: An optimised module, or a loaded artifact, that has served one kind of call.
        num_steps: How many times the run calls the model, 1 or more.

    Raises:
        StateError: The model is not optimised.
        ArtifactError: Its steps need more than graphs and a table. The error says what.
        ScheduleError: The policy was calibrated for runs of another length.
        ConfigError: ``num_steps`` is no length.
    """
    lengths_of(num_steps, CALLER)
    engine = require_engine(model, CALLER)
    _, variants = captured(engine, CALLER)
    require_table(engine.settings, variants, CALLER)
    reused = reused_at_steps(engine.settings.policy, variants, num_steps)
    names = named(reused, variants.all)
    graphs = {name: variants.variant(groups) for groups, name in names.items()}
    return StepTable(graphs, tuple(names[groups] for groups in reused))


def lengths_of(num_steps: int | Iterable[int], caller: str) -> tuple[int, ...]:
    """Return the lengths of runs, each once; raise ConfigError if one cannot be a length."""
    lengths = tuple(num_steps) if isinstance(num_steps, Iterable) else (num_steps,)
    if not lengths or any(type(n) is not int or not 0 < n <= MAX_STEPS for n in lengths):
        raise ConfigError(
            f"num_steps={num_steps!r} names no length of a run",
            where=caller,
            remedy=f"pass a whole number from 1 to {MAX_STEPS:,}, or several",
        )
    return tuple(dict.fromkeys(lengths))


def captured(engine: Engine, caller: str) -> tuple[CaptureKey, Variants]:
    """Return the only capture of a model; raise ArtifactError if it has none or several."""
    captures = list(engine.captures.items())
    if len(captures) != 1:
        raise ArtifactError(
            f"{engine.signature.model} has served {len(captures)} kinds of calls",
            where=caller,
            remedy="optimize it again, and call it with one kind of arguments",
        )
    return captures[0]


def require_table(settings: Settings, variants: Variants, caller: str) -> None:
    """Raise ArtifactError, which names the cause, if a table cannot describe the steps."""
    cause = ""
    if variants.plan.signal:
        cause = f"{type(settings.policy).__name__} decides by values that the model computes"
    elif variants.program.effects:
        cause = (
            f"a call changes Python objects of the model: {effect_names(variants.program.effects)}"
        )
    elif settings.guidance:
        cause = "GuidanceCache changes the batch from step to step"
    elif variants.coefficients:
        cause = "a forecast or a correction has coefficients that differ at each step"
    elif not isinstance(variants.form.codec, Identity):
        cause = f"a cache in {settings.cache.dtype} is encoded between the steps"
    if cause:
        raise ArtifactError(
            f"the steps are more than a table of graphs: {cause}",
            where=caller,
            remedy="use fxcache.export and fxcache.load, or a policy such as Uniform without it",
        )


def reused_at_steps(policy: Policy, variants: Variants, num_steps: int) -> list[frozenset[str]]:
    """Return the groups of cache points that each step reuses."""
    found: list[frozenset[str]] = []
    last_refresh = 0
    for index in range(num_steps):
        decision = policy.decide(Step(index, num_steps, last_refresh))
        reused = variants.reused_by(decision)
        if not reused:
            last_refresh = index
        found.append(reused)
    return found


def named(reused: list[frozenset[str]], everything: frozenset[str]) -> dict[frozenset[str], str]:
    """Return a name for each set of reused groups, in the order of their first use."""
    names = {NOTHING: FULL, everything: SKIP}
    partial = [groups for groups in dict.fromkeys(reused) if groups not in names]
    names |= {groups: f"reuse_{number}" for number, groups in enumerate(partial, 1)}
    return {groups: names[groups] for groups in dict.fromkeys(reused)}
