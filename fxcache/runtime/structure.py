"""The structure of a model that a capture depends on: submodules, settings, kinds of weights."""

from collections import deque
from collections.abc import Iterator, Mapping, Set
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from fxcache._torch import is_special, is_wrapper, plain_parts, version_of
from fxcache.capture.loading import stored_elsewhere
from fxcache.capture.weight_hooks import ACCELERATE_HOOK, DIFFUSERS_HOOKS
from fxcache.contents import is_state_class, slots
from fxcache.program import STATE_KEY
from fxcache.runtime.content import IdentityKey, exact_key

PLAIN = (int, float, str, bool, bytes, type(None), complex)
# Attributes that nn.Module sets itself; weights and hooks are compared separately.
INTERNALS = frozenset(vars(nn.Module())) - {"training"}
# Attributes that diffusers, accelerate and module.compile() set on a module that they hook. They
# are compared at each call, as part of the hooks.
HOOK_ATTRIBUTES = frozenset(
    {"forward", "_old_forward", ACCELERATE_HOOK, DIFFUSERS_HOOKS, "_compiled_call_impl"}
)
COMPILED = "_is_torch_compile"  # torch.compile sets it on the module
NOT_SETTINGS = INTERNALS | HOOK_ATTRIBUTES | {STATE_KEY, COMPILED}
MISSING = object()
MAX_DEPTH = 3  # the greatest depth of nested containers and objects
MAX_BYTES = 2**16  # a larger array is compared by identity


def structure(
    module: nn.Module,
    homes: Mapping[int, torch.device] | None = None,
    visited: list[Any] | None = None,
    volatile: Set[tuple[str, str]] = frozenset(),
) -> list[Any]:
    """Return all that a captured graph depends on, except hooks and the values of weights.

    Two results are equal exactly if no submodule was replaced (LoRA), no setting changed (FreeU,
    LoRA scales, train mode), and no weight changed its shape, strides, dtype or device in between.
    The values of weights may change, because the graph reads the module's own tensors.

    Args:
        module: The model.
        homes: The device that each offloaded weight returns to, by id of the weight.
        visited: Receives the containers and tensors that were found in the settings.
        volatile: Settings whose containers it does not receive, and buffers that are left out, as
            (path of the module, name).
    """
    found: list[Any] = []
    visited = [] if visited is None else visited
    stored = stored_elsewhere(module)
    first: dict[int, int] = {}  # a number for each tensor, which may have several names
    for path, submodule in module.named_modules():
        if path:
            found.append((path, IdentityKey(submodule), IdentityKey(type(submodule))))
        for name, value in settings(submodule):
            key = (path, name)
            found.append((key, reduced(value, [] if key in volatile else visited)))
        for name, weight in own_tensors(submodule, stored):
            if (path, name) in volatile:
                continue
            number = first.setdefault(id(weight), len(first))
            device = (homes or {}).get(id(weight), weight.device)
            form = form_of(weight, visited) if is_special(weight) else None
            strides = strides_of(weight)
            found.append((name, number, weight.shape, strides, weight.dtype, device, form))
    return found


def strides_of(tensor: Tensor) -> tuple[int, ...]:
    """Return the strides of ``tensor``: they decide what a trace makes of a reshape."""
    return tensor.stride() if tensor.layout is torch.strided else ()


def form_of(weight: Tensor, visited: list[Any]) -> Any:
    """Return a comparable form of what a graph depends on in a weight of a special class.

    A graph reads the plain tensors of a wrapper, whose values may change. Everything else in the
    weight is constant in the graph.
    """
    kind, attributes = IdentityKey(type(weight)), vars(weight)
    if not is_wrapper(weight):
        return kind, reduced(attributes, visited)
    visited.append(attributes)
    parts = plain_parts(weight)
    visited.extend(parts.values())
    _, metadata = weight.__tensor_flatten__()  # type: ignore[attr-defined]
    return kind, reduced(metadata, []), [(n, t.shape, t.dtype) for n, t in parts.items()]


def settings(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the module's own attributes that are neither weights, submodules nor hooks."""
    for name, value in vars(module).items():
        if name not in NOT_SETTINGS and not is_callable_setting(value):
            yield name, value


def is_callable_setting(value: object) -> bool:
    """Return whether a module calls ``value``, such as an attention processor or an activation.

    Such values are compared at each call, as hooks are.
    """
    return callable(value) and not isinstance(value, nn.Module | type)


def reduced(value: Any, visited: list[Any], depth: int = MAX_DEPTH) -> Any:
    """Return a comparable form of ``value``.

    Plain values stay as they are, containers are compared by content, objects by identity and
    attributes.
    """
    if type(value) in PLAIN:
        return exact_key(value)
    if isinstance(value, Tensor):
        visited.append(value)
        return (IdentityKey(value), version_of(value))
    if depth == 0 or isinstance(value, nn.Module | type):
        return IdentityKey(value)
    if isinstance(value, set | frozenset | deque):
        visited.append(value)
        return [IdentityKey(item) for item in value]
    if isinstance(value, list | tuple):
        visited.append(value)
        return [reduced(v, visited, depth - 1) for v in value]
    if isinstance(value, dict):
        visited.append(value)
        return {str(k): reduced(v, visited, depth - 1) for k, v in value.items()}
    attributes = getattr(value, "__dict__", None)
    in_slots = Slots(value)
    if isinstance(attributes, dict) or in_slots:
        own = attributes if isinstance(attributes, dict) else {}
        visited.extend(c for c in (attributes, in_slots) if isinstance(c, dict) or c)
        every = own | in_slots.by_name()
        return IdentityKey(value), {k: reduced(v, visited, depth - 1) for k, v in every.items()}
    if data := bytes_of(value):
        visited.append(value)
        return IdentityKey(value), data
    return IdentityKey(value)


def bytes_of(value: Any) -> bytes:
    """Return the bytes of a small array of NumPy or Python; no bytes for other objects."""
    if isinstance(value, Tensor):
        return b""
    try:
        view = memoryview(value)
    except (TypeError, ValueError, BufferError):  # ValueError: NumPy's dates
        return b""
    return view.tobytes() if view.nbytes <= MAX_BYTES else b""


class Slots:
    """The values in the slots of an object of a plain class, read anew at each iteration."""

    def __init__(self, value: object) -> None:
        kind: Any = type(value)
        self._value, self._names = value, slots(kind) if is_state_class(kind) else ()

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[object]:
        return (getattr(self._value, name, MISSING) for name in self._names)

    def by_name(self) -> dict[str, object]:
        """Return the values by name, without those that are not set."""
        pairs = zip(self._names, self, strict=True)
        return {name: value for name, value in pairs if value is not MISSING}


def weights(module: nn.Module) -> list[Any]:
    """Return the weights and their versions, which are equal while no value changes."""
    stored = stored_elsewhere(module)
    return [
        state_of(tensor)
        for submodule in module.modules()
        for _, tensor in own_tensors(submodule, stored)
    ]


def state_of(weight: Tensor) -> Any:
    """Return the identity and version of ``weight``, and of the tensors that it consists of."""
    state = IdentityKey(weight), version_of(weight)
    if not is_special(weight):
        return state
    if is_wrapper(weight):
        return state, [(IdentityKey(t), version_of(t)) for t in plain_parts(weight).values()]
    return state, weight.data_ptr()  # graphs read an alias of the memory


def own_tensors(
    module: nn.Module, stored: Mapping[tuple[int, str], Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers of ``module`` itself, with their names.

    Args:
        module: The module.
        stored: The weights that hooks store elsewhere, which take the place of those in the module.
    """
    named = module.named_parameters(recurse=False, remove_duplicate=False)
    for name, tensor in chain(named, module.named_buffers(recurse=False, remove_duplicate=False)):
        yield name, stored.get((id(module), name), tensor)


def live_weights(module: nn.Module, captured: Mapping[str, Any]) -> dict[str, Any]:
    """Return the current tensors of ``module`` by name; those of ``captured`` where it has none."""
    stored, parts = stored_elsewhere(module), dict[int, Mapping[str, Tensor]]()
    return {name: live_weight(module, name, then, stored, parts) for name, then in captured.items()}


def live_weight(
    module: nn.Module,
    name: str,
    then: Any,
    stored: Mapping[tuple[int, str], Tensor],
    parts: dict[int, Mapping[str, Tensor]],
) -> Any:
    """Return the current tensor of ``module`` with this name; ``then`` if it has none.

    Args:
        module: The module.
        name: The path of a weight, and the path of a tensor inside it if its class is special.
        then: The tensor at the time of the capture.
        stored: The weights that hooks store elsewhere.
        parts: The plain tensors of the special weights so far, by id of the weight.
    """
    owner, path = module, name.split(".")
    while len(path) > 1 and (child := owner._modules.get(path[0])) is not None:
        owner, path = child, path[1:]
    leaf, *inner = path
    now = stored.get((id(owner), leaf), getattr(owner, leaf, None))
    if not isinstance(now, Tensor):  # a constant that torch.export lifted
        return then
    if is_special(now) and id(now) not in parts:
        parts[id(now)] = plain_parts(now)
    return parts.get(id(now), {"": now}).get("".join(f".{step}" for step in inner), then)
