"""Tests the measurement of compiled steps, without Inductor."""

from types import SimpleNamespace
from typing import Any

import pytest

import fxcache
from bench.compiled import models
from bench.compiled.models import Model, timesteps, twin
from bench.compiled.profile import KINDS, REST, grouped, profiled
from bench.compiled.timing import WAYS, Pair, Round, measured, pair, summary
from bench.compiled_figures import compiled_figures

SMALL = Model(
    lambda: models.unet(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
    ),
    models.unet_inputs,
    (),
    999.0,
)
PLAIN, ALL = WAYS.values()


@pytest.fixture(scope="module")
def plain() -> Pair:
    return pair(SMALL, PLAIN)


def test_a_round_times_as_many_steps_of_the_original(plain):
    (found,) = measured(plain, SMALL, PLAIN, 3, rounds=1, length=6)
    assert [len(found.original), len(found.refresh), len(found.reuse)] == [6, 1, 4]
    assert found.start > 0
    assert found.ideal > 1


def test_all_options_use_rows_of_the_table(plain):
    used = pair(SMALL, ALL)
    (found,) = measured(used, SMALL, ALL, 2, rounds=1, length=4)
    assert fxcache.report(used.optimised).runs[-1].tabulated == [0, 1, 2, 3]
    (without,) = measured(plain, SMALL, PLAIN, 2, rounds=1, length=4)
    assert found.ideal > without.ideal


def test_a_profile_has_every_kind_of_step(plain):
    found = profiled(plain, SMALL, PLAIN)
    assert set(found) == {"original", "refresh", "reuse"}
    assert all(set(times) == {*KINDS, REST} for times in found.values())
    assert found["reuse"]["convolutions"] < found["original"]["convolutions"]


def test_a_twin_shares_its_weights():
    model = SMALL.build()
    copied = twin(model)
    assert copied is not model
    pairs = zip(model.parameters(), copied.parameters(), strict=True)
    assert all(mine is theirs for mine, theirs in pairs)


def test_timesteps_are_elements_of_one_tensor():
    first, *others = timesteps(SMALL._replace(timestep=(1,)), 4)
    assert first.shape == (1,)
    assert all(t.untyped_storage().data_ptr() == first.untyped_storage().data_ptr() for t in others)


def test_an_event_counts_as_the_kind_around_it():
    def event(name: str, parent: Any = None, time: float = 1000.0) -> Any:
        return SimpleNamespace(name=name, cpu_parent=parent, self_cpu_time_total=time)

    call = event("whole step")
    outer = event("mkldnn::_convolution_pointwise", call)
    found = grouped([
        *(call, outer, event("aten::empty", outer), event("aten::copy_", call)),
        event("graph_0_cpp_fused_native_group_norm_0", call, 500.0),
    ])  # fmt: skip
    times = {"fused kernels": 0.5, "convolutions": 2.0, REST: 2.0}
    assert found == dict.fromkeys(KINDS, 0.0) | times


def test_a_summary_compares_with_the_plain_ideal():
    rounds = [Round([1.0] * 4, [1.0], [0.1, 0.1], start=1.2, ideal=4 / 2.2)] * 6
    found = summary(rounds, 2, plain_ideal=2.0)
    assert found["ideal"] == pytest.approx(4 / 2.2)
    assert found["realised"] == pytest.approx(4 / 2.4)
    assert found["realised_over_plain_ideal"]["median"] == pytest.approx(4 / 2.4 / 2)
    assert found["reuse_over_original"] == pytest.approx(0.1)
    results = {
        "environment": {"torch": "2", "python": "3"},
        "models": {"U-Net": {"plain": of_page(found)}},
    }
    assert "| U-Net, plain | 2 " in " ".join(compiled_figures(results).split())


def of_page(found: dict[str, Any]) -> dict[str, Any]:
    times = dict.fromkeys((*KINDS, REST), 1.0)
    profile = dict.fromkeys(("original", "refresh", "reuse"), times)
    return {
        "cut": {"reuse_flops": 1, "full_flops": 10},
        "intervals": [found],
        "profile_ms": profile,
    }
