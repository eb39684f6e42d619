"""Hooks on modules."""

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
    """The dictionaries in which ``module`` keeps the hooks that run around its ``forward``.

    Why: there is no public way to ask for hooks, and tracing follows them.
    """
    return (
        module._forward_pre_hooks,
        module._forward_hooks,
        module._backward_pre_hooks,
        module._backward_hooks,
    )


def hooks_of(module: nn.Module) -> list[tuple[str, Callable[..., Any], bool, bool]]:
    """The hooks set on ``module`` itself: kind, function, with kwargs?, even after errors?

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
    """How many hooks were ever registered in this process.

    Why: no public event tells of a new hook. Each one takes the next number of this counter, so
    that one comparison shows that none was registered on any module.
    """
    return RemovableHandle.next_id


def forget_hooks(module: nn.Module) -> None:
    """Leave ``module`` without forward hooks; another object that shared them keeps them.

    Why: a hook can be taken off only by the handle that its owner holds.
    """
    module._forward_pre_hooks = OrderedDict()
    module._forward_hooks = OrderedDict()
