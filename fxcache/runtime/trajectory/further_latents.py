"""Finds inputs of a model with several latents that are latents, although their names are prompts'.

A model that denoises a picture and a text together returns a prediction for each. Its second latent
may have the name of a prompt, such as ``prompt_embeds``, and it is new at every step. A prompt that
changes must be noticed. So an input counts as a further latent only if both is true: the model
returns a further result of its shape, and it changed at every step of the run so far.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fxcache.runtime.trajectory.inputs import Conditioning
from fxcache.runtime.trajectory.tensor_ref import Match

CHANGED = (Match.REWRITTEN, Match.REPLACED)


class FurtherLatents(NamedTuple):
    """What one run shows of its further latents.

    Attributes:
        shapes: The shapes of the results of its last call, without one for each latent.
        moving: The conditioning that changed at every step so far, by index; None before a step.
    """

    shapes: tuple[torch.Size, ...] = ()
    moving: frozenset[int] | None = None

    def of(self, conditioning: Conditioning) -> frozenset[int]:
        """Return the indices of the conditioning tensors that are further latents."""
        if not self.moving or not self.shapes:
            return frozenset()
        numbered = enumerate(conditioning.tensors)
        return frozenset(i for i, t in numbered if i in self.moving and t.shape in self.shapes)

    def after(self, matches: Sequence[Match]) -> "FurtherLatents":
        """Return what is known after a step whose conditioning compares so."""
        changed = frozenset(i for i, match in enumerate(matches) if match in CHANGED)
        moving = changed if self.moving is None else self.moving & changed
        return self if moving == self.moving else self._replace(moving=moving)

    def with_results(self, latents: Sequence[Tensor], results: Sequence[Any]) -> "FurtherLatents":
        """Return what is known after a call of the model with these latents and results."""
        shapes = [result.shape for result in results if isinstance(result, Tensor)]
        for latent in latents:
            if latent.shape in shapes:
                shapes.remove(latent.shape)
        found = tuple(shapes)
        return self if found == self.shapes else self._replace(shapes=found)
