"""Access to the hooks on modules."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

__all__ = [
    "forget_hooks",
    "hook_dicts",
    "hooks_of",
    "num_registered_hooks",
]


def hook_dicts(module: nn.Module) -> tuple[dict[int, Any], ...]:
    """Return the dictionaries of the hooks that run around ``module.forward``.

    Why: there is no public way to list hooks, and traces contain their operations.
    """
    return (
        module._forward_pre_hooks,
        module._forward_hooks,
        module._backward_pre_hooks,
        module._backward_hooks,
    )


def hooks_of(module: nn.Module) -> list[tuple[str, Callable[..., Any], bool, bool]]:
    """Return the hooks on ``module``: kind, function, whether with kwargs, whether after errors.

    Why: as for ``hook_dicts``.
    """
    kinds = ("pre", "post", "backward pre", "backward")
    kwargs = (module._forward_pre_hooks_with_kwargs, module._forward_hooks_with_kwargs, (), ())
    always = module._forward_hooks_always_called
    return [
        (kind, hook, number in passed, number in always)
        for kind, hooks, passed in zip(kinds, hook_dicts(module), kwargs, strict=True)
        for number, hook in hooks.items()
    ]


def num_registered_hooks() -> int:
    """Return how many hooks were registered in this process so far.

    Why: no public event reports a new hook. Each hook increments this counter, so one comparison
    shows that no hook was registered on any module.
    """
    return RemovableHandle.next_id


def forget_hooks(module: nn.Module) -> None:
    """Remove the forward hooks of ``module``. Objects that share them keep them.

    Why: the public way needs the handle, which the owner of the hook holds.
    """
    module._forward_pre_hooks = OrderedDict()
    module._forward_hooks = OrderedDict()
    module._forward_pre_hooks_with_kwargs = OrderedDict()
    module._forward_hooks_with_kwargs = OrderedDict()
    module._forward_hooks_always_called = OrderedDict()
