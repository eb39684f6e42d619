"""Tests functions under ``torch.vmap``, which build masks, in both attempts of a capture."""

import torch
from torch import Tensor

from tests.capture.prepared import assert_exact


def mask(x: Tensor) -> Tensor:
    def of_row(row: Tensor) -> Tensor:
        near = torch.vmap(lambda column: (row - column).abs() < 3)(torch.arange(4))
        return torch.zeros(4).index_put((row % 4,), torch.ones(())) + near

    return x * torch.vmap(of_row)(torch.arange(x.shape[1]))


def test_a_mask():
    assert_exact(lambda x, t: mask(x))


def test_a_mask_beside_values_that_are_read():
    assert_exact(lambda x, t: mask(x) * int(torch.arange(4).max()))
