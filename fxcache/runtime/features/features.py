"""Makes the optional features that a module's settings ask for, in their order."""

from fxcache.analysis.hoisting import HoistLevel
from fxcache.runtime.captures import Captures
from fxcache.runtime.features.correction import CorrectionCheck
from fxcache.runtime.features.feature import Feature
from fxcache.runtime.features.guidance import Guidance
from fxcache.runtime.features.hoisting import Hoisting
from fxcache.runtime.features.observation import Observe
from fxcache.runtime.notices import Notices
from fxcache.runtime.settings import Settings
from fxcache.signature import Signature


def features_of(
    settings: Settings, signature: Signature, captures: Captures, notices: Notices
) -> tuple[Feature, ...]:
    """Return the features in the order in which the engine calls them."""
    features: list[Feature] = []
    if settings.guidance:
        features.append(Guidance(settings.guidance, signature, captures, notices))
    if settings.correction:
        features.append(CorrectionCheck(settings.correction))
    if settings.hoist is not HoistLevel.NOTHING:
        features.append(Hoisting(settings, captures, notices))
    if observation := settings.policy.observes:
        features.append(Observe(observation, captures.offload, settings.cache.kernels))
    return tuple(features)
