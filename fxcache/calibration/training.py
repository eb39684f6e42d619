"""What both trainings share: rounds of sampling, in which all but what is learned is frozen."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from fxcache.calibration.calibration import watched
from fxcache.calibration.plan import Plan
from fxcache.errors import ConfigError, ScheduleError
from fxcache.rewrite.variants import Variants
from fxcache.runtime.features.recording import RecordedStep, first_tensor
from fxcache.runtime.settings import Settings

Sample = Callable[[int], object]  # runs the sampling loop of the round of that number, seeded by it
Progress = Callable[[int, float], object]  # is told each round's number and mean loss
LOOK = 0  # the round that is sampled once beforehand, to see what there is to learn


def quiet(_round: int, _loss: float) -> None:
    """Tells nobody."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """``rounds``: how often to sample; each step that can be learned from updates the weights.

    ``checkpoint``: a file that is written after each round; where it is there, training goes on
    from it.
    """

    rounds: int = 100
    learning_rate: float = 3e-5
    checkpoint: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """What a plan tells of its training; JSON-ready."""
        return {name: value for name, value in asdict(self).items() if name != "checkpoint"}


class Learner:
    """Adam on named parameters, going on from the checkpoint where there is one."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], options: Options):
        self.parameters, self.options = parameters, options
        self.optimizer = torch.optim.Adam(parameters.values(), lr=options.learning_rate)
        self.losses: list[float] = []  # of this round
        self.rounds_left = range(self.resume(), options.rounds)

    def update(self, loss: Tensor) -> None:
        """One optimiser step; what ``loss`` does not depend on stays as it is."""
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())

    def train(self, sample: Sample, progress: Progress) -> None:
        """The rounds that are left; ``sample`` leads to calls of ``update``."""
        for index in self.rounds_left:
            self.losses.clear()
            sample(index)
            if not self.losses:
                raise ScheduleError(
                    "no step of the run reuses anything",
                    where=f"round {index} of the training",
                    remedy="raise the threshold of the plan's policy, or sample with more steps",
                )
            self.save(index + 1)
            progress(index, fmean(self.losses))

    def learned(self) -> dict[str, Tensor]:
        """The parameters' values."""
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def save(self, rounds: int) -> None:
        """Write the checkpoint; a reader never sees half of one."""
        if (file := self.options.checkpoint) is None:
            return
        state = {
            "rounds": rounds,
            "parameters": self.learned(),
            "optimizer": self.optimizer.state_dict(),
        }
        partial = file.with_name(f"{file.name}.new")
        torch.save(state, partial)
        os.replace(partial, file)

    def resume(self) -> int:
        """How many rounds were done before; ConfigError where the checkpoint is of others."""
        file = self.options.checkpoint
        if file is None or not file.exists():
            return 0
        state = torch.load(file, weights_only=True)
        saved: dict[str, Tensor] = state["parameters"]
        if shapes(saved) != shapes(self.parameters):
            raise ConfigError(
                "the checkpoint holds other parameters",
                where=str(file),
                remedy="finish that training with its own model and plan, or remove the file",
            )
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(saved[name])
        self.optimizer.load_state_dict(state["optimizer"])
        return int(state["rounds"])


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: t.shape for name, t in tensors.items()}


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Inside the block no weight of ``model`` gathers gradients, and sampling keeps no graph."""
    learnable = [p for p in model.parameters() if p.requires_grad]
    for parameter in learnable:
        parameter.requires_grad_(False)
    try:
        with torch.no_grad():
            yield
    finally:
        for parameter in learnable:
            parameter.requires_grad_(True)


@contextmanager
def gradients() -> Iterator[None]:
    """Gradients are on inside, though the sampling around it turned them off."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def usable(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """``tensors`` as gradients may pass them: copies of those made in inference mode."""
    return tuple(t.clone() if t.is_inference() else t for t in tensors)


def look(model: nn.Module, settings: Settings, sample: Sample) -> tuple[Variants, int]:
    """What ``model`` runs, and the number of steps, in one round that teaches nothing."""
    variants: list[Variants] = []
    length = 0

    def note(seen: RecordedStep) -> None:
        nonlocal length
        variants.append(seen.variants)
        length = max(length, seen.step + 1)

    with frozen(model), watched(model, settings, note):
        sample(LOOK)
    return variants[0], length


def error(seen: RecordedStep) -> Tensor:
    """Mean squared error of a step's prediction against that of the uncached model, there."""
    tensors = usable(seen.inputs)
    inputs = usable(seen.user_inputs)
    with torch.no_grad():
        teacher = first_tensor(seen.variants.full(*inputs))
    student = first_tensor(seen.variant.module(*tensors))
    return mse_loss(student.float(), teacher.float())


def prediction_error(model: nn.Module, plan: Plan, sample: Sample, rounds: range) -> float:
    """The mean of ``error`` over the steps of these rounds that reuse something under ``plan``."""
    errors: list[float] = []

    def note(seen: RecordedStep) -> None:
        if seen.variant.signature.reads:
            errors.append(error(seen).item())

    settings = Settings(
        plan.cut,
        plan.policy,
        plan.forecast,
        adjustment=plan.adjustment,
        correction=plan.correction,
    )
    with frozen(model), watched(model, settings, note):
        for index in rounds:
            sample(index)
    return fmean(errors) if errors else 0.0
