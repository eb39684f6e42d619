"""What a call is conditioned on, compared with what the last call of a trajectory was."""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from fxcache.program import Role
from fxcache.runtime.trajectory.tensor_ref import Match, TensorRef, digest_of
from fxcache.signature import Call

MAX_KINDS = 256  # of calls that are remembered
# Inputs that belong to a step, not to a run: they are new at every call.
STEP_NAMES = re.compile(r"residual|block_samples|controlnet|timestep|sigma|noise", re.IGNORECASE)
# Inputs that say what is to be drawn: another one is another request, or a changed one.
PROMPT_NAMES = re.compile(
    r"encoder_hidden|prompt|text|caption|cap_|context|cond|class|label|pooled|embed|clip|mask"
    r"|^(y|c)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Kinds:
    """Which conditioning tensors say what is drawn, which may differ, which belong to a step.

    Attributes:
        prompts: Their numbers. Where no input has a prompt's name, all that are no step's.
        others: Those that may be new as long as the prompts are the same (position ids, a second
            stream's latent).
    """

    prompts: tuple[int, ...]
    others: tuple[int, ...]

    @property
    def kept(self) -> tuple[int, ...]:
        """All that are no step's own."""
        return self.prompts + self.others


def kinds_of(paths: Sequence[str], step_inputs: frozenset[str] = frozenset()) -> Kinds:
    """The kinds of the conditioning tensors at ``paths``.

    Args:
        paths: Such as ``added_cond_kwargs.text_embeds``.
        step_inputs: Names of inputs that the caller declares a step's own.
    """
    own = [p.partition(".")[0] in step_inputs or bool(STEP_NAMES.search(p)) for p in paths]
    rest = [i for i, is_step in enumerate(own) if not is_step]
    prompts = [i for i in rest if PROMPT_NAMES.search(paths[i])] or rest
    return Kinds(tuple(prompts), tuple(i for i in rest if i not in prompts))


class Conditioning(NamedTuple):
    """The conditioning of one call.

    Attributes:
        tensors: In the call's order.
        paths: Theirs.
        kinds: Theirs.
        digests: By number, of tensors that pipelines are known to make anew at every call.
    """

    tensors: tuple[Tensor, ...]
    paths: tuple[str, ...]
    kinds: Kinds
    digests: dict[int, Tensor]

    def refs(self) -> tuple[TensorRef, ...]:
        """What is kept of it until the next call."""
        return tuple(TensorRef(t, self.digests.get(i)) for i, t in enumerate(self.tensors))

    def compare(self, refs: Sequence[TensorRef]) -> tuple[Match, ...]:
        """How each tensor compares with those of ``refs``; all FOREIGN if not as many."""
        if len(refs) != len(self.tensors):
            return (Match.FOREIGN,) * max(1, len(self.tensors))
        digests = self.digests
        pairs = zip(refs, self.tensors, strict=True)
        return tuple([r.compare(t, digests.get(i)) for i, (r, t) in enumerate(pairs)])

    def summary(self, matches: Sequence[Match]) -> Match:
        """How alike the conditioning is: that of the prompts, and FOREIGN if anything kept is.

        An input that is no prompt may be new at each step, or written, as long as the prompts are
        the same.
        """
        if not any(matches):
            return Match.SAME
        if len(matches) != len(self.tensors):
            return Match.FOREIGN
        worst = max((matches[i] for i in self.kinds.prompts), default=Match.SAME)
        foreign = any(matches[i] is Match.FOREIGN for i in self.kinds.others)
        return Match.FOREIGN if foreign else worst


class Inputs:
    """The conditioning inputs of one module, and which of them callers make anew at every call.

    Tensors that are made anew are told by their content: a digest of it is taken where that was
    seen to happen.
    """

    def __init__(self, step_inputs: frozenset[str]):
        self._step_inputs = step_inputs
        self._known: dict[Hashable, tuple[tuple[str, ...], Kinds]] = {}
        self._rebuilt: set[str] = set()

    def conditioning(self, call: Call) -> Conditioning:
        """The conditioning of ``call``."""
        found = self._known.get(call.key)
        if found is None:
            if len(self._known) >= MAX_KINDS:
                self._known.clear()
            inputs = [given.path for given in call.inputs() if given.role is Role.CONDITIONING]
            paths = tuple(inputs)
            found = self._known[call.key] = paths, kinds_of(paths, self._step_inputs)
        paths, kinds = found
        digests: dict[int, Tensor] = {}
        if self._rebuilt:
            rebuilt = (i for i in kinds.kept if paths[i] in self._rebuilt)
            digests = {i: digest_of(call.conditioning[i]) for i in rebuilt}
        return Conditioning(call.conditioning, paths, kinds, digests)

    def note(self, matches: Sequence[Match], conditioning: Conditioning) -> None:
        """Take note of which tensors were replaced, and digest them for the next call."""
        if not any(matches) or len(matches) != len(conditioning.tensors):
            return
        for i in conditioning.kinds.kept:
            if matches[i] is Match.REPLACED and i not in conditioning.digests:
                self._rebuilt.add(conditioning.paths[i])
                conditioning.digests[i] = digest_of(conditioning.tensors[i])
