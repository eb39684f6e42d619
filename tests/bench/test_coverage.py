"""Tests the coverage table: a sample is measured again, the rest is compared with the results."""

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


@pytest.mark.sweep(1)
@pytest.mark.parametrize("kind", SAMPLE)
def test_a_measured_sample_equals_the_results(kind, results):
    exact = {k: v for k, v in row(RECIPES[kind]).items() if k not in TIMES}
    assert exact == {k: v for k, v in results["classes"][kind].items() if k not in TIMES}


def test_every_class_has_a_line(results):
    assert results["classes"].keys() == RECIPES.keys()
    assert counts(results["classes"])["classes"] == len(classes())


def test_the_table_equals_the_results(results):
    assert TABLE.read_text("utf-8") == document(results)


def test_enough_classes_are_captured_and_cut(results):
    assert counts(results["classes"])["halved"] >= 75
