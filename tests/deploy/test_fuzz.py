"""Tests that no mutation of an artifact raises another error than one of fxcache."""

import pytest

from tests.deploy.fuzz import Fuzzer


@pytest.mark.parametrize(
    "mutations", [400, pytest.param(10_000, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_no_mutation_raises_another_error(tmp_path, mutations):
    fuzzer = Fuzzer(tmp_path, seed=1)
    fuzzer.run(mutations)
    assert not fuzzer.failures, fuzzer.failures[:3]
    assert sum(fuzzer.outcomes.values()) == mutations
    refused = sum(n for outcome, n in fuzzer.outcomes.items() if outcome.endswith("ArtifactError"))
    assert refused > mutations / 2
