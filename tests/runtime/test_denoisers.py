"""Tests which components of a pipeline are denoisers, and of which modules fxcache warns."""

import warnings
from collections.abc import Iterator
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

import fxcache
from fxcache.runtime.denoisers import is_denoiser, is_pipeline
from tests import tiny

pytestmark = pytest.mark.usefixtures("shared_captures")


def pipelines() -> Iterator[Any]:
    """Return all pipeline classes that this version of diffusers can import."""
    for name in dir(diffusers):
        if name.endswith("Pipeline"):
            kind = getattr(diffusers, name)
            if isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline):
                yield kind


@pytest.fixture(scope="module")
def chosen() -> dict[str, set[str]]:
    """Return the names under which each class of a component is chosen."""
    found: dict[str, set[str]] = {}
    for pipeline in pipelines():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            components = pipeline._get_signature_types()
        for name, kinds in components.items():
            for kind in kinds:
                if isinstance(kind, type) and issubclass(kind, nn.Module):
                    names = found.setdefault(kind.__name__, set())
                    if is_denoiser(name, object.__new__(kind)):
                        names.add(name)
    return found


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("UNet2DConditionModel", {"unet", "image_unet", "text_unet", "decoder"}),
        ("UNetControlNetXSModel", {"unet"}),
        ("WanTransformer3DModel", {"transformer", "transformer_2"}),
        ("StableCascadeUNet", {"prior", "prior_prior", "decoder"}),
        ("WuerstchenPrior", {"prior", "prior_prior"}),
        ("WuerstchenDiffNeXt", {"decoder"}),
        ("PriorTransformer", {"prior", "prior_prior"}),
        ("UniDiffuserModel", {"unet"}),
        ("UNet2DModel", {"unet", "super_res_first", "super_res_last"}),
        ("Ideogram4Transformer2DModel", {"transformer", "unconditional_transformer"}),
    ],
)
def test_denoisers(chosen, kind, names):
    if kind not in chosen:
        pytest.skip(f"this diffusers has no {kind}")
    assert chosen[kind] == names


def test_no_other_components(chosen):
    helpers = ("Autoencoder", "Encoder", "ControlNetModel", "Adapter", "CLIP", "Checker", "VQModel")
    others = {k: v for k, v in chosen.items() if any(helper in k for helper in helpers)}
    assert len(others) > 30
    assert not {kind: names for kind, names in others.items() if names}


class Denoiser(nn.Module):
    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return sample * timestep


def holding(components: object, **members: object) -> type:
    return type("Pipe", (), {"components": components, **members})


def call(self: object) -> None:
    del self


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        (Denoiser(), False),
        (holding({"unet": Denoiser()}, __call__=call), False),  # a class
        (holding({"unet": Denoiser()}, __call__=call)(), True),
        (holding({"unet": Denoiser()})(), False),  # a mere container
        (holding({"scheduler": object()}, __call__=call)(), False),
        (holding(["wheel"], __call__=call)(), False),
        ({"unet": Denoiser()}, False),
        (None, False),
    ],
)
def test_pipelines_are_callable_with_components(candidate, expected):
    assert is_pipeline(candidate) is expected


class Vectorised(nn.Module):
    """A denoiser whose timestep has another name."""

    def forward(self, x: Tensor, level: Tensor, text: Tensor | None = None) -> Tensor:
        return x * level


class Keyword(nn.Module):
    def forward(self, x: Tensor, *, cond: Tensor | None = None, timesteps: Tensor) -> Tensor:
        return x * timesteps


class Named(nn.Module):
    def forward(self, x: Tensor, text: Tensor | None = None, sigma: float = 1.0) -> Tensor:
        return x * sigma


class Codec(nn.Module):
    def forward(self, x: Tensor, quantised: Tensor) -> Tensor:
        return x

    def encode(self, x: Tensor) -> Tensor:
        return x


class Projection(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x


@pytest.mark.parametrize("kind", [Denoiser, Vectorised, Keyword, Named])
def test_denoisers_are_not_warned_of(kind):
    assert fxcache.report(fxcache.optimize(kind().eval()))  # warnings are errors


@pytest.mark.parametrize(
    ("kind", "said"), [(Codec, "encode and decode"), (Projection, "no timestep")]
)
def test_modules_without_a_timestep_are_warned_of(kind, said):
    with pytest.warns(fxcache.FxcacheWarning, match=said) as caught:
        fxcache.optimize(kind().eval())
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", ["vae", "text_encoder"])
def test_other_components_are_warned_of(name):
    part = getattr(tiny.pipeline(), name)
    with pytest.warns(fxcache.FxcacheWarning, match="takes no timestep"):
        fxcache.optimize(part)


def test_a_warning_raised_as_an_error_changes_nothing():
    module = Projection().eval()
    with pytest.raises(fxcache.FxcacheWarning):
        fxcache.optimize(module)
    assert type(module) is Projection
    assert torch.equal(module(torch.ones(1)), torch.ones(1))
