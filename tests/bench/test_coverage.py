"""The coverage table: regenerated for a sample, and in step with its results for the rest."""

import json
from typing import Any

import pytest

from bench.coverage import RESULTS, TABLE, counts, document, row
from bench.denoisers import RECIPES, classes

SAMPLE = ("DiTTransformer2DModel", "UNet2DModel", "UVit2DModel")
TIMES = {"capture_s", "plan_s"}


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    return json.loads(RESULTS.read_text("utf-8"))


@pytest.mark.parametrize("kind", SAMPLE)
def test_a_sample_gives_what_the_results_say(kind, results):
    exact = {k: v for k, v in row(RECIPES[kind]).items() if k not in TIMES}
    assert exact == {k: v for k, v in results["classes"][kind].items() if k not in TIMES}


def test_every_class_has_a_line(results):
    assert results["classes"].keys() == RECIPES.keys()
    assert counts(results["classes"])["classes"] == len(classes())


def test_the_table_says_what_the_results_say(results):
    assert TABLE.read_text("utf-8") == document(results)


def test_the_aim_is_met(results):
    assert counts(results["classes"])["halved"] >= 75
