"""Serves many requests at once: steps of different requests share calls of the model."""

from fxcache.serving.batcher import Batcher
from fxcache.serving.request import Request
from fxcache.serving.statistics import Statistics

__all__ = ["Batcher", "Request", "Statistics"]
