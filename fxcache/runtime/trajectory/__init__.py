"""Which trajectory a call belongs to, and which step of it.

``position`` reads where a call stands in its run; ``tensor_ref``, ``inputs`` and ``latent`` compare
its tensors with those of earlier calls. ``attribution`` decides from these comparisons alone whose
call it is, and ``state`` which step of the run: both are pure functions. ``trajectory`` holds what
one trajectory keeps; ``store`` holds all trajectories of a module.
"""
