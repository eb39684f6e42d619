"""Tests step tables: a loop without fxcache's runtime gives the same bits."""

import pytest
import torch
from torch import Tensor, nn

import fxcache
from tests.deploy.test_round_trip import CUTS, STEPS, denoised
from tests.plain import dit, dit_inputs

pytestmark = pytest.mark.usefixtures("shared_captures")
INT8 = fxcache.CacheConfig(dtype=torch.int8)


@torch.no_grad()
def by_table(model: nn.Module) -> list[Tensor]:
    """Return the latent after each step, as ``denoised`` does."""
    table, cache = fxcache.step_table(model, STEPS), dict[int, Tensor]()
    inputs, latents = dit_inputs(), []
    latent = inputs["sample"]
    for step, t in enumerate(torch.linspace(900, 100, STEPS)):
        (output,) = table.run(step, (latent, t, inputs["text"]), cache)
        latent = latent - 0.1 * output
        latents.append(latent)
    return latents


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"policy": fxcache.Explicit((0, 3, 4))},
        {"cut": CUTS, "policy": fxcache.Uniform(3)},
        {"cache": fxcache.CacheConfig(partial_evaluation=True)},
    ],
    ids=["default", "Explicit", "many points", "partial"],
)
def test_a_loop_over_the_table_gives_the_same_bits(options):
    model = fxcache.optimize(dit(3), **options)
    with fxcache.session(model, num_steps=STEPS):
        expected = denoised(model)
    found = by_table(model)
    assert all(map(torch.equal, found, expected))


def test_a_table_of_a_loaded_artifact(tmp_path):
    model = fxcache.optimize(dit(2), fxcache.Uniform(3))
    expected = denoised(model)
    loaded = fxcache.load(fxcache.export(model, tmp_path / "artifact"))
    denoised(loaded)
    assert all(map(torch.equal, by_table(loaded), expected))


def test_names_and_order_of_the_steps():
    model = fxcache.optimize(dit(3), fxcache.Explicit((0, 3, 4)))
    denoised(model)
    skip = "cached_skip"
    steps = ("full", skip, skip, "full", "full", skip, skip, skip)
    table = fxcache.step_table(model, STEPS)
    assert table.steps == steps
    assert list(table.variants) == ["full", skip]


class EvenSteps(fxcache.Policy):
    """Computes one of two cache points at even steps, and both three steps after a refresh."""

    def scheduled(self, step: fxcache.Step) -> fxcache.Decision:
        computed = frozenset({"layers.1.mlp"}) if step.index % 2 == 0 else frozenset[str]()
        refresh = step.index - step.last_refresh >= 3
        return fxcache.Decision(refresh, "by this test", computed)


def test_steps_that_reuse_different_parts_have_graphs_of_their_own():
    model = fxcache.optimize(dit(3), EvenSteps(), cut=["layers.0.out", "layers.1.mlp"])
    expected = denoised(model)
    assert fxcache.step_table(model, STEPS).steps == (
        *("full", "cached_skip", "reuse_1"),
        *("full", "reuse_1", "cached_skip"),
        *("full", "cached_skip"),
    )
    assert all(map(torch.equal, by_table(model), expected))


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"policy": fxcache.FirstBlock(0.3)}, "FirstBlock decides by values"),
        ({"policy": fxcache.TaylorSeer(3)}, "a forecast or a correction has coefficients"),
        ({"policy": fxcache.Uniform(3), "cache": INT8}, "a cache in torch.int8 is encoded"),
    ],
)
def test_what_a_table_cannot_describe_is_named(options, cause):
    model = fxcache.optimize(dit(2), **options)
    denoised(model)
    with pytest.raises(fxcache.ArtifactError, match=cause):
        fxcache.step_table(model, STEPS)


def test_a_model_that_has_served_no_call_has_no_table():
    model = fxcache.optimize(dit(2))
    with pytest.raises(fxcache.ArtifactError, match="served 0 kinds of calls"):
        fxcache.step_table(model, STEPS)
