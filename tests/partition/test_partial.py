"""Tests partial evaluation: reuse has fewer FLOPs, and equal results up to rounding."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import fxcache
from bench.frontier import MODELS, on_meta, outermost_partially_evaluated
from fxcache.codecs.drift import DriftCorrection
from fxcache.partition import partial
from fxcache.report.records import CaptureReport
from tests import tiny
from tests.loops import refreshes, sample

pytestmark = pytest.mark.usefixtures("shared_captures")

CHANNELS = 6


@pytest.fixture
def bytes_are_free(monkeypatch):
    """Ignore the cost of bytes, which exceeds that of FLOPs on models this small."""
    monkeypatch.setattr(partial, "FLOPS_PER_BYTE", -(10**9))


class Joined(nn.Module):
    """A deep value and a skip ``[B, 6, …]``, concatenated and mapped by ``follow``."""

    def __init__(self, follow: nn.Module, deep_first: bool = True, twice: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter = nn.Conv2d(CHANNELS, CHANNELS, 1)
        layers = (nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(8))
        self.deep = nn.Sequential(*layers)
        self.follow, self.deep_first, self.twice = follow, deep_first, twice

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        skip = self.enter(x) + t / 1000
        parts = [self.deep(skip), skip]
        joined = torch.cat(parts if self.deep_first else parts[::-1], dim=1)
        found: Tensor = self.follow(joined)
        return found + parts[0].mean() if self.twice else found


class InTokens(Joined):
    """The same as ``Joined``, with linear layers over the last of two to four dimensions."""

    def __init__(self, follow: nn.Module) -> None:
        super().__init__(follow)
        self.enter = nn.Linear(CHANNELS, CHANNELS)  # type: ignore[assignment]
        self.deep = nn.Sequential(*(nn.Linear(CHANNELS, CHANNELS) for _ in range(8)))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        skip = self.enter(x) + t / 1000
        found: Tensor = self.follow(torch.cat([skip, self.deep(skip)], dim=-1))
        return found


def conv(*args: int, **options: object) -> nn.Module:
    torch.manual_seed(1)
    return nn.Conv2d(2 * CHANNELS, *args, **options)  # type: ignore[arg-type]


def norm(groups: int, **options: bool | float) -> nn.GroupNorm:
    torch.manual_seed(2)
    made = nn.GroupNorm(groups, 2 * CHANNELS, **options)  # type: ignore[arg-type]
    if made.affine:
        nn.init.normal_(made.weight)
        nn.init.normal_(made.bias)
    return made


MAPS = {
    "convolution": lambda: Joined(conv(4, 3, padding=1)),
    "skip first": lambda: Joined(conv(4, 3, padding=1), deep_first=False),
    "no bias": lambda: Joined(conv(4, 1, bias=False)),
    "strided": lambda: Joined(conv(4, 3, stride=2, dilation=2, padding=2)),
    "activation": lambda: Joined(nn.Sequential(nn.SiLU(), nn.Dropout(0.5), conv(4, 3))),
    "norm": lambda: Joined(nn.Sequential(norm(4), nn.SiLU(), conv(4, 3))),
    "norm, skip first": lambda: Joined(nn.Sequential(norm(6), conv(4, 3)), deep_first=False),
    "plain norm": lambda: Joined(nn.Sequential(norm(6, affine=False), conv(4, 3))),
    "a group across": lambda: Joined(nn.Sequential(norm(3, eps=0.1), nn.SiLU(), conv(4, 3))),
    "a group across, skip first": lambda: Joined(
        nn.Sequential(norm(3), conv(4, 3)), deep_first=False
    ),
    "read elsewhere": lambda: Joined(conv(4, 3), twice=True),
    "linear": lambda: InTokens(nn.Sequential(nn.GELU(), nn.Linear(2 * CHANNELS, 4))),
}
UNSUITABLE: dict[str, Callable[[], nn.Module]] = {
    "one group": lambda: Joined(nn.Sequential(norm(1), conv(4, 3))),
    "grouped convolution": lambda: Joined(conv(4, 3, groups=2)),
    "transposed": lambda: Joined(nn.ConvTranspose2d(2 * CHANNELS, 4, 3)),
    "softmax": lambda: Joined(nn.Sequential(nn.Softmax(dim=1), conv(4, 3))),
}


class Computed(Joined):
    """A model whose map has different weights for each timestep."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())
        self.weights = nn.Linear(1, 8 * CHANNELS)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        joined = super().forward(x, t)
        weights = self.weights(t.reshape(1).to(x.dtype) / 1000)
        return nn.functional.conv2d(joined, weights.view(4, 2 * CHANNELS, 1, 1))


class ComputedNorm(Joined):
    """A model whose norm has different weights for each timestep."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())
        self.affine, self.map = nn.Linear(1, 4 * CHANNELS), conv(4, 3)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        joined = super().forward(x, t)
        weight, bias = self.affine(t.reshape(1).to(x.dtype) / 1000).chunk(2)
        found: Tensor = self.map(nn.functional.group_norm(joined, 4, weight, bias))
        return found


UNSUITABLE |= {
    "weights of the timestep": Computed,
    "norm of the timestep": ComputedNorm,
    "two norms, 4 and 3": lambda: Joined(nn.Sequential(norm(4), nn.SiLU(), norm(3), conv(4, 3))),
    "two norms, 3 and 4": lambda: Joined(nn.Sequential(norm(3), nn.SiLU(), norm(4), conv(4, 3))),
}


class Meeting(nn.Module):
    """Cached values that meet: ``other`` is concatenated with ``deep``, ``act`` reads both."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.act = nn.Conv2d(CHANNELS, CHANNELS, 1), nn.SiLU()
        self.deep, self.other = (
            nn.Sequential(*(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(4)))
            for _ in range(2)
        )
        self.map = conv(CHANNELS, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        skip = self.enter(x) + t / 1000
        found: Tensor = self.map(self.act(torch.cat([self.deep(skip), self.other(skip)], 1)))
        return found + skip


@torch.no_grad()
@pytest.mark.parametrize("cuts", [["deep", "other"], ["deep", "act"], ["act", "other"]])
def test_cached_values_that_meet_are_not_split(cuts, bytes_are_free):
    outputs, flops = [], []
    for wanted in (False, True):
        model = fxcache.optimize(
            Meeting().double().eval(),
            cut=cuts,
            policy=fxcache.Explicit((0,)),
            cache=fxcache.CacheConfig(partial_evaluation=wanted),
        )
        with fxcache.session(model):
            steps = [model(latent(model, seed=i), torch.tensor(900.0 - i)) for i in range(3)]
        outputs.append(torch.stack(steps))
        flops.append(captured(model).cut["reuse_flops"])
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    assert flops[1] <= flops[0]


def latent(model: nn.Module, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = (2, 9, CHANNELS) if isinstance(model, InTokens) else (2, CHANNELS, 12, 12)
    return torch.randn(size, generator=generator, dtype=torch.float64)


@torch.no_grad()
def run(model: nn.Module, wanted: bool) -> tuple[CaptureReport, Tensor]:
    """Return the capture, and a reuse after a refresh, which equals the original bit for bit."""
    made = fxcache.optimize(
        copy.deepcopy(model),
        fxcache.Uniform(3),
        cut="deep",
        cache=fxcache.CacheConfig(partial_evaluation=wanted),
    )
    x, late, early = latent(model), torch.tensor(900.0), torch.tensor(500.0)
    with fxcache.session(made, num_steps=2):
        assert torch.equal(made(x, late), model(x, late))
        reused = made(latent(model, seed=1), early)
    assert refreshes(made)[-1] == [0], "the second call must have reused"
    return captured(made), reused


def captured(model: nn.Module) -> CaptureReport:
    (capture,) = fxcache.report(model).captures
    return capture


@pytest.mark.sweep(4)
@pytest.mark.parametrize("name", MAPS)
def test_a_reuse_computes_less_with_equal_results(name, bytes_are_free):
    model = MAPS[name]().double().eval()
    (whole, expected), (partly, found) = run(model, False), run(model, True)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert partly.cut["reuse_flops"] < whole.cut["reuse_flops"]
    assert partly.cut["mode"] == "residual"
    value_too = name == "read elsewhere" or name.startswith("a group across")
    assert partly.cut["cached_tensors"] == 1 + value_too
    assert "partial evaluation saves" in partly.reason


@pytest.mark.parametrize("name", UNSUITABLE)
def test_nonlinear_maps_are_not_split(name, bytes_are_free):
    model = UNSUITABLE[name]().double().eval()
    (whole, expected), (partly, found) = run(model, False), run(model, True)
    assert torch.equal(found, expected)
    assert partly.cut == whole.cut


def test_half_of_a_convolution_is_half_its_flops(bytes_are_free):
    model = Joined(conv(4, 3, padding=1)).double().eval()
    (whole, _), (partly, _) = run(model, False), run(model, True)
    batch, size = 2, 12 * 12
    cached = 2 * batch * size * CHANNELS * 4 * 9  # two per multiply-add
    assert whole.cut["reuse_flops"] - partly.cut["reuse_flops"] == cached


def test_nothing_changes_if_bytes_cost_more_than_flops_save():
    model = Joined(conv(24, 1)).double().eval()  # 24 channels cached in place of 6
    (whole, expected), (partly, found) = run(model, False), run(model, True)
    assert torch.equal(found, expected)
    assert partly.cut == whole.cut


@pytest.mark.sweep(3)
@pytest.mark.parametrize("cut", [0, 1, 2, 3, [0, 2]])
@pytest.mark.parametrize("groups", [{}, {"block_out_channels": (24, 32)}], ids=["whole", "across"])
def test_a_unet_over_a_run(cut, groups, bytes_are_free):
    outputs, flops = {}, {}
    for wanted in (False, True):
        unet = tiny.small_unet(**groups)
        fxcache.optimize(
            unet,
            cut=cut,
            policy=fxcache.Uniform(3),
            cache=fxcache.CacheConfig(partial_evaluation=wanted),
        )
        outputs[wanted] = sample(unet, 7, **tiny.inputs())
        flops[wanted] = captured(unet).cut["reuse_flops"]
    torch.testing.assert_close(outputs[True], outputs[False], rtol=1e-4, atol=2e-4)
    assert not torch.equal(outputs[True], outputs[False])
    assert flops[True] < flops[False]


def test_refreshing_every_step_is_the_original_bit_for_bit(bytes_are_free):
    unet = fxcache.optimize(
        tiny.small_unet(),
        policy=fxcache.Uniform(1),
        cache=fxcache.CacheConfig(partial_evaluation=True),
    )
    assert captured_after(unet) == "residual"
    assert torch.equal(sample(unet, **tiny.inputs()), sample(tiny.small_unet(), **tiny.inputs()))


def captured_after(unet: nn.Module) -> str:
    sample(unet, 2, **tiny.inputs())
    return str(captured(unet).cut["mode"])


@torch.no_grad()
def test_forecasts_through_linear_maps_alone_are_the_same(bytes_are_free):
    model, policy = Joined(conv(4, 3)).double().eval(), fxcache.Uniform(2)
    outputs = []
    for wanted in (False, True):
        made = copy.deepcopy(model)
        fxcache.optimize(
            made,
            cut="deep",
            policy=policy,
            forecast=fxcache.Taylor(1),
            cache=fxcache.CacheConfig(partial_evaluation=wanted),
        )
        with fxcache.session(made, num_steps=4):
            steps = [made(latent(model, seed=i), torch.tensor(900.0 - i)) for i in range(4)]
        outputs.append(torch.stack(steps))
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("clean_dynamo")
def test_two_graphs_and_no_recompilation(bytes_are_free):
    counter = CompileCounterWithBackend("eager")
    unet = fxcache.optimize(
        tiny.small_unet(),
        policy=fxcache.Uniform(3),
        cache=fxcache.CacheConfig(partial_evaluation=True),
    )
    compiled = torch.compile(unet, backend=counter, fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        sample(compiled, 7, **tiny.inputs())
    assert counter.frame_count == 2


class OnlyBlocks(nn.Module):
    """After its last block there is no work: a reuse step of the whole stack has no FLOPs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        for layer in self.layers:
            sample = sample + torch.relu(layer(sample))
        return sample + timestep


@torch.no_grad()
def test_a_reuse_step_without_flops_saves_none():
    cache = fxcache.CacheConfig(partial_evaluation=True)
    model = fxcache.optimize(OnlyBlocks().eval(), fxcache.Uniform(2), cache=cache)
    for timestep in (3.0, 2.0):
        model(torch.ones(2, 8), torch.tensor(timestep))
    assert captured(model).cut["reuse_flops"] == 0


def test_a_third_of_sdxls_reuse_step_moves_to_the_refresh():
    model = on_meta(MODELS["Stable Diffusion XL, 1024×1024"])
    (whole, *_) = fxcache.list_cuts(model)
    partly = outermost_partially_evaluated(model)
    assert 1 - partly["reuse_flops"] / whole.reuse_flops > 0.34
    assert partly["cache_bytes"] == 2 * whole.cache_bytes


def test_a_plan_with_trends_excludes_partial_evaluation():
    unet = tiny.small_unet()
    plan = fxcache.Plan.of(unet, fxcache.Uniform(3), 0)
    corrected = replace(plan, correction=DriftCorrection({"a.0": torch.zeros(3, 1, 2)}))
    with pytest.raises(fxcache.ConfigError, match="adjustment or correction"):
        fxcache.optimize(unet, plan=corrected, cache=fxcache.CacheConfig(partial_evaluation=True))
    fxcache.optimize(unet, plan=plan, cache=fxcache.CacheConfig(partial_evaluation=True))


@pytest.mark.parametrize("wrong", [1, None, "yes"])
def test_partial_is_true_or_false(wrong):
    with pytest.raises(fxcache.ConfigError, match="partial_evaluation"):
        fxcache.optimize(tiny.small_unet(), cache=fxcache.CacheConfig(partial_evaluation=wrong))
