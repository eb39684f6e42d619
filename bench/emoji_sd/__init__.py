"""A small Stable Diffusion model, trained on the bitmaps of Noto Color Emoji.

``python -m bench.emoji_sd --help`` trains, exports and samples it.
"""
