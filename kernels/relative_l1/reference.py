"""The reference in plain PyTorch. It is the oracle of the tests, and runs on the CPU."""

from torch import Tensor


def relative_l1(now: Tensor, then: Tensor) -> Tensor:
    """Return ``‖now − then‖₁ / ‖then‖₁`` as a 0-dim float32 tensor."""
    now, then = now.float(), then.float()
    return (now - then).abs().mean() / then.abs().mean()
