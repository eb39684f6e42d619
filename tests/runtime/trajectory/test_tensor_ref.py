"""Tests whether a call passes the tensors of the last call."""

import gc

import pytest
import torch

from fxcache.runtime.trajectory.tensor_ref import Match, TensorRef, digest_of, same_digest


def test_a_written_tensor_is_recognised():
    x = torch.randn(2, 3)
    ref = TensorRef(x)
    assert ref.compare(x) is Match.SAME
    x.add_(1)
    assert ref.compare(x) is Match.REWRITTEN


def test_another_tensor_is_foreign_or_a_replacement():
    x = torch.randn(2, 3)
    ref, digested = TensorRef(x), TensorRef(x, digest_of(x))
    y = x.clone()
    assert ref.compare(y, digest_of(y)) is Match.FOREIGN
    del x
    gc.collect()
    assert not ref.alive
    assert ref.compare(y, digest_of(y)) is Match.REPLACED, "what it held is not known"
    assert digested.compare(y) is Match.REPLACED
    assert digested.compare(y, digest_of(y)) is Match.EQUAL
    assert digested.compare(y, digest_of(y + 1)) is Match.REPLACED


def test_new_views_are_compared_by_their_place():
    both = torch.randn(2, 3)
    ref = TensorRef(both[:1])
    gc.collect()
    assert ref.alive
    assert ref.compare(both[:1]) is Match.SAME
    assert ref.compare(both[1:]) is Match.FOREIGN
    assert ref.compare(both[:1].clone()) is Match.FOREIGN
    both.mul_(2)
    assert ref.compare(both[:1]) is Match.REWRITTEN
    other = both[0:1]
    del both, other
    gc.collect()
    assert not ref.alive


DTYPES = [
    *(torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn),
    *(torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_digests_depend_on_every_bit_and_place(dtype):
    torch.manual_seed(0)
    x = torch.randint(0, 2, (5, 7)).to(dtype)
    digest = digest_of(x)
    assert digest.shape == (1,)
    assert same_digest(digest, digest_of(x.clone()))
    assert same_digest(digest, digest_of(x.t().contiguous().t())), "in any layout"
    flat = x.reshape(-1)
    for place in range(flat.numel()):
        changed = flat.clone()
        changed[place] = 1 - int(changed[place].real)
        assert not same_digest(digest, digest_of(changed)), place
    assert not same_digest(digest, digest_of(flat[torch.arange(34, -1, -1)]))


def test_digests_of_nothing_and_of_zeros():
    assert digest_of(torch.zeros(0)).shape == (1,)
    assert not same_digest(digest_of(torch.zeros(3)), digest_of(-torch.zeros(3)))
    assert not same_digest(digest_of(torch.zeros(3, device="meta")), digest_of(torch.zeros(3)))
