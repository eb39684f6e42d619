"""Tests that consecutive latents are distinguished from unrelated ones."""

import math

import pytest
import torch

from fxcache.runtime.trajectory.latent import SAMPLE, UNLIKE, Likeness, likenesses, sample_of


def compared(first: torch.Tensor, second: torch.Tensor):
    return likenesses([sample_of(first)], sample_of(second))[0]


@pytest.mark.parametrize("shape", [(1, 4, 64, 64), (3, 7), (1, 16, 21, 60, 104), (5,), (1025,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_cosine_of_a_sample_equals_that_of_the_latent(shape, dtype):
    torch.manual_seed(0)
    x = torch.randn(shape)
    y = 0.8 * x + 0.6 * torch.randn(shape)
    expected = float(torch.cosine_similarity(x.flatten(), y.flatten(), dim=0))
    found = compared(x.to(dtype), y.to(dtype))
    assert found.elements <= SAMPLE
    assert abs(found.cosine - expected) < (0.1 if x.numel() > SAMPLE else 0.01)


def test_samples_cover_the_whole_latent_in_any_layout():
    x = torch.arange(8192.0).reshape(2, 4, 32, 32)
    assert sample_of(x).numel() == SAMPLE
    assert sample_of(x).min() == 0
    assert sample_of(x).max() >= 8192 - 16
    laid_out = x.to(memory_format=torch.channels_last)
    assert torch.equal(sample_of(laid_out), sample_of(x)), "the same elements"
    assert torch.equal(sample_of(x.expand(2, 4, 32, 32)), sample_of(x))


def test_a_sample_is_a_copy():
    x = torch.randn(4, 4)
    kept = sample_of(x)
    x.zero_()
    assert kept.abs().sum() > 0


def test_constant_elements_do_not_count():
    torch.manual_seed(0)
    image, x, other = torch.randn(3, 1, 4, 8, 8).unbind()
    mine = torch.cat([x, 100 * image], 1)
    found = compared(mine, torch.cat([other, 100 * image], 1))
    assert abs(found.cosine) < 0.3, "the picture that both requests edit is no likeness"
    assert found.elements == 256
    assert compared(mine, torch.cat([0.99 * x, 100 * image], 1)).cosine == pytest.approx(1)


def test_the_same_latent():
    x = torch.randn(4, 4)
    assert compared(x, x.clone()) == Likeness(1.0, 0)
    assert compared(x, x.clone()).identical
    assert not compared(x, x + 1e-6).identical


def test_several_candidates_are_compared_at_once():
    x = torch.randn(64)
    found = likenesses([x, torch.zeros(64), -x, torch.randn(63), x.double()], x)
    assert [round(f.cosine, 4) for f in found[:3]] == [1, 0, -1]
    assert found[3] == found[4] == UNLIKE, "of another size, of another dtype"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_is_never_alike(bad):
    x = torch.randn(64)
    y = x.clone()
    y[3] = bad
    assert not compared(x, y).cosine > 0.5
