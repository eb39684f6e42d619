"""Two processes that share a model decide alike, and get the bits of the model without fxcache."""

import pytest

from tests.distributed.processes import Outcomes, run_checks

BASE, FSDP, DIFFUSERS = (
    f"tests.distributed.{name}" for name in ("checks", "fsdp_checks", "diffusers_checks")
)
QUICK = (
    f"{BASE}.data_parallel",
    f"{BASE}.sharded_as_a_whole",
    f"{BASE}.sharded_by_blocks",
    f"{BASE}.sharded_signals",
    f"{BASE}.sharded_restart",
    f"{BASE}.split_weights",
    f"{BASE}.split_restart",
    f"{BASE}.refused",
    f"{DIFFUSERS}.ulysses",
)
SLOW = (
    f"{FSDP}.half_precision",
    f"{FSDP}.kept_whole",
    f"{FSDP}.on_the_cpu",
    f"{FSDP}.replicas_of_shards",
    f"{FSDP}.uneven",
    f"{FSDP}.blocks_only",
    f"{FSDP}.prefetching",
    f"{FSDP}.sharded_afterwards",
    f"{FSDP}.changed_weights",
    f"{FSDP}.wrapped",
    f"{FSDP}.compiled",
    f"{DIFFUSERS}.shared_afterwards",
    f"{DIFFUSERS}.ulysses_of_wan",
    f"{DIFFUSERS}.ring",
    f"{DIFFUSERS}.any_size",
    f"{DIFFUSERS}.tensor_parallel",
)


def name_of(check: str) -> str:
    return check.rpartition(".")[2]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    return run_checks(tmp_path_factory.mktemp("quick"), QUICK)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    return run_checks(tmp_path_factory.mktemp("slow"), SLOW)


@pytest.mark.parametrize("check", QUICK, ids=name_of)
def test_quick(quick, check):
    assert not quick[check], quick[check]


@pytest.mark.slow
@pytest.mark.parametrize("check", SLOW, ids=name_of)
def test_slow(slow, check):
    assert not slow[check], slow[check]


@pytest.mark.slow
def test_without_agreement(tmp_path):
    """Show that a check fails, and does not wait forever, if each process decides alone."""
    check = f"{BASE}.sharded_alone"
    outcomes = run_checks(tmp_path, [check], patience=5.0)
    assert "RuntimeError" in outcomes[check]  # of gloo: the other process went on alone
