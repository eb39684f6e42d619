"""Loads stored weights inside a trace, so that the graph loads them where the model would."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

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
        yield root


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
    put(weight, nn.Parameter(weight.tensor, now.requires_grad) if is_parameter else weight.tensor)


def put(weight: StoredWeight, tensor: Tensor) -> None:
    """Make ``tensor`` the value of the weight in its module, of any type and dtype."""
    registry: dict[str, Any] = (
        weight.owner._parameters
        if weight.name in weight.owner._parameters
        else weight.owner._buffers
    )
    registry[weight.name] = tensor
