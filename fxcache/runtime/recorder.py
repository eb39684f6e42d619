"""What a recorder is shown of each step of an optimised module."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from fxcache.program import Role
from fxcache.rewrite.runner import Variant, Variants
from fxcache.runtime.record import Run


class Seen(NamedTuple):
    """One step: what was cached, returned and observed.

    ``run``: the same object for all steps of one trajectory. ``values``: of the cache points that
    the step computed, by the name of their group; they are overwritten later, so copy what is kept.
    ``output``: the first tensor that the module returns. ``signal``: what the policy observes.
    ``tensors``: what ``variant``, one of ``variants``, ran on; the call's own come first.
    """

    run: Run
    step: int
    values: Mapping[str, tuple[Tensor, ...]]
    output: Tensor
    signal: Tensor | None
    variants: Variants
    variant: Variant
    tensors: tuple[Tensor, ...]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The call's own tensors."""
        return self.tensors[: len(self.variants.program.inputs)]

    @property
    def latent(self) -> Tensor:
        """The call's latent, or the first of several."""
        roles = (given.role for given in self.variants.program.inputs)
        return self.tensors[list(roles).index(Role.LATENT)]


Recorder = Callable[[Seen], None]


def first_tensor(results: Sequence[Any]) -> Tensor:
    return next(r for r in results if isinstance(r, Tensor))
