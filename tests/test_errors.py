"""Tests bad input: it raises an error of fxcache, and changes nothing."""

import pickle
from typing import Any

import pytest
import torch
from torch import nn

import fxcache
from fxcache.errors import FxcacheError
from tests import tiny
from tests.loops import last_reason, refreshes
from tests.plain import dit, dit_inputs

pytestmark = pytest.mark.usefixtures("shared_captures")


@pytest.fixture
def unet() -> nn.Module:
    return tiny.small_unet()


def refused(error: type[FxcacheError], model: Any, **options: Any) -> str:
    """Return the message of the error of ``optimize``, and check that the model is unchanged."""
    kind, before = type(model), dict(getattr(model, "__dict__", {}))
    with pytest.raises(error) as caught:
        fxcache.optimize(model, **options)
    assert type(model) is kind
    assert getattr(model, "__dict__", {}).keys() == before.keys()
    assert "remedy:" in str(caught.value)
    return str(caught.value)


EXAMPLE = {**tiny.inputs(), "timestep": 1}


class Denoiserless(nn.Module):
    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return torch.ones(1, 8) * timestep


class Chain(nn.Module):
    """Has no skip connection: each cut cuts the latent off."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return self.outer(self.inner(sample) + timestep)


class Impure(nn.Module):
    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        sample.add_(timestep)
        return sample * 2


def test_a_model_that_ignores_the_latent_is_refused():
    example = {"sample": torch.ones(1, 8), "timestep": torch.tensor(1.0)}
    message = refused(
        fxcache.NotADenoiserError,
        Denoiserless().eval(),
        capture=fxcache.CaptureConfig(example_inputs=example),
    )
    assert "depends on its first input" in message


def test_a_first_input_that_is_no_tensor_is_refused(unet):
    assert "not a tensor" in refused(
        fxcache.NotADenoiserError,
        unet,
        capture=fxcache.CaptureConfig(example_inputs={"sample": "noise", "timestep": 1}),
    )


def test_forward_without_named_inputs():
    message = refused(
        fxcache.NotADenoiserError,
        Variadic().eval(),
        capture=fxcache.CaptureConfig(example_inputs=[1, 2]),
    )
    assert "has no named parameters, and this call passes no tensor" in message


class Variadic(nn.Module):
    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        return args[0]


def test_not_a_module():
    assert "not a torch.nn.Module" in refused(fxcache.ConfigError, "unet")


def refused_capture(model: nn.Module) -> str:
    """Return the message of the error that the capture of a model raises."""
    example = {"sample": torch.ones(1, 8), "timestep": torch.tensor(1.0)}
    capture = fxcache.CaptureConfig(example_inputs=example)
    return refused(fxcache.CaptureError, model.eval(), capture=capture)


def test_a_model_that_writes_to_its_input():
    assert "writes to its inputs" in refused_capture(Impure())


def test_a_capture_that_fails_names_the_source_line(unet):
    class Printing(nn.Module):
        def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            return sample * float(sample.mean())  # leaves PyTorch

    message = refused_capture(Printing())
    assert "return sample * float(sample.mean())" in message
    assert "test_errors.py" in message


@pytest.mark.parametrize(
    "make", [torch.jit.script, lambda layer: torch.jit.trace(layer, torch.ones(1, 8))]
)
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_module_without_python_code(make):
    class Scripted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = make(nn.Linear(8, 8))

        def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.layer(sample) * timestep
            return found

    message = refused_capture(Scripted())
    assert "torch.jit" in message
    assert "layer" in message


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (4, "0 (up_blocks.1.attentions.0)"),
        (-1, "no skip index -1"),
        ("up_blocks.1.attention", "up_blocks.1.attentions.1"),
        ("down_blocks.0", "has 2 outputs"),
        ("conv_in", "no output of UNet2DConditionModel depends on the latent"),
        ("conv_norm_out", "no output of UNet2DConditionModel depends on the latent"),
        ("down_blocks.0.resnets.0.nonlinearity", "choose one of"),
    ],
)
def test_a_cut_that_does_not_exist_or_cuts_the_latent_off(unet, cut, expected):
    assert expected in refused(
        fxcache.CutError, unet, cut=cut, capture=fxcache.CaptureConfig(example_inputs=EXAMPLE)
    )


def test_a_cut_that_saves_nothing():
    class Bypassed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cheap, self.work = nn.Identity(), nn.Linear(8, 8)
            self.act = nn.ReLU()

        def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            return self.work(self.act(sample * timestep) + sample)

    example = {"sample": torch.ones(1, 8), "timestep": torch.tensor(1.0)}
    message = refused(
        fxcache.CutError,
        Bypassed().eval(),
        cut="act",
        capture=fxcache.CaptureConfig(example_inputs=example),
    )
    assert "saves nothing" in message


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors(layout):
    model, inputs = fxcache.optimize(dit()), dit_inputs()
    timestep, rows = torch.tensor(9.0), list(inputs["text"])
    with torch.no_grad():
        model(timestep=timestep, **inputs)
        nested = {
            **inputs,
            "text": torch.nested.nested_tensor([rows[0][:3], rows[1]], layout=layout),
        }
        with pytest.raises(fxcache.CaptureError, match="text is a nested tensor"):
            model(timestep=timestep, **nested)


def test_sparse_tensors():
    model, inputs = fxcache.optimize(dit()), dit_inputs()
    timestep = torch.tensor(9.0)
    with torch.no_grad():
        model(timestep=timestep, **inputs)
        sparse = {**inputs, "text": inputs["text"].to_sparse()}
        with pytest.raises(fxcache.CaptureError, match=r"text .* torch.sparse_coo"):
            model(timestep=timestep, **sparse)


def test_an_empty_batch_saves_nothing():
    model = fxcache.optimize(dit())
    with torch.no_grad(), pytest.raises(fxcache.CutError, match="saves nothing"):
        model(timestep=torch.tensor(9.0), **dit_inputs(0))


def test_no_skip_connection_at_all():
    example = {"sample": torch.ones(1, 8), "timestep": torch.tensor(1.0)}
    assert "neither a skip connection" in refused(
        fxcache.CutError, Chain().eval(), capture=fxcache.CaptureConfig(example_inputs=example)
    )
    assert "depends on the latent" in refused(
        fxcache.CutError,
        Chain().eval(),
        cut="inner",
        capture=fxcache.CaptureConfig(example_inputs=example),
    )


@pytest.mark.parametrize("cut", [True, 1.5, None, [], ["up_blocks", None], {"up_blocks"}])
def test_a_cut_of_a_wrong_type_is_refused(unet, cut):
    assert "skip index" in refused(fxcache.ConfigError, unet, cut=cut)


@pytest.mark.parametrize("policy", [5, {"interval": 5}, fxcache.Uniform])
def test_a_policy_of_a_wrong_type_is_refused(unet, policy):
    assert "Uniform" in refused(fxcache.ConfigError, unet, policy=policy)


def test_a_missing_plan_is_refused(unet):
    assert "uniform" in refused(fxcache.ModelFileError, unet, policy="uniform")


def test_unknown_options_are_errors(unet):
    with pytest.raises(TypeError, match="interval"):
        fxcache.optimize(unet, interval=3)  # type: ignore[call-arg]
    assert "_fxcache" not in vars(unet)


def with_dropout(unet):
    unet.mid_block.resnets[0].dropout.p = 0.1
    return unet


def test_train_mode(unet):
    error = refused(fxcache.ModeError, with_dropout(unet).train())
    assert ".eval()" in error
    assert "mid_block.resnets.0.dropout" in error


def test_train_mode_set_later(unet):
    fxcache.optimize(with_dropout(unet)).train()
    with torch.no_grad(), pytest.raises(fxcache.ModeError, match="train mode"):
        unet(timestep=1, **tiny.inputs())


@torch.no_grad()
def test_train_mode_that_changes_nothing(unet):
    plain = unet.train()(timestep=1, **tiny.inputs()).sample
    assert torch.equal(fxcache.optimize(unet)(timestep=1, **tiny.inputs()).sample, plain)


def test_gradients_wanted(unet):
    fxcache.optimize(unet)
    with pytest.raises(fxcache.ModeError, match="gradients"):
        unet(timestep=1, **tiny.inputs())
    unet.requires_grad_(False)
    unet(timestep=1, **tiny.inputs())


@pytest.mark.parametrize("call", [fxcache.report, fxcache.session, fxcache.clear])
def test_calls_that_need_an_optimised_module(unet, call):
    with pytest.raises(fxcache.StateError, match="not optimised"):
        call(unet)


def test_a_forward_set_on_the_instance(unet):
    unet.forward = lambda *a, **k: None
    assert "hides" in refused(fxcache.StateError, unet)


@pytest.mark.parametrize("num_steps", [0, -3, 2.5, True, "50"])
def test_a_session_of_a_wrong_length_is_refused(unet, num_steps):
    fxcache.optimize(unet)
    with pytest.raises(fxcache.ConfigError, match="num_steps"):
        fxcache.session(unet, num_steps=num_steps)


@torch.no_grad()
@pytest.mark.parametrize("policy", [fxcache.NonUniform(), fxcache.Uniform(last=1)])
def test_a_policy_refreshes_without_the_required_length(unet, policy):
    plain, inputs = tiny.small_unet(), tiny.inputs()
    fxcache.optimize(unet, policy=policy)
    with fxcache.session(unet):
        unet(timestep=900, **inputs)
        with pytest.warns(fxcache.FxcacheWarning, match="num_steps"):
            got = unet(timestep=800, **inputs).sample
    assert torch.equal(got, plain(timestep=800, **inputs).sample)
    assert last_reason(unet) == "the run's length is unknown"


def test_wrong_arguments_fail_as_in_python(unet):
    fxcache.optimize(unet)
    with torch.no_grad(), pytest.raises(TypeError):
        unet(tiny.inputs()["sample"], sample=tiny.inputs()["sample"])


@torch.no_grad()
def test_nan_passes_through_as_in_the_original(unet):
    inputs = tiny.inputs()
    inputs["sample"][0, 0, 3, 3] = torch.nan
    expected = unet(timestep=500, **inputs).sample
    fxcache.optimize(unet, policy=fxcache.Uniform(interval=2))
    with fxcache.session(unet):
        refreshed = unet(timestep=500, **inputs).sample
        reused = unet(timestep=400, **inputs).sample
    assert refreshes(unet) == [[0]]
    assert torch.equal(refreshed.isnan(), expected.isnan())
    assert torch.equal(refreshed.nan_to_num(), expected.nan_to_num())
    assert reused.isnan().any()


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxcache.FxcacheWarning")
def test_unidentified_callers_get_exact_results():
    model = tiny.unconditional_unet()
    xs = torch.randn(6, 1, 3, 16, 16)
    numbers = (900, 800, 700, 600, 500, 400)
    expected = [model(x, t).sample for x, t in zip(xs, numbers, strict=True)]
    fxcache.optimize(model, policy=fxcache.Uniform(interval=2))
    got = [model(x, t).sample for x, t in zip(xs, numbers, strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert "of 6 calls began a run" in str(fxcache.report(model))


@pytest.mark.parametrize("kind", [FxcacheError, *FxcacheError.__subclasses__()])
def test_errors_reach_other_processes(kind):
    error = kind("what", where="where", remedy="remedy")
    found = pickle.loads(pickle.dumps(error))
    assert (type(found), str(found), found.where) == (kind, str(error), "where")
