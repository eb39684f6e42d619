"""Attention that names the implementations it may use.

A model may choose them for some of its calls, by ``torch.nn.attention.sdpa_kernel`` or by a backend
of diffusers. A graph does not record that choice, so an operator records it.
"""

from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["FakeAttention", "attention_backends", "attention_choice", "attention_operator"]

NAME = "scaled_dot_product_attention"
SCHEMA = (
    f"{NAME}(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, "
    "float dropout_p=0.0, bool is_causal=False, *, float? scale=None, bool enable_gqa=False, "
    "str backends) -> Tensor"
)
LIBRARIES: list[torch.library.Library] = []  # an operator lives as long as its library


# Why: torch has no public function for their order, nor a quick one for all of them.
ALLOWED = (
    (SDPBackend.CUDNN_ATTENTION, torch._C._get_cudnn_sdp_enabled),
    (SDPBackend.FLASH_ATTENTION, torch._C._get_flash_sdp_enabled),
    (SDPBackend.EFFICIENT_ATTENTION, torch._C._get_mem_efficient_sdp_enabled),
    (SDPBackend.MATH, torch._C._get_math_sdp_enabled),
    (SDPBackend.OVERRIDEABLE, torch._C._get_overrideable_sdp_enabled),
)


def attention_choice() -> tuple[object, ...]:
    """Return which implementations attention may use now, and their order, to be compared."""
    return *[allowed() for _, allowed in ALLOWED], *torch._C._get_sdp_priority_order()


def attention_backends() -> str:
    """Return the names of these implementations, the preferred first."""
    order = list(torch._C._get_sdp_priority_order())
    found = [backend for backend, allowed in ALLOWED if allowed()]
    return " ".join(b.name for b in sorted(found, key=lambda b: order.index(b.value)))


class FakeAttention:
    """Keeps the strides of attention in traces right, which depend on the implementation.

    Why: fake tensors keep the results of operators by arguments only, in all modes.
    """

    choice: ClassVar[tuple[object, ...] | None] = None  # of the results that are kept

    @classmethod
    def use(cls) -> None:
        """Forget all results unless they were made with the present choice."""
        if (choice := attention_choice()) != cls.choice:
            FakeTensorMode.cache_clear()
            cls.choice = choice


@cache
def attention_operator() -> Any:
    """Return attention with one more argument, ``backends``. It is registered at the first use.

    It is composite: torch.compile and autograd see the operators of the implementation.
    """
    library = torch.library.Library("fxcache", "FRAGMENT")
    LIBRARIES.append(library)
    library.define(SCHEMA)
    library.impl(NAME, attention, "CompositeImplicitAutograd")
    return torch.ops.fxcache.scaled_dot_product_attention.default


def attention(
    query: Tensor, key: Tensor, value: Tensor, *options: Any, backends: str, **more: Any
) -> Any:
    """The kernel: attention by one of these implementations."""
    chosen = [getattr(SDPBackend, name) for name in backends.split()]
    with sdpa_kernel(chosen, set_priority=True):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, *options, **more)
