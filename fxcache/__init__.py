"""fxcache: a compiler pass that makes diffusion models faster without retraining."""

import logging

from fxcache.api import clear, optimize, report, restore, session
from fxcache.calibration.plan import Plan
from fxcache.capture.config import CaptureConfig
from fxcache.config import CacheConfig
from fxcache.deploy.compile import compile_artifact
from fxcache.deploy.export import export
from fxcache.deploy.load import load
from fxcache.deploy.onnx.export import export_onnx
from fxcache.deploy.signatures import sign
from fxcache.deploy.step_table import StepTable, step_table
from fxcache.errors import (
    ArtifactError,
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
from fxcache.forecasts import Forecast, Hermite, Ramp, Taylor
from fxcache.partition.cut import Cut
from fxcache.planning import calibrate, list_cuts
from fxcache.policies import (
    BlockCaching,
    Explicit,
    FasterCache,
    FirstBlock,
    GuidanceCache,
    LearnedRouter,
    MagCache,
    NonUniform,
    Observation,
    Policy,
    ProtectedEnds,
    Scheduled,
    Signal,
    Since,
    SmoothCache,
    TaylorSeer,
    TeaCache,
    Uniform,
)
from fxcache.report.pipeline import PipelineReport
from fxcache.report.report import Report
from fxcache.runtime.session import Session
from fxcache.step import Decision, Step

__all__ = [
    "ArtifactError",
    "BlockCaching",
    "CacheConfig",
    "CaptureConfig",
    "CaptureError",
    "ConfigError",
    "Cut",
    "CutError",
    "Decision",
    "Explicit",
    "FasterCache",
    "FirstBlock",
    "Forecast",
    "FxcacheError",
    "FxcacheWarning",
    "GuidanceCache",
    "Hermite",
    "LearnedRouter",
    "MagCache",
    "ModeError",
    "ModelFileError",
    "NonUniform",
    "NotADenoiserError",
    "Observation",
    "PipelineReport",
    "Plan",
    "PlanError",
    "Policy",
    "ProtectedEnds",
    "Ramp",
    "Report",
    "RewriteError",
    "ScheduleError",
    "Scheduled",
    "Session",
    "Signal",
    "Since",
    "SmoothCache",
    "StateError",
    "Step",
    "StepTable",
    "Taylor",
    "TaylorSeer",
    "TeaCache",
    "Uniform",
    "calibrate",
    "clear",
    "compile_artifact",
    "export",
    "export_onnx",
    "list_cuts",
    "load",
    "optimize",
    "report",
    "restore",
    "session",
    "sign",
    "step_table",
]

logging.getLogger("fxcache").addHandler(logging.NullHandler())
