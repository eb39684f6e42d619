"""Tests the table of pipeline classes: it is complete, and a sample of its rows is measured."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from bench.pipelines.causes import CAUSES
from bench.pipelines.check import PIPELINE, Checked, Row, check
from bench.pipelines.document import document, rows_of
from bench.pipelines.families import recipes
from bench.pipelines.left_out import LEFT_OUT
from bench.pipelines.recipe import PipelineRecipe

# An image and a video model, one with several denoisers, one with two calls a step.
SAMPLE = ("DDPMPipeline", "FluxPipeline", "KandinskyV22PriorPipeline", "WanPipeline")


def pipeline_classes() -> set[str]:
    """Return the names of the pipeline classes that can be imported from diffusers here."""
    base = diffusers.DiffusionPipeline
    found = set()
    for name in dir(diffusers):
        kind = getattr(diffusers, name, None) if "Pipeline" in name else None
        if isinstance(kind, type) and issubclass(kind, base) and kind is not base:
            found.add(name)
    return found


@pytest.mark.filterwarnings("ignore")
def test_every_class_has_a_recipe_or_a_reason():
    known = recipes().keys() | LEFT_OUT.keys()
    assert pipeline_classes() - known == set()
    assert recipes().keys() & LEFT_OUT.keys() == set()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.sweep(2)
@pytest.mark.parametrize("kind", SAMPLE)
def test_a_sample_of_the_rows(kind: str) -> None:
    assert check(recipes()[kind]).faults() == []


class Restless:
    """Calls a pipeline, and adds something else to its result each time."""

    def __init__(self, pipe: Any):
        self.pipe, self.calls = pipe, 0
        self.components = pipe.components

    def set_progress_bar_config(self, **options: Any) -> None:
        self.pipe.set_progress_bar_config(**options)

    def __call__(self, **options: Any) -> Any:
        self.calls += 1
        steps: dict[str, Any] = {"num_inference_steps": 7, "output_type": "np"}
        return [self.pipe(**options, **steps).images, torch.tensor(self.calls)]


@pytest.mark.filterwarnings("ignore")
def test_a_pipeline_that_does_not_repeat_itself_is_noticed():
    recipe = recipes()["DDPMPipeline"]
    restless: PipelineRecipe = replace(recipe, build=lambda: Restless(recipe.build()))
    assert check(restless).faults() == ["the original pipeline does not repeat itself"]


def test_each_fault_is_named():
    good = Checked(exact=True, repeats=True, reuses=True, refreshes={"unet": 4})
    row = Row("P", {"unet": 7}, {"unet": 4}, {PIPELINE: good})
    assert row.faults() == []
    for change, fault in (
        ({"exact": False}, "refreshing at every step changes the result"),
        ({"repeats": False}, "a second run differs from the first"),
        ({"reuses": False}, "nothing was reused"),
        ({"refreshes": {"unet": 5}}, "unet refreshed 5 times, at most 4 pass"),
        ({"error": "CaptureError: no"}, "CaptureError: no"),
    ):
        changed = replace(row, ways={PIPELINE: replace(good, **change)})
        assert changed.faults() == [f"optimize(pipe): {fault}"]


def test_the_page_lists_what_passes_and_what_does_not():
    good = Checked(exact=True, repeats=True, reuses=True, refreshes={"unet": 3})
    rows = [
        Row("Good", {"unet": 7}, {"unet": 4}, {PIPELINE: good}),
        Row("Bad", error="not run: ImportError: x"),
    ]
    data = {"diffusers": "1", "torch": "2", "classes": {row.kind: row.to_dict() for row in rows}}
    page = document(data)
    assert "Classes: 2. Pass: 1." in page
    assert "| Good       | `unet`: 7 → 3" in page
    assert "- **Bad**: not run: ImportError: x." in page


def test_causes_are_given_for_what_does_not_pass_only():
    results = Path(__file__).parents[2] / "bench" / "results" / "pipelines.json"
    rows = rows_of(json.loads(results.read_text("utf-8")))
    assert CAUSES.keys() == {row.kind for row in rows if row.faults()}
