"""Statistics of cached values, which kernels read instead of computing them at every step."""

from typing import NamedTuple

from torch import Tensor

from fxcache.operators import operator_of


class Moments(NamedTuple):
    """The statistics for a group normalisation of a concatenation that begins with a cached value.

    They change only when the cached value changes.

    Attributes:
        point: The number of the cache point.
        groups: The number of groups.
        channels: The number of channels of the concatenation.
    """

    point: int
    groups: int
    channels: int

    def of(self, value: Tensor) -> Tensor:
        """Return the statistics of ``value``, see ``fxcache::group_moments``."""
        operator = operator_of("concat_group_norm_silu", "group_moments")
        found: Tensor = operator(value, self.groups, self.channels, 0)
        return found
