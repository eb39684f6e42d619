"""Compares with the documented bound and with the reference."""

from types import ModuleType

import pytest
import torch
from torch import Tensor

from fxcache.codecs.quantized_rows import QuantizedRows
from fxcache.kernels.quantize_rows import reference
from tests.kernels.comparing import DTYPES, Ran

pytestmark = [
    pytest.mark.usefixtures("poisoned"),
    pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning"),
]


@pytest.fixture(scope="session")
def launch(device: str) -> ModuleType:
    from fxcache.kernels.quantize_rows import launch as found

    return found


def drawn(shape: tuple[int, int], dtype: torch.dtype, device: str) -> Tensor:
    torch.manual_seed(0)
    return (torch.randn(shape) * torch.logspace(-3, 3, shape[0])[:, None]).to(device, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 16), (1, 1), (5, 100), (2, 9000), (0, 8)])
def test_the_error_is_within_the_bound(launch, device, dtype, shape):
    rows, ran = drawn(shape, dtype, device), Ran()
    steps, scales = launch.quantize_rows(rows, torch.int8, ran)
    assert ran.names == ["quantize_kernel"] * bool(rows.numel())
    assert (steps.dtype, scales.dtype) == (torch.int8, torch.float32)
    expected = reference.quantize_rows(rows, torch.int8)
    torch.testing.assert_close(scales, expected[1], rtol=1e-6, atol=0)
    assert ((steps.int() - expected[0].int()).abs() <= 1).all()
    exact = rows.double()
    if rows.numel():
        bound = exact.abs().amax(-1, keepdim=True) / 254 * (1 + 1e-5)
        assert ((steps.double() * scales - exact).abs() <= bound).all()


def test_any_strides(launch, device):
    rows = drawn((6, 10), torch.float32, device)
    for laid_out in (rows.mT.contiguous().mT, torch.cat([rows, rows], 1)[:, :10], rows[::2]):
        steps, scales = launch.quantize_rows(laid_out, torch.int8)
        expected = reference.quantize_rows(laid_out, torch.int8)
        torch.testing.assert_close(scales, expected[1])
        assert torch.equal(steps, expected[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 16), (1, 1), (5, 100), (2, 9000), (0, 8)])
def test_float8_equals_pytorchs(launch, device, dtype, shape):
    """The bits are equal if division is exact. On a GPU it may differ by a rounding."""
    rows = drawn(shape, dtype, device)
    steps, scales = launch.quantize_rows(rows, torch.float8_e4m3fn)
    expected = reference.quantize_rows(rows, torch.float8_e4m3fn)
    torch.testing.assert_close(scales, expected[1], rtol=1e-6, atol=0)
    codes, like = (found.view(torch.uint8).int() for found in (steps, expected[0]))
    assert (steps.dtype, steps.shape) == (torch.float8_e4m3fn, shape)
    assert ((codes - like).abs() <= (0 if device == "cpu" else 1)).all()


def test_every_float8_and_every_midpoint_is_exact(launch, device):
    """The row has ties and subnormal values. Its largest value is 448, so its scale is 1."""
    codes = torch.arange(0x7F, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    between = torch.cat([codes, (codes[1:] + codes[:-1]) / 2, (codes[1:] + 3 * codes[:-1]) / 4])
    rows = torch.cat([between, -between])[None].to(device)
    steps, scales = launch.quantize_rows(rows, torch.float8_e4m3fn)
    assert scales.item() == 1
    assert torch.equal(steps.view(torch.uint8), rows.to(torch.float8_e4m3fn).view(torch.uint8))


@pytest.mark.parametrize("kept_as", [torch.int8, torch.float8_e4m3fn], ids=str)
def test_rows_of_subnormal_numbers_are_exact(launch, device, kept_as):
    rows = torch.full((2, 8), 1e-44, device=device)
    rows[0, 3] = 0
    for steps, scales in (
        launch.quantize_rows(rows, kept_as),
        reference.quantize_rows(rows, kept_as),
        QuantizedRows(kept_as).quantize(rows[None]),
    ):
        assert (steps.float() * scales).abs().max() <= 2e-44


@pytest.mark.parametrize("kept_as", [torch.int8, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_rows_of_zeros_and_of_nan_are_restored(launch, device, broken, kept_as):
    rows = torch.ones(3, 8, device=device)
    rows[0], rows[1, 3] = 0, broken
    steps, scales = launch.quantize_rows(rows, kept_as)
    assert torch.equal(steps[0].float() * scales[0], rows[0])
    assert scales[1].isnan()
    assert torch.equal(steps[2].float() * scales[2], rows[2])
