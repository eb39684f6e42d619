"""Tests which kernels replace cache reads, the reasons if none does, and the results."""

import operator
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import fxcache
from fxcache import operators
from fxcache.analysis.hoisting import HoistLevel
from fxcache.codecs.scale_shift import ScaleShift, layer_shapes
from fxcache.report.records import CaptureReport
from tests import tiny
from tests.engines import variants_of
from tests.loops import refreshes, sample
from tests.plain import dit, dit_inputs

pytestmark = pytest.mark.usefixtures("shared_captures")


@pytest.fixture
def on_any_device(monkeypatch):
    """Run the operators' references on the CPU, in the graphs that a GPU would get."""
    monkeypatch.setattr(operators, "DEVICES", ("cuda", "cpu"))


def copied(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a.clone() if isinstance(a, Tensor) else a for a in arguments)


class Ran(TorchDispatchMode):
    """Counts which of fxcache's operators run."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.arguments: dict[str, list[Any]] = {}  # of each call, its tensors as they were then

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "fxcache":
            self.counts[func.overloadpacket.__name__] += 1
            self.arguments.setdefault(func.overloadpacket.__name__, []).append(copied(args))
        return func(*args, **(kwargs or {}))


class Head(nn.Module):
    """Two blocks on a stream of tokens, and the layers after them."""

    def __init__(self, norm: nn.Module, modulated: str = "both", reads: str = "once") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(4, 16)
        self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(2))
        self.norm, self.modulated, self.reads = norm, modulated, reads
        self.modulation, self.head = nn.Linear(1, 32), nn.Linear(16, 4)
        self.channels = nn.Parameter(torch.randn(16))

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        x = self.embed(sample)
        for block in self.blocks:
            x = x + block(x) + text.mean()
        before = x.mean(1, keepdim=True) if self.reads == "before" else 0
        emb = self.modulation(timestep.reshape(-1, 1) / 1000).expand(len(sample), -1)
        shift, scale = emb.chunk(2, dim=-1)
        y = self.norm(x)
        if self.modulated in ("both", "scale"):
            y = y * (1 + scale[:, None])
        elif self.modulated == "one first":
            y = y * (1 + scale)[:, None]
        elif self.modulated == "no one":
            y = y * scale[:, None]
        elif self.modulated == "by token":
            y = y * x
        elif self.modulated == "by channel":
            y = y * self.channels
        if self.modulated in ("both", "shift", "one first"):
            y = y + shift[:, None]
        found: Tensor = self.head(y + before)
        return found + self.head(x) if self.reads == "after" else found


def plain_norm() -> nn.Module:
    return nn.LayerNorm(16, elementwise_affine=False)


def affine(norm: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


@torch.no_grad()
def run(model: nn.Module, kernels: bool, **options: Any) -> tuple[Tensor, Counter[str]]:
    """Return the outputs of a refresh and two reuses, and the operators that ran."""
    policy = options.pop("policy", fxcache.Explicit((0,)))
    cache = fxcache.CacheConfig(dtype=options.pop("cache_dtype", None), kernels=kernels)
    fxcache.optimize(
        model,
        policy=policy,
        cut=("blocks.0", "blocks.1"),
        cache=cache,
        hoist=options.pop("hoist", None),
        **options,
    )
    found, inputs = [], dit_inputs()
    with Ran() as ran:
        for i, t in enumerate(torch.linspace(900, 100, 3)):
            inputs["sample"] = inputs["sample"] + 0.1 * i
            found.append(model(timestep=t, **inputs))
    return torch.stack(found), ran.counts


def captured(model: nn.Module) -> CaptureReport:
    (capture,) = fxcache.report(model).captures
    return capture


def fusions(model: nn.Module) -> list[dict[str, str]]:
    """Return the places in the reuse step where a kernel could run."""
    (variant,) = (v for v in captured(model).variants if v.reused)
    return variant.kernels


HEADS = {
    "scale and shift": (plain_norm, "both"),
    "one first": (plain_norm, "one first"),
    "scale": (plain_norm, "scale"),
    "shift": (plain_norm, "shift"),
    "neither": (plain_norm, "neither"),
    "a scale that 1 is not added to": (plain_norm, "no one"),
    "weight and bias": (lambda: affine(nn.LayerNorm(16, eps=1e-3)), "both"),
    "weight": (lambda: affine(nn.LayerNorm(16, bias=False)), "both"),
    "RMSNorm": (lambda: affine(nn.RMSNorm(16)), "both"),
    "RMSNorm with epsilon": (lambda: nn.RMSNorm(16, eps=1e-2, elementwise_affine=False), "both"),
}


@pytest.mark.usefixtures("on_any_device")
@pytest.mark.sweep(5)
@pytest.mark.parametrize("name", HEADS)
def test_norm_and_modulation_after_a_residual_read(name):
    norm, modulated = HEADS[name]
    expected, none = run(Head(norm(), modulated).eval(), kernels=False)
    model = Head(norm(), modulated).eval()
    found, ran = run(model, kernels=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not none
    assert ran == {"residual_norm_modulate": 2}, "in both reuses, and not in the refresh"
    assert fusions(model) == [{"kernel": "residual_norm_modulate", "where": "norm", "why_not": ""}]
    variants = variants_of(model)
    called = [n for n in variants.cached_skip.graph.nodes if n.op == "call_function"]
    (left,) = [n for n in called if "norm" in n.name and n.target is not operator.getitem]
    assert left.target is torch.ops.fxcache.residual_norm_modulate.default
    scale, shift, *_, adds_one = left.args[5:]
    assert (scale is None) == (modulated in ("shift", "neither"))
    assert adds_one == (scale is not None and modulated != "no one")
    assert (shift is None) == (modulated not in ("both", "shift", "one first"))


@pytest.mark.usefixtures("on_any_device")
@pytest.mark.parametrize("modulated", ["by token", "by channel"])
def test_a_factor_for_each_token_is_not_fused(modulated):
    """The factor is not one for each sample, so the kernel leaves it out."""
    expected, _ = run(Head(plain_norm(), modulated).eval(), kernels=False)
    found, ran = run(Head(plain_norm(), modulated).eval(), kernels=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert ran == {"residual_norm_modulate": 2}


@pytest.mark.usefixtures("on_any_device")
@pytest.mark.parametrize("modulated", ["both", "one first", "no one"])
def test_a_hoisted_modulation_is_fused(modulated):
    """The hoisted value is the factor, which already includes the 1."""
    expected, _ = run(Head(plain_norm(), modulated).eval(), kernels=False, hoist="table")
    model = Head(plain_norm(), modulated).eval()
    found, ran = run(model, kernels=True, hoist="table")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert ran == {"residual_norm_modulate": 2}
    variants = variants_of(model)
    reuse = variants.variant(variants.all, variants.continued, HoistLevel.PER_STEP).module.graph
    (call,) = reuse.find_nodes(
        op="call_function", target=torch.ops.fxcache.residual_norm_modulate.default
    )
    scale, shift, *_, adds_one = call.args[5:]
    assert scale is not None
    assert (shift is None) == (modulated == "no one")
    assert not adds_one
    assert not reuse.find_nodes(op="call_function", target=torch.ops.aten.mul.Tensor)


@pytest.mark.usefixtures("on_any_device")
@pytest.mark.parametrize("reads", ["before", "after"])
def test_a_sum_that_is_read_again_is_written(reads):
    expected, _ = run(Head(plain_norm(), reads=reads).eval(), kernels=False)
    model = Head(plain_norm(), reads=reads).eval()
    found, ran = run(model, kernels=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert ran == {"residual_norm_modulate": 2}


@pytest.mark.usefixtures("on_any_device")
def test_the_norm_kernel_evaluates_the_forecast():
    options = {"policy": fxcache.Uniform(2), "forecast": fxcache.Taylor(2)}
    expected, _ = run(Head(plain_norm()).eval(), kernels=False, **options)
    found, ran = run(Head(plain_norm()).eval(), kernels=True, **options)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert ran == {"residual_norm_modulate": 1}


@pytest.mark.usefixtures("on_any_device")
@pytest.mark.parametrize("order", [0, 1])
def test_a_unets_norm_of_a_concatenation_is_fused(order):
    """It is the first norm of the residual block. A forecast has its own kernel."""
    outputs = []
    for kernels in (False, True):
        unet = tiny.small_unet()
        options: dict[str, Any] = {"forecast": fxcache.Taylor(order)} if order else {}
        cache = fxcache.CacheConfig(kernels=kernels)
        fxcache.optimize(unet, fxcache.Uniform(3), cut=0, cache=cache, hoist=None, **options)
        with Ran() as ran:
            outputs += [sample(unet, 3, **tiny.inputs()), sample(unet, 6, **tiny.inputs(seed=1))]
    torch.testing.assert_close(outputs[2:], outputs[:2], rtol=1e-4, atol=1e-4)
    if order:
        assert ran.counts == {"forecast_read": 6}
        (concat,) = [k for k in fusions(unet) if "concat" in k["kernel"]]
        assert "forecast" in concat["why_not"]
        return
    # Statistics of the cached half are taken once for each refresh, and read by two reuses.
    assert ran.counts == {"concat_group_norm_silu": 6, "group_moments": 3}
    for arguments in ran.arguments["concat_group_norm_silu"]:
        cached, fresh, *_, groups, _, moments, keeps_joined = arguments
        assert keeps_joined, "the resnet's shortcut reads the concatenation"
        channels = cached.shape[1] + fresh.shape[1]
        assert torch.equal(moments, torch.ops.fxcache.group_moments(cached, groups, channels, 0))


@pytest.mark.usefixtures("on_any_device")
def test_an_adjusted_forecast_is_not_read_as_a_forecast():
    """An adjusted forecast is not a forecast, although its nodes look like one."""
    plan = fxcache.Plan.of(tiny.small_unet(), fxcache.Uniform(3), 0, fxcache.Taylor(1))
    unet = fxcache.optimize(tiny.small_unet(), plan=plan)
    sample(unet, 1, **tiny.inputs())
    variants = variants_of(unet)
    shapes = layer_shapes(variants.frontier, variants.plan)
    weights = {name: torch.full(shape, 0.05) for name, shape in shapes.items()}
    adjusted = replace(plan, adjustment=ScaleShift(weights))
    outputs, ran = [], Ran()
    for kernels in (False, True):
        unet = fxcache.optimize(
            tiny.small_unet(), plan=adjusted, cache=fxcache.CacheConfig(kernels=kernels)
        )
        with ran:
            outputs.append(sample(unet, 6, **tiny.inputs()))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-4)
    assert ran.counts == {"forecast_read": 4}


@torch.no_grad()
@pytest.mark.usefixtures("on_any_device")
@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_the_norm_kernel_reads_eight_bits(dtype):
    expected, _ = run(Head(plain_norm()).eval(), kernels=False, cache_dtype=dtype)
    model = Head(plain_norm()).eval()
    found, ran = run(model, kernels=True, cache_dtype=dtype)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert ran["residual_norm_modulate"] == 2
    variants = variants_of(model)
    read = [n.target for n in variants.cached_skip.graph.nodes if n.op == "call_function"]
    assert torch.ops.aten.to.dtype not in read, "restored by the kernel, and nowhere else"


@torch.no_grad()
@pytest.mark.usefixtures("on_any_device")
def test_a_scale_for_each_channel_is_not_fused():
    """Tokens in rows and columns look like an image's channels."""
    outputs = []
    for kernels in (False, True):
        model = Head(plain_norm(), modulated="neither").eval()
        cache = fxcache.CacheConfig(dtype=torch.int8, kernels=kernels)
        fxcache.optimize(
            model, fxcache.Uniform(3), cut=("blocks.0", "blocks.1"), cache=cache, hoist=None
        )
        torch.manual_seed(0)
        given = torch.randn(2, 3, 5, 4), torch.ones(2, 7)
        with Ran() as ran:
            outputs += [model(given[0], t, given[1]) for t in torch.linspace(900, 100, 2)]
    assert torch.equal(outputs[1], outputs[3])
    assert "residual_norm_modulate" not in ran.counts
    assert "for each channel" in fusions(model)[0]["why_not"]


@torch.no_grad()
@pytest.mark.usefixtures("on_any_device")
def test_two_norms_of_one_sum_give_one_kernel():
    class Twice(Head):
        def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
            x = self.embed(sample) + timestep / 1000
            for block in self.blocks:
                x = x + block(x) + text.mean()
            found: Tensor = self.head(self.norm(x)) + self.head(nn.functional.layer_norm(x, (16,)))
            return found

    expected, _ = run(Twice(plain_norm()).eval(), kernels=False)
    model = Twice(plain_norm()).eval()
    found, ran = run(model, kernels=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert ran == {"residual_norm_modulate": 2}
    first, second = fusions(model)
    assert not first["why_not"]
    assert second["why_not"] == "another kernel replaced its input"


@torch.no_grad()
@pytest.mark.usefixtures("on_any_device")
def test_a_version_dependent_epsilon_is_not_fused():
    model = Head(nn.RMSNorm(16)).to(torch.bfloat16).eval()
    inputs = {name: value.to(torch.bfloat16) for name, value in dit_inputs().items()}
    cache = fxcache.CacheConfig(kernels=True)
    fxcache.optimize(model, cut=("blocks.0", "blocks.1"), cache=cache, hoist=None)
    model(timestep=torch.tensor(500.0, dtype=torch.bfloat16), **inputs)
    (fusion,) = fusions(model)
    assert "version of torch" in fusion["why_not"]


@pytest.mark.usefixtures("on_any_device")
def test_the_report_says_why_no_kernel_runs():
    model = Head(plain_norm()).double().eval()
    inputs = {k: v.double() for k, v in dit_inputs().items()}
    cache = fxcache.CacheConfig(kernels=True)
    fxcache.optimize(model, cut=("blocks.0", "blocks.1"), cache=cache, hoist=None)
    with torch.no_grad():
        model(timestep=torch.tensor(1.0, dtype=torch.float64), **inputs)
    (fusion,) = fusions(model)
    assert "float64" in fusion["why_not"]


@pytest.mark.usefixtures("on_any_device")
def test_a_kernel_compares_signals():
    found = []
    for kernels in (False, True):
        model = fxcache.optimize(
            dit(), policy=fxcache.FirstBlock(0.3), cache=fxcache.CacheConfig(kernels=kernels)
        )
        inputs = dit_inputs()
        with Ran() as ran, torch.no_grad():
            for t in torch.linspace(900, 100, 6):
                model(timestep=t, **inputs)
        found.append(refreshes(model))
    assert found[0] == found[1]
    assert ran.counts["relative_l1"] == 5


@pytest.mark.usefixtures("on_any_device")
@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_a_kernel_quantises_the_cache(dtype):
    outputs = []
    for kernels in (False, True):
        unet = fxcache.optimize(
            tiny.small_unet(),
            fxcache.Uniform(3),
            cache=fxcache.CacheConfig(dtype=dtype, kernels=kernels),
        )
        sample(unet, 1, **tiny.inputs())
        with Ran() as ran:
            outputs.append(sample(unet, 6, **tiny.inputs()))
    assert torch.equal(*outputs)
    assert ran.counts == {"quantize_rows": 2}


def test_no_kernel_runs_on_the_cpu():
    model = Head(plain_norm()).eval()
    _, ran = run(model, kernels=True)
    assert not ran
    (fusion,) = fusions(model)
    assert fusion["why_not"] == "no kernel runs on cpu"


@pytest.mark.parametrize("wrong", [1, "triton", None])
def test_kernels_is_true_or_false(wrong):
    with pytest.raises(fxcache.ConfigError, match="kernels"):
        fxcache.optimize(tiny.small_unet(), cache=fxcache.CacheConfig(kernels=wrong))
