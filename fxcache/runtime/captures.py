"""The captures of one optimised module: one for each kind of call, bounded, dropped when stale."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from fxcache.call import Call
from fxcache.capture.capture import capture
from fxcache.capture.isolation import ONE_AT_A_TIME
from fxcache.partition.choose import choose
from fxcache.partition.frontier import Frontier
from fxcache.rewrite.variants import Variants, rewrite
from fxcache.runtime.changes import Changes
from fxcache.runtime.hooks import Hooks
from fxcache.runtime.numbers import Numbers
from fxcache.runtime.offload import Offload
from fxcache.runtime.pending import resolving
from fxcache.runtime.settings import Settings
from fxcache.runtime.snapshot import Snapshot
from fxcache.runtime.structure import live_weights
from fxcache.runtime.values import Values
from fxcache.signature import Signature

MAX_KINDS = 256


class CaptureKey(NamedTuple):
    """What a capture is found by.

    ``hooks``: the number of the hooks on submodules; ``kind``: the key of the call; ``values``: the
    numbers of the inputs' values that the graph depends on; ``sizes``: of all inputs, where the
    graph does not leave them open.
    """

    hooks: int
    kind: Hashable
    values: tuple[int, ...] = ()
    sizes: tuple[torch.Size, ...] = ()


class Captures:
    """The variants of each kind of call, and whether they still fit the module.

    A lock is held for a look into the dictionaries, never during a capture: while one thread
    captures, calls that need the same capture wait for it, and all others go on.

    Attributes:
        held: the variants by ``CaptureKey``, least recently used first.
        hooks: on submodules. Their number is part of the key of a capture, and of the identity of a
            trajectory.
        changes: of the model since it was captured.
        offload: of weights that no step reads; all are in place whenever something is captured.
    """

    def __init__(
        self,
        signature: Signature,
        settings: Settings,
        warn: Callable[[str, str], None],
    ) -> None:
        """``warn`` receives what goes wrong without harm, and what to do about it."""
        self.held: OrderedDict[CaptureKey, Variants] = OrderedDict()
        self.hooks = Hooks()
        self.offload = Offload()
        self._numbers = Numbers(signature.original, self.offload)
        self.changes = Changes(self.held, self._numbers, self.hooks, self.offload)
        self._signature, self._settings, self._warn = signature, settings, warn
        self._max_captures = settings.capture.max_captures
        self._pending: dict[CaptureKey, Future[None]] = {}
        # By the key of a call, the inputs whose values its captures depend on.
        self._specialized: dict[Hashable, frozenset[str]] = {}
        self._values = Values()

    def inherit(self, previous: "Captures") -> None:
        """Take over the captures of ``previous``, which had other settings.

        Those whose plan or graphs would differ are partitioned and rewritten anew from the same
        program. Values cached before are stale. Raises what ``choose`` and ``rewrite`` raise.
        """
        with previous.changes.lock:
            kept = list(previous.held.items())[-self._max_captures :]
            same = previous._settings.partition_key == self._settings.partition_key
            self.held.update((key, v if same else self._partitioned(v)) for key, v in kept)
            self._specialized, self._values = dict(previous._specialized), previous._values
            self.hooks = previous.hooks
            self.changes.inherit(previous.changes)

    def _partitioned(self, old: Variants) -> Variants:
        """Variants of the same program under these settings."""
        settings = self._settings
        partial = settings.cache.partial_evaluation
        plan = choose(old.frontier, settings.cut, settings.policy, partial)
        variants = rewrite(old.frontier, plan, old.inputs, settings.cache_format)
        variants.read(old.weights)
        return variants

    def source(self, call: Call, variants: Variants) -> tuple[object, ...]:
        """What values that ``variants`` compute for ``call`` come from.

        The capture, its weights, and sizes that it leaves open: equal sources give values of equal
        shapes, and values of another source are stale.
        """
        expressions = variants.program.sizes.expressions
        sizes = [call.tensors[index].shape[dim] for index, dim in expressions]
        return (variants, self.changes.generation, *sizes)

    def bound(self, module: nn.Module, call: Call, hooks: int) -> Call:
        """``call`` with tensors for its timestep, where that is a Python number.

        Args:
            module: the optimised module.
            call: the call in canonical form.
            hooks: the number of the hooks that are set.

        Raises:
            CaptureError: each number would take a capture of its own.
        """
        return call if call.is_bound else self._numbers.bound(module, call, hooks)

    def find(self, module: nn.Module, call: Call, hooks: int) -> Variants:
        """The variants for ``call``, captured now if need be.

        Args:
            module: the optimised module.
            call: the call in canonical form, bound.
            hooks: the number of the hooks that are set.

        Raises:
            CaptureError: the module cannot be captured for this call. Threads that wait for the
                same capture raise it too.
        """
        while True:
            with self.changes.lock:
                key, variants = self._lookup(call, hooks)
                if variants is not None:
                    return variants
                own: Future[None] = Future()
                pending = self._pending.setdefault(key, own)
            if pending is own:
                with resolving(own, partial(self._forget_pending, key)):
                    return self._captured(module, call, key)
            pending.result()

    def _forget_pending(self, key: CaptureKey) -> None:
        with self.changes.lock:
            del self._pending[key]

    def _lookup(self, call: Call, hooks: int) -> tuple[CaptureKey, Variants | None]:
        """What a capture for ``call`` is kept under, and the capture if there is one."""
        key = self._key(call, hooks)
        variants = self.held.get(key)
        if variants is not None:
            sizes = variants.program.sizes
            if sizes.expressions and not sizes.admit(call.tensors):
                key = key._replace(sizes=tuple(t.shape for t in call.tensors))
                variants = self.held.get(key)
        if variants is not None:
            self.held.move_to_end(key)
        return key, variants

    def _key(self, call: Call, hooks: int) -> CaptureKey:
        paths = self._specialized.get(call.key)
        if not paths:
            return CaptureKey(hooks, call.key)
        tensors = call.by_path().items()
        values = tuple(self._values.number(t) for path, t in tensors if path in paths)
        return CaptureKey(hooks, call.key, values)

    def _captured(self, module: nn.Module, call: Call, key: CaptureKey) -> Variants:
        """Capture for ``call`` and keep the variants; one capture at a time in this process."""
        with ONE_AT_A_TIME:
            self.changes.compare(module, key.hooks)
            self.hooks.forget()  # modules may have come that no hook was looked for on
            hooks, identities = self.hooks.key(module), self.hooks.identities(module)
            if hooks != key.hooks:
                with self.changes.lock:
                    key, found = self._lookup(call, hooks)
                if found is not None:
                    return found
            variants, snapshot = self._traced(module, call, fixed=bool(key.sizes))
            variants.read(live_weights(module, variants.weights))
            self.hooks.settle(module, hooks, identities)
            evicted = self._keep(call, key, variants, snapshot)
            self.changes.compare(module, hooks)
        if evicted:
            self._warn(
                f"more than {self._max_captures} kinds of call (shapes, dtypes, options, hooks) "
                "take turns, and each is captured again when it comes back",
                "Call with fewer shapes, or leave sizes open: CaptureConfig(dynamic=...).",
            )
        return variants

    def _traced(self, module: nn.Module, call: Call, fixed: bool) -> tuple[Variants, Snapshot]:
        """The variants, and what the module held all the while that it was traced."""
        settings = self._settings
        self.offload.bring_back()
        self.offload.belongs_to(module)
        frontier, held = self.changes.traced(
            module, lambda: Frontier(capture(module, self._signature, call, fixed))
        )
        plan = choose(frontier, settings.cut, settings.policy, settings.cache.partial_evaluation)
        return rewrite(frontier, plan, call.describe(), settings.cache_format), held

    def _keep(self, call: Call, key: CaptureKey, variants: Variants, now: Snapshot) -> bool:
        """Keep the variants; returns whether others had to go."""
        with self.changes.lock:
            if len(self._specialized) > MAX_KINDS:
                self._specialized.clear()
            read = self._specialized.get(call.key, frozenset())
            self._specialized[call.key] = read | variants.program.specialized
            kept = key if key.sizes else self._key(call, key.hooks)
            self.changes.keep(key.hooks, now)
            self.held[kept] = variants
            evicted = len(self.held) > self._max_captures
            if evicted:
                self.held.popitem(last=False)
            self.changes.keep_only({known.hooks for known in self.held})
            return evicted
