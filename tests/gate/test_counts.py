"""Tests single counts: bytes, operators, reads by the host, and the quality of results."""

import math

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import fxcache
from fxcache.analysis.traffic import bytes_moved
from fxcache.gate.exact.graphs import operators_of
from fxcache.gate.exact.quality import EQUAL_DB, quality_of
from fxcache.gate.exact.runs import HostReads


class Small(nn.Module):
    """A view, which moves nothing, a product, an activation, and an operator with two results."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        product = torch.relu(x.view(4, 8) @ weight)
        values, indices = product.max(dim=1)
        return values * indices


@pytest.fixture(scope="module")
def graph() -> torch.fx.Graph:
    given = (torch.ones(32), torch.ones(8, 2))
    return torch.export.export(Small(), given).graph


def test_each_operator_reads_its_inputs_and_writes_its_results(graph):
    product = 4 * (32 + 16 + 8)
    relu = 4 * (8 + 8)
    maximum = 4 * 8 + (4 * 4 + 8 * 4)  # values in float32, indices in int64
    scaled = (4 * 4 + 8 * 4) + 4 * 4
    assert bytes_moved(graph) == product + relu + maximum + scaled


def test_operators_are_counted_by_name(graph):
    assert operators_of(graph) == {
        "aten.matmul.default": 1,
        "aten.max.dim": 1,
        "aten.mul.Tensor": 1,
        "aten.relu.default": 1,
        "aten.view.default": 1,
        "getitem": 2,
    }


def test_reads_by_the_host_are_counted():
    x = torch.ones(3)
    with HostReads() as reads:
        x.sum().item()
        assert bool(x[0] > 0)
        torch.equal(x, x)
        x + 1
    assert reads.by_operator == {"aten._local_scalar_dense.default": 2, "aten.equal.default": 1}


def test_the_quality_of_tensors_refers_to_the_range_of_the_original():
    original = torch.tensor([0.0, 4.0, 2.0, 2.0])
    found = quality_of(original, original + 0.04)
    assert found == {"psnr_db": pytest.approx(20 * math.log10(4 / 0.04), abs=0.01)}
    assert quality_of(original, original) == {"psnr_db": EQUAL_DB}
    assert quality_of(torch.ones(2), torch.zeros(2)) == {"psnr_db": 0.0}


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_results_that_are_not_finite_have_no_quality(wrong):
    assert quality_of(torch.ones(2), torch.tensor([1.0, wrong])) == {"psnr_db": 0.0}
    with pytest.raises(fxcache.ConfigError, match="is not finite"):
        quality_of(torch.tensor([1.0, wrong]), torch.ones(2))


def test_images_have_an_ssim():
    image = Image.effect_noise((32, 32), 50)
    assert quality_of([image], [image]) == {"psnr_db": EQUAL_DB, "ssim": 1.0}


def test_results_of_another_kind_are_refused():
    with pytest.raises(fxcache.ConfigError, match="has no known quality"):
        quality_of({"a": 1}, {"a": 1})
