"""Notices, at the start of a run and at refreshes, that the model changed since its capture."""

import threading
from collections.abc import Callable, Container, Iterable, MutableMapping
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

MAX_ATTEMPTS = 2  # traces again if another thread changed the model meanwhile


class Changes:
    """Snapshots of one model at the time of its captures, one for each set of hooks.

    Attributes:
        generation: A number that rises when weights change. Values of an older one are stale.
        lock: Protects the dictionaries. No thread holds it during a comparison.
        volatile: The attributes that no graph depends on, each as (path of the submodule, name):
            submodules that graphs call as they are change them, or they are inputs.
    """

    def __init__(
        self,
        captures: MutableMapping[Any, Variants],
        numbers: Numbers,
        hooks: Hooks,
        offload: Offload,
    ) -> None:
        """Make an empty record.

        Args:
            captures: The captures. They are dropped when the model's structure changes.
            numbers: Traces for timesteps that are numbers, dropped with the captures.
            hooks: The hooks on submodules.
            offload: The offloaded weights.
        """
        self.generation = 0
        self.volatile: frozenset[tuple[str, str]] = frozenset()
        self.lock = threading.RLock()
        self._captures, self._numbers = captures, numbers
        self._hooks, self._offload = hooks, offload
        self._snapshots: dict[int, Snapshot] = {}
        self._weights: list[Any] = []
        self._tracing = False  # during a trace, the parameters are fake tensors

    def inherit(self, previous: "Changes") -> None:
        """Take over the snapshots of ``previous`` of the same model. The thread holds its lock."""
        self._snapshots, self._weights = dict(previous._snapshots), previous._weights
        self._hooks, self.generation = previous._hooks, previous.generation + 1
        self.volatile = previous.volatile
        self.lock = previous.lock  # running calls still use the shared objects

    def notice(self, module: nn.Module, hooks: int) -> None:
        """Drop captures of a changed model, and values of changed weights.

        If nothing changed, no lock is taken.
        """
        known = self._snapshots.get(hooks)
        if known is None or known.holds(self._offload.homes):
            return  # without a snapshot for these hooks, the next capture compares
        if self._tracing:
            self._notice_writes(known)
            return
        with ONE_AT_A_TIME:  # or parameters may be fake tensors of another capture
            self.compare(module, hooks)

    def _notice_writes(self, known: Snapshot) -> None:
        """Notice weights that were written in place during a capture of the module.

        Other changes cannot be noticed: torch.export undoes them when the capture ends.
        """
        with self.lock:
            self.generation += known.written()

    def compare(self, module: nn.Module, hooks: int) -> None:
        """Compare the model with its snapshot exactly. The thread holds ONE_AT_A_TIME."""
        known, homes = self._snapshots.get(hooks), self._offload.homes
        if known is not None and not known.holds(homes):
            now = Snapshot(module, homes, self.volatile)
            with self.lock:
                self.keep(hooks, now)
        found = weights(module)
        if found == self._weights:
            return
        self._weights = found
        with self.lock:
            captures = list(self._captures.values())
        for variants in captures:  # before the generation rises: its values use the new weights
            variants.read(live_weights(module, variants.weights))
        with self.lock:
            self.generation += 1

    def traced(self, module: nn.Module, trace: Callable[[], T]) -> tuple[T, Snapshot]:
        """Return the result of ``trace``, and a snapshot that is valid for the whole trace."""
        for _ in range(MAX_ATTEMPTS):
            before = Snapshot(module)
            self._tracing = True
            try:
                found = trace()
            finally:
                self._tracing = False
            after = Snapshot(module, volatile=self.volatile)
            if after.agrees(before):
                break
        return found, after

    def keep(self, hooks: int, now: Snapshot) -> None:
        """Store ``now``. If the model's structure changed, drop its captures."""
        known = self._snapshots.get(hooks)
        if known is not None and not now.agrees(known):
            self._forget()
        self._snapshots[hooks] = now

    def ignore(
        self, places: Iterable[tuple[str, str]], instead_of: Iterable[tuple[str, str]]
    ) -> None:
        """Notice no changes of these attributes, and again those of others. Drop all captures."""
        with self.lock:
            self.volatile = self.volatile.difference(instead_of).union(places)
            self._forget()

    def _forget(self) -> None:
        """Drop all captures and snapshots."""
        self._captures.clear()
        self._numbers.clear()
        self._snapshots.clear()
        self._hooks.forget()

    def keep_only(self, used: Container[int]) -> None:
        """Drop the snapshots for other hooks than these."""
        self._snapshots = {h: snapshot for h, snapshot in self._snapshots.items() if h in used}
