"""Step policies: which steps of a run refresh and which reuse. One file each; no torch here."""

from fxcache.schedule.block_caching import BlockCaching
from fxcache.schedule.explicit import Explicit
from fxcache.schedule.fastercache import FasterCache
from fxcache.schedule.first_block import FirstBlock
from fxcache.schedule.guidance import GuidanceCache
from fxcache.schedule.learned_router import LearnedRouter
from fxcache.schedule.magcache import MagCache
from fxcache.schedule.non_uniform import NonUniform
from fxcache.schedule.policy import Caches, Decision, Observation, Policy, Signal, Since, Step
from fxcache.schedule.scheduled import Scheduled
from fxcache.schedule.smoothcache import SmoothCache
from fxcache.schedule.taylor import Taylor
from fxcache.schedule.teacache import TeaCache
from fxcache.schedule.uniform import Uniform

__all__ = [
    "BlockCaching",
    "Caches",
    "Decision",
    "Explicit",
    "FasterCache",
    "FirstBlock",
    "GuidanceCache",
    "LearnedRouter",
    "MagCache",
    "NonUniform",
    "Observation",
    "Policy",
    "Scheduled",
    "Signal",
    "Since",
    "SmoothCache",
    "Step",
    "Taylor",
    "TeaCache",
    "Uniform",
]
