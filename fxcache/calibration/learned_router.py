"""Train Learning-to-Cache's router: how much of each layer each step must compute."""

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
    look,
    quiet,
    usable,
)
from fxcache.codecs.codec import entries_of
from fxcache.errors import ScheduleError
from fxcache.partition.choose import AUTO
from fxcache.policies import LearnedRouter
from fxcache.rewrite.passes.blend import BETAS
from fxcache.runtime.features.recording import RecordedStep, first_tensor
from fxcache.runtime.module import untouched
from fxcache.runtime.record import Run
from fxcache.runtime.settings import Settings


@dataclass(frozen=True, kw_only=True)
class RouterOptions(Options):
    """``penalty``: λ, what computing one layer costs, against the squared error of the prediction.

    ``threshold``: a step computes the layers whose β exceeds it. ``start``: β before training.
    """

    learning_rate: float = 0.01
    penalty: float = 1e-4
    threshold: float = 0.5
    start: float = 0.5


class Router:
    """β of every layer at every second step, and what the step before computed."""

    def __init__(self, layers: list[str], length: int, options: RouterOptions):
        self.layers, self.length, self.options = layers, length, options
        start = torch.full((len(layers),), options.start).logit()
        logits = {str(step): nn.Parameter(start.clone()) for step in range(1, length, 2)}
        self.learner = Learner(logits, options)
        self._before: WeakKeyDictionary[Run, tuple[Tensor, ...]] = WeakKeyDictionary()

    def note(self, seen: RecordedStep) -> None:
        """Learn at an odd step what it may reuse of the even one before it."""
        if seen.step >= self.length:
            raise ScheduleError(
                f"this run has more than {self.length} steps, which the first one had",
                where="learned_router.train",
                remedy="sample with the same number of steps every time",
            )
        if seen.step % 2 == 0:
            values = (v for name in self.layers for v in seen.values[name])
            self._before[seen.run] = tuple(v.clone() for v in values)
        elif seen.run in self._before:
            with gradients():
                self.learner.update(self.loss(seen, self._before[seen.run]))

    def loss(self, seen: RecordedStep, cached: tuple[Tensor, ...]) -> Tensor:
        """Squared error of the blended prediction against the full one, and λ · Σ β."""
        betas = self.learner.parameters[str(seen.step)].sigmoid().to(seen.output.device)
        blend, stored = seen.variants.blend, entries_of(dict(enumerate(usable(cached))))
        inputs = blend.signature.bind(
            usable(seen.user_inputs), cached=stored, coefficients={BETAS: betas}
        )
        mixed = blend.module(*inputs)
        (output,) = usable((seen.output,))
        missed = mse_loss(first_tensor(mixed).float(), output.float())
        return missed + self.options.penalty * betas.sum()

    def scores(self) -> Mapping[str, tuple[float, ...]]:
        """β of each layer at each step: 1 at the steps that compute everything."""
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
    """A plan for ``model`` with the LearnedRouter that sampling with it taught.

    Learning-to-Cache (2406.01733): steps 0, 2, … compute everything. At the others each layer's
    output is β · computed + (1 − β) · that of the step before; β is trained, by layer and step, to
    miss the full model's prediction by little and to be small. The trajectory is the full model's,
    and nothing of the model changes.

    Raises StateError if the model is optimised, CutError if it has no layers to cache,
    ScheduleError where runs differ in length.
    """
    model = untouched(model, "learned_router.train")
    options = options or RouterOptions()
    settings = Settings(AUTO, Recording(like=LearnedRouter))
    variants, length = look(model, settings, sample)
    router = Router(list(variants.plan.groups), length, options)
    if router.learner.rounds_left:
        with frozen(model), watched(model, settings, router.note):
            router.learner.train(sample, progress)
    policy = LearnedRouter(options.threshold, router.scores())
    return Plan(policy, AUTO, fingerprint(model), {"learned_router": options.to_dict()})
