"""The format of one model's cached values: codec, correction and adjustment."""

from dataclasses import dataclass, field

from fxcache.codecs.codec import Codec, Coefficients
from fxcache.codecs.drift import DriftCoefficients, DriftCorrection
from fxcache.codecs.identity import Identity
from fxcache.codecs.scale_shift import ScaleShift
from fxcache.errors import CutError
from fxcache.partition.cut import CutPlan


@dataclass(frozen=True)
class CacheFormat:
    """How cached values are stored, and how reuse steps read them.

    A reuse step decodes the stored tensors, adds the drift, and scales and shifts the sum. At a
    residual cut, the result is the difference that it adds to the shortcut.

    Attributes:
        codec: Stores values and decodes them.
        drift: The drift that is added to decoded values; None for none.
        scale_shift: The adjustment of decoded values by the timestep; None for none.
        kernels: Whether Triton kernels read the cache where they can.
    """

    codec: Codec = field(default_factory=Identity)
    drift: DriftCorrection | None = None
    scale_shift: ScaleShift | None = None
    kernels: bool = False

    def require_match(self, plan: CutPlan) -> None:
        """Check that the values at the points of ``plan`` can be stored in this format.

        Raises:
            CutError: The codec cannot store one of the values, or predicts an iterate.
            PlanError: The correction was calibrated for other points.
        """
        self.codec.require_points(plan.points)
        predicts = self.drift or self.scale_shift or self.codec.coefficients()
        if predicts and any(point.start for point in plan.points):
            raise CutError(
                "a warm start begins at the last solution itself, not at a prediction of it",
                where=f"cut={plan.cut.name!r}",
                remedy="leave out the forecast, correction or adjustment of cached values",
            )
        if self.drift:
            self.drift.require_match(plan)

    def coefficients(self, plan: CutPlan) -> Coefficients | None:
        """Return an object that computes the coefficients; None if there are none."""
        return DriftCoefficients(self.drift, plan) if self.drift else self.codec.coefficients()
