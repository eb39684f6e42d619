"""The errors of fxcache. Each says what happened, where, and the remedy."""

from functools import partial
from typing import Any, ClassVar


class FxcacheError(Exception):
    """Base of all errors that fxcache raises.

    Args:
        what: What happened.
        remedy: A remedy.
        where: Where it happened; empty if that is clear.

    Attributes:
        code: Identifies the kind of error. It stays the same across versions.
    """

    code: ClassVar[str] = "FXC000"

    def __init__(self, what: str, *, remedy: str, where: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        lines = [f"[{self.code}] {what}"]
        if where:
            lines.append(f"  where: {where}")
        lines.append(f"  remedy: {remedy}")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[Any, ...]:
        """Let other processes receive the error."""
        return partial(type(self), self.what, where=self.where, remedy=self.remedy), ()


class ConfigError(FxcacheError, ValueError):
    """An option has a value that it cannot have, or does not exist."""

    code = "FXC001"


class StateError(FxcacheError, RuntimeError):
    """The module is not optimised, contains an optimised one, or has a session open already."""

    code = "FXC002"


class ModeError(FxcacheError, RuntimeError):
    """The module is in train mode, or gradients are wanted: caching is for inference."""

    code = "FXC003"


class CaptureError(FxcacheError, RuntimeError):
    """torch.export could not capture the module, or the graph cannot be rewritten."""

    code = "FXC004"


class NotADenoiserError(FxcacheError, ValueError):
    """The module does not turn a latent into a prediction."""

    code = "FXC005"


class CutError(FxcacheError, ValueError):
    """The cut does not exist, saves nothing, or cuts the latent off from the output."""

    code = "FXC006"


class ScheduleError(FxcacheError, RuntimeError):
    """The run has another length than the policy was calibrated for, or an unknown length."""

    code = "FXC007"


class UnknownLengthError(ScheduleError):
    """The policy needs the number of calls of the run, which is unknown."""


class ModelFileError(FxcacheError, OSError):
    """A file or folder cannot be read or written: a plan, a pipeline, a report or a picture."""

    code = "FXC008"


class RewriteError(FxcacheError, AssertionError):
    """A rewritten graph breaks an invariant. This is a defect of fxcache: please report it."""

    code = "FXC009"


class PlanError(FxcacheError, ValueError):
    """A plan was made for another model, or the file holds no plan."""

    code = "FXC010"


class ArtifactError(FxcacheError, ValueError):
    """An artifact is damaged, or a model cannot be exported to one, or the call is not in it."""

    code = "FXC011"


class FxcacheWarning(UserWarning):
    """fxcache works, but saves less or keeps results less close than requested.

    The text says which, why, and what to do.
    """
