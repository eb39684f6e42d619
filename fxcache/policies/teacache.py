"""TeaCache: refresh once the estimated change of the output has added up."""

import math
from dataclasses import dataclass, field
from typing import Literal, Self

from fxcache.checks import require_number, require_numbers
from fxcache.errors import ConfigError
from fxcache.policies.policy import Observation, Policy, Signal, Since
from fxcache.step import Decision, Step

SIGNALS = {
    "auto": (Signal.MODULATED_INPUT, Signal.TIMESTEP_EMBEDDING),
    "modulated_input": (Signal.MODULATED_INPUT,),
    "timestep_embedding": (Signal.TIMESTEP_EMBEDDING,),
}

IDENTITY = (1.0, 0.0)  # the coefficients of p(change) = change

# Fitted by TeaCache's authors, highest power first, from https://github.com/ali-vilab/TeaCache:
# for each model, what it observes and the polynomial. Always two steps first and last for Wan.
PUBLISHED: dict[str, tuple[str, tuple[float, ...]]] = {
    "flux": (
        "modulated_input",
        (498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861),
    ),
    "hunyuan-video": (
        "modulated_input",
        (733.226126, -401.131952, 67.5869174, -3.149878, 0.0961237896),
    ),
    "ltx-video": (
        "modulated_input",
        (21.4700694, -12.8016453, 2.31279151, 0.792487521, 0.00969274326),
    ),
    "mochi": (
        "modulated_input",
        (-3512.41319, 811.675948, -60.9400215, 2.42429681, 0.00305291719),
    ),
    "cogvideox-2b": (
        "timestep_embedding",
        (-31.0658903, 25.4732368, -5.92380459, 1.75769064, -0.00361568434),
    ),
    "cogvideox-5b": (
        "timestep_embedding",
        (-1538.80483, 843.202495, -134.363087, 7.97131516, -0.0523162339),
    ),
    "cogvideox1.5-5b": (
        "timestep_embedding",
        (250.210439, -165.061612, 35.7804877, -0.781551492, 0.0358559703),
    ),
    "wan2.1-t2v-1.3b": (
        "timestep_embedding",
        (-52186.2437, 9230.41404, -528.275948, 13.6987616, -0.0499875664),
    ),
    "wan2.1-t2v-14b": (
        "timestep_embedding",
        (-303318.725, 49053.7029, -2655.30556, 58.7365115, -0.315583525),
    ),
    "wan2.1-i2v-14b-480p": (
        "timestep_embedding",
        (257151.496, -35422.9917, 1402.86849, -13.5890334, 0.132517977),
    ),
    "wan2.1-i2v-14b-720p": (
        "timestep_embedding",
        (8107.0546, 2133.93892, -372.934672, 16.6203073, -0.0417769401),
    ),
}


@dataclass(frozen=True)
class TeaCache(Policy):
    """Reuse while the estimated change of the output since the last refresh is small.

    TeaCache (arXiv 2411.19108, equations 4, 6 and 7). With a the last step that refreshed, step s
    reuses if

        Σ_{t=a+1…s} max(0, p(‖m_t − m_{t−1}‖₁ / ‖m_{t−1}‖₁)) < threshold

    where m_t is a signal of step t, and p is a polynomial that was fitted to the model. The first
    and the last step refresh. The policy must know how many steps the run has, unless ``last=0``.
    If the signal depends on more than the timestep, every step reads one number from the device.

    Args:
        threshold: The bound on the estimated change, 0 or more.
        coefficients: The coefficients of p, highest power first. From ``fxcache.calibrate`` or
            ``TeaCache.published``. Without any, p(change) is the change, and ``optimize`` warns.
        signal: ``"modulated_input"``, the first block's input after its modulation;
            ``"timestep_embedding"``, as published for Wan and CogVideoX; or ``"auto"``, the former
            if the model has it.
        last: How many last steps refresh.

    Raises:
        ConfigError: An option has a value that it cannot have.
    """

    threshold: float = 0.25
    coefficients: tuple[float, ...] = ()
    signal: Literal["auto", "modulated_input", "timestep_embedding"] = "auto"
    last: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number(self, "threshold", least=0)
        require_numbers(self, "coefficients", least=0)
        if self.signal not in SIGNALS:
            raise ConfigError(
                f"there is no signal named {self.signal!r}",
                where="TeaCache",
                remedy=f"use one of: {', '.join(SIGNALS)}",
            )

    @classmethod
    def published(cls, model: str, threshold: float = 0.25) -> Self:
        """Make a policy with the coefficients that TeaCache's authors fitted to a model.

        Args:
            model: One of ``"flux"``, ``"hunyuan-video"``, ``"ltx-video"``, ``"mochi"``,
                ``"cogvideox-2b"``, ``"cogvideox-5b"``, ``"cogvideox1.5-5b"``,
                ``"wan2.1-t2v-1.3b"``, ``"wan2.1-t2v-14b"``, ``"wan2.1-i2v-14b-480p"`` and
                ``"wan2.1-i2v-14b-720p"``.
            threshold: The bound on the estimated change, 0 or more.

        Returns:
            The policy. For Wan, the first two and the last two steps refresh.

        Raises:
            ConfigError: No coefficients were published for this model.
        """
        if model not in PUBLISHED:
            raise ConfigError(
                f"no coefficients were published for {model!r}",
                where="TeaCache.published",
                remedy=f"use one of: {', '.join(PUBLISHED)}; or fit your own: fxcache calibrate",
            )
        signal, coefficients = PUBLISHED[model]
        ends = 2 if model.startswith("wan") else 1
        return cls(threshold, coefficients, signal, first=ends, last=ends)  # type: ignore[arg-type]

    @property
    def uncalibrated(self) -> str | None:
        """The coefficients, if there are none."""
        return None if self.coefficients else "coefficients"

    @property
    def observes(self) -> Observation:
        """The signal, compared with the step before."""
        return Observation(SIGNALS[self.signal], Since.STEP)

    def scheduled(self, step: Step) -> Decision:
        """Refresh if the estimated changes since the last refresh reach the threshold."""
        estimated = sum(self.estimate(change) for change in step.changes)
        return Decision(not estimated < self.threshold, "estimated change")

    def estimate(self, change: float) -> float:
        """Estimate how much the output changes at one step.

        Args:
            change: The relative L1 change of the signal.

        Returns:
            p(change), at least 0. NaN if ``change`` or p(change) is not finite.
        """
        value = 0.0
        for coefficient in self.coefficients or IDENTITY:
            value = value * change + coefficient
        return max(value, 0.0) if math.isfinite(value) else math.nan
