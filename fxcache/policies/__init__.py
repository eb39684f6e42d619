"""Step policies: which steps of a run refresh and which reuse. One file each; no torch here."""

from fxcache.policies.block_caching import BlockCaching
from fxcache.policies.explicit import Explicit
from fxcache.policies.fastercache import FasterCache
from fxcache.policies.first_block import FirstBlock
from fxcache.policies.guidance import GuidanceCache
from fxcache.policies.learned_router import LearnedRouter
from fxcache.policies.magcache import MagCache
from fxcache.policies.non_uniform import NonUniform
from fxcache.policies.policy import Caches, Observation, Policy, Signal, Since
from fxcache.policies.protected_ends import ProtectedEnds
from fxcache.policies.scheduled import Scheduled
from fxcache.policies.smoothcache import SmoothCache
from fxcache.policies.taylorseer import TaylorSeer
from fxcache.policies.teacache import TeaCache
from fxcache.policies.uniform import Uniform

__all__ = [
    "BlockCaching",
    "Caches",
    "Explicit",
    "FasterCache",
    "FirstBlock",
    "GuidanceCache",
    "LearnedRouter",
    "MagCache",
    "NonUniform",
    "Observation",
    "Policy",
    "ProtectedEnds",
    "Scheduled",
    "Signal",
    "Since",
    "SmoothCache",
    "TaylorSeer",
    "TeaCache",
    "Uniform",
]
