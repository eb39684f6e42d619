"""fxcache: a compiler pass that makes diffusion models faster without retraining."""

import logging

from fxcache.api import calibrate, clear, frontier, optimize, report, restore, session
from fxcache.calibration.plan import Plan
from fxcache.config import CacheConfig, CaptureConfig
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
from fxcache.report.pipeline import PipelineReport
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
    "CacheConfig",
    "CaptureConfig",
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
    "PipelineReport",
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
    "clear",
    "frontier",
    "optimize",
    "report",
    "restore",
    "session",
]

logging.getLogger("fxcache").addHandler(logging.NullHandler())
