"""The captures of one optimised module: one for each kind of call, up to a maximum number."""

import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from torch import nn

from fxcache.call import Call
from fxcache.capture.capture import capture
from fxcache.capture.isolation import ONE_AT_A_TIME
from fxcache.capture.provided import ProvidesPrograms
from fxcache.capture.scripts import require_no_scripts
from fxcache.partition.frontier import Frontier
from fxcache.rewrite.variants import Variants
from fxcache.runtime.capture_keys import CaptureKey, CaptureKeys, Served
from fxcache.runtime.capture_notices import notices_of
from fxcache.runtime.changes import Changes
from fxcache.runtime.effects import KnownEffects
from fxcache.runtime.hooks import Hooks
from fxcache.runtime.kept import KeptTensors, kept_state
from fxcache.runtime.numbers import Numbers
from fxcache.runtime.offload import Offload
from fxcache.runtime.pending import resolving
from fxcache.runtime.rewriting import machine_codes, variants_of
from fxcache.runtime.settings import Settings
from fxcache.runtime.snapshot import Snapshot
from fxcache.runtime.structure import live_weights
from fxcache.signature import Signature


class Captures:
    """The variants of each kind of call.

    A lock protects the dictionaries. No thread holds it during a capture: calls that need the same
    capture wait for it, and all others go on.

    Attributes:
        by_key: The variants by ``CaptureKey``, least recently used first.
        capture_s: The seconds of all captures made here, without those taken over.
        hooks: The hooks on submodules. The number that identifies them is part of the key of a
            capture, and of the identity of a trajectory.
        changes: Notices that the model changed since it was captured.
        effects: The calls that change Python objects of the model.
        kept: The attributes in which the model keeps tensors between calls.
        offload: Offloads weights that no step reads. A capture brings all of them back.
    """

    def __init__(
        self,
        signature: Signature,
        settings: Settings,
        warn: Callable[..., None],
    ) -> None:
        """Start without captures. ``warn`` is that of ``Notices``."""
        self.by_key: OrderedDict[CaptureKey, Variants] = OrderedDict()
        self.capture_s = 0.0
        self.hooks = Hooks()
        self.effects = KnownEffects()
        self.offload = Offload()
        self._numbers = Numbers(signature.original, self.offload)
        self.changes = Changes(self.by_key, self._numbers, self.hooks, self.offload)
        self.kept = KeptTensors(self.changes)
        self._signature, self._settings, self._warn = signature, settings, warn
        self._max_captures = settings.capture.max_captures
        self._pending: dict[CaptureKey, Future[None]] = {}
        self._keys = CaptureKeys(any_size=bool(signature.dynamic))

    def inherit(self, previous: "Captures") -> None:
        """Take over the captures of ``previous``, which has other settings.

        If the new settings lead to other plans or graphs, the programs are partitioned and
        rewritten again. Cached values become stale. ``choose`` and ``rewrite`` may raise.
        """
        with previous.changes.lock:
            kept = list(previous.by_key.items())[-self._max_captures :]
            same = previous._settings.partition_key == self._settings.partition_key
            self.by_key.update((key, v if same else self._partitioned(v)) for key, v in kept)
            self._keys.inherit(previous._keys)
            self.hooks, self.effects = previous.hooks, previous.effects
            self.changes.inherit(previous.changes)
            self.kept.inherit(previous.kept)

    def _partitioned(self, old: Variants) -> Variants:
        """Return variants of the same program under the new settings."""
        graphs = old.codes.graphs if old.codes else None
        codes = machine_codes(graphs, self._settings, self._warn)
        variants = variants_of(old.frontier, self._settings, old.inputs, codes)
        variants.read(old.weights)
        variants.capture_ms = old.capture_ms
        return variants

    def source(self, call: Call, variants: Variants) -> tuple[object, ...]:
        """Return the source of the values that ``variants`` compute for ``call``.

        The source identifies the capture, its weights, the tensors that the model keeps and the
        sizes that vary. Values of one source have the same shapes. Values of another are stale.
        """
        expressions = variants.program.sizes.expressions
        sizes = [call.tensors[index].shape[dim] for index, dim in expressions]
        return (variants, self.changes.generation, *sizes, *kept_state(call, variants.program))

    def bound(self, module: nn.Module, call: Call, hooks: int) -> Call:
        """Return ``call`` with tensors in place of a timestep that is a Python number.

        A module that brings its programs along is not traced: it is asked for the call as it is.

        Args:
            module: The optimised module.
            call: The call in canonical form.
            hooks: The number that identifies the current hooks.

        Raises:
            CaptureError: Each number would need a capture of its own.
        """
        if call.is_bound or isinstance(module, ProvidesPrograms):
            return call
        return self._numbers.bound(module, call, hooks)

    def find(self, module: nn.Module, call: Call, hooks: int) -> Variants:
        """Return the variants for ``call``. Capture them if there are none.

        Args:
            module: The optimised module.
            call: The call in canonical form, bound.
            hooks: The number that identifies the current hooks.

        Raises:
            CaptureError: The module cannot be captured for this call. Threads that wait for the
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

    def note_effects(self, module: nn.Module, call: Call, variants: Variants) -> bool:
        """Note the effects of a call that the original is about to run. Return whether they last.

        Its graphs are for the first call only if a later one has no effects.
        """
        effects = variants.program.effects
        if not self.kept.learn(call, module, effects):
            fills, kind = self.kept.fills(effects), call.unbound_key
            numbered = call.number is not None and not fills  # what is kept is part of the key
            if self.effects.note(module, kind, effects, numbered):
                return not fills
        with self.changes.lock:
            for key in [k for k, known in self.by_key.items() if known is variants]:
                del self.by_key[key]
        return False

    def _forget_pending(self, key: CaptureKey) -> None:
        with self.changes.lock:
            del self._pending[key]

    def _lookup(self, call: Call, hooks: int) -> tuple[CaptureKey, Variants | None]:
        """Return the key of a capture for ``call``, and the capture's variants if there are any."""
        own = self._keys.key(call, hooks)
        key, variants = self._keys.found(own, self.by_key)
        if variants is not None:
            sizes = variants.program.sizes
            if sizes.expressions and not sizes.admit(call.tensors):
                own = own._replace(sizes=tuple(t.shape for t in call.tensors))
                key, variants = self._keys.found(own, self.by_key)
        if variants is not None and len(self.by_key) > 1:  # a hash takes half a microsecond
            self.by_key.move_to_end(key)
        return key, variants

    def served(self, key: CaptureKey) -> Served:
        """Return what inputs a capture serves."""
        return self._keys.served(key, self.by_key[key].program)

    def _captured(self, module: nn.Module, call: Call, key: CaptureKey) -> Variants:
        """Capture for ``call`` and store the variants. One thread captures at a time."""
        with ONE_AT_A_TIME:
            self.changes.compare(module, key.hooks)
            self.hooks.forget()  # new modules may have hooks
            hooks, identities = self.hooks.key(module), self.hooks.identities(module)
            if hooks != key.hooks:
                with self.changes.lock:
                    key, found = self._lookup(call, hooks)
                if found is not None:
                    return found
            variants, snapshot = self._traced(module, call, key)
            variants.read(live_weights(module, variants.weights))
            self.hooks.settle(module, hooks, identities)
            evicted = self._keep(call, key, variants, snapshot)
            self.changes.compare(module, hooks)
        if evicted:
            self._warn(
                f"more than {self._max_captures} kinds of call (shapes, dtypes, options, hooks) "
                "take turns, and each is captured again when it returns",
                "Call with fewer shapes, or leave sizes open: CaptureConfig(dynamic=...).",
            )
        return variants

    def _traced(self, module: nn.Module, call: Call, key: CaptureKey) -> tuple[Variants, Snapshot]:
        """Return the variants, and a snapshot of the module that is valid for the whole trace."""
        require_no_scripts(module)
        self.offload.bring_back()
        self.offload.belongs_to(module)
        started = time.perf_counter()
        fixed = bool(key.sizes)
        frontier, held = self.changes.traced(module, lambda: self._frontier(module, call, fixed))
        graphs = module.compiled_graphs if isinstance(module, ProvidesPrograms) else None
        codes = machine_codes(graphs, self._settings, self._warn)
        elapsed_s = time.perf_counter() - started
        self.capture_s += elapsed_s
        with self.changes.lock:
            known = self._keys.equal(key, frontier.program, self.by_key)
        if known is not None:
            return known, held
        variants = variants_of(frontier, self._settings, call.describe(), codes)
        variants.capture_ms = 1000 * elapsed_s
        for notice in notices_of(module, variants):
            self._warn(*notice)
        return variants, held

    def _frontier(self, module: nn.Module, call: Call, fixed: bool) -> Frontier:
        """Return all cuts of a new capture."""
        program = capture(module, self._signature, call, fixed)
        settings = (called.settings for called in program.opaque)
        self.changes.volatile = self.changes.volatile.union(*settings)
        return Frontier(program)

    def _keep(self, call: Call, key: CaptureKey, variants: Variants, now: Snapshot) -> bool:
        """Store the variants, unless they are. Return whether others were dropped."""
        with self.changes.lock:
            self._keys.learn(call, variants.program.specialized)
            for outdated in self._keys.outdated(self.by_key):
                del self.by_key[outdated]
            kept = key if key.sizes else self._keys.key(call, key.hooks)
            self.changes.keep(key.hooks, now)
            if not any(known is variants for known in self.by_key.values()):
                self.by_key[kept] = variants
            evicted = len(self.by_key) > self._max_captures
            if evicted:
                self.by_key.popitem(last=False)
            self.changes.keep_only({known.hooks for known in self.by_key})
            return evicted
