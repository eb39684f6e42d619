"""The cached values of one trajectory, in buffers that fxcache owns and writes in place."""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from fxcache.codecs.codec import CacheEntry, Codec
from fxcache.rewrite.moments import Moments


class FeatureCache:
    """The values that a codec stores for the cache points of one plan.

    Values of compiled variants are copied, so that no replay of a CUDA graph overwrites them. The
    addresses of the copies are stable, and nothing is allocated during a run. Values of eager
    variants are kept without a copy if they have memory of their own.

    Attributes:
        entries: The entry of each cache point, by its number.
    """

    def __init__(self) -> None:
        self.entries: dict[int, CacheEntry] = {}
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
        if fresh or source != self._source:
            self._source = source
            self._fitting.clear()
            self._adoptable.clear()
        numbers = tuple(values)
        if eager_inputs is not None and codec.stores_as_is:
            if numbers not in self._adoptable:
                self._adoptable[numbers] = own_memory(values.values(), eager_inputs)
            if self._adoptable[numbers]:
                self.entries.update((n, CacheEntry((v,), (step,), True)) for n, v in values.items())
                self._fitting.clear()
                return
        entries = self._fitting.get(numbers)
        if entries is None:
            entries = self._fitting[numbers] = self._fitted(values, step, codec)
        codec.write(entries, list(values.values()), step, fresh)

    def _fitted(self, values: Mapping[int, Tensor], step: int, codec: Codec) -> list[CacheEntry]:
        """Return entries that fit ``values``; new ones where there are none."""
        for number, value in values.items():
            entry = self.entries.get(number)
            slots = [slot.like for slot in codec.slots(value)]
            if entry is None or entry.adopted or not fits(entry.buffers, slots):
                self.entries[number] = codec.allocate(value, step)
        return [self.entries[number] for number in values]

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
        buffers = (buffer for entry in self.entries.values() for buffer in entry.buffers)
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


def fits(buffers: Sequence[Tensor], values: Sequence[Tensor]) -> bool:
    """Return whether ``buffers`` can hold ``values`` without broadcast or conversion."""
    return len(buffers) == len(values) and all(map(same_layout, buffers, values))


def same_layout(buffer: Tensor, value: Tensor) -> bool:
    """Return whether both tensors have the same shape, dtype, device and strides."""
    return (
        buffer.shape == value.shape
        and buffer.dtype == value.dtype
        and buffer.device == value.device
        and buffer.stride() == value.stride()
    )
