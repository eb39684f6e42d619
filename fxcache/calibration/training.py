"""Training: rounds of sampling, in which the model is frozen and a few parameters learn."""

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

Sample = Callable[[int], object]  # runs the sampling loop of one round, seeded by its index
Progress = Callable[[int, float], object]  # called with the index and the mean loss of each round
FIRST_ROUND = 0  # the round that is sampled once before training, to find the parameters


def quiet(_round: int, _loss: float) -> None:
    """Report nothing."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a training.

    Args:
        rounds: The number of sampling runs. Each step that reuses values is one optimiser step.
        learning_rate: The learning rate of Adam.
        checkpoint: A file that is written after each round. If it exists, the training continues
            from it.
    """

    rounds: int = 100
    learning_rate: float = 3e-5
    checkpoint: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the options that a plan records, as a dict that can be written as JSON."""
        return {name: value for name, value in asdict(self).items() if name != "checkpoint"}


class Learner:
    """Trains named parameters with Adam. Continues from the checkpoint if there is one."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], options: Options):
        self.parameters, self.options = parameters, options
        self.optimizer = torch.optim.Adam(parameters.values(), lr=options.learning_rate)
        self.losses: list[float] = []  # in the current round
        self.rounds_left = range(self.resume(), options.rounds)

    def update(self, loss: Tensor) -> None:
        """Make one optimiser step. Parameters without influence on ``loss`` do not change."""
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())

    def train(self, sample: Sample, progress: Progress) -> None:
        """Run the remaining rounds. ``sample`` must lead to calls of ``update``."""
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
        """Copies of the trained parameters, by name."""
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def save(self, rounds: int) -> None:
        """Write the checkpoint atomically."""
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
        """Load the checkpoint, and return the number of rounds that it covers.

        Raises:
            ConfigError: The checkpoint has other parameters.
        """
        file = self.options.checkpoint
        if file is None or not file.exists():
            return 0
        state = torch.load(file, weights_only=True)
        saved: dict[str, Tensor] = state["parameters"]
        if shapes(saved) != shapes(self.parameters):
            raise ConfigError(
                "the checkpoint holds other parameters",
                where=str(file),
                remedy="continue that training with its model and plan, or remove the file",
            )
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(saved[name])
        self.optimizer.load_state_dict(state["optimizer"])
        return int(state["rounds"])


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Return the shape of each tensor, by name."""
    return {name: t.shape for name, t in tensors.items()}


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Freeze the weights of ``model`` and disable gradients inside the block."""
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
    """Enable gradients inside the block, even if the sampling loop disabled them."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def usable(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """``tensors``, with copies of inference tensors, which autograd cannot use."""
    return tuple(t.clone() if t.is_inference() else t for t in tensors)


def sample_once(model: nn.Module, settings: Settings, sample: Sample) -> tuple[Variants, int]:
    """Return the variants and the number of steps of one round without training."""
    variants: list[Variants] = []
    length = 0

    def observe(record: RecordedStep) -> None:
        nonlocal length
        variants.append(record.variants)
        length = max(length, record.step + 1)

    with frozen(model), watched(model, settings, observe):
        sample(FIRST_ROUND)
    return variants[0], length


def error(record: RecordedStep) -> Tensor:
    """The mean squared error of a step's prediction against the uncached model's prediction."""
    tensors = usable(record.inputs)
    inputs = usable(record.user_inputs)
    with torch.no_grad():
        teacher = first_tensor(record.variants.full(*inputs))
    student = first_tensor(record.variant.module(*tensors))
    return mse_loss(student.float(), teacher.float())


def prediction_error(model: nn.Module, plan: Plan, sample: Sample, rounds: range) -> float:
    """The mean of ``error`` over all steps of these rounds that reuse values under ``plan``."""
    errors: list[float] = []

    def observe(record: RecordedStep) -> None:
        if record.variant.signature.reads:
            errors.append(error(record).item())

    settings = Settings(
        plan.cut,
        plan.policy,
        plan.forecast,
        adjustment=plan.adjustment,
        correction=plan.correction,
    )
    with frozen(model), watched(model, settings, observe):
        for index in rounds:
            sample(index)
    return fmean(errors) if errors else 0.0
