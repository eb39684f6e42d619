"""The layouts of the buffers that variants write."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fxcache.codecs.layout import Layout
from fxcache.program import VaryingSizes
from fxcache.rewrite.variant import Variant

Layouts = Mapping[int, tuple[Layout, ...]]  # by the number of the cache point


class BufferLayouts:
    """The layouts for the sizes of the last call, by variant.

    Args:
        sizes: The sizes that may vary from call to call.
    """

    def __init__(self, sizes: VaryingSizes):
        self._sizes = sizes
        # By variant: the values of the sizes, and the layouts for them.
        self._known: dict[Variant, tuple[dict[Any, int], Layouts]] = {}

    def of(self, variant: Variant, tensors: Sequence[Tensor]) -> Layouts:
        """Return the layouts of the buffers that ``variant`` writes in a call with ``tensors``."""
        sizes = self._sizes.symbol_values(tensors)
        known, layouts = self._known.get(variant, (None, {}))
        if known != sizes:
            layouts = {
                number: tuple(Layout.of(like, sizes) for like in buffers)
                for number, buffers in variant.buffers.items()
            }
            self._known[variant] = sizes, layouts
        return layouts
