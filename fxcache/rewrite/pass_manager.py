"""Runs an ordered list of passes over a draft, and verifies, times and dumps each."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fxcache.errors import RewriteError
from fxcache.rewrite.draft import INITIAL, Draft, Property
from fxcache.rewrite.dump import dump
from fxcache.rewrite.verify import verify

logger = logging.getLogger("fxcache.rewrite")

Properties = frozenset[Property]
NONE: Properties = frozenset()


@dataclass(frozen=True)
class Pass:
    """One rewrite of a draft.

    A pass with findings for the report appends them to a list that its factory receives, as in
    ``fuse``.

    Attributes:
        name: The name in logs, errors and dumps.
        run: Changes the draft in place.
        requires: The properties that must hold before the pass.
        ensures: The properties that hold after the pass.
        breaks: The properties that no longer hold after the pass.
    """

    name: str
    run: Callable[[Draft], None]
    requires: Properties = NONE
    ensures: Properties = NONE
    breaks: Properties = NONE


class PassManager:
    """An ordered list of passes.

    Raises:
        RewriteError: A pass comes before the pass that ensures its requirements.
    """

    def __init__(self, passes: Iterable[Pass]) -> None:
        self.passes: Sequence[Pass] = tuple(passes)
        require_order(self.passes)

    def run(self, draft: Draft, name: str) -> Draft:
        """Run all passes over ``draft``, which becomes the graph ``name``.

        If the environment variable ``FXCACHE_DUMP`` names a folder, the graph is written there as
        Python source after each pass.

        Raises:
            RewriteError: A pass left the graph malformed. This is a defect of fxcache.
            ModelFileError: The graphs cannot be written.
        """
        folder = os.environ.get("FXCACHE_DUMP")
        model, total_ms = draft.program.model, 0.0
        for each in self.passes:
            started = time.perf_counter()
            each.run(draft)
            draft.properties = (draft.properties - each.breaks) | each.ensures
            verify(draft, name, each.name)
            elapsed_ms = 1000 * (time.perf_counter() - started)
            total_ms += elapsed_ms
            logger.debug(
                "%s of %s: %s in %.1f ms", name, draft.program.model, each.name, elapsed_ms
            )
            if folder:
                dump(draft, folder, name, each.name)
        num_nodes = len(draft.graph.nodes)
        logger.info("%s of %s: %d nodes in %.0f ms", name, model, num_nodes, total_ms)
        return draft


def require_order(passes: Sequence[Pass]) -> None:
    """Raise RewriteError if a pass comes before the pass that ensures its requirements."""
    known = set(INITIAL)
    for each in passes:
        if missing := each.requires - known:
            raise RewriteError(
                f"the pass {each.name!r} requires: {', '.join(p.value for p in missing)}",
                where=" → ".join(p.name for p in passes),
                remedy="put it after a pass that ensures this",
            )
        known = (known - each.breaks) | each.ensures
