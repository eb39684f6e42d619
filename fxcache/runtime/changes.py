"""Notices at the start of a run that the model changed after its captures were made."""

import threading
from collections.abc import Callable, Container, MutableMapping
from typing import Any, TypeVar

from torch import nn

from fxcache.capture.isolation import ONE_AT_A_TIME
from fxcache.rewrite.variants import Variants
from fxcache.runtime.hooks import Hooks
from fxcache.runtime.numbers import Numbers
from fxcache.runtime.offload import Offload
from fxcache.runtime.snapshot import Snapshot
from fxcache.runtime.structure import live_weights, weights

T = TypeVar("T")

MAX_ATTEMPTS = 2  # at a trace, where another thread changes the model meanwhile


class Changes:
    """What one model held when it was captured, by the number of its hooks.

    Attributes:
        generation: Of the weights: values cached from an older one are stale.
        lock: Is held for a look into the dictionaries, never during a comparison.
    """

    def __init__(
        self, held: MutableMapping[Any, Variants], numbers: Numbers, hooks: Hooks, offload: Offload
    ) -> None:
        """Make an empty record.

        Args:
            held: The captures. They are dropped when the model becomes another one.
            numbers: Traces of the model, which are dropped with the captures.
            hooks: The hooks on submodules.
            offload: Weights that wait on the CPU.
        """
        self.generation = 0
        self.lock = threading.RLock()
        self._held, self._numbers = held, numbers
        self._hooks, self._offload = hooks, offload
        self._snapshots: dict[int, Snapshot] = {}
        self._weights: list[Any] = []
        self._tracing = False  # then the module's parameters are stand-ins

    def inherit(self, previous: "Changes") -> None:
        """Take over what ``previous`` knows of the same model. The thread holds its lock."""
        self._snapshots, self._weights = dict(previous._snapshots), previous._weights
        self._hooks, self.generation = previous._hooks, previous.generation + 1
        self.lock = previous.lock  # calls under way still use what both now share

    def notice(self, module: nn.Module, hooks: int) -> None:
        """Drop captures of a changed model, and values of changed weights.

        Where nothing changed, no lock is taken.
        """
        known = self._snapshots.get(hooks)
        if known is None or known.holds(self._offload.homes):
            return  # with nothing captured under these hooks, the capture to come looks
        if self._tracing:
            self._notice_writes(known)
            return
        with ONE_AT_A_TIME:  # else parameters may be stand-ins of another model's capture
            self.compare(module, hooks)

    def _notice_writes(self, known: Snapshot) -> None:
        """During a capture of the module: only weights written in place can be noticed.

        torch.export puts everything else back as it was when the capture began.
        """
        with self.lock:
            self.generation += known.written()

    def compare(self, module: nn.Module, hooks: int) -> None:
        """The exact comparison. The thread holds ONE_AT_A_TIME."""
        known, homes = self._snapshots.get(hooks), self._offload.homes
        if known is not None and not known.holds(homes):
            now = Snapshot(module, homes)
            with self.lock:
                self.keep(hooks, now)
        found = weights(module)
        if found == self._weights:
            return
        self._weights = found
        with self.lock:
            held = list(self._held.values())
        for variants in held:  # before the new generation: its values come from the new weights
            variants.read(live_weights(module, variants.weights))
        with self.lock:
            self.generation += 1

    def traced(self, module: nn.Module, trace: Callable[[], T]) -> tuple[T, Snapshot]:
        """What ``trace`` returns, and what the module held all the while that it ran."""
        for _ in range(MAX_ATTEMPTS):
            before = Snapshot(module)
            self._tracing = True
            try:
                found = trace()
            finally:
                self._tracing = False
            after = Snapshot(module)
            if after.agrees(before):
                break
        return found, after

    def keep(self, hooks: int, now: Snapshot) -> None:
        """Keep ``now``; where the model is another than before, drop its captures."""
        known = self._snapshots.get(hooks)
        if known is not None and not now.agrees(known):
            self._held.clear()
            self._numbers.clear()
            self._snapshots.clear()
            self._hooks.forget()
        self._snapshots[hooks] = now

    def keep_only(self, used: Container[int]) -> None:
        """Forget what was captured under other hooks than these."""
        self._snapshots = {h: snapshot for h, snapshot in self._snapshots.items() if h in used}
