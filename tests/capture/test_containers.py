"""Tests containers with overridden methods, in the file of a function that a model holds."""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from tests.capture.prepared import Prepared, calls, captured


class Lazy(OrderedDict[str, Any]):
    """Builds entries at look-up, and refuses to be changed or listed."""

    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(key)()

    def refuse(self, *_: Any) -> Any:
        raise AssertionError("capture must not call this")

    items = values = keys = get = pop = update = __setitem__ = __iter__ = refuse  # type: ignore[assignment]


ACTIVATIONS = Lazy()
OrderedDict.__setitem__(ACTIVATIONS, "tanh", nn.Tanh)
RULES: dict[int, Tensor] = {}


def activated(x: Tensor, _: Tensor) -> Tensor:
    """Holds a table, so that the tables of this file are restored."""
    return RULES.setdefault(0, torch.ones(4)) * ACTIVATIONS["tanh"](x)


@torch.no_grad()
def test_a_dict_with_overridden_methods_is_not_changed():
    captured(Prepared(activated).eval(), *calls()[0])
    assert OrderedDict.__getitem__(ACTIVATIONS, "tanh") is nn.Tanh
    assert isinstance(ACTIVATIONS["tanh"], nn.Tanh)
    assert not RULES
