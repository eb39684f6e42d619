"""Tests functions under ``torch.vmap``, which build masks, in both attempts of a capture."""

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask

from tests.capture.prepared import assert_exact


def mask(x: Tensor) -> Tensor:
    def of_row(row: Tensor) -> Tensor:
        near = torch.vmap(lambda column: (row - column).abs() < 3)(torch.arange(4))
        return torch.zeros(4).index_put((row % 4,), torch.ones(())) + near

    return x * torch.vmap(of_row)(torch.arange(x.shape[1]))


def written_mask(x: Tensor) -> Tensor:
    """Write to tensors of its own inside vmap, as ``create_block_mask`` does."""

    def of_row(row: Tensor) -> Tensor:
        found = row.new_zeros(4)
        found[row % 4] = 1
        return found * torch.tensor([2]) + row // 3

    return x * torch.vmap(of_row)(torch.arange(x.shape[1]))


def block_mask(x: Tensor) -> Tensor:
    found = create_block_mask(lambda b, h, q, k: q // 3 >= k // 3, None, None, 256, 256, "cpu")
    return x * found.kv_num_blocks.sum() + found.kv_indices.float().mean()


def test_a_mask():
    assert_exact(lambda x, t: mask(x))


def test_a_mask_beside_values_that_are_read():
    assert_exact(lambda x, t: mask(x) * int(torch.arange(4).max()))


@pytest.mark.parametrize("mask", [written_mask, block_mask])
def test_masks_that_are_written_in_place(mask):
    assert_exact(lambda x, t: mask(x))
    assert_exact(lambda x, t: mask(x) * int(torch.arange(4).max()))
