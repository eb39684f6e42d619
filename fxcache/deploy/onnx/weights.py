"""The weights of all graphs of an ONNX export, each once, in one file."""

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

WEIGHTS = "weights.bin"
ALIGNMENT = 64  # bytes
SMALLEST = 256  # bytes; smaller tensors stay in the graph, where shape inference reads them


class Span(NamedTuple):
    """Where a tensor is in the file, in bytes."""

    offset: int
    length: int


class WeightsFile:
    """Writes tensors to a file. A tensor with the bytes of an earlier one is not written again.

    Args:
        folder: The folder of the export.
    """

    def __init__(self, folder: Path):
        self._file = (folder / WEIGHTS).open("wb")
        self._hash = hashlib.sha256()
        self._spans: dict[bytes, Span] = {}
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def span(self, content: bytes) -> Span:
        """Return the place of ``content``, and write it if it is new."""
        key = hashlib.sha256(content).digest()
        if key not in self._spans:
            self._write(bytes(-self._size % ALIGNMENT))
            self._spans[key] = Span(self._size, len(content))
            self._write(content)
        return self._spans[key]

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._hash.update(content)
        self._size += len(content)

    def describe(self) -> dict[str, Any]:
        """Return the size and the hash of the file."""
        return {"size": self._size, "sha256": self._hash.hexdigest()}


def move_out(model: Any, file: WeightsFile) -> None:
    """Move the weights of an ``onnx_ir.Model`` to ``file``."""
    from onnx_ir import ExternalTensor

    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor.nbytes < SMALLEST:
            continue
        span = file.span(tensor.tobytes())
        value.const_value = ExternalTensor(
            WEIGHTS, span.offset, span.length, tensor.dtype, shape=tensor.shape, name=value.name
        )
