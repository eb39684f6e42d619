"""Tests that latents of tokens are told apart, and that requests never share values."""

import math
import random
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import fxcache
from fxcache.runtime.trajectory.tokens import CHANCE, IMPOSSIBLE, chance_share, compare_tokens
from tests.loops import refreshes

pytestmark = pytest.mark.filterwarnings("ignore::fxcache.FxcacheWarning")
HIDDEN, PLACES, STEPS, WIDTH = 59, 256, 8, 8


class Filler(nn.Module):
    """Predicts hidden tokens without a timestep: ``forward(tokens [1, 256], text [1, 3, 8])``."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(HIDDEN + 1, WIDTH), nn.Linear(WIDTH, HIDDEN)
        self.deep = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())

    def forward(self, tokens: Tensor, text: Tensor) -> Tensor:
        return self.end(tokens, self.deep_value(tokens, text))

    def deep_value(self, tokens: Tensor, text: Tensor) -> Tensor:
        found: Tensor = self.deep(self.embed(tokens) + text.mean(1, keepdim=True))
        return found

    def end(self, tokens: Tensor, deep: Tensor) -> Tensor:
        found: Tensor = self.head(self.embed(tokens) + deep)
        return found


def filled(tokens: Tensor, seed: int) -> Iterator[Tensor]:
    """Yield the tokens before each step. A step shows some of the hidden ones."""
    generator = torch.Generator().manual_seed(seed)
    hidden = int((tokens == HIDDEN).sum())
    for step in range(1, STEPS + 1):
        yield tokens
        left = int(hidden * math.cos(step / STEPS * math.pi / 2))
        order = torch.rand(tokens.shape, generator=generator) * (tokens == HIDDEN)
        shown = order.flatten().argsort(descending=True)[: int((tokens == HIDDEN).sum()) - left]
        tokens = tokens.clone()
        tokens[0, shown] = torch.randint(HIDDEN, (len(shown),), generator=generator)


def picture(known: float, seed: int = 9) -> Tensor:
    """The tokens of a picture of which a share is ``known``."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(HIDDEN, (1, PLACES), generator=generator)
    tokens[torch.rand(tokens.shape, generator=generator) >= known] = HIDDEN
    return tokens


def optimized(interval: int = 3) -> nn.Module:
    return fxcache.optimize(Filler().eval(), fxcache.Uniform(interval), cut="deep")


@torch.no_grad()
@pytest.mark.sweep(6)
@pytest.mark.parametrize("known", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("pictures", [1, 3])
@pytest.mark.parametrize("order", range(2))
def test_requests_in_one_session_share_no_values(known, pictures, order):
    """They edit one picture or several for one prompt, and take turns at random."""
    model, plain, text = optimized(interval=1000), Filler().eval(), torch.randn(1, 3, WIDTH)
    turns = random.Random(order)
    requests: list[tuple[Iterator[Tensor], list[Tensor]]] = [
        (filled(picture(known, seed % pictures), seed), []) for seed in range(3)
    ]
    reused = 0
    with fxcache.session(model):
        while requests:
            request, own = turns.choice(requests)
            tokens = next(request, None)
            if tokens is None:
                requests.remove((request, own))
                continue
            own.append(plain.deep_value(tokens, text))
            got = model(tokens, text)
            found = [torch.equal(got, plain.end(tokens, deep)) for deep in own]
            assert any(found), "a value of another request"
            reused += not found[-1]
    assert reused or not known


@torch.no_grad()
def test_a_lone_request_reuses_if_enough_tokens_are_known():
    model, text = optimized(), torch.randn(1, 3, WIDTH)
    with fxcache.session(model):
        for tokens in filled(picture(0.2), 0):
            model(tokens, text)
    assert refreshes(model) == [[0, 3, 6]]


def test_what_is_hidden_in_both_tells_nothing():
    then, now = torch.full((PLACES,), HIDDEN), torch.full((PLACES,), HIDDEN)
    now[:10] = torch.arange(10)
    share, different, chance = compare_tokens(then, now)
    assert (share, different) == (0.0, 10)
    assert share < chance


def test_tokens_that_stay_are_no_chance():
    first, second = list(filled(picture(0.2), 0))[:2]
    share, different, chance = compare_tokens(first[0], second[0])
    assert share == 1 > chance
    assert different == int((first != second).sum())
    assert compare_tokens(first[0], first[0])[:2] == (1.0, 0)


@pytest.mark.parametrize("known", [0.2, 0.5, 1.0])
def test_unrelated_tokens_are_a_chance(known):
    for seed in range(20):
        share, _, chance = compare_tokens(picture(known, seed)[0], picture(known, seed + 100)[0])
        assert share < chance


@pytest.mark.parametrize("expected", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("count", [5, 40, 300])
def test_the_chance_share_bounds_the_probability(count, expected):
    share = chance_share(count, expected)
    if share == IMPOSSIBLE:
        assert expected**count > CHANCE, "even if all agree"
        return
    least = math.ceil(share * count)
    tail = sum(
        math.comb(count, k) * expected**k * (1 - expected) ** (count - k)
        for k in range(least, count + 1)
    )
    assert tail <= CHANCE
    assert share > expected
