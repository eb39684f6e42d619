"""Tests models that assign their buffers, or write to tensors of their own, while they run.

The oracle is the original model: its results, and its tensors after each step.
"""

from collections.abc import Callable
from contextvars import ContextVar, copy_context
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
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)
        self.norm, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH, eps=1)

    def forward(self, text: Tensor) -> Tensor:
        return self.work[0](self, text)

    def tensors(self) -> list[Any]:
        return [self.own, self.plain, self.listed[0], self.scale, torch.tensor(self.norm.eps)]


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


def decayed(owner: Any, text: Tensor) -> Tensor:
    owner.own = owner.own * 0.9
    return text * owner.own


def decayed_plainly(owner: Any, text: Tensor) -> Tensor:
    owner.plain = (owner.plain + 1) * 0.9
    return text * owner.plain


def decayed_in_place(owner: Any, text: Tensor) -> Tensor:
    owner.plain.add_(1)
    return text * owner.plain


def deleted(owner: Any, text: Tensor) -> Tensor:
    before = owner.own
    del owner.own
    owner.register_buffer("own", before + text.mean())
    return text + before


def tied(owner: Any, text: Tensor) -> Tensor:
    if "view" not in owner._buffers:
        owner.register_buffer("view", owner.own[:, 1:], persistent=False)
    owner.own.mul_(0.5).add_(text)
    return text + owner.view.mean()


def new_parameter(owner: Any, text: Tensor) -> Tensor:
    before = owner.scale
    owner.scale = nn.Parameter(before * 0.9 + text.mean(), requires_grad=False)
    return text * before


def new_module(owner: Any, text: Tensor) -> Tensor:
    result = owner.norm(text)
    owner.norm, owner.second = owner.second, owner.norm
    return result


def in_autocast(owner: Any, text: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        owner.plain.add_((text @ text.mT).float().mean())
    return text * owner.plain


VARIABLE: ContextVar[Any] = ContextVar("VARIABLE", default=None)


def in_context(owner: Any, text: Tensor) -> Tensor:
    before = VARIABLE.get()
    VARIABLE.set(text.tanh() if before is None else before * 0.9 + text)
    return text if before is None else text + before


ZEROS = torch.zeros(2, 5, WIDTH)
LASTING = {
    "decayed": (decayed, ZEROS + 1),
    "decayed plainly": (decayed_plainly, None),
    "decayed in place": (decayed_in_place, None),
    "deleted": (deleted, ZEROS),
    "tied": (tied, ZEROS),
    "new parameter": (new_parameter, None),
    "new module": (new_module, None),
    "in autocast": (in_autocast, None),
    "in a context variable": (in_context, None),
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
    contexts = [copy_context() for _ in range(2)]
    for _ in range(2):
        found, expected = (
            context.run(sampled, one, Model.kept)
            for context, one in zip(contexts, (model, plain), strict=True)
        )
        assert_same(found, expected)
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


def drawn(owner: Any, text: Tensor) -> Tensor:
    if owner.own is None:
        owner.own = torch.rand(text.shape)
    return text * owner.own


def converted(owner: Any, text: Tensor) -> Tensor:
    owner.own = owner.own.to(text.dtype)
    return text + owner.own


@pytest.mark.filterwarnings(f"ignore:.*{CHANGES}")
@pytest.mark.parametrize(("work", "initial"), [(drawn, None), (converted, TABLE.double())])
def test_the_original_makes_what_only_the_first_call_makes(work: Any, initial: Any) -> None:
    plain, model = Model(work, initial).eval(), Model(work, initial).eval()
    fxcache.optimize(model, fxcache.Uniform(1))
    for _ in range(2):
        torch.manual_seed(0)
        found = sampled(model, Model.kept)
        torch.manual_seed(0)
        assert_same(found, sampled(plain, Model.kept))
    assert refreshes(model) == [[0, 1, 2, 3], [0, 1, 2, 3, 4]]


class Branching(nn.Module):
    """Branches on values, which cannot be traced, and writes to a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(())

    def forward(self, x: Tensor) -> Tensor:
        if x.abs().max() > 1e9:
            return x
        result = x * self.scale
        self.scale.mul_(0.9)
        return result


class Later(nn.Module):
    """A layer of a transformer that applies a module to the stream alone."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, _emb: Tensor, _text: Tensor) -> Tensor:
        return x + self.inner(x)


@pytest.mark.filterwarnings("ignore:.*cannot trace some submodules")
def test_a_trial_run_puts_back_plain_tensors() -> None:
    plain, model = DiT(2).eval(), DiT(2).eval()
    plain.layers.append(Later(Branching()))
    model.layers.append(Later(Branching()))
    fxcache.optimize(model, fxcache.Uniform(1))
    assert_same(sampled(model), sampled(plain))
