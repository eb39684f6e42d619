"""Capture leaves nothing in the model: no fake tensor, no value of the trace."""

import functools

import torch
from torch import Tensor, nn

import fxcache


class Frequencies:
    """A helper that is no module and keeps what it first computed."""

    def __init__(self) -> None:
        self.kept: Tensor | None = None
        self.by_length: dict[int, Tensor] = {}

    def __call__(self, length: int) -> Tensor:
        if self.kept is None:
            self.kept = torch.arange(1000.0).cos()
        if length not in self.by_length:
            self.by_length[length] = self.kept[:length]
        return self.by_length[length]


class Rotary(nn.Module):
    @functools.lru_cache(maxsize=4)  # noqa: B019
    def frequencies(self, length: int) -> Tensor:
        return torch.arange(1.0, 1 + length).sin()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.frequencies(x.shape[1])


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.helper, self.rotary = Frequencies(), Rotary()
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        x = sample + self.helper(sample.shape[1]) + timestep
        for block in self.blocks:
            x = x + block(self.rotary(x))
        return x


@torch.no_grad()
def test_a_model_captured_before_its_first_call_still_works_without_fxcache():
    x, t = torch.randn(2, 8), torch.tensor(3.0)
    expected = Model()(x, t)
    model = Model().eval()
    fxcache.optimize(model, capture=fxcache.CaptureConfig(example_inputs=(x, t)))
    assert model.helper.kept is None
    assert model.helper.by_length == {}
    with fxcache.session(model):
        assert torch.equal(model(x, t), expected)
    fxcache.restore(model)
    assert torch.equal(model(x, t), expected)
    assert type(model.helper.kept) is Tensor


@torch.no_grad()
def test_what_a_model_kept_before_capture_stays():
    x, t = torch.randn(2, 8), torch.tensor(3.0)
    model = Model().eval()
    expected = model(x, t)
    kept = model.helper.kept
    fxcache.optimize(model, capture=fxcache.CaptureConfig(example_inputs=(x, t)))
    assert model.helper.kept is kept
    with fxcache.session(model):
        assert torch.equal(model(x, t), expected)
