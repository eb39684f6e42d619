"""Public reports of trouble with caches in diffusion models, each tried with fxcache.

``python -m bench.reports`` tries them all.
"""
