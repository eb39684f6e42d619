"""Access to the dispatcher: operators that run Python code, and modes that see each operator."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

# Why: fake tensors have no public name.
from torch._subclasses.fake_tensor import is_fake

# Why: the classes of modes have no public names.
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

__all__ = ["Observed", "below_autograd", "is_being_traced"]

Observer = Callable[[Any, Sequence[Any], dict[str, Any], Any], None]


class Observed(TorchDispatchMode):
    """Passes each operator that runs in the block to a function, with arguments and result.

    Why: the public counter of FLOPs sets hooks on the modules of all threads.
    """

    def __init__(self, observe: Observer):
        super().__init__()  # type: ignore[no-untyped-call]
        self._observe = observe

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._observe(func, args, kwargs or {}, result)
        return result


def is_being_traced(tensors: Sequence[Tensor]) -> bool:
    """Return whether an operator with these arguments is traced, instead of computed.

    Why: only the modes of the dispatcher tell.
    """
    modes = _get_current_dispatch_mode_stack()
    return any(mode.is_infra_mode() for mode in modes) or any(map(is_fake, tensors))


def below_autograd() -> AbstractContextManager[Any]:
    """Return a context in which operators skip their kernels for gradients.

    Why: an operator's kernel for gradients continues with the next kernel in this way, as those of
    torch do.
    """
    return torch._C._AutoDispatchBelowAutograd()
