"""How one model's cached values are stored and read back, all options together."""

from dataclasses import dataclass, field

from fxcache.codecs.codec import Codec, Coefficients
from fxcache.codecs.drift import DriftCoefficients, DriftCorrection
from fxcache.codecs.identity import Identity
from fxcache.codecs.scale_shift import ScaleShift
from fxcache.partition.cut import CutPlan


@dataclass(frozen=True)
class CacheFormat:
    """What ``optimize`` was asked to store, and what reuse steps do with it.

    A reuse step decodes what the codec stored, adds the drift, and scales and shifts the sum. At a
    residual cut, that is the difference that it adds to the shortcut.

    Attributes:
        codec: Stores and restores.
        drift: Moves a restored value on by how it drifted in calibration.
        scale_shift: Adjusts a restored value by the timestep.
        kernels: Whether Triton kernels read the cache where they fit.
    """

    codec: Codec = field(default_factory=Identity)
    drift: DriftCorrection | None = None
    scale_shift: ScaleShift | None = None
    kernels: bool = False

    def require_match(self, plan: CutPlan) -> None:
        """Check that the values at the points of ``plan`` can be stored and read so.

        Raises:
            CutError: The codec cannot store one of them.
            PlanError: The correction was calibrated for other points.
        """
        self.codec.require_points(plan.points)
        if self.drift:
            self.drift.require_match(plan)

    def coefficients(self, plan: CutPlan) -> Coefficients | None:
        """What computes the coefficients of each step; None where there are none."""
        return DriftCoefficients(self.drift, plan) if self.drift else self.codec.coefficients()
