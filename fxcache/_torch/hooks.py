"""Access to the hooks on modules."""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

__all__ = [
    "forget_hooks",
    "global_hooks",
    "global_hooks_below",
    "hook_dicts",
    "hooks_of",
    "num_registered_hooks",
]

EXPORT = ("torch.export.", "torch._export.")  # the packages of the modules of torch.export


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


def global_hooks() -> list[tuple[str, Callable[..., Any], bool, bool]]:
    """Return the hooks on all modules as ``hooks_of`` does, without those of torch itself.

    Those of torch only observe, such as the hooks that ``FlopCounterMode`` registers.

    Why: as for ``hook_dicts``.
    """
    everywhere: Any = torch.nn.modules.module
    pre, post = everywhere._global_forward_pre_hooks, everywhere._global_forward_hooks
    if not pre and not post:
        return []
    kwargs, always = (
        everywhere._global_forward_hooks_with_kwargs,
        everywhere._global_forward_hooks_always_called,
    )
    return [
        (kind, hook, number in kwargs, number in always)
        for kind, hooks in (("pre", pre), ("post", post))
        for number, hook in hooks.items()
        if not str(getattr(hook, "__module__", "")).startswith("torch.")
    ]


@contextlib.contextmanager
def global_hooks_below(root: nn.Module) -> Iterator[None]:
    """Run hooks on all modules only around the submodules of ``root`` inside the block.

    This concerns the calls of this thread.

    Why: torch.export calls ``root`` with other arguments, from a module of its own. Around both,
    such hooks would run, and the trace contain what they do.
    """
    everywhere: Any = torch.nn.modules.module
    thread, limited = threading.get_ident(), []
    for hooks in (everywhere._global_forward_pre_hooks, everywhere._global_forward_hooks):
        for number, hook in list(hooks.items()):
            hooks[number] = below(root, thread, hook)
            limited.append((hooks, number, hooks[number], hook))
    try:
        yield
    finally:
        for hooks, number, function, hook in limited:
            if hooks.get(number) is function:  # not removed meanwhile
                hooks[number] = hook


def below(root: nn.Module, thread: int, hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``hook``, which does nothing around ``root`` and modules of torch.export."""

    def limited(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        traced = module is root or type(module).__module__.startswith(EXPORT)
        if traced and threading.get_ident() == thread:
            return None
        return hook(module, *args, **kwargs)

    return limited


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
