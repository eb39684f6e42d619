"""Tests timesteps that are Python numbers: the values that the model computes stay exact."""

import math
from collections.abc import Callable
from math import log
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import fxcache
from fxcache._torch import tree_flatten
from fxcache.capture.numbers import ARITHMETIC
from fxcache.capture.substitute import applied
from tests.engines import num_captures
from tests.plain import DiT, dit_inputs

EVERY = fxcache.Uniform(interval=1)
SIGMAS = [10.0 * 0.7**i for i in range(6)]
STEPS = [901, 703, 502, 300, 99, 7]


class OfSigma(DiT):
    """Denoises with ``embedded(sigma)``, the input of the timestep embedding.

    The output is scaled by ``scale``, a number or a tensor.
    """

    def forward(self, sample: Tensor, sigma: Any, text: Tensor) -> Tensor:
        return super().forward(sample, self.embedded(sample, sigma), text) * self.scale(sigma)

    def embedded(self, sample: Tensor, sigma: Any) -> Tensor:
        raise NotImplementedError

    def scale(self, sigma: Any) -> Any:
        return 1.0


class MadeATensor(OfSigma):
    def embedded(self, sample, sigma):
        if not torch.is_tensor(sigma):
            sigma = torch.tensor([sigma], dtype=sample.dtype)
        return sigma * 1000


class IsAFloat(OfSigma):
    def embedded(self, sample, sigma):
        kind = torch.float64 if isinstance(sigma, float) else torch.int64
        return torch.as_tensor(sigma, dtype=kind)


class Logarithm(OfSigma):
    def embedded(self, sample, sigma):
        return torch.full((1,), 250 * math.log(sigma), dtype=sample.dtype)


class ImportedLogarithm(OfSigma):
    def embedded(self, sample, sigma):
        return sample.new_full((1,), float(sigma) * log(sigma))

    def scale(self, sigma):
        return np.sqrt(float(sigma)).item()


class Float(OfSigma):
    def embedded(self, sample, sigma):
        return torch.tensor([float(sigma)], dtype=sample.dtype)

    def scale(self, sigma):
        return 1 / (1 + sigma**2) ** 0.5


class Rounded(OfSigma):
    """Looks up an integer, as models with a table of noise levels do."""

    def embedded(self, sample, sigma):
        levels = [0.1 * i for i in range(16)]
        return sample.new_tensor([levels[int(sigma)], round(sigma, 1)]).mean()


class Written(OfSigma):
    """Writes numbers to tensors in place."""

    def embedded(self, sample, sigma):
        made = torch.zeros(2, dtype=sample.dtype)
        made[0] = sigma * 3
        made[1:].fill_(sigma / 3)
        made += sigma
        made *= float(sigma)
        return made.sum()


class Mixed(OfSigma):
    """Combines numbers with tensors of other dtypes and of no dimensions, on both sides."""

    def embedded(self, sample, sigma):
        whole, single = torch.arange(3), torch.ones((), dtype=sample.dtype)
        chosen = torch.where(whole > sigma, sigma, sample[0, 0, :3])
        return (whole * sigma).sum() + (sigma - single) + (sigma / (single + 1)) + chosen.sum()


class Reshaped(OfSigma):
    """Computes with sizes, and returns several tensors from one function."""

    def embedded(self, sample, sigma):
        shape = sample.shape[:1] + (-1,) + sample.shape[2:]  # noqa: RUF005, a torch.Size
        low, high = sample.reshape(shape).aminmax()
        emb = torch.as_tensor(sigma).to(sample.dtype).expand(sample.shape[0])
        return emb * (high - low).sqrt() * sample.new_ones(sample.shape[:1])


KINDS = [
    *(
        MadeATensor,
        IsAFloat,
        Logarithm,
        ImportedLogarithm,
        Float,
        Rounded,
        Written,
        Mixed,
        Reshaped,
    ),
]


@pytest.mark.sweep(3)
@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_one_capture_serves_all_numbers(kind):
    model, plain, inputs = (
        fxcache.optimize(kind().eval(), policy=EVERY),
        kind().eval(),
        dit_inputs(),
    )
    for sigma in SIGMAS:
        got = model(inputs["sample"], sigma, inputs["text"])
        assert torch.equal(got, plain(inputs["sample"], sigma, inputs["text"])), sigma
    assert num_captures(model) == 1


@torch.no_grad()
@pytest.mark.sweep(2)
@pytest.mark.parametrize("kind", [MadeATensor, IsAFloat, Float, Rounded])
def test_whole_numbers(kind):
    model, plain, inputs = (
        fxcache.optimize(kind().eval(), policy=EVERY),
        kind().eval(),
        dit_inputs(),
    )
    for sigma in (12, 9, 7, 3, 2.0):
        got = model(inputs["sample"], sigma, inputs["text"])
        assert torch.equal(got, plain(inputs["sample"], sigma, inputs["text"])), sigma
    assert num_captures(model) == 2, "one for int, one for float"


@pytest.mark.sweep(3)
@torch.no_grad()
@pytest.mark.parametrize("kind", [MadeATensor, Logarithm, Float, Written, Mixed])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(kind, dtype):
    inputs = {name: tensor.to(dtype) for name, tensor in dit_inputs().items()}
    model, plain = fxcache.optimize(kind().eval().to(dtype), policy=EVERY), kind().eval().to(dtype)
    for sigma in SIGMAS:
        got = model(inputs["sample"], sigma, inputs["text"])
        assert torch.equal(got, plain(inputs["sample"], sigma, inputs["text"])), sigma


@pytest.mark.sweep(3)
@torch.no_grad()
@pytest.mark.parametrize("kind", [MadeATensor, Float, Rounded])
@pytest.mark.parametrize("number", [np.float64, np.float32, np.int64])
def test_numbers_of_numpy(kind, number):
    model, plain = fxcache.optimize(kind().eval(), policy=EVERY), kind().eval()
    inputs = dit_inputs()
    for sigma in (12, 7, 3):
        got = model(inputs["sample"], number(sigma), inputs["text"])
        assert torch.equal(got, plain(inputs["sample"], number(sigma), inputs["text"])), sigma
    assert num_captures(model) == 1


def test_numbers_compile_once(clean_dynamo):
    counter = CompileCounter()
    model, inputs = fxcache.optimize(Mixed().eval(), policy=fxcache.Uniform(2)), dit_inputs()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    with torch.no_grad():
        for sigma in SIGMAS:
            compiled(inputs["sample"], sigma, inputs["text"])
    assert counter.frame_count == 2


@torch.no_grad()
def test_a_branch_on_a_number_has_a_capture_for_each_outcome():
    class Branching(OfSigma):
        def embedded(self, sample, sigma):
            level = torch.tensor(sigma)
            return level.sin() if sigma > 3.0 else level.cos()

    model, plain = fxcache.optimize(Branching().eval(), policy=EVERY), Branching().eval()
    inputs = dit_inputs()
    for sigma in [*SIGMAS, *SIGMAS]:
        got = model(inputs["sample"], sigma, inputs["text"])
        assert torch.equal(got, plain(inputs["sample"], sigma, inputs["text"])), sigma
    assert num_captures(model) == 2


@torch.no_grad()
def test_a_returned_number_is_that_of_the_call():
    class Returning(Mixed):
        def forward(self, sample, sigma, text):
            return {"sample": super().forward(sample, sigma, text), "sigma": 2 * sigma}

    model, plain = fxcache.optimize(Returning().eval(), policy=EVERY), Returning().eval()
    inputs = dit_inputs()
    for sigma in SIGMAS[:4]:
        got = model(inputs["sample"], sigma, inputs["text"])
        expected = plain(inputs["sample"], sigma, inputs["text"])
        assert torch.equal(got["sample"], expected["sample"])
        assert got["sigma"] == expected["sigma"]


@torch.no_grad()
def test_a_rounded_value_is_found_later():
    class Steps(OfSigma):
        def embedded(self, sample, sigma):
            return torch.full((1,), float(sigma // 400 * 100), dtype=sample.dtype)

    model, plain, inputs = (
        fxcache.optimize(Steps().eval(), policy=EVERY),
        Steps().eval(),
        dit_inputs(),
    )
    for t in STEPS:
        got = model(inputs["sample"], t, inputs["text"])
        assert torch.equal(got, plain(inputs["sample"], t, inputs["text"])), t
    assert num_captures(model) <= 2


@torch.no_grad()
def test_a_module_chosen_by_the_number():
    class Experts(OfSigma):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(1, 1) for _ in range(2))

        def embedded(self, sample, sigma):
            return self.experts[int(sigma < 3.0)](torch.full((1,), sigma))

    model, plain = fxcache.optimize(Experts().eval(), policy=EVERY), Experts().eval()
    inputs = dit_inputs()
    for sigma in SIGMAS:
        got = model(inputs["sample"], sigma, inputs["text"])
        assert torch.equal(got, plain(inputs["sample"], sigma, inputs["text"])), sigma
    assert num_captures(model) == 2


@torch.no_grad()
def test_values_of_a_mask_and_a_number_together():
    class Length(OfSigma):
        def forward(self, sample, sigma, text, mask):  # type: ignore[override]
            scaled = torch.full((1,), sigma * int(mask.sum()), dtype=sample.dtype)
            return DiT.forward(self, sample, scaled, text)

    model, plain = fxcache.optimize(Length().eval(), policy=EVERY), Length().eval()
    inputs = dit_inputs()
    masks = [(torch.arange(5) < length).long() for length in (5, 2)]
    for sigma in SIGMAS[:3]:
        for mask in masks:
            got = model(inputs["sample"], sigma, inputs["text"], mask)
            assert torch.equal(got, plain(inputs["sample"], sigma, inputs["text"], mask))


@torch.no_grad()
def test_numbers_that_need_too_many_captures_are_refused():
    class Window(OfSigma):
        def embedded(self, sample, sigma):
            return sample[:, : int(sigma)].mean()

    model, plain = fxcache.optimize(Window().eval(), policy=EVERY), Window().eval()
    inputs = dit_inputs()
    for t in range(8, 0, -1):
        got = model(inputs["sample"], t, inputs["text"])
        assert torch.equal(got, plain(inputs["sample"], t, inputs["text"]))
    with pytest.raises(fxcache.CaptureError, match="sigma is a Python number") as refused:
        model(inputs["sample"], 9, inputs["text"])
    assert "as a tensor" in refused.value.remedy


@torch.no_grad()
def test_a_model_that_rejects_numbers_gets_a_tensor():
    model, plain, inputs = fxcache.optimize(DiT().eval(), policy=EVERY), DiT().eval(), dit_inputs()
    for t in STEPS:
        got = model(inputs["sample"], float(t), inputs["text"])
        assert torch.equal(got, plain(inputs["sample"], torch.tensor(float(t)), inputs["text"]))
    assert num_captures(model) == 1


@torch.no_grad()
def test_a_model_that_rejects_numbers_and_tensors_is_refused():
    class Neither(OfSigma):
        def embedded(self, sample, sigma):
            return sigma.reshape(()) * math.log(sigma)

    model, inputs = fxcache.optimize(Neither().eval(), policy=EVERY), dit_inputs()
    with pytest.raises(fxcache.CaptureError, match="Python number") as refused:
        model(inputs["sample"], 2.0, inputs["text"])
    assert "has no attribute 'reshape'" in str(refused.value)


@torch.no_grad()
def test_a_number_that_the_model_refuses_is_refused():
    model = fxcache.optimize(Logarithm().eval(), policy=EVERY)
    inputs = dit_inputs()
    with pytest.raises(fxcache.CaptureError, match=r"Python number -1\.0"):
        model(inputs["sample"], -1.0, inputs["text"])
    assert model(inputs["sample"], 1.0, inputs["text"]).isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("level", ["once", "table"])
@pytest.mark.filterwarnings("ignore::fxcache.FxcacheWarning")
def test_hoisting_beside_a_number(level):
    model, plain = fxcache.optimize(Float().eval(), policy=EVERY, hoist=level), Float().eval()
    inputs = dit_inputs()
    for sigma in [*SIGMAS, *SIGMAS]:
        got = model(inputs["sample"], sigma, inputs["text"])
        expected = plain(inputs["sample"], sigma, inputs["text"])
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_the_model_and_its_modules_are_unchanged():
    class Keeps(Float):
        def embedded(self, sample, sigma):
            self.table = torch.linspace(0, 1, sample.shape[-1])
            return super().embedded(sample * self.table, sigma)

    model, inputs = fxcache.optimize(Keeps().eval(), policy=EVERY), dit_inputs()
    before = set(vars(model))
    with torch.no_grad():
        for sigma in SIGMAS[:2]:
            model(inputs["sample"], sigma, inputs["text"])
    assert set(vars(model)) == before


OPERATORS: dict[str, Callable[..., Tensor]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "rsub": torch.rsub,
    "gt": torch.gt, "ge": torch.ge, "lt": torch.lt, "le": torch.le, "eq": torch.eq, "ne": torch.ne,
    "__rdiv__": Tensor.__rdiv__,
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
@pytest.mark.parametrize("shape", [(67,), ()])
def test_arithmetic_with_a_tensor_for_a_number_has_the_same_bits(name, dtype, shape):
    assert name in ARITHMETIC
    torch.manual_seed(0)
    func = OPERATORS[name]
    for number in (0.1, -3.7, 1e-4, 1000.3, 3, -250):
        tensor = (torch.randn(shape) * 10).to(dtype)
        kind = torch.float64 if isinstance(number, float) else torch.int64
        leaves, spec = tree_flatten(((tensor, number), {}))
        found = applied(func, leaves, spec, {1: torch.tensor(number, dtype=kind)})
        expected = func(tensor, number)
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected), number
