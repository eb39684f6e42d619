"""Measures all tiers of a gate on the device, and checks the exact counts that are promised.

The times are the advisory tier of the device. See ``fxcache.gate``.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

import fxcache
from bench.gpu.items import Item, require
from bench.gpu.setup import Setup
from bench.gpu.trajectories import STEPS, model_of, trajectory
from fxcache.gate.config import GateConfig
from fxcache.gate.gate import measured_of
from fxcache.gate.loop import subject_of

PROMISED = {"graphs": 2, "recompilations": 0, "breaks": {}}


def items(setup: Setup) -> Iterator[Item]:
    for name in setup.models:
        yield Item(name, partial(measure, setup, name, setup.dtypes[0]))


def measure(setup: Setup, name: str, dtype: torch.dtype) -> dict[str, Any]:
    """Return the values of a gate by tier. Require two graphs and no wait for the device."""
    model = model_of(setup, name, dtype)
    fxcache.optimize(model)
    first = trajectory(setup, name, dtype, seed=0)
    inputs = {"sample": first.latents[0], "timestep": first.timesteps[0], "text": first.text}
    subject = subject_of(model, inputs, STEPS)
    found = measured_of(subject, GateConfig(rounds=max(6, setup.repeats // 5))).to_dict()
    exact = found["exact"]
    counted = {name: exact["compilation"][name] for name in PROMISED}
    require(counted == PROMISED, "two graphs, no break, no recompilation", exact["compilation"])
    require(not exact.get("device_waits"), "no step waits for the device", exact)
    return found
