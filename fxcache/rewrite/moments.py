"""Statistics of cached values, which kernels read instead of taking them at every step."""

from typing import NamedTuple

from torch import Tensor

from fxcache.operators import operator_of


class Moments(NamedTuple):
    """Statistics of the value at a cache ``point``: the first of ``channels`` in ``groups``.

    They change when it does, and not from one reuse to the next.
    """

    point: int
    groups: int
    channels: int

    def of(self, value: Tensor) -> Tensor:
        """See ``fxcache::group_moments``."""
        operator = operator_of("concat_group_norm_silu", "group_moments")
        found: Tensor = operator(value, self.groups, self.channels, 0)
        return found
