"""Forecasts: how cached values are extrapolated to a reuse step. One file each; no torch here."""

from fxcache.forecasts.forecast import Forecast
from fxcache.forecasts.hermite import Hermite
from fxcache.forecasts.ramp import Ramp
from fxcache.forecasts.taylor import Taylor

__all__ = ["Forecast", "Hermite", "Ramp", "Taylor"]
