"""The stored values of one trajectory: buffers that fxcache owns, written in place."""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from fxcache.codecs.codec import CacheEntry, Codec
from fxcache.rewrite.moments import Moments


class FeatureCache:
    """What a codec stores for the cache points of one plan, by their numbers.

    Values of compiled variants are copied, so that no replay of a captured CUDA graph can overwrite
    what was stored: addresses are stable, and nothing is allocated during a run. Values of eager
    variants are kept as they are, where they have memory of their own.

    Attributes:
        entries: By the number of the cache point.
    """

    def __init__(self) -> None:
        self.entries: dict[int, CacheEntry] = {}
        self._source: object = None
        # By points that are written together: their entries, which fit that source.
        self._fitting: dict[tuple[int, ...], list[CacheEntry]] = {}
        self._adoptable: dict[tuple[int, ...], bool] = {}  # by points that are written together
        self._last_use: torch.Event | None = None

    def used(self, event: torch.Event | None) -> None:
        """A call that read or wrote the buffers is over once ``event`` is; None on the host."""
        self._last_use = event

    @property
    def in_use(self) -> bool:
        """Whether the device still runs a call that reads or writes the buffers."""
        return self._last_use is not None and not self._last_use.query()

    def recycled(self) -> "FeatureCache":
        """Itself, for another trajectory: its work waits for that of the last one.

        The host may be done with a call that another stream still runs.
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
        """Store ``values``, by the numbers of their cache points.

        Args:
            values: As a variant returned them.
            step: The step that computed them.
            codec: How they are stored.
            source: What they come from. Values of one source have the same shapes, dtypes and
                devices, so that entries are checked when a run starts and for each new source.
            fresh: Whether what was stored before is of another run, and gives no differences.
            eager_inputs: What the variant ran on, where it ran eagerly: nothing else keeps its
                results. None where it was compiled.
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
        """Entries that fit ``values``, made where there are none."""
        for number, value in values.items():
            entry = self.entries.get(number)
            slots = [slot.like for slot in codec.slots(value)]
            if entry is None or entry.adopted or not fits(entry.buffers, slots):
                self.entries[number] = codec.allocate(value, step)
        return [self.entries[number] for number in values]

    def release(self, numbers: Iterable[int]) -> None:
        """Free the adopted values of these points, which are computed anew next."""
        for number in numbers:
            if (entry := self.entries.get(number)) and entry.adopted:
                del self.entries[number]

    def moments(self, wanted: Iterable[Moments]) -> dict[Hashable, Tensor]:
        """These statistics, each taken at the first reuse of what was written."""
        return {which: self._moments(self.entries[which.point], which) for which in wanted}

    def _moments(self, entry: CacheEntry, which: Moments) -> Tensor:
        if which not in entry.statistics:
            with torch.inference_mode(False), torch.no_grad():
                entry.statistics[which] = which.of(entry.buffers[0])
        return entry.statistics[which]

    @property
    def nbytes(self) -> int:
        """Bytes stored."""
        buffers = (buffer for entry in self.entries.values() for buffer in entry.buffers)
        return sum(buffer.untyped_storage().nbytes() for buffer in buffers)


def own_memory(values: Collection[Tensor], inputs: Iterable[Tensor]) -> bool:
    """Whether each of ``values`` fills memory that none of ``inputs`` and no other value has.

    Values made in inference mode do not count: they could not be used outside it.
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
    """Whether ``buffers`` can hold ``values``: copying must never broadcast or convert."""
    return len(buffers) == len(values) and all(map(like, buffers, values))


def like(buffer: Tensor, value: Tensor) -> bool:
    """Whether ``buffer`` can hold ``value`` as it is."""
    return (
        buffer.shape == value.shape
        and buffer.dtype == value.dtype
        and buffer.device == value.device
        and buffer.stride() == value.stride()
    )
