"""The same in plain PyTorch: the oracle of the tests, and what runs on the CPU."""

from torch import Tensor


def relative_l1(now: Tensor, then: Tensor) -> Tensor:
    """``‖now − then‖₁ / ‖then‖₁`` in float32, no dimensions."""
    now, then = now.float(), then.float()
    return (now - then).abs().mean() / then.abs().mean()
