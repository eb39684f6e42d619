"""A small Stable Diffusion of our own, trained on the Noto Color Emoji bitmaps.

``python -m bench.emoji_sd --help`` trains, exports and samples it.
"""
