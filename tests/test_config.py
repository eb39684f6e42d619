"""Tests the configuration classes, which refuse impossible values and combinations."""

import dataclasses
import inspect
from typing import Any

import pytest
import torch
from torch import nn

import fxcache
from fxcache import CacheConfig, CaptureConfig
from fxcache.analysis.hoisting import HoistLevel
from fxcache.arguments import Arguments
from fxcache.codecs.drift import DriftCorrection
from fxcache.codecs.quantized_rows import QuantizedRows
from fxcache.codecs.scale_shift import ScaleShift
from fxcache.errors import ConfigError
from fxcache.runtime.settings import Settings

pytestmark = pytest.mark.usefixtures("shared_captures")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return self.layer(sample) + timestep


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (CacheConfig, {"dtype": torch.float32}),
        (CacheConfig, {"dtype": "int8"}),
        (CacheConfig, {"dtype": 8}),
        (CacheConfig, {"kernels": 1}),
        (CacheConfig, {"kernels": None}),
        (CacheConfig, {"offload": "cpu"}),
        (CacheConfig, {"partial_evaluation": "yes"}),
        (CacheConfig, {"max_trajectories": 0}),
        (CacheConfig, {"max_trajectories": True}),
        (CacheConfig, {"max_trajectories": 2.0}),
        (CaptureConfig, {"latent": 0}),
        (CaptureConfig, {"dynamic": ["sample"]}),
        (CaptureConfig, {"dynamic": {"sample": (-1,)}}),
        (CaptureConfig, {"example_inputs": 5}),
        (CaptureConfig, {"example_inputs": "sample"}),
        (CaptureConfig, {"max_captures": -1}),
    ],
)
def test_wrong_values_are_refused(kind, options):
    with pytest.raises(ConfigError) as caught:
        kind(**options)
    (name,) = options
    assert f"{kind.__name__}({name}=...)" in str(caught.value)


@pytest.mark.parametrize("kind", [CacheConfig, CaptureConfig])
def test_configurations_are_frozen_and_keyword_only(kind):
    config = kind()
    assert config == kind()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.dtype = None
    with pytest.raises(TypeError):
        kind(None)
    with pytest.raises(TypeError, match="unknown"):
        kind(unknown=1)


def test_dimensions_become_tuples():
    assert CaptureConfig(dynamic={"sample": [0, 2]}).dynamic == {"sample": (0, 2)}


def test_optimize_has_at_most_nine_parameters():
    assert list(inspect.signature(fxcache.optimize).parameters) == [
        *("model", "policy", "plan", "forecast", "cut"),
        *("cache", "hoist", "guidance", "capture"),
    ]


@pytest.mark.parametrize(
    "old", ["cache_dtype", "latent", "dynamic", "example_inputs", "partial_evaluation", "kernels"]
)
def test_moved_options_are_refused(old):
    options: dict[str, Any] = {old: None}
    with pytest.raises(TypeError, match=old):
        fxcache.optimize(Small().eval(), **options)


@pytest.mark.parametrize(
    ("options", "excluded"),
    [
        (
            {"policy": fxcache.TaylorSeer(4), "cache": CacheConfig(dtype=torch.int8)},
            "forecasts need differences",
        ),
        (
            {"correction": DriftCorrection({}), "cache": CacheConfig(dtype=torch.int8)},
            "corrections need differences",
        ),
        ({"cache": CacheConfig(offload=True)}, "every step reads all weights"),
        (
            {"adjustment": ScaleShift({"a": torch.ones(1)})}
            | {"cache": CacheConfig(partial_evaluation=True)},
            "adjustment or correction",
        ),
        (
            {"correction": DriftCorrection({"a": torch.ones(1)})}
            | {"cache": CacheConfig(partial_evaluation=True)},
            "adjustment or correction",
        ),
    ],
)
def test_exclusive_options_are_refused(options, excluded):
    with pytest.raises(ConfigError, match=excluded):
        Settings("auto", options.pop("policy", fxcache.Uniform()), **options)


def test_compatible_options_are_accepted():
    cache = CacheConfig(dtype=torch.int8, kernels=True, offload=True, partial_evaluation=True)
    made = Settings("auto", fxcache.Uniform(), hoist=HoistLevel.PER_RUN, cache=cache)
    assert made.cache_format.codec == QuantizedRows(torch.int8, kernels=True)
    assert made.cache_format.kernels


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cache", {"dtype": torch.int8}),
        ("cache", torch.int8),
        ("capture", {"latent": "x"}),
        ("guidance", 5),
        ("plan", fxcache.Uniform()),
        ("hoist", "always"),
        ("hoist", True),
    ],
)
def test_arguments_of_the_wrong_type_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        Arguments.of(**{name: value})


@pytest.fixture
def plan():
    return fxcache.Plan.of(Small(), fxcache.Uniform(5), "layer")


def test_a_plan_is_accepted_in_three_forms(plan, tmp_path):
    plan.save(tmp_path / "plan.json")
    spellings = (plan, tmp_path / "plan.json", str(tmp_path / "plan.json"))
    for found in [Arguments.of(p) for p in spellings] + [Arguments.of(plan=p) for p in spellings]:
        assert (found.policy, found.cut) == (fxcache.Uniform(5), "layer")


@pytest.mark.parametrize("more", [{"policy": fxcache.Uniform()}, {"cut": 0}])
def test_a_plan_with_its_parts_is_refused(plan, more):
    with pytest.raises(ConfigError, match="a plan already defines the cut"):
        Arguments.of(plan=plan, **more)


def test_two_plans_are_refused(plan):
    with pytest.raises(ConfigError, match="a plan already defines"):
        Arguments.of(plan, plan)


def test_settings_keep_no_tensors_of_the_example_alive():
    found = Arguments.of(capture=CaptureConfig(latent="sample", example_inputs=(torch.ones(1),)))
    capture = found.settings(Small()).capture
    assert capture.example_inputs is None
    assert capture.latent == "sample"
