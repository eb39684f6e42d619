"""Drift correction at run time: whether a call is of the kind that was calibrated."""

from fxcache.codecs.drift import DriftCorrection
from fxcache.errors import PlanError
from fxcache.runtime.features.cfg_split import equal_halves
from fxcache.runtime.features.feature import Feature
from fxcache.runtime.step_context import StepContext


class CorrectionCheck(Feature):
    """Refuses batches for which a correction was not measured."""

    def __init__(self, correction: DriftCorrection) -> None:
        self._correction = correction

    def before_step(self, step: StepContext) -> None:
        """Check that guided batches are guided, at the first two steps of a run.

        Guided halves keep having the same latents afterwards.

        Raises:
            PlanError: The correction is of the halves of guided batches, and this is none.
        """
        trajectory, latent = step.trajectory, step.original_call.latent
        if self._correction.parts < 2 or trajectory.step > 1:
            return
        trajectory.run.guidance_waits += latent.device.type != "cpu"
        if not equal_halves(latent):
            raise PlanError(
                "the correction was measured on guided batches, whose halves have the same "
                "latents; those of this batch differ",
                where=f"step {trajectory.step}",
                remedy="measure it again, with the guidance that it will be used with",
            )
