"""fxcache: a compiler pass that makes diffusion models faster without retraining."""

import logging

from fxcache.api import calibrate, frontier, optimize, report, restore, session
from fxcache.calibration.plan import Plan
from fxcache.errors import (
    CaptureError,
    ConfigError,
    CutError,
    FxcacheError,
    FxcacheWarning,
    ModeError,
    ModelFileError,
    NotADenoiserError,
    PlanError,
    RewriteError,
    ScheduleError,
    StateError,
)
from fxcache.partition.cut import Cut
from fxcache.report.report import Report
from fxcache.runtime.session import Session
from fxcache.schedule import (
    BlockCaching,
    Explicit,
    FasterCache,
    FirstBlock,
    GuidanceCache,
    LearnedRouter,
    MagCache,
    NonUniform,
    Policy,
    Scheduled,
    SmoothCache,
    Taylor,
    TeaCache,
    Uniform,
)

__all__ = [
    "BlockCaching",
    "CaptureError",
    "ConfigError",
    "Cut",
    "CutError",
    "Explicit",
    "FasterCache",
    "FirstBlock",
    "FxcacheError",
    "FxcacheWarning",
    "GuidanceCache",
    "LearnedRouter",
    "MagCache",
    "ModeError",
    "ModelFileError",
    "NonUniform",
    "NotADenoiserError",
    "Plan",
    "PlanError",
    "Policy",
    "Report",
    "RewriteError",
    "ScheduleError",
    "Scheduled",
    "Session",
    "SmoothCache",
    "StateError",
    "Taylor",
    "TeaCache",
    "Uniform",
    "calibrate",
    "frontier",
    "optimize",
    "report",
    "restore",
    "session",
]

logging.getLogger("fxcache").addHandler(logging.NullHandler())
