"""Trains the router of Learning-to-Cache: which layers each step must compute."""

from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from fxcache.calibration.calibration import watched
from fxcache.calibration.fingerprint import fingerprint
from fxcache.calibration.measurement import Recording
from fxcache.calibration.plan import Plan
from fxcache.calibration.training import (
    Learner,
    Options,
    Progress,
    Sample,
    frozen,
    gradients,
    quiet,
    sample_once,
    usable,
)
from fxcache.codecs.codec import entries_of
from fxcache.errors import ScheduleError
from fxcache.partition.request import AUTO
from fxcache.policies import LearnedRouter
from fxcache.rewrite.passes.blend import BETAS
from fxcache.runtime.features.recording import RecordedStep, first_tensor
from fxcache.runtime.module import untouched
from fxcache.runtime.record import Run
from fxcache.runtime.settings import Settings


@dataclass(frozen=True, kw_only=True)
class RouterOptions(Options):
    """Options of the training.

    Args:
        learning_rate: The learning rate of Adam.
        penalty: λ, the penalty for computing one layer, relative to the mean squared error of the
            prediction.
        threshold: A step computes the layers whose β exceeds this value.
        start: The value of β before training.
    """

    learning_rate: float = 0.01
    penalty: float = 1e-4
    threshold: float = 0.5
    start: float = 0.5


class Router:
    """Learns β of each layer at each odd step."""

    def __init__(self, layers: list[str], length: int, options: RouterOptions):
        self.layers, self.length, self.options = layers, length, options
        start = torch.full((len(layers),), options.start).logit()
        logits = {str(step): nn.Parameter(start.clone()) for step in range(1, length, 2)}
        self.learner = Learner(logits, options)
        self._before: WeakKeyDictionary[Run, tuple[Tensor, ...]] = WeakKeyDictionary()

    def observe(self, record: RecordedStep) -> None:
        """Store the layer outputs of an even step, or update β at an odd step."""
        if record.step >= self.length:
            raise ScheduleError(
                f"this run has more steps than the first run, which had {self.length}",
                where="learned_router.train",
                remedy="sample with the same number of steps every time",
            )
        if record.step % 2 == 0:
            values = (v for name in self.layers for v in record.values[name])
            self._before[record.run] = tuple(v.clone() for v in values)
        elif record.run in self._before:
            with gradients():
                self.learner.update(self.loss(record, self._before[record.run]))

    def loss(self, record: RecordedStep, cached: tuple[Tensor, ...]) -> Tensor:
        """The mean squared error of the blended prediction against the full one, plus λ · Σ β."""
        betas = self.learner.parameters[str(record.step)].sigmoid().to(record.output.device)
        blend, stored = record.variants.blend, entries_of(dict(enumerate(usable(cached))))
        inputs = blend.signature.bind(
            usable(record.user_inputs), cached=stored, coefficients={BETAS: betas}
        )
        mixed = blend.module(*inputs)
        (output,) = usable((record.output,))
        missed = mse_loss(first_tensor(mixed).float(), output.float())
        return missed + self.options.penalty * betas.sum()

    def scores(self) -> Mapping[str, tuple[float, ...]]:
        """β of each layer at each step. It is 1 at even steps, which compute everything."""
        learned = {int(step): w.sigmoid().tolist() for step, w in self.learner.learned().items()}
        return {
            layer: tuple(learned[s][i] if s in learned else 1.0 for s in range(self.length))
            for i, layer in enumerate(self.layers)
        }


def train(
    model: nn.Module,
    sample: Sample,
    options: RouterOptions | None = None,
    progress: Progress = quiet,
) -> Plan:
    """Train a LearnedRouter for ``model``.

    The method is Learning-to-Cache (arXiv:2406.01733). Even steps compute everything. At odd steps
    the output of each layer is β · computed + (1 − β) · previous step. β is trained by layer and
    step: it minimises the error of the prediction and the sum of β. The trajectory is that of the
    full model, whose weights do not change.

    Args:
        model: The model.
        sample: Runs the sampling loop of one round, with noise seeded by the index of the round.
        options: Options of the training.
        progress: Called after each round.

    Returns:
        A plan with the trained policy.

    Raises:
        StateError: The model is optimised.
        CutError: The model has no layers to cache.
        ScheduleError: Runs differ in length.
    """
    model = untouched(model, "learned_router.train")
    options = options or RouterOptions()
    settings = Settings(AUTO, Recording(like=LearnedRouter))
    variants, length = sample_once(model, settings, sample)
    router = Router(list(variants.plan.groups), length, options)
    if router.learner.rounds_left:
        with frozen(model), watched(model, settings, router.observe):
            router.learner.train(sample, progress)
    policy = LearnedRouter(options.threshold, router.scores())
    return Plan(policy, AUTO, fingerprint(model), {"learned_router": options.to_dict()})
