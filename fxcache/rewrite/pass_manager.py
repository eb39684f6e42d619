"""Runs an ordered list of passes over a draft: each verified, timed and, if asked for, dumped."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fxcache.errors import RewriteError
from fxcache.rewrite.draft import Draft, Property
from fxcache.rewrite.dump import dump
from fxcache.rewrite.verify import verify

logger = logging.getLogger("fxcache.rewrite")

Properties = frozenset[Property]
NONE: Properties = frozenset()


@dataclass(frozen=True)
class Pass:
    """One rewrite of a draft.

    A pass that finds something for the report appends it to a list that its maker passes in, as
    ``fuse`` does.

    Attributes:
        name: For logs, errors and dumps.
        run: Changes the draft in place.
        requires: What must hold before it.
        ensures: What holds after it, whether or not another pass requires it.
        breaks: What no longer holds after it.
    """

    name: str
    run: Callable[[Draft], None]
    requires: Properties = NONE
    ensures: Properties = NONE
    breaks: Properties = NONE


class PassManager:
    """An ordered list of passes.

    Raises:
        RewriteError: A pass comes before what it requires.
    """

    def __init__(self, passes: Iterable[Pass]) -> None:
        self.passes: Sequence[Pass] = tuple(passes)
        require_order(self.passes)

    def run(self, draft: Draft, name: str) -> Draft:
        """Run all passes over ``draft``, which becomes the graph called ``name``.

        With the environment variable ``FXCACHE_DUMP`` set to a folder, the graph is written there
        after each pass, as Python source.

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
    """RewriteError where a pass comes before what it requires."""
    known = {Property.ALL_NODES}
    for each in passes:
        if missing := each.requires - known:
            raise RewriteError(
                f"the pass {each.name!r} requires: {', '.join(p.value for p in missing)}",
                where=" → ".join(p.name for p in passes),
                remedy="put it behind a pass that ensures this",
            )
        known = (known - each.breaks) | each.ensures
