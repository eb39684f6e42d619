"""Loads stored weights inside a trace, so that the graph loads them where the model would."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from fxcache._torch import ShardedUnit, dtensors_as_operators
from fxcache.capture.sharding import (
    gathered_by,
    require_supported,
    sharded_parts,
    split_weights,
    units_below,
)
from fxcache.capture.weight_hooks import (
    ACCELERATE_HOOK,
    StoredWeight,
    hooks_that_load,
    own_tensors,
)


class TracedHook:
    """Takes the place of a hook that loads weights. A trace records what it does.

    Attributes:
        no_grad: As in hooks of accelerate: whether the module runs without gradients.
        weights: The weights that it loads.
    """

    no_grad = False

    def __init__(self, weights: Sequence[StoredWeight]):
        self.weights = weights
        self._before: list[Tensor] = []

    def pre_forward(self, _module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Load the weights."""
        self._before = [own_tensors(weight.owner)[weight.name] for weight in self.weights]
        for weight, tensor in zip(self.weights, self._before, strict=True):
            put(weight, weight.loaded(tensor))
        return args, kwargs

    def post_forward(self, _module: nn.Module, output: Any) -> Any:
        """Put the stored weights back."""
        for weight, tensor in zip(self.weights, self._before, strict=True):
            put(weight, tensor)
        return output


class TracedUnit(TracedHook):
    """Takes the place of the hooks that ``fully_shard`` sets on one module."""

    def __init__(self, weights: Sequence[StoredWeight], unit: ShardedUnit):
        super().__init__(weights)
        self._unit = unit

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Gather the parameters, and cast the arguments."""
        return self._unit.cast_inputs(self.pre_forward(module, *args, **kwargs))

    def after(self, module: nn.Module, _args: Any, output: Any) -> Any:
        """Put the sharded parameters back, and cast the results."""
        return self._unit.cast_outputs(self.post_forward(module, output))


def stored_elsewhere(root: nn.Module) -> dict[tuple[int, str], Tensor]:
    """Return the tensors that a graph reads in place of the weights of ``root``.

    They are the weights that hooks store outside of their modules, and the parts of sharded weights
    that this process holds.

    Returns:
        Each stored tensor, by the id of the module that it belongs to and its name there.
    """
    hooked = {
        (id(weight.owner), weight.name): weight.tensor
        for module in root.modules()
        for weights in hooks_that_load(module).values()
        for weight in weights
        if weight.tensor is not None
    }
    return hooked | sharded_parts(root)


@contextmanager
def traced_loading(root: nn.Module) -> Iterator[nn.Module]:
    """Replaces the hooks below ``root`` that load weights, for traces inside the block.

    The hooks of ``root`` itself run around each call, outside of the graph, but they may load
    weights into new tensors each time. So the graph loads those, too.

    Args:
        root: The stand-in for the model, which has no hooks itself. The block gets it back.
    """
    with ExitStack() as stack:
        for module in list(root.modules()):
            for hook, weights in hooks_that_load(module).items():
                for weight in weights:
                    use_stored(weight, stack)
                traced = TracedHook(weights)
                if module is root:
                    stack.callback(set_forward, root, vars(root).get("forward"))
                    root.forward = around(traced, root)
                else:
                    replace_hook(module, hook, traced, stack)
        trace_gathering(root, stack)
        yield root


def trace_gathering(root: nn.Module, stack: ExitStack) -> None:
    """Replace the hooks of FSDP below ``root``, and all DTensors, until ``stack`` ends."""
    units, split = list(units_below(root)), split_weights(root)
    if not units and not split:
        return
    for module, unit in units:
        require_supported(module, unit)
        weights = gathered_by(unit)
        for weight in weights:
            use_stored(weight, stack)
        traced = TracedUnit(weights, unit)
        for hooks, key, before in unit.places:
            stack.callback(hooks.__setitem__, key, hooks[key])
            hooks[key] = traced.before if before else traced.after
    for weight in split:
        use_stored(weight, stack)
    stack.callback(set_forward, root, vars(root).get("forward"))
    root.forward = with_dtensors(around(TracedHook(split), root))


def with_dtensors(inner: Any) -> Any:
    """Return ``inner`` as a function in which operations on DTensors are traced."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        with dtensors_as_operators():
            return inner(*args, **kwargs)

    return forward


def replace_hook(module: nn.Module, hook: Any, traced: TracedHook, stack: ExitStack) -> None:
    """Put ``traced`` in the place of ``hook`` until ``stack`` ends."""
    if vars(module).get(ACCELERATE_HOOK) is hook:
        stack.callback(setattr, module, ACCELERATE_HOOK, hook)
        setattr(module, ACCELERATE_HOOK, traced)
        return
    reference = hook.fn_ref  # the functions that diffusers' forward calls
    for name in ("pre_forward", "post_forward"):
        stack.callback(setattr, reference, name, getattr(reference, name))
        setattr(reference, name, getattr(traced, name))


def around(traced: TracedHook, root: nn.Module) -> Any:
    """Return the forward of ``root`` with ``traced`` around it."""
    inner = root.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        traced.pre_forward(root)
        return traced.post_forward(root, inner(*args, **kwargs))

    return forward


def set_forward(root: nn.Module, forward: Any) -> None:
    """Set ``forward`` on ``root``; None to leave that of the class."""
    if forward is None:
        vars(root).pop("forward", None)
    else:
        root.forward = forward


def use_stored(weight: StoredWeight, stack: ExitStack) -> None:
    """Put the stored tensor into the module until ``stack`` ends, if it is not there anyway."""
    if weight.tensor is None:
        return
    now = own_tensors(weight.owner)[weight.name]
    is_parameter = isinstance(now, nn.Parameter)
    stack.callback(put, weight, now)
    grad = now.requires_grad and weight.gather is None  # no trace records gradients of DTensors
    put(weight, nn.Parameter(weight.tensor, grad) if is_parameter else weight.tensor)


def put(weight: StoredWeight, tensor: Tensor) -> None:
    """Make ``tensor`` the value of the weight in its module, of any type and dtype."""
    registry: dict[str, Any] = (
        weight.owner._parameters
        if weight.name in weight.owner._parameters
        else weight.owner._buffers
    )
    registry[weight.name] = tensor
