"""Tests models that assign their buffers, or write to tensors of their own, while they run.

The oracle is the original model: its results, and its tensors after each step.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from tests.loops import refreshes
from tests.plain import DiT, dit_inputs
from tests.runtime.sampled import CHANGES, assert_same, sampled

WIDTH = dit_inputs()["text"].shape[-1]
TABLE = torch.linspace(0, 1, 5 * WIDTH).reshape(5, WIDTH)


class Owner(nn.Module):
    """Gives itself and the text to a function, which may change the tensors."""

    def __init__(self, work: Callable[[Any, Tensor], Tensor], initial: Any = None) -> None:
        super().__init__()
        self.work = [work]
        self.register_buffer("own", initial, persistent=False)
        self.plain = torch.zeros(2, 5, WIDTH)
        self.listed = [torch.zeros(2, 5, WIDTH)]

    def forward(self, text: Tensor) -> Tensor:
        return self.work[0](self, text)

    def tensors(self) -> list[Any]:
        return [self.own, self.plain, self.listed[0]]


class Model(DiT):
    """A transformer whose text passes through an ``Owner``."""

    def __init__(self, work: Callable[[Any, Tensor], Tensor], initial: Any = None) -> None:
        super().__init__(2)
        self.owner = Owner(work, None if initial is None else initial.clone())

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return super().forward(sample, timestep, self.owner(text))

    def kept(self) -> list[Any]:
        return [None if t is None else t.tolist() for t in self.owner.tensors()]


def assigned(owner: Any, text: Tensor) -> Tensor:
    before, owner.own = owner.own, text.tanh()
    return text + before


def registered(owner: Any, text: Tensor) -> Tensor:
    before = owner.own
    owner.register_buffer("own", text.tanh(), persistent=False)
    return text + before


def copied(owner: Any, text: Tensor) -> Tensor:
    found = text + owner.own
    owner.own.copy_(text.tanh())
    return found


def written_through_a_view(owner: Any, text: Tensor) -> Tensor:
    owner.own[:, 1:].mul_(0.5).add_(text[:, :-1])
    return text + owner.own


def counted(owner: Any, text: Tensor) -> Tensor:
    owner.own += 1
    return text * (1 + owner.own / 10)


def averaged(owner: Any, text: Tensor) -> Tensor:
    owner.plain.mul_(0.9).add_(text)
    return text + owner.plain


def averaged_in_a_list(owner: Any, text: Tensor) -> Tensor:
    owner.listed[0].mul_(0.9).add_(text)
    return text + owner.listed[0]


ZEROS = torch.zeros(2, 5, WIDTH)
LASTING = {
    "assigned": (assigned, ZEROS),
    "registered": (registered, ZEROS),
    "copied": (copied, ZEROS),
    "written through a view": (written_through_a_view, ZEROS),
    "counted": (counted, torch.zeros((), dtype=torch.long)),
    "averaged": (averaged, None),
    "averaged in a list": (averaged_in_a_list, None),
}


@pytest.mark.filterwarnings(f"ignore:.*{CHANGES}")
@pytest.mark.parametrize("name", LASTING)
def test_calls_that_change_their_tensors_run_the_original(name: str) -> None:
    plain, model = Model(*LASTING[name]).eval(), Model(*LASTING[name]).eval()
    fxcache.optimize(model, fxcache.Uniform(3))
    for _ in range(2):
        assert_same(sampled(model, Model.kept), sampled(plain, Model.kept))
    assert refreshes(model) == []
    assert "owner" in str(fxcache.report(model))


def made(owner: Any, text: Tensor) -> Tensor:
    if owner.own is None:
        owner.own = TABLE.cos()
    return text + owner.own


def grown(owner: Any, text: Tensor) -> Tensor:
    if len(owner.own) < text.shape[1]:
        owner.own = TABLE[: text.shape[1]].cos()
    return text + owner.own[: text.shape[1]]


@pytest.mark.parametrize(("work", "initial"), [(made, None), (grown, TABLE[:3].cos())])
def test_tables_in_buffers_are_part_of_the_graph(work: Any, initial: Any) -> None:
    """They depend on no input: it does not matter which call makes them."""
    plain, model = Model(work, initial).eval(), Model(work, initial).eval()
    fxcache.optimize(model, fxcache.Uniform(1))
    for _ in range(2):
        assert_same(sampled(model), sampled(plain))
    fxcache.optimize(model, fxcache.Uniform(3))
    sampled(model)
    assert refreshes(model) == [[0, 3]]
