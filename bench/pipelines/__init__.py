"""Small pipelines of every class of diffusers that calls a denoiser at least four times.

A recipe says how to build one and how to call it; ``python -m bench.pipelines`` checks all.
"""
