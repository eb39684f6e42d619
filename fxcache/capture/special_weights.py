"""Weights of special classes, such as quantised ones: a graph reads the plain tensors in them.

torch.export would let the graph read the special tensor itself, whose class then decides at each
call what the graph computes. It would lose the attributes of a class that wraps no tensors.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from fxcache._torch import (
    dispatching_to_classes,
    is_special,
    plain_parts,
    rebuilt,
    tree_flatten,
)
from fxcache.capture.replacements import UntraceableError

HOLDER = "_fxcache_plain_weights"


class SpecialWeight:
    """A weight of a special class in its module.

    Attributes:
        path: The path of the weight in the model.
        tensor: The weight.
        names: The name of each plain tensor among the weights of the holder, by its suffix.
    """

    def __init__(self, path: str, tensor: Tensor, registry: dict[str, Any], first: int):
        self.path, self.tensor = path, tensor
        self._registry, self._name = registry, path.rpartition(".")[2]
        self.parts = plain_parts(tensor)
        self.names = {suffix: str(first + i) for i, suffix in enumerate(self.parts)}

    def put(self, value: Tensor | None) -> None:
        """Make ``value`` the weight of the module; None to hide the weight."""
        self._registry[self._name] = value

    def rebuilt(self, traced: nn.Module) -> Tensor:
        """Return the weight, made from the tensors that the trace follows."""
        parts = {suffix: traced.get_buffer(name) for suffix, name in self.names.items()}
        return rebuilt(self.tensor, parts, self._refusal)

    def _refusal(self, function: str) -> Exception:
        kind = type(self.tensor).__name__
        return UntraceableError(
            f"the class {kind} of the weight {self.path} computes {function} in a way of its own",
            "quantise this layer with a library that gives it a class of its own, such as GGUF's "
            "linear layers in diffusers, or leave it out",
        )


class SpecialWeights:
    """The special weights of a model during its trace.

    Attributes:
        names: The path and suffix of each plain tensor, by its name in the trace.
    """

    def __init__(self, root: nn.Module):
        self._root = root
        self._found: list[SpecialWeight] = []
        self._holder = nn.Module()
        count = 0
        for path, module in root.named_modules():
            for registry in (module._parameters, module._buffers):
                for name, tensor in registry.items():
                    if tensor is None or not is_special(tensor):
                        continue
                    weight = SpecialWeight(f"{path}.{name}".lstrip("."), tensor, registry, count)
                    count += len(weight.names)
                    self._found.append(weight)
        self.names = {
            f"{HOLDER}.{name}": weight.path + suffix
            for weight in self._found
            for suffix, name in weight.names.items()
        }

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Puts the plain tensors in place of the weights, for a trace inside the block."""
        if not self._found:
            yield
            return
        for weight in self._found:
            for suffix, name in weight.names.items():
                self._holder.register_buffer(name, weight.parts[suffix])
        modules = self._root._modules  # the model shares it
        self._root._modules = {**modules, HOLDER: self._holder}
        try:
            for weight in self._found:
                weight.put(None)
            yield
        finally:
            self._root._modules = modules
            for weight in self._found:
                weight.put(weight.tensor)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Puts the weights, made from the tensors that the trace follows, into the model."""
        if not self._found:
            yield
            return
        modules = self._root._modules
        self._root._modules = {k: v for k, v in modules.items() if k != HOLDER}
        try:
            for weight in self._found:
                weight.put(weight.rebuilt(self._holder))
            with dispatching_to_classes():
                yield
        finally:
            self._root._modules = modules
            for weight in self._found:
                weight.put(None)

    def require_plain(self, results: Any) -> None:
        """Raise UntraceableError if a result of the traced call is no plain tensor."""
        tensors = (leaf for leaf in tree_flatten(results)[0] if isinstance(leaf, Tensor))
        special = next(filter(is_special, tensors), None)
        if special is not None:
            raise UntraceableError(
                f"its result is a {type(special).__name__}",
                "let it return a plain tensor: quantise no activation of its last layer",
            )
