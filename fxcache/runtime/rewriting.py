"""Makes the variants of a program under the options of ``optimize``."""

from collections.abc import Callable

from fxcache.capture.provided import CompiledGraphs
from fxcache.partition.choose import choose
from fxcache.partition.frontier import Frontier
from fxcache.rewrite.compiled import MachineCodes
from fxcache.rewrite.variants import Variants, rewrite
from fxcache.runtime.settings import Settings

NOT_OFFLOADED = "offloading moves weights, which native code cannot follow, so that none runs"
WITHOUT_NATIVE = "Load the artifact without native=True to offload weights."
RECOMPILE = (
    "Compile the artifact for the settings and the numbers of steps that you use. Native code "
    "needs hoist=None."
)


def variants_of(
    frontier: Frontier, settings: Settings, inputs: str, codes: MachineCodes | None = None
) -> Variants:
    """Return the variants of a program under ``settings``.

    Args:
        frontier: All cuts of the program.
        settings: The options of ``optimize``.
        inputs: A description of the captured call.
        codes: Machine code that runs in place of graphs.
    """
    plan = choose(frontier, settings.cut, settings.policy, settings.cache.partial_evaluation)
    return rewrite(frontier, plan, inputs, settings.cache_format, codes)


def machine_codes(
    graphs: CompiledGraphs | None, settings: Settings, warn: Callable[[str, str], None]
) -> MachineCodes | None:
    """Return the machine code for one program; None if there is none, or if it cannot run.

    Args:
        graphs: The compiled graphs of the module.
        settings: The options of ``optimize``.
        warn: Takes a problem and its remedy.
    """
    if graphs is None:
        return None
    if settings.cache.offload:
        warn(NOT_OFFLOADED, WITHOUT_NATIVE)
        return None
    what = "was not compiled to native code, and runs as a graph of PyTorch"
    return MachineCodes(graphs, lambda name: warn(f"the graph {name} {what}", RECOMPILE))
