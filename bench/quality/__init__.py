"""Compares the quality and the speed of all policies on the bundled models.

``python -m bench.quality`` runs the measurement. ``classifier`` computes the features for the
Fréchet distance.
"""
