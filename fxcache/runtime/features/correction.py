"""Checks that a drift correction was measured for the kind of batch that it is used on."""

from fxcache.codecs.drift import DriftCorrection
from fxcache.errors import PlanError
from fxcache.runtime.features.cfg_split import equal_halves
from fxcache.runtime.features.feature import Feature
from fxcache.runtime.record import is_asynchronous
from fxcache.runtime.step_context import StepContext


class CorrectionCheck(Feature):
    """Refuses kinds of batches for which the correction was not measured."""

    def __init__(self, correction: DriftCorrection) -> None:
        self._correction = correction

    def before_step(self, step: StepContext) -> None:
        """Check at the first two steps of a run that both halves have the same latents.

        The halves of a guided batch then keep the same latents.

        Raises:
            PlanError: The correction is for guided batches, and this batch is not guided.
        """
        trajectory, latent = step.trajectory, step.original_call.latent
        if self._correction.parts < 2 or trajectory.step > 1:
            return
        trajectory.run.guidance_waits += is_asynchronous(latent.device)
        if not equal_halves(latent):
            raise PlanError(
                "the correction was measured on guided batches, whose halves have the same "
                "latents, but the halves of this batch differ",
                where=f"step {trajectory.step}",
                remedy="measure it again with the guidance that you use",
            )
