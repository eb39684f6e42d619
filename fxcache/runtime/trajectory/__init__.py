"""Attributes each call to a trajectory, and to a step of it.

``position`` reads the position of a call in its run. ``tensor_ref``, ``inputs`` and ``latent``
compare the tensors of a call with those of earlier calls. From these comparisons, ``attribution``
finds the trajectory of a call, and ``state`` its step: both are pure functions. ``trajectory``
holds the data of one trajectory, and ``store`` holds all trajectories of a module.
"""
