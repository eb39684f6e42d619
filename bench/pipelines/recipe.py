"""Recipes: how to build a small pipeline of a class, and how to call it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PipelineRecipe:
    """One pipeline class of diffusers.

    Attributes:
        kind: The name of the class.
        build: Builds a small pipeline with seeded random weights.
        call: Builds the arguments of one call. ``generator``, ``return_dict``, ``output_type`` and
            ``num_inference_steps`` are added where the pipeline takes them and these arguments do
            not have them.
        steps: The ``num_inference_steps`` of one call.
        trajectories: How many trajectories a denoiser follows in one call of the pipeline, by the
            name of the component; 1 for those not named. Guidance in calls of its own is one more,
            and so is each chunk, tile or stage.
        alone: How many further calls are no steps, and refresh once each, by the name of the
            component: those that fill a cache of keys and values, which needs every block.
    """

    kind: str
    build: Callable[[], Any]
    call: Callable[[], Mapping[str, Any]]
    steps: int = 7
    trajectories: Mapping[str, int] = field(default_factory=dict)
    alone: Mapping[str, int] = field(default_factory=dict)
