"""Artifacts: folders that hold a model's graphs and weights, and run without the model's code."""
