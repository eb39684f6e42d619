"""The gate: exact counts, ratios of times and times of an optimised model, held to a file.

``subject`` says what is measured. ``exact``, ``ratios`` and ``advisory`` measure it, ``compare``
holds the values to those of an ``expected`` file, and ``output`` shows what was found.
"""
