"""A small class-conditional DiT on the latents of :mod:`bench.emoji_sd`.

``python -m bench.emoji_dit --help`` trains, exports and samples it.
"""
