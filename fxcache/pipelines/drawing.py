"""Generates images with a pipeline and fxcache."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from fxcache.api import optimize, report, restore
from fxcache.calibration.plan import Plan
from fxcache.errors import FxcacheWarning
from fxcache.integrations.diffusers import conditions, denoiser_of
from fxcache.partition.request import AUTO, CutRequest
from fxcache.policies import Policy
from fxcache.report.pipeline import PipelineReport
from fxcache.report.report import Report
from fxcache.runtime.denoisers import denoisers_of, is_pipeline

WARM_UP_STEPS = 2


@dataclass(frozen=True)
class Drawing:
    """The images to generate: one for each prompt.

    Args:
        prompts: The prompts or class names.
        steps: The number of denoising steps.
        seed: The seed of the first image. Image i has the seed ``seed + i``.
        policy: The policy; None if there is a plan.
        cut: The cut.
        plan: The plan; None if there is a policy.
        options: Further options of ``fxcache.optimize``.
    """

    prompts: Sequence[str]
    steps: int = 50
    seed: int = 0
    policy: Policy | None = None
    cut: CutRequest = AUTO
    plan: Plan | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def draw(
        self,
        pipeline: Any,
        steps: int,
        output_type: str = "pil",
        call: Callable[..., Any] | None = None,
    ) -> list[Any]:
        """Generate the images.

        Args:
            pipeline: The pipeline.
            steps: The number of denoising steps.
            output_type: The form of the images, as in diffusers. Arrays are from 0 to 1.
            call: What to call with the pipeline's arguments; None for the pipeline.
        """
        device = denoiser_of(pipeline).parameters().__next__().device
        generators = [
            torch.Generator(device).manual_seed(self.seed + i) for i in range(len(self.prompts))
        ]
        result = (call or pipeline)(
            conditions(pipeline, self.prompts),
            num_inference_steps=steps,
            generator=generators,
            output_type=output_type,
        )
        return list(result.images)

    def cached(self, pipeline: Any) -> tuple[list[Any], Report | PipelineReport]:
        """Return the images with fxcache, and the report.

        It is that of the pipeline if several denoisers are optimised, else that of the only one. It
        does not count the run before, which captures and warms up.
        """
        with self.optimized(pipeline) as target:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FxcacheWarning)  # the run may be too short
                self.draw(pipeline, self.steps if self.plan else WARM_UP_STEPS)
            self.optimize(target)  # keeps the captures, and forgets the run
            images = self.draw(pipeline, self.steps)
            several = is_pipeline(target) and len(denoisers_of(target)) > 1
            return images, report(target) if several else report(denoiser_of(pipeline))

    @contextmanager
    def optimized(self, pipeline: Any) -> Iterator[Any]:
        """Optimise the pipeline inside the block, and yield what is optimised.

        That is the pipeline, so that the length of each run is known. A plan belongs to one
        denoiser: the first of several is optimised alone.
        """
        first, *others = denoisers_of(pipeline).values()
        target = first if self.plan and others else pipeline
        self.optimize(target)
        try:
            yield target
        finally:
            restore(target)

    def optimize(self, target: Any) -> None:
        """Optimise ``target`` as the images need it. Keep its captures, and forget earlier runs."""
        optimize(target, self.policy, plan=self.plan, cut=self.cut, **self.options)


class FirstCallError(Exception):
    """Ends a run at the first call of the denoiser."""


def first_call(
    pipeline: Any, prompts: Sequence[str]
) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """Return the denoiser of the pipeline, and the arguments of its first call for ``prompts``."""
    found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append((args, kwargs))
        raise FirstCallError

    model = denoiser_of(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    handle = model.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        Drawing(prompts).draw(pipeline, WARM_UP_STEPS)
    except FirstCallError:
        pass
    finally:
        handle.remove()
    args, kwargs = found[0]
    return model, args, kwargs
