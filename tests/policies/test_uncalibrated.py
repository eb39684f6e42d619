"""A policy that works by measurements of a model says so if it has none."""

import pytest

import fxcache
from fxcache.errors import ConfigError, FxcacheWarning
from tests import tiny


@pytest.mark.parametrize("kind", ["MagCache", "BlockCaching", "SmoothCache"])
def test_policies_that_cannot_work_without_are_errors(kind):
    with pytest.raises(ConfigError, match=rf"{kind} has no .*\n.*\n.*fxcache calibrate"):
        getattr(fxcache, kind)()


def test_teacache_without_coefficients_warns_where_optimize_is_called():
    with pytest.warns(FxcacheWarning, match=r"TeaCache has no coefficients.*calibrate") as warned:
        unet = fxcache.optimize(tiny.small_unet(), fxcache.TeaCache(0.2))
    assert [w.filename for w in warned] == [__file__]
    assert "TeaCache has no coefficients" in str(fxcache.report(unet))


def test_teacache_with_coefficients_does_not_warn():
    policies = (fxcache.TeaCache.published("flux"), fxcache.TeaCache(0.2, (1.0, 0.0)))
    for policy in policies:
        fxcache.optimize(tiny.small_unet(), policy)
