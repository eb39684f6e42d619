"""Small models of packages that are not diffusers, in the packages' own sampling loops.

``python -m bench.foreign`` checks all that are installed; ``make compatibility`` makes an
environment for them. A package that cannot be imported becomes a row with its error.
"""
