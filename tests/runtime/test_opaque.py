"""Optimised models with submodules that torch.export cannot trace."""

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from diffusers.hooks import apply_group_offloading
from diffusers.hooks.layerwise_casting import apply_layerwise_casting_hook
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.flop_counter import FlopCounterMode

import fxcache
from fxcache.runtime import offload
from tests.engines import optimized_engine
from tests.loops import refreshes
from tests.plain import WIDTH, DiT, denoised, dit_inputs
from tests.routed import Branching, calls_of, routed_dit, with_mlps

pytestmark = pytest.mark.filterwarnings("ignore:torch.export cannot trace")
ALWAYS, EVERY_THIRD = fxcache.Uniform(1), fxcache.Uniform(3)
CPU = torch.device("cpu")


def optimized(policy: fxcache.Policy = EVERY_THIRD, **options: Any) -> DiT:
    return fxcache.optimize(routed_dit(depth=2), policy, **options)


def test_refreshes_are_exact_and_reuse_steps_do_not_call_it():
    plain, model = routed_dit(depth=2), optimized(ALWAYS)
    assert torch.equal(denoised(model), denoised(plain))
    fxcache.optimize(model, EVERY_THIRD)
    before = calls_of(model)
    first = denoised(model)
    assert refreshes(model) == [[0, 3, 6]]
    assert calls_of(model) == [count + 3 for count in before]
    assert torch.equal(denoised(model), first)
    assert not torch.equal(first, denoised(plain))


def test_flops_are_counted():
    model, plain = optimized(), routed_dit(depth=2)
    denoised(model)
    (variants,) = optimized_engine(model).captures.values()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for layer in plain.layers:
            layer.mlp(torch.ones(2, 16, 16))
    mixtures = counter.get_total_flops()
    bare = routed_dit(depth=2)
    for layer in bare.layers:
        layer.mlp = nn.Identity()
    fxcache.optimize(bare, ALWAYS)
    denoised(bare)
    (without,) = optimized_engine(bare).captures.values()
    assert variants.full_flops == without.full_flops + mixtures > mixtures > 0


def test_the_warning_and_the_report_say_which_and_why():
    model = routed_dit(depth=2)
    fxcache.optimize(model)
    with pytest.warns(fxcache.FxcacheWarning, match="cannot trace some submodules") as caught:
        denoised(model)
    (text,) = {str(warning.message) for warning in caught}
    for part in (
        "2 × Routed (layers.0.mlp, layers.1.mlp)",
        "RuntimeError: .numpy() is not supported",
        "tests/routed.py:",
        "neither branches on values nor leaves PyTorch",
    ):
        assert part in text
    assert text in fxcache.report(model).notices
    fxcache.optimize(model, EVERY_THIRD)
    assert "called as they are: 2 × Routed (layers.0.mlp" in str(fxcache.report(model))


@pytest.mark.sweep(1)
@pytest.mark.parametrize("backend", ["aot_eager", "eager"])
def test_two_graphs_are_compiled(backend):
    counter = CompileCounterWithBackend(backend)
    model, plain = optimized(), optimized()
    model.compile(backend=counter, fullgraph=True)
    for _ in range(2):
        assert torch.equal(denoised(model), denoised(plain))
    assert counter.frame_count == 2
    assert calls_of(model) == calls_of(plain)


@pytest.mark.slow
def test_inductor_calls_it():
    model, plain = optimized(), optimized()
    model.compile(fullgraph=True)
    for _ in range(2):
        torch.testing.assert_close(denoised(model), denoised(plain))
    assert calls_of(model) == calls_of(plain)


@pytest.mark.sweep(1)
@pytest.mark.parametrize("replace", [False, True])
def test_changed_weights_are_noticed(replace):
    model, plain = optimized(), optimized()
    before = denoised(model)
    for changed in (model, plain):
        expert: Any = changed.layers[1].mlp.experts[0]
        if replace:
            expert.weight = nn.Parameter(expert.weight.detach() * 2)
        else:
            with torch.no_grad():
                expert.weight *= 2
    after = denoised(model)
    assert not torch.equal(after, before)
    assert torch.equal(after, denoised(plain))
    fxcache.optimize(model, ALWAYS)
    assert torch.equal(denoised(model), denoised(fxcache.restore(plain)))


@pytest.mark.slow
def test_a_replaced_submodule_is_called():
    model = optimized(ALWAYS)
    denoised(model)
    torch.manual_seed(7)
    other = routed_dit(depth=1).layers[0].mlp
    for weight in other.parameters():
        nn.init.normal_(weight)
    model.layers[1].mlp = other
    before = other.num_calls
    found = denoised(model)
    assert other.num_calls > before
    assert torch.equal(found, denoised(fxcache.restore(model)))


def test_what_it_changes_itself_is_no_change_of_the_model():
    class Remembering(Branching):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.seen, self.last = 1.0, list[int](), torch.zeros(())

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(len(self.seen))
            self.last = x.mean()
            return super().forward(x) * self.scale

    model = with_mlps(Remembering)
    fxcache.optimize(model, EVERY_THIRD)
    before = denoised(model)
    (captured,) = optimized_engine(model).captures.values()
    assert torch.equal(denoised(model), before)
    assert list(optimized_engine(model).captures.values()) == [captured]
    for layer in model.layers:
        layer.mlp.scale = 3.0
    assert not torch.equal(denoised(model), before)
    (again,) = optimized_engine(model).captures.values()
    assert again is not captured, "another setting is a change of the model"


@pytest.mark.slow
class Packing(nn.Module):
    """A layer that packs its weights at its first call, as 4-bit layers of bitsandbytes may."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.packed = nn.Linear(WIDTH, WIDTH), False

    def forward(self, x: Tensor) -> Tensor:
        if not self.packed:
            self.linear.weight.data = self.linear.weight.flip(0).clone()
            self.packed = True
        return self.linear(x)


def test_weights_packed_at_the_first_call_are_packed_once():
    plain, model = with_mlps(Packing), fxcache.optimize(with_mlps(Packing), ALWAYS)
    expected = denoised(plain)
    for _ in range(2):
        assert torch.equal(denoised(model), expected)
    assert len(optimized_engine(model).captures) == 1


class Drifting(Branching):
    """A layer that counts its calls in its bias."""

    def forward(self, x: Tensor) -> Tensor:
        self.linear.bias.data.add_(0.5)
        return super().forward(x)


def test_weights_written_by_each_call_are_written_once_a_call():
    plain, model = with_mlps(Drifting), fxcache.optimize(with_mlps(Drifting), ALWAYS)
    for _ in range(2):
        assert torch.equal(denoised(model), denoised(plain))


def test_branches_follow_values():
    model, plain = with_mlps(Branching), with_mlps(Branching)
    fxcache.optimize(model, ALWAYS)
    for seed in range(4):
        assert torch.equal(denoised(model, seed=seed), denoised(plain, seed=seed))


@pytest.mark.slow
def test_copies_and_other_models_call_their_own():
    first, second = optimized(), optimized()
    expected = denoised(first)
    copied, unpickled = copy.deepcopy(first), pickle.loads(pickle.dumps(first))
    for other in (second, copied, unpickled):
        with torch.no_grad():
            other.layers[0].mlp.experts[0].weight.zero_()
        before = calls_of(first)
        assert not torch.equal(denoised(other), expected)
        assert calls_of(first) == before
    assert torch.equal(denoised(first), expected)
    fxcache.restore(second)
    assert torch.equal(denoised(first), expected)


def test_handles_keep_no_model_alive():
    model = optimized()
    denoised(model)
    kept = weakref.ref(model), weakref.ref(model.layers[0].mlp)
    del model
    gc.collect()
    assert [reference() for reference in kept] == [None, None]


@pytest.mark.slow
def test_restore_leaves_the_model_as_it_was():
    model = routed_dit(depth=2)
    attributes = [list(vars(module)) for module in model.modules()]
    fxcache.optimize(model)
    denoised(model)
    fxcache.restore(model)
    assert [list(vars(module)) for module in model.modules()] == attributes
    assert torch.equal(denoised(model), denoised(routed_dit(depth=2)))


def test_artifacts_refuse_it(tmp_path):
    model = optimized()
    denoised(model)
    with pytest.raises(fxcache.ArtifactError, match=r"cannot trace.*layers\.0\.mlp") as caught:
        fxcache.export(model, tmp_path / "artifact")
    assert "neither branches" in caught.value.remedy
    pytest.importorskip("onnx")
    with pytest.raises(fxcache.ArtifactError, match="cannot trace"):
        fxcache.export_onnx(model, tmp_path / "onnx", 7)


@pytest.mark.slow
def test_weights_are_reported():
    model = optimized()
    denoised(model)
    report = fxcache.report(model)
    every = sum(weight.nbytes for weight in model.parameters())
    (capture,) = report.captures
    assert capture.weight_bytes["refresh"] + capture.hoisted_weight_bytes == every


class TextRouted(DiT):
    """A transformer whose text passes a submodule that cannot be traced."""

    def __init__(self) -> None:
        super().__init__(2)
        self.text = Branching()

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return super().forward(sample, timestep, self.text(text))


def test_offloaded_weights_are_brought_to_it(monkeypatch):
    kept: dict[int, Tensor] = {}

    def move(weight: Tensor, device: torch.device) -> None:
        if device == CPU:
            weight.data = kept.pop(id(weight))
        elif id(weight) not in kept:
            kept[id(weight)] = weight.data
            weight.data = torch.full_like(weight, torch.nan)

    monkeypatch.setattr(offload, "HOST", torch.device("meta"))
    monkeypatch.setattr(offload, "move", move)
    monkeypatch.setattr(offload, "copy_to", lambda weight, _: kept[id(weight)].detach())
    options: Any = {"policy": ALWAYS, "hoist": "once"}
    model = TextRouted().eval()
    fxcache.optimize(model, cache=fxcache.CacheConfig(offload=True), **options)
    for seed in range(2):
        assert torch.equal(denoised(model, seed=seed), denoised(TextRouted().eval(), seed=seed))
        assert model.text.linear.weight.isnan().all(), "no step reads it"
    fxcache.restore(model)
    assert not model.text.linear.weight.isnan().any()


@pytest.mark.sweep(1)
@pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
def test_hooks_load_its_weights(kind):
    model = routed_dit(depth=2)
    options: Any = {"num_blocks_per_group": 1} if kind == "block_level" else {}
    apply_group_offloading(model, CPU, CPU, offload_type=kind, **options)
    fxcache.optimize(model, ALWAYS)
    assert torch.equal(denoised(model), denoised(routed_dit(depth=2)))


@pytest.mark.slow
def test_a_hook_around_it_casts_its_weights():
    models = [routed_dit(depth=2) for _ in range(2)]
    for model in models:
        for layer in model.layers:
            # The weights of the mixture are cast by the hook of the layer that contains it.
            apply_layerwise_casting_hook(layer, torch.float16, torch.float32, non_blocking=False)
    assert models[0].layers[0].mlp.gate.weight.dtype == torch.float16
    fxcache.optimize(models[0], ALWAYS)
    assert torch.equal(denoised(models[0]), denoised(models[1]))


@pytest.mark.slow
def test_inference_mode():
    model, plain = optimized(ALWAYS), routed_dit(depth=2)
    with torch.inference_mode():
        for t in torch.linspace(900, 100, 4):
            inputs = dit_inputs()
            assert torch.equal(model(timestep=t, **inputs), plain(timestep=t, **inputs))


def test_gradients_of_its_weights():
    model, plain = optimized(ALWAYS), routed_dit(depth=2)
    denoised(model)
    (variants,) = optimized_engine(model).captures.values()
    inputs = {**dit_inputs(), "timestep": torch.tensor(500.0)}
    call = optimized_engine(model).signature.call((), inputs)
    variant = variants.variant(frozenset())
    outputs, *_ = variant.signature.unpack(variant.module(*variant.signature.bind(call.tensors)))
    outputs[0].square().sum().backward()
    plain(**inputs).square().sum().backward()
    name = "layers.1.mlp.experts.0.weight"
    found, expected = ({**dict(m.named_parameters())}[name].grad for m in (model, plain))
    assert found is not None
    assert expected is not None
    assert torch.equal(found, expected)
