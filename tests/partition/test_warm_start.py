"""Tests warm starts: a reuse step continues an iteration from the last solution.

The oracle is a loop that does in Python what the graphs must do.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from tests.engines import variants_of
from tests.loops import refreshes

WIDTH, TOKENS, ITERATIONS, STEPS = 16, 6, 8, 7


class Iterating(nn.Module):
    """A denoiser whose deep part iterates ``z <- f(z, x)`` (FPDM, arXiv:2401.08741).

    Attributes:
        iterations: The number of iterations of a call.
        solution: Where the iteration begins; None for zero. The oracle sets it.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.iterations, self.solution = ITERATIONS, None
        self.enter, self.leave = nn.Linear(4, WIDTH), nn.Linear(WIDTH, 4)
        self.time, self.inner = nn.Linear(1, WIDTH), nn.Linear(WIDTH, WIDTH)

    def solve(self, z: Any, h: Tensor) -> Any:
        for _ in range(self.iterations):
            z = 0.7 * torch.tanh(self.inner(z) + h)
        return z

    def first(self, h: Tensor) -> Any:
        return torch.zeros_like(h)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.enter(x) + self.time(t.reshape(-1, 1) / 1000)[:, None]
        z = self.solve(self.first(h) if self.solution is None else self.solution, h)
        self.found = z
        return self.leave(h + (z[0] if isinstance(z, tuple) else z))


class Residual(Iterating):
    """Adds to its solution, outside of the module that is called repeatedly."""

    def solve(self, z: Any, h: Tensor) -> Any:
        for _ in range(self.iterations):
            z = z + 0.5 * (torch.tanh(self.inner(z) + h) - z)
        return z


class Cell(nn.Module):
    """A step with two states."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.speed = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, z: Tensor, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        v = 0.5 * v + 0.3 * torch.tanh(self.speed(z) + h)
        return 0.5 * z + 0.3 * torch.tanh(self.value(v) + h), v


class Pair(Iterating):
    """Iterates two values together."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Cell()  # type: ignore[assignment]

    def first(self, h: Tensor) -> Any:
        return torch.zeros_like(h), torch.ones_like(h)

    def solve(self, z: Any, h: Tensor) -> Any:
        for _ in range(self.iterations):
            z = self.inner(*z, h)
        return z


class Plain(Iterating):
    """Does not keep what it found, as a model in use does."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "found":
            super().__setattr__(name, value)


KINDS = [Iterating, Residual, Pair]


def in_use(kind: type[Iterating]) -> Any:
    """Return a model of this kind that stores nothing."""
    return type(kind.__name__, (Plain, kind), {})().eval()


def sampled(call: Any) -> list[Tensor]:
    """Return the latents of a run."""
    latent = torch.randn(1, TOKENS, 4, generator=torch.Generator().manual_seed(0))
    found = []
    with torch.no_grad():
        for number, t in enumerate(torch.linspace(900, 300, STEPS)):
            latent = latent - 0.1 * call(number, latent, t)
            found.append(latent)
    return found


def expected(kind: type[Iterating], interval: int, count: int) -> list[Tensor]:
    """Sample with a warm start by hand."""
    model = kind().eval()

    def call(number: int, latent: Tensor, t: Tensor) -> Any:
        reuses = number % interval > 0
        model.iterations = count if reuses else ITERATIONS
        model.solution = model.found if reuses else None
        return model(latent, t)

    return sampled(call)


def found(model: Any) -> list[Tensor]:
    return sampled(lambda _, latent, t: model(latent, t))


def optimized(kind: type[Iterating], interval: int = 3, count: int = 2, **options: Any) -> Any:
    cut = f"inner[-{count}:]"
    return fxcache.optimize(in_use(kind), fxcache.Uniform(interval), cut=cut, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reuse_step_continues_from_the_last_solution(kind: type[Iterating]) -> None:
    model = optimized(kind)
    assert all(map(torch.equal, found(model), expected(kind, 3, 2)))
    assert refreshes(model) == [[0, 3, 6]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_refresh_is_the_original(kind: type[Iterating]) -> None:
    assert all(map(torch.equal, found(optimized(kind, 1)), found(in_use(kind))))


def test_it_is_closer_than_as_few_iterations_from_zero() -> None:
    plain, short = in_use(Iterating), in_use(Iterating)
    short.iterations = 2
    true, warm, cold = found(plain)[-1], found(optimized(Iterating))[-1], found(short)[-1]
    assert (warm - true).norm() < 0.2 * (cold - true).norm()


def test_work_and_bytes_are_counted() -> None:
    model = optimized(Iterating)
    found(model)
    variants = variants_of(model)
    cut = variants.plan.cut
    call = 2 * TOKENS * WIDTH * WIDTH
    assert cut.name == "inner[-2:]"
    assert cut.full_flops - cut.reuse_flops == (ITERATIONS - 2) * call
    assert cut.cache_bytes == TOKENS * WIDTH * 4
    assert fxcache.report(model).runs[0].steps == STEPS


def test_artifacts_continue_too(tmp_path: Path) -> None:
    model = optimized(Pair)
    latents = found(model)
    fxcache.export(model, tmp_path / "artifact")
    loaded = fxcache.load(tmp_path / "artifact")
    assert all(map(torch.equal, found(loaded), latents))


@pytest.mark.usefixtures("clean_dynamo")
def test_compiled_calls_continue_too() -> None:
    compiled = torch.compile(optimized(Pair), backend="aot_eager")
    assert all(map(torch.equal, found(compiled), found(optimized(Pair))))


def test_it_joins_other_cuts() -> None:
    """Each policy names what it reuses; a plan stores the name of the cut."""
    model = fxcache.optimize(
        in_use(Iterating), fxcache.Uniform(3), cut=["inner[-2:]", "inner[-4:]"]
    )
    assert all(map(torch.equal, found(model), expected(Iterating, 3, 2)))


@pytest.mark.parametrize(
    ("cut", "error"),
    [("inner[-8:]", "calls 'inner' 8 times"), ("enter[-1:]", "calls 'enter' 1 times")],
)
def test_other_numbers_of_calls_are_refused(cut: str, error: str) -> None:
    model = fxcache.optimize(in_use(Iterating), cut=cut)
    with pytest.raises(fxcache.CutError, match=error):
        found(model)


def test_modules_without_an_iteration_are_refused() -> None:
    class Twice(Iterating):
        def solve(self, z: Any, h: Tensor) -> Any:
            return self.inner(h) + self.inner(2 * h) + self.inner(h)

    model = fxcache.optimize(in_use(Twice), cut="inner[-1:]")
    with pytest.raises(fxcache.CutError, match="no iteration"):
        found(model)


def test_a_solution_is_not_extrapolated() -> None:
    model = optimized(Iterating, forecast=fxcache.Taylor(1))
    with pytest.raises(fxcache.CutError, match="warm start"):
        found(model)
