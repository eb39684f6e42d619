"""Step policies: which steps of a run refresh and which reuse. One file each; no torch here."""

from fxcache.schedule.explicit import Explicit
from fxcache.schedule.non_uniform import NonUniform
from fxcache.schedule.policy import Decision, Policy, Step
from fxcache.schedule.uniform import Uniform

__all__ = ["Decision", "Explicit", "NonUniform", "Policy", "Step", "Uniform"]
