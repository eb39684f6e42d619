"""Serves many requests at once: steps of different requests share calls of the model."""

from fxcache.serving.batcher import Batcher
from fxcache.serving.pipelines import BatchedPipeline, rows_of
from fxcache.serving.request import Request
from fxcache.serving.statistics import Statistics

__all__ = ["BatchedPipeline", "Batcher", "Request", "Statistics", "rows_of"]
