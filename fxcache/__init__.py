"""fxcache: a compiler pass that makes diffusion models faster without retraining."""

import logging

from fxcache.api import frontier, optimize, report, restore, session
from fxcache.errors import (
    CaptureError,
    ConfigError,
    CutError,
    FxcacheError,
    FxcacheWarning,
    ModeError,
    ModelFileError,
    NotADenoiserError,
    RewriteError,
    ScheduleError,
    StateError,
)
from fxcache.partition.cut import Cut
from fxcache.report.report import Report
from fxcache.runtime.session import Session
from fxcache.schedule import Explicit, NonUniform, Policy, Uniform

__all__ = [
    "CaptureError",
    "ConfigError",
    "Cut",
    "CutError",
    "Explicit",
    "FxcacheError",
    "FxcacheWarning",
    "ModeError",
    "ModelFileError",
    "NonUniform",
    "NotADenoiserError",
    "Policy",
    "Report",
    "RewriteError",
    "ScheduleError",
    "Session",
    "StateError",
    "Uniform",
    "frontier",
    "optimize",
    "report",
    "restore",
    "session",
]

logging.getLogger("fxcache").addHandler(logging.NullHandler())
