"""Compares the conditioning of a call with that of the last call of a trajectory."""

import re
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from fxcache.call import Call
from fxcache.program import Role
from fxcache.runtime.trajectory.tensor_ref import Match, TensorRef, digest_of

MAX_KINDS = 256  # the greatest number of kinds of calls to remember
# Names of inputs that belong to a step and not to a run: they are new at every call.
STEP_NAMES = re.compile(
    r"residual|block_samples|controlnet|timestep|sigma|noise|self_?cond|_time$", re.IGNORECASE
)
# Names of inputs that describe the image: another value means another or a changed request.
PROMPT_NAMES = re.compile(
    r"encoder_hidden|prompt|text|caption|cap_|context|cond|class|label|pooled|embed|clip|mask"
    r"|^(y|c)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Kinds:
    """The kinds of the conditioning tensors of a call, by index.

    A tensor in neither field belongs to a step.

    Attributes:
        prompts: The tensors that describe the image. If no input has the name of a prompt, all
            tensors that belong to the run.
        others: The tensors that may be new as long as the prompts stay the same, such as position
            ids or the latent of a second stream.
    """

    prompts: tuple[int, ...]
    others: tuple[int, ...]

    @property
    def kept(self) -> tuple[int, ...]:
        """The indices of all tensors that do not belong to a step."""
        return self.prompts + self.others


def kinds_of(paths: Sequence[str], step_inputs: frozenset[str] = frozenset()) -> Kinds:
    """Return the kinds of the conditioning tensors at ``paths``.

    Args:
        paths: Paths such as ``added_cond_kwargs.text_embeds``.
        step_inputs: Names of inputs that the user declares to belong to a step.
    """
    of_step = [p.partition(".")[0] in step_inputs or bool(STEP_NAMES.search(p)) for p in paths]
    rest = [i for i, is_step in enumerate(of_step) if not is_step]
    prompts = [i for i in rest if PROMPT_NAMES.search(paths[i])] or rest
    return Kinds(tuple(prompts), tuple(i for i in rest if i not in prompts))


class Conditioning(NamedTuple):
    """The conditioning of one call.

    Attributes:
        tensors: The tensors, in the order of the call.
        paths: The paths of the tensors.
        kinds: The kinds of the tensors.
        digests: The digests of tensors that may be new at every call, by index.
    """

    tensors: tuple[Tensor, ...]
    paths: tuple[str, ...]
    kinds: Kinds
    digests: dict[int, Tensor]

    def refs(self) -> tuple[TensorRef, ...]:
        """Weak references to the tensors, for the comparison with the next call."""
        return tuple(TensorRef(t, self.digests.get(i)) for i, t in enumerate(self.tensors))

    def waited(self, compared: Sequence[Sequence[Match]]) -> bool:
        """Return whether comparing the digests had to wait for their device."""
        read = (matches[i] for matches in compared for i in self.digests if i < len(matches))
        return any(match in (Match.EQUAL, Match.REPLACED) for match in read)

    def compare(self, refs: Sequence[TensorRef]) -> tuple[Match, ...]:
        """Return how each tensor compares with ``refs``; all FOREIGN if the numbers differ."""
        if len(refs) != len(self.tensors):
            return (Match.FOREIGN,) * max(1, len(self.tensors))
        digests = self.digests
        pairs = zip(refs, self.tensors, strict=True)
        return tuple([r.compare(t, digests.get(i)) for i, (r, t) in enumerate(pairs)])

    def summary(self, matches: Sequence[Match], latents: Collection[int] = ()) -> Match:
        """Return how the conditioning compares as a whole.

        This is the worst match of the prompts, or FOREIGN if any tensor of the run is FOREIGN.
        Other inputs than prompts may be new or rewritten at each step.

        Args:
            matches: How each tensor compares.
            latents: The tensors that are further latents, by index. They may be new or rewritten
                too. A FOREIGN one counts: it may belong to another caller.
        """
        if not any(matches):
            return Match.SAME
        if len(matches) != len(self.tensors):
            return Match.FOREIGN
        worst = Match.SAME
        for i in self.kinds.prompts:
            if i not in latents or matches[i] is Match.FOREIGN:
                worst = max(worst, matches[i])
        foreign = any(matches[i] is Match.FOREIGN for i in self.kinds.others)
        return Match.FOREIGN if foreign else worst


class Inputs:
    """The conditioning inputs of one module.

    Some callers create an input anew at every call. Such an input is recognised by a digest of its
    content. A digest is computed until a second call shows that the caller keeps the tensor, and
    for inputs that were replaced before.
    """

    def __init__(self, step_inputs: frozenset[str]):
        self._step_inputs = step_inputs
        self._known: dict[Hashable, tuple[tuple[str, ...], Kinds]] = {}
        self._rebuilt: set[str] = set()
        self._steady: set[str] = set()  # inputs whose tensors were kept from one call to the next

    def conditioning(self, call: Call) -> Conditioning:
        """Return the conditioning of ``call``."""
        entry = self._known.get(call.key)
        if entry is None:
            if len(self._known) >= MAX_KINDS:
                self._known.clear()
            paths = tuple(i.path for i in call.inputs() if i.role is Role.CONDITIONING)
            entry = self._known[call.key] = paths, kinds_of(paths, self._step_inputs)
        paths, kinds = entry
        digests: dict[int, Tensor] = {}
        if not self._steady.issuperset(paths):
            doubtful = (i for i in kinds.kept if paths[i] not in self._steady)
            digests = {i: digest_of(call.conditioning[i]) for i in doubtful}
        return Conditioning(call.conditioning, paths, kinds, digests)

    def record_replaced(self, matches: Sequence[Match], conditioning: Conditioning) -> None:
        """Record which tensors were kept or replaced; compute missing digests of the latter."""
        if len(matches) != len(conditioning.tensors):
            return
        for i in conditioning.kinds.kept:
            path = conditioning.paths[i]
            if matches[i] in (Match.REPLACED, Match.EQUAL):
                self._rebuilt.add(path)
                self._steady.discard(path)
                if i not in conditioning.digests:
                    conditioning.digests[i] = digest_of(conditioning.tensors[i])
            elif matches[i] is Match.SAME and path not in self._rebuilt:
                self._steady.add(path)


def only_same(compared: Sequence[tuple[Match, ...]], conditioning: Conditioning) -> int | None:
    """Return the index of the only trajectory that fits, if its inputs are the same; None else."""
    same = []
    for index, matches in enumerate(compared):
        if not any(matches):
            same.append(index)
        elif conditioning.summary(matches) is not Match.FOREIGN:
            return None
    return same[0] if len(same) == 1 else None
