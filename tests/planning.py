"""Prints the plan of a small transformer, for a comparison between processes."""

import json

import torch

import fxcache
from tests.engines import variants_of
from tests.plain import dit, dit_inputs


def plan() -> list[str]:
    """Return the cut, and the code of both variants."""
    call = {**dit_inputs(), "timestep": torch.tensor(900.0)}
    model = fxcache.optimize(dit(3), capture=fxcache.CaptureConfig(example_inputs=call))
    variants = variants_of(model)
    return [str(variants.plan.cut), variants.full.code, variants.cached_skip.code]


if __name__ == "__main__":
    print(json.dumps(plan()))  # noqa: T201, the result of this process
