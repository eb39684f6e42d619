"""The captures of one optimised module: by kind of call, bounded, forgotten when it changes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from torch import nn

from fxcache.capture.capture import capture
from fxcache.partition.choose import choose
from fxcache.partition.frontier import Frontier
from fxcache.rewrite.runner import Variants, rewrite
from fxcache.runtime.numbers import Numbers
from fxcache.runtime.offload import Offload
from fxcache.runtime.settings import Settings
from fxcache.runtime.values import Values
from fxcache.runtime.watch import live_weights, structure, weights
from fxcache.signature import Call, Signature

MAX_SIGNATURES = 8
MAX_KINDS = 256


class Captures:
    """``held``: the variants of each kind of call, least recently used first.

    ``offload``: of weights that no step reads; all are in place whenever something is captured.
    ``warn``: told what goes wrong without harm, and what to do.
    """

    def __init__(
        self, signature: Signature, settings: Settings, warn: Callable[[str, str], None]
    ) -> None:
        self.held: OrderedDict[Hashable, Variants] = OrderedDict()
        self.generation = 0  # of the weights: values cached from older ones are stale
        self.lock = threading.RLock()
        self.offload = Offload()
        self._signature, self._settings, self._warn = signature, settings, warn
        self._specialized: dict[Hashable, frozenset[str]] = {}
        self._values = Values()
        self._numbers = Numbers(signature.original, self.offload)
        self._structure: list[Any] = []
        self._weights: list[Any] = []

    def bound(self, module: nn.Module, call: Call) -> Call:
        """``call`` with tensors for its timestep, where that is a Python number."""
        if call.is_bound:
            return call
        with self.lock:
            return self._numbers.bound(module, call)

    def find(self, module: nn.Module, call: Call) -> Variants:
        """The variants for ``call``, captured now if need be; other threads' calls wait."""
        with self.lock:
            key = self._key(call)
            variants = self.held.get(key)
            fixed = variants is not None and not variants.program.sizes.admit(call.tensors)
            if fixed:  # a size that the graph does not leave open: a capture of its own
                key = (key, *(t.shape for t in call.tensors))
                variants = self.held.get(key)
            if variants is not None:
                self.held.move_to_end(key)
                return variants
            variants = self._capture(module, call, fixed)
            self._specialized[call.key] = self._read(call) | variants.program.specialized
            self._keep(key if fixed else self._key(call), variants, structure(module))
            return variants

    def _capture(self, module: nn.Module, call: Call, fixed: bool) -> Variants:
        settings = self._settings
        self.offload.bring_back()
        self.offload.belongs_to(module)
        frontier = Frontier(capture(module, self._signature, call, fixed))
        plan = choose(frontier, settings.cut, settings.policy, settings.partial_evaluation)
        return rewrite(frontier, plan, call.describe(), settings.cache_form)

    def _key(self, call: Call) -> Hashable:
        """What a capture for ``call`` is kept under: its kind, and the values it depends on."""
        paths = self._read(call)
        if not paths:
            return call.key
        tensors = call.by_path().items()
        return call.key, tuple(self._values.number(t) for path, t in tensors if path in paths)

    def _read(self, call: Call) -> frozenset[str]:
        """The inputs whose values captures for calls of this kind depend on."""
        return self._specialized.get(call.key, frozenset())

    def _keep(self, key: Hashable, variants: Variants, now: list[Any]) -> None:
        if now != self._structure:  # captures of another state of the model
            self.held.clear()
            self._structure = now
        if len(self._specialized) > MAX_KINDS:
            self._specialized.clear()
        self.held[key] = variants
        if len(self.held) > MAX_SIGNATURES:
            self.held.popitem(last=False)
            self._warn(
                f"more than {MAX_SIGNATURES} kinds of call (shapes, dtypes, options) take turns, "
                "and each is captured again when it comes back",
                "Call with fewer shapes, or leave sizes open: optimize(dynamic=...).",
            )

    def notice_changes(self, module: nn.Module) -> None:
        """At the start of a run: forget captures of a changed model, values of changed weights."""
        with self.lock:
            if self.held and structure(module, self.offload.homes) != self._structure:
                self.held.clear()
                self._numbers.clear()
            now = weights(module)
            if now == self._weights:
                return
            self._weights = now
            self.generation += 1
            for variants in self.held.values():
                variants.read(live_weights(module, variants.weights))
