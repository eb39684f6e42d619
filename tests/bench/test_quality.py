"""Tests the metrics of the quality suite with closed forms, and a small run of the whole suite."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fxcache
from bench.quality import classifier
from bench.quality.fitting import Family, spread
from bench.quality.metrics import features, frechet, frechet_interval, likeness
from bench.quality.results import Results, read
from bench.quality.sampling import draw_all
from bench.quality.settings import (
    SETTINGS,
    Calibrated,
    FixedInterval,
    Setting,
    Steps,
    Trained,
    Tuned,
    WithCorrection,
    WithGuidanceCache,
)
from bench.quality.suite import Bench, Protocol, measure
from fxcache.pipelines.calibrate import Sampling
from fxcache.policies import GuidanceCache, Uniform
from tests import tiny

pytestmark = pytest.mark.usefixtures("shared_captures")

CAPTIONS = ["a cat", "a dog", "a bus", "a hat"]
MEASURED = Sampling(CAPTIONS, steps=4, batch=2)
CALIBRATION = Sampling(["a cow", "a pie"], steps=4, seed=100, batch=2)
FAMILY = Family("TeaCache", "threshold", count=2)
CHOSEN: tuple[Setting, ...] = (
    Steps("no caching", 4),
    Steps("fewer steps", 2),
    FixedInterval("Uniform", Uniform(2)),
    Calibrated("TeaCache", FAMILY, 0),
    Calibrated("TeaCache", FAMILY, 1),
)


def normal(mean: torch.Tensor, covariance: torch.Tensor, count: int) -> torch.Tensor:
    """Return numbers with exactly this mean and covariance."""
    torch.manual_seed(0)
    drawn = torch.randn(count, len(mean), dtype=torch.float64)
    drawn -= drawn.mean(0)
    whitened = drawn @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(drawn.T))).T
    return whitened @ torch.linalg.cholesky(covariance).T + mean


def test_the_frechet_distance_of_gaussians_that_commute():
    one, two = torch.tensor([1.0, 2.0, 4.0]).double(), torch.tensor([9.0, 3.0, 0.25]).double()
    shift = torch.tensor([1.0, -2.0, 0.5]).double()
    first = normal(torch.zeros(3).double(), one.diag(), 50)
    second = normal(shift, two.diag(), 60)
    expected = shift.square().sum() + (one.sqrt() - two.sqrt()).square().sum()
    assert frechet(first, second) == pytest.approx(float(expected))
    assert frechet(second, first) == pytest.approx(float(expected))
    assert frechet(first, first) == pytest.approx(0, abs=1e-9)


def test_the_frechet_distance_of_gaussians_that_do_not_commute():
    one = torch.tensor([[2.0, 1.0], [1.0, 3.0]]).double()
    two = torch.tensor([[5.0, -1.0], [-1.0, 1.0]]).double()
    product = one @ two  # tr √M = √(tr M + 2 √det M) for 2 × 2
    cross = torch.sqrt(product.trace() + 2 * torch.linalg.det(product).sqrt())
    expected = one.trace() + two.trace() - 2 * cross
    nowhere = torch.zeros(2).double()
    found = frechet(normal(nowhere, one, 30), normal(nowhere, two, 30))
    assert found == pytest.approx(float(expected))


def test_the_frechet_distance_with_fewer_pictures_than_features():
    torch.manual_seed(0)
    few = torch.randn(4, 8).double()
    assert frechet(few, few + 1) == pytest.approx(8)


def test_the_interval_is_the_same_each_time_and_narrower_with_more_pictures():
    torch.manual_seed(0)
    reference = torch.randn(800, 4).double()
    drawn = reference + 1 + torch.randn(800, 4).double()
    found = frechet_interval(drawn, reference)
    assert found == frechet_interval(drawn, reference)
    assert found.value == frechet(drawn, reference)
    assert found.low < found.value < found.high
    fewer = frechet_interval(drawn[:50], reference[:50])
    assert fewer.high - fewer.low > 2 * (found.high - found.low)


def test_the_interval_does_not_depend_on_the_captions():
    torch.manual_seed(0)
    reference = torch.randn(30, 4).double()
    shifted = frechet_interval(reference + 1, reference)
    assert shifted == pytest.approx((4, 4, 4))


def test_likeness_is_psnr_and_ssim_of_float_pictures():
    grey = torch.full((2, 16, 16, 3), 0.5)
    darker = grey.clone()
    darker[0] -= 0.1
    darker[1] -= 0.001  # less than a byte tells
    found = likeness(grey, darker)
    assert found.psnr_db == pytest.approx((20 + 60) / 2, abs=1e-3)
    c1 = 0.01**2
    dark = [(2 * 0.5 * m + c1) / (0.25 + m * m + c1) for m in (0.4, 0.499)]
    assert found.ssim == pytest.approx(np.mean(dark), abs=1e-5)
    assert likeness(grey, grey) == (100, 1)


def test_thresholds_cover_the_reachable_speed_ups(monkeypatch):
    monkeypatch.setattr("bench.quality.fitting.TRIES", 8)
    for most in (1.4, 4):

        def speedup(threshold: float, most: float = most) -> float:
            return 1 + (most - 1) * threshold / (threshold + 0.1)

        found = spread(speedup, 4)
        speeds = [speedup(threshold) for threshold in found]
        near = most ** (1 / 16) - 1
        assert speeds == pytest.approx([most ** (k / 4) for k in (1, 2, 3, 4)], rel=near)
        assert len(set(found)) == 4
    assert spread(lambda _: 1.0, 2) == [1e-4, 1e-4], "a policy that never reuses"


def test_the_bundled_classifier_recognises_glyphs_and_is_small():
    assert classifier.accuracy(classifier.load(), rounds=1) > 0.98
    assert classifier.WEIGHTS.stat().st_size <= 2**20


def test_the_classifier_trains(tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "BATCH", 4)
    model = classifier.train(tmp_path / "checkpoint.pt", steps=2)
    classifier.save(model, tmp_path / "weights.safetensors")
    loaded = classifier.load(tmp_path / "weights.safetensors")
    batch = torch.zeros(1, 3, 64, 64)
    assert loaded.features(batch).shape == (1, classifier.FEATURES)
    assert torch.allclose(loaded(batch), model(batch), atol=1e-2)


def bench(make: Any = tiny.pipeline) -> Bench:
    """Return a bench with four images of an untrained pipeline, compared with noise."""
    reference = torch.rand(4, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    protocol = Protocol(MEASURED, CALIBRATION, pairs=1)
    return Bench(make, protocol, classifier.load(), reference)


def run(file: Path, settings: tuple[Setting, ...] = CHOSEN, make: Any = tiny.pipeline) -> Results:
    results, made = Results(file), bench(make)
    results.begin("tiny", made.describe(), [s.to_dict() for s in settings])
    measure("tiny", made, settings, results)
    return results


def untimed(results: Results) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k != "speedup"} for r in results.models["tiny"]["rows"]]


@pytest.fixture(autouse=True, scope="module")
def few_tries() -> Iterator[None]:
    """Let thresholds miss their target speed-ups."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.quality.fitting.TRIES", 1)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run(tmp_path_factory.mktemp("whole") / "quality.json")


def test_the_rows_describe_the_measurement(whole):
    uncached, fewer, uniform, little, much = whole.models["tiny"]["rows"]
    assert (uncached["psnr_db"], uncached["ssim"], uncached["ideal_speedup"]) == (100, 1, 1)
    assert fewer["ideal_speedup"] == 2
    assert fewer["psnr_db"] < 100
    assert fewer["label"] == "2 steps"
    assert 1 < uniform["ideal_speedup"] < 2
    assert little["ideal_speedup"] <= much["ideal_speedup"]
    assert much["label"].startswith("threshold ")
    for row in (uncached, fewer, uniform):
        assert 0 < row["speedup"]["low"] <= row["speedup"]["value"] <= row["speedup"]["high"]
        assert math.isfinite(row["frechet"]["value"])


def test_it_goes_on_where_it_stopped_and_ends_with_the_same_rows(tmp_path, monkeypatch, whole):
    done: list[str] = []
    row = Bench.row

    def stopping(self: Bench, setting: Setting) -> Any:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(setting.curve)
        return row(self, setting)

    monkeypatch.setattr(Bench, "row", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "quality.json")
    assert len(read(tmp_path / "quality.json")["tiny"]["rows"]) == 3
    done.clear()
    resumed = run(tmp_path / "quality.json")
    assert done == ["TeaCache", "TeaCache"]
    assert untimed(resumed) == untimed(whole)
    assert not list(tmp_path.glob("*.partial"))
    done.clear()
    other = (CHOSEN[0], FixedInterval("Uniform", Uniform(3)), CHOSEN[3])
    changed = run(tmp_path / "quality.json", other)
    assert done == ["Uniform"], "the others were measured"
    assert [r["curve"] for r in changed.models["tiny"]["rows"]] == [s.curve for s in other]


def test_rows_of_another_protocol_are_dropped(tmp_path, whole):
    whole.file.rename(tmp_path / "quality.json")
    results, made = Results(tmp_path / "quality.json"), bench()
    made.protocol = replace(made.protocol, measured=replace(MEASURED, seed=1))
    results.begin("tiny", made.describe(), [s.to_dict() for s in CHOSEN])
    assert not results.models["tiny"]["rows"]


@pytest.mark.sweep(1)
@pytest.mark.parametrize("make", [tiny.pipeline, tiny.class_pipeline])
def test_guidance_and_correction_take_effect(make, tmp_path, monkeypatch):
    """A step of half the batch has fewer FLOPs. A correction may help at no step."""
    settings = (
        FixedInterval("Uniform", Uniform(2)),
        WithGuidanceCache("Uniform, guidance", Uniform(2), every=2),
        WithCorrection("Uniform, error-corrected", Uniform(2)),
    )
    monkeypatch.setattr("bench.quality.settings.GuidanceCache", partial(GuidanceCache, start=0))
    made = make
    if make is tiny.class_pipeline:
        made = partial(make, [*CAPTIONS, *CALIBRATION.prompts], blocks=4)
    uniform, guided, corrected = run(tmp_path / "quality.json", settings, made).models["tiny"][
        "rows"
    ]
    assert guided["ideal_speedup"] > uniform["ideal_speedup"] == corrected["ideal_speedup"]
    assert guided["psnr_db"] != uniform["psnr_db"]
    (settled,) = (s.candidate(bench(made).fitter).settings for s in settings[2:])
    assert settled is not None
    assert settled.correction is not None
    assert settled.correction.applied is not None
    assert settled.correction.num_steps == MEASURED.steps
    helped = settled.correction.applied.any()
    assert helped or corrected["psnr_db"] == uniform["psnr_db"]


def test_trained_plans_belong_to_their_model(tmp_path, monkeypatch):
    """Plans of another model give no rows."""
    monkeypatch.setattr("bench.quality.fitting.TRAINED", tmp_path)
    fxcache.Plan.of(tiny.pipeline().unet, Uniform(2)).save(tmp_path / "tiny-some.json")
    settings = (FixedInterval("Uniform", Uniform(2)), Trained("trained", "some", True))
    uniform, trained = run(tmp_path / "unet.json", settings).models["tiny"]["rows"]
    assert trained["psnr_db"] == uniform["psnr_db"]
    made = partial(tiny.class_pipeline, [*CAPTIONS, *CALIBRATION.prompts], blocks=4)
    (row,) = run(tmp_path / "dit.json", settings, made).models["tiny"]["rows"]
    assert row["curve"] == "Uniform"


def test_a_class_conditional_pipeline_is_measured_too(tmp_path):
    settings = (FixedInterval("Uniform", Uniform(2)), Tuned("tuned", 1.5))
    names = [*CAPTIONS, *CALIBRATION.prompts]
    made = partial(tiny.class_pipeline, names, blocks=4)
    uniform, tuned = run(tmp_path / "quality.json", settings, made).models["tiny"]["rows"]
    assert 1 < uniform["ideal_speedup"] < 2
    assert tuned["ideal_speedup"] >= 1.5
    assert tuned["label"] == "at 1.5×"


def test_captions_are_names_of_classes_for_class_pipelines():
    pipeline = tiny.class_pipeline([*CAPTIONS, *CALIBRATION.prompts], blocks=4)
    images = draw_all(pipeline, replace(MEASURED, steps=2))
    assert images.shape == (4, 16, 16, 3)
    assert torch.equal(images, draw_all(pipeline, replace(MEASURED, steps=2, batch=4)))
    with pytest.raises(ValueError, match="cow-boy"):
        draw_all(pipeline, replace(MEASURED, prompts=["cow-boy"]))


def test_features_expect_images_from_zero_to_one():
    images = torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    model = classifier.load()
    expected = model.features(images.permute(0, 3, 1, 2) * 2 - 1).double()
    assert torch.equal(features(model, images), expected.detach())


def test_each_policy_has_five_distinct_settings():
    by_curve: dict[str, int] = {}
    for setting in (s for s in SETTINGS if not isinstance(s, Trained)):
        by_curve[setting.curve] = by_curve.get(setting.curve, 0) + 1
    assert all(count >= 5 for curve, count in by_curve.items() if curve != "no caching")
    listed = [json.dumps(setting.to_dict()) for setting in SETTINGS]
    assert len(set(listed)) == len(listed)
