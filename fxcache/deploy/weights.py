"""The weights of artifacts: each tensor once, in safetensors files."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from fxcache._torch import plain_parts
from fxcache.deploy.fields import Fields, built, damaged
from fxcache.deploy.files import Reader, Writer
from fxcache.deploy.values import decode
from fxcache.errors import ArtifactError
from fxcache.program import dtype_name

MAX_SHARD = 5 * 2**30  # bytes in one file
MAX_NAME = 1024
MAX_DEPTH = 64  # the number of modules inside modules
WEIGHT = ("file", "key", "kind", "shape", "order", "dtype")
# ATen may compute with a weight that requires a gradient in another way, also without gradients.
TRAINABLE = "trainable"
KINDS = ("parameter", TRAINABLE, "buffer", "constant")


def write_weights(
    writer: Writer, module: nn.Module, weights: Mapping[str, Tensor], stored: bool
) -> dict[str, dict[str, Any]]:
    """Write ``weights``, and return their description by name.

    Args:
        writer: Writes the files.
        module: The model, for the kind of each weight.
        weights: The tensors by name. Tensors with the same memory are written once.
        stored: Whether to write the tensors, and not only their description.

    Raises:
        ArtifactError: A weight is no plain tensor, or has no values.
    """
    kinds = kinds_of(module)
    keys: dict[Any, str] = {}
    described: dict[str, dict[str, Any]] = {}
    for name, weight in weights.items():
        require_plain(name, weight, stored)
        key = keys.setdefault(memory_of(weight), name)
        described[name] = {
            "file": "",
            "key": key,
            "kind": kinds.get(name, "constant"),
            "shape": list(weight.shape),
            "order": order_of(weight),
            "dtype": dtype_name(weight.dtype),
        }
    if stored:
        distinct = {key: weights[key] for key in dict.fromkeys(keys.values())}
        files: dict[str, str] = {}
        for number, shard in enumerate(shards(distinct)):
            file = f"weights-{number:05}.safetensors"
            writer.write(file, save({name: as_stored(t) for name, t in shard.items()}))
            files |= dict.fromkeys(shard, file)
        for weight_description in described.values():
            weight_description["file"] = files[weight_description["key"]]
    return described


def kinds_of(module: nn.Module) -> dict[str, str]:
    """Return the kind of each parameter and buffer of ``module``, by name."""
    parameters = module.named_parameters(remove_duplicate=False)
    buffers = module.named_buffers(remove_duplicate=False)
    kinds = {name: "buffer" for name, _ in buffers}
    return kinds | {n: TRAINABLE if p.requires_grad else "parameter" for n, p in parameters}


def require_plain(name: str, weight: Tensor, stored: bool) -> None:
    """Raise ArtifactError unless ``weight`` is a dense tensor of values."""
    plain = type(weight) in (Tensor, nn.Parameter, nn.Buffer) and weight.layout is torch.strided
    if not plain or weight.is_quantized or (stored and weight.is_meta):
        raise ArtifactError(
            f"the weight {name} is a {type(weight).__name__} on {weight.device}",
            where=name,
            remedy="export a model with plain weights, or pass weights=False for one on meta",
        )


def memory_of(weight: Tensor) -> Any:
    """Return a key that is equal for two tensors exactly if they are the same values in memory."""
    if weight.is_meta:
        return id(weight)
    shape, stride = tuple(weight.shape), weight.stride()
    return weight.data_ptr(), shape, stride, weight.dtype, weight.device


def order_of(weight: Tensor) -> list[int]:
    """Return the dimensions from the greatest stride to the least."""
    strides = weight.stride()
    return sorted(range(weight.dim()), key=lambda dim: (-strides[dim], dim))


def as_stored(weight: Tensor) -> Tensor:
    """Return ``weight`` on the CPU with its dimensions in the order of its memory.

    Complex numbers, which safetensors does not have, become pairs in a last dimension.
    """
    ordered = weight.detach().permute(order_of(weight)).cpu().contiguous()
    return torch.view_as_real(ordered) if weight.is_complex() else ordered


def shards(weights: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield the weights in parts of at most ``MAX_SHARD`` bytes, but at least one tensor."""
    part: dict[str, Tensor] = {}
    size = 0
    for name, weight in weights.items():
        if part and size + weight.nbytes > MAX_SHARD:
            yield part
            part, size = {}, 0
        part[name] = weight
        size += weight.nbytes
    if part:
        yield part


def read_tensors(reader: Reader, file: str) -> dict[str, Tensor]:
    """Return the tensors in a safetensors file, on the CPU.

    Raises:
        ArtifactError: It is none.
    """
    try:
        return load(reader.read(file))
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise damaged(f"{file} holds no tensors: {str(error)[:80]}", file) from error


def require_path(name: str, where: str) -> None:
    """Raise ArtifactError unless ``name`` can be the path of a weight in a model."""
    parts = name.split(".")
    if len(name) > MAX_NAME or len(parts) > MAX_DEPTH or not all(parts) or not name.isprintable():
        raise damaged(f"the name {name[:80]!r} is not allowed", where)


class WeightReader:
    """Checks the description of the weights, and reads them.

    Attributes:
        kinds: The kind of each weight by name.
    """

    def __init__(self, described: Mapping[str, Any], where: str):
        for name in described:
            require_path(name, where)
        pairs = described.items()
        self._fields = {name: Fields(data, f"{where}.{name}", WEIGHT) for name, data in pairs}
        self.kinds = {name: fields.one_of("kind", KINDS) for name, fields in self._fields.items()}

    @property
    def are_stored(self) -> bool:
        """Whether the artifact contains the weights."""
        return all(fields.of("file", str) for fields in self._fields.values())

    def read(self, reader: Reader, device: torch.device) -> dict[str, Tensor]:
        """Return the weights by name, on ``device``."""
        files = dict.fromkeys(fields.of("file", str) for fields in self._fields.values())
        stored = {file: read_tensors(reader, file) for file in files}
        made: dict[Any, Tensor] = {}
        found = {}
        for name, fields in self._fields.items():
            file, key = fields.of("file", str), fields.of("key", str)
            order = fields.items("order", int)
            if key not in stored[file]:
                raise fields.wrong("key", f"{file} has no tensor {key[:80]!r}")
            identity = (file, key, *order)
            if identity not in made:
                made[identity] = restored(stored[file][key], order, fields).to(device)
            found[name] = made[identity]
            self._require(name, found[name], fields)
        return found

    def bound(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights from the caller's ``tensors``, such as a state dict."""
        pairs = ((name, plain_parts(tensor)) for name, tensor in tensors.items())
        tensors = {name + suffix: t for name, parts in pairs for suffix, t in parts.items()}
        missing = [name for name in self._fields if name not in tensors]
        if missing:
            raise ArtifactError(
                f"the weights lack {', '.join(missing[:3])}",
                where="fxcache.load(weights=...)",
                remedy="pass the state dict of the model that was exported",
            )
        for name, fields in self._fields.items():
            self._require(name, tensors[name], fields)
        return {name: tensors[name] for name in self._fields}

    def _require(self, name: str, weight: Tensor, fields: Fields) -> None:
        """Raise ArtifactError unless ``weight`` is as described."""
        dtype = decode({"dtype": fields.of("dtype", str)}, (), weight.device, fields.where)
        if list(weight.shape) != fields.items("shape", int) or weight.dtype is not dtype:
            raise fields.wrong(
                "shape", f"{name} has the shape {list(weight.shape)} and the dtype {weight.dtype}"
            )


def restored(stored: Tensor, order: list[int], fields: Fields) -> Tensor:
    """Return the weight that ``as_stored`` changed."""
    if fields.of("dtype", str).startswith("complex"):
        stored = built(partial(torch.view_as_complex, stored), fields.where)
    if sorted(order) != list(range(stored.dim())):
        raise fields.wrong("order", "it does not order the dimensions")
    return stored.permute([order.index(dim) for dim in range(stored.dim())])
