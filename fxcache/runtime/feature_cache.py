"""The cached values of one trajectory, in buffers that fxcache owns and writes in place."""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from fxcache._torch import keep_address
from fxcache.codecs.codec import CacheEntry, Codec
from fxcache.codecs.layout import Layout, fit
from fxcache.rewrite.moments import Moments


class FeatureCache:
    """The values that a codec stores for the cache points of one plan.

    Compiled variants write their values to buffers, which keep their addresses. Nothing is
    allocated during a run. Values of eager variants are kept without a copy if they have memory of
    their own; other values that a variant returned are copied to buffers.

    Attributes:
        entries: The entry of each cache point, by its number.
        written_by_graphs: Whether compiled variants have written buffers.
    """

    def __init__(self) -> None:
        self.entries: dict[int, CacheEntry] = {}
        self.written_by_graphs = False
        self._source: object = None
        # By the numbers of points that are written together: entries that fit values of the source.
        self._fitting: dict[tuple[int, ...], list[CacheEntry]] = {}
        # By the same numbers: whether the values may be kept without a copy.
        self._adoptable: dict[tuple[int, ...], bool] = {}
        self._last_use: torch.Event | None = None

    def set_last_use(self, event: torch.Event | None) -> None:
        """Set the event at the end of the last call that uses the buffers; None on the CPU."""
        self._last_use = event

    @property
    def in_use(self) -> bool:
        """Whether the device still runs a call that reads or writes the buffers."""
        return self._last_use is not None and not self._last_use.query()

    def recycle(self) -> "FeatureCache":
        """Return this cache for another trajectory; its work waits for the last trajectory's.

        A call may have ended on the host while another stream still runs it.
        """
        if self._last_use is not None:
            self._last_use.wait()
        return self

    def write(
        self,
        values: Mapping[int, Tensor],
        step: int,
        codec: Codec,
        source: object,
        fresh: bool = True,
        eager_inputs: Sequence[Tensor] | None = None,
    ) -> None:
        """Store ``values`` by the numbers of their cache points.

        Args:
            values: The values that a variant returned.
            step: The step that computed them.
            codec: The codec that stores them.
            source: Identifies the capture and weights that they come from. Values of one source
                have the same shapes, dtypes and devices, so that entries are only checked at the
                start of a run and for a new source.
            fresh: Whether earlier values belong to another run, so that histories begin anew.
            eager_inputs: The inputs of an eager variant, whose results may be kept without a copy.
                None if the variant was compiled.
        """
        self._begin(source, fresh)
        numbers = tuple(values)
        if eager_inputs is not None and codec.stores_as_is:
            if numbers not in self._adoptable:
                self._adoptable[numbers] = own_memory(values.values(), eager_inputs)
            if self._adoptable[numbers]:
                self.entries.update((n, CacheEntry((v,), (step,), True)) for n, v in values.items())
                self._fitting.clear()
                return
        if numbers not in self._fitting:
            layouts = {number: codec.layouts(value) for number, value in values.items()}
            self._fitting[numbers] = self._fitted(layouts, step)
        codec.write(self._fitting[numbers], list(values.values()))
        self.complete(numbers, step, codec, fresh)

    def reserve(
        self, layouts: Mapping[int, Sequence[Layout]], step: int, source: object, fresh: bool
    ) -> None:
        """Allocate the buffers that a graph will write, where no buffer fits.

        Args:
            layouts: The layouts of the buffers of each point, by its number.
            step: The step that will write them.
            source: As for ``write``.
            fresh: As for ``write``.
        """
        self._begin(source, fresh)
        self.written_by_graphs = True
        numbers = tuple(layouts)
        if numbers not in self._fitting:
            self._fitting[numbers] = self._fitted(layouts, step)

    def complete(self, numbers: tuple[int, ...], step: int, codec: Codec, fresh: bool) -> None:
        """Record that ``step`` wrote the buffers of the points ``numbers``."""
        codec.complete(self._fitting[numbers], step, fresh)

    def _begin(self, source: object, fresh: bool) -> None:
        """Check all entries again if the values belong to another run or source."""
        if fresh or source != self._source:
            self._source = source
            self._fitting.clear()
            self._adoptable.clear()

    def _fitted(self, layouts: Mapping[int, Sequence[Layout]], step: int) -> list[CacheEntry]:
        """Return entries with these layouts; new ones where there are none."""
        for number, wanted in layouts.items():
            entry = self.entries.get(number)
            if entry is None or entry.adopted or not fit(entry.buffers, wanted):
                buffers = tuple(layout.allocate() for layout in wanted)
                for buffer in buffers:
                    keep_address(buffer)
                self.entries[number] = CacheEntry(buffers, (step,))
        return [self.entries[number] for number in layouts]

    def release(self, numbers: Iterable[int]) -> None:
        """Free the values of these points that were kept without a copy: the step computes them."""
        for number in numbers:
            if (entry := self.entries.get(number)) and entry.adopted:
                del self.entries[number]

    def moments(self, wanted: Iterable[Moments]) -> dict[Hashable, Tensor]:
        """Return these statistics. Each is computed once for each written value."""
        return {which: self._moments(self.entries[which.point], which) for which in wanted}

    def _moments(self, entry: CacheEntry, which: Moments) -> Tensor:
        if which not in entry.statistics:
            with torch.inference_mode(False), torch.no_grad():
                entry.statistics[which] = which.of(entry.buffers[0])
        return entry.statistics[which]

    @property
    def nbytes(self) -> int:
        """The bytes of all buffers."""
        entries = list(self.entries.values())  # another thread may add one meanwhile
        buffers = (buffer for entry in entries for buffer in entry.buffers)
        return sum(buffer.untyped_storage().nbytes() for buffer in buffers)


def own_memory(values: Collection[Tensor], inputs: Iterable[Tensor]) -> bool:
    """Return whether each value has memory that no other value and no input shares.

    The result is False for values made in inference mode, which cannot be used outside it.
    """
    if any(value.is_inference() for value in values):
        return False
    storages = [value.untyped_storage() for value in values]
    sizes = [value.nbytes for value in values]
    own = {storage.data_ptr() for storage in storages}
    taken = {value.untyped_storage().data_ptr() for value in inputs}
    whole = all(s.nbytes() == size for s, size in zip(storages, sizes, strict=True))
    return whole and len(own) == len(storages) and not own & taken
