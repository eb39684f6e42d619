"""fxcache and other caches of diffusion models, measured on the same models.

Each contender is attached to a model of its own, so that all of them live in one process and can
take turns. A package that is missing, or that does not support a model, becomes a row with its
error.
"""
