"""Compares forecasts with the formulas of their papers, and tests them with every policy."""

import pytest
import torch
from torch import fx

import fxcache
from fxcache.codecs.codec import ReadContext
from fxcache.codecs.history import History, HistoryWeights
from fxcache.forecasts import Forecast, Hermite, Ramp, Taylor
from fxcache.forecasts.hermite import hermite_polynomials
from fxcache.runtime.feature_cache import FeatureCache
from fxcache.step import Step
from tests import tiny
from tests.loops import refreshes, sample
from tests.runtime.stored import store, stored

pytestmark = pytest.mark.usefixtures("shared_captures")

# A forecast, and what it makes of the values 1, 2, 4 at steps 0, 1, 2 for the steps 3, 4, 5.
GOLDEN: list[tuple[Forecast, list[float]]] = [
    (Taylor(1), [6, 8, 10]),
    (Hermite(1), [5, 6, 7]),
    (Hermite(2), [4.875, 6.25, 7.875]),
]


def forecast_at(cache: FeatureCache, forecast: Forecast, step: int) -> float:
    """Return the value of cache point 0 that a reuse step at ``step`` reads."""
    codec, graph = History(forecast), fx.Graph()
    like = graph.placeholder("value")
    like.meta["val"] = stored(cache)[0]
    inputs, rows = codec.inputs(graph, 0, like), codec.coefficient_inputs(graph, (0,))
    graph.output(codec.decode(graph, inputs, like, rows[0]))
    context = ReadContext(cache.entries, (0,), Step(step, 50))
    (weights,) = HistoryWeights(forecast).at(context).values()
    read = fx.GraphModule({}, graph)
    return float(read(stored(cache)[0], *stored(cache), weights))


@pytest.mark.parametrize(("forecast", "expected"), GOLDEN)
def test_golden_values(forecast, expected):
    cache, codec = FeatureCache(), History(forecast)
    for step, value in enumerate((1.0, 2.0, 4.0)):
        store(cache, torch.tensor([value]), step, codec, fresh=step == 0)
    assert [forecast_at(cache, forecast, step) for step in (3, 4, 5)] == expected


def test_taylor_supports_unevenly_spaced_refreshes():
    """8 at step 5, after 1, 2, 4: differences 4/3 and (4/3 - 2)/3."""
    found = []
    for order in (1, 2):
        cache, forecast = FeatureCache(), Taylor(order)
        for step, value in ((0, 1.0), (1, 2.0), (2, 4.0), (5, 8.0)):
            store(cache, torch.tensor([value]), step, History(forecast), fresh=step == 0)
        found.append(forecast_at(cache, forecast, 6))
    assert found == pytest.approx([9.3333333, 9.2222222])


def test_hermite_polynomials_are_the_physicists():
    x = 0.7
    assert hermite_polynomials(4, x) == pytest.approx(
        [1, 2 * x, 4 * x**2 - 2, 8 * x**3 - 12 * x, 16 * x**4 - 48 * x**2 + 12]
    )


@pytest.mark.parametrize(
    "policy", [fxcache.Uniform(3, first=3), fxcache.TeaCache(1.0, coefficients=(1.0, 0.0), last=0)]
)
def test_hermite_works_with_any_policy(policy):
    """A forecast changes the values that a reuse step reads, and not which steps reuse."""
    runs = []
    for forecast in (None, Hermite(2)):
        unet = fxcache.optimize(tiny.small_unet(), policy, forecast=forecast)
        runs.append((sample(unet, 9, **tiny.inputs()), refreshes(unet)))
    (plain, steps), (extrapolated, same_steps) = runs
    assert steps == same_steps
    assert len(steps[0]) < 9
    assert not torch.equal(plain, extrapolated)


def test_a_forecast_with_eight_bits_is_refused():
    with pytest.raises(fxcache.ConfigError, match="forecasts need differences"):
        fxcache.optimize(
            tiny.small_unet(),
            fxcache.Uniform(3),
            forecast=Hermite(2),
            cache=fxcache.CacheConfig(dtype=torch.int8),
        )


def test_a_policys_default_forecast_can_be_replaced():
    outputs = []
    for policy, forecast in (
        (fxcache.TaylorSeer(3), None),
        (fxcache.TaylorSeer(3), Hermite(2)),
        (fxcache.Uniform(3, first=3), Taylor(2)),
    ):
        unet = fxcache.optimize(tiny.small_unet(), policy, forecast=forecast)
        outputs.append(sample(unet, 9, **tiny.inputs()))
    assert not torch.equal(outputs[0], outputs[1])
    taylor = fxcache.optimize(tiny.small_unet(), fxcache.TaylorSeer(3), forecast=Taylor(2))
    assert torch.equal(sample(taylor, 9, **tiny.inputs()), outputs[0])


def test_a_forecast_refreshes_without_the_required_length():
    unet = fxcache.optimize(tiny.small_unet(), fxcache.Uniform(2), forecast=Ramp())
    inputs = tiny.inputs()
    with torch.no_grad(), fxcache.session(unet):
        unet(timestep=900, **inputs)
        with pytest.warns(fxcache.FxcacheWarning, match="Ramp needs to know how many steps"):
            unet(timestep=800, **inputs)
    assert refreshes(unet) == [[0, 1]]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Taylor(0),
        lambda: Taylor(1.5),  # type: ignore[arg-type]
        lambda: Hermite(2, contraction=0),
        lambda: Hermite(2, contraction=1.5),
        lambda: Ramp(order=2),
        lambda: Ramp(most=-1),
    ],
)
def test_wrong_options_of_forecasts_are_refused(wrong):
    with pytest.raises(fxcache.ConfigError):
        wrong()


@pytest.mark.parametrize("forecast", [Taylor(3), Hermite(2, contraction=0.4), Ramp(most=2.0)])
def test_plans_store_forecasts(forecast, tmp_path):
    plan = fxcache.Plan.of(tiny.small_unet(), fxcache.Uniform(3), 0, forecast)
    plan.save(tmp_path / "plan.json")
    assert fxcache.Plan.load(tmp_path / "plan.json").forecast == forecast


def test_every_entry_uses_its_history():
    """One of two points was written more often. One call writes both."""
    cache, codec = FeatureCache(), History(Taylor(1))
    a, b = torch.tensor([1.0]), torch.tensor([10.0])
    cache.write({0: a, 1: b}, 0, codec, "source", fresh=True)
    cache.write({0: a + 3}, 3, codec, "source", fresh=False)
    cache.write({0: a + 4, 1: b + 8}, 4, codec, "source", fresh=False)
    held = {n: ([float(t) for t in e.buffers], e.steps) for n, e in cache.entries.items()}
    assert held == {0: ([5.0, 4.0], (4, 3)), 1: ([18.0, 10.0], (4, 0))}
