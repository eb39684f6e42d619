"""Compares with a float64 reference. The bound is a multiple of the error of PyTorch's result."""

from types import ModuleType

import pytest
import torch
from torch import Tensor

from fxcache.kernels.forecast_read import reference
from tests.kernels.comparing import DTYPES, Ran, assert_as_exact

pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.fixture(scope="session")
def launch(device: str) -> ModuleType:
    from fxcache.kernels.forecast_read import launch as found

    return found


def drawn(
    shape: tuple[int, ...], dtype: torch.dtype, device: str, order: int
) -> tuple[list[Tensor], Tensor]:
    torch.manual_seed(0)
    terms = [(torch.randn(shape) * 2**-i).to(device, dtype) for i in range(order + 1)]
    return terms, torch.randn(order).to(device)


def assert_close(launch: ModuleType, terms: list[Tensor], weights: Tensor) -> Tensor:
    ran = Ran()
    found: Tensor = launch.forecast_read(terms, weights, ran)
    assert ran.names == ["forecast_kernel"] * bool(terms[0].numel())
    own = reference.forecast_read(terms, weights).to(terms[0].dtype)
    exact = reference.forecast_read([t.double() for t in terms], weights.double())
    assert_as_exact(found, own, exact)
    return found


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 7), (1, 5000), (1,), (2, 0, 3)])
def test_the_kernel_equals_the_reference(launch, device, dtype, shape, order):
    assert_close(launch, *drawn(shape, dtype, device, order))


@pytest.mark.parametrize(
    "laid_out",
    [
        lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
        lambda x: torch.cat([x, x], dim=2)[..., : x.shape[2]],
        lambda x: x[:1].expand_as(x),
    ],
)
def test_any_strides(launch, device, laid_out):
    terms, weights = drawn((2, 3, 5), torch.float32, device, 2)
    for mixed in ([laid_out(terms[0]), *terms[1:]], [terms[0], *map(laid_out, terms[1:])]):
        assert_close(launch, mixed, weights)


def test_the_result_shares_no_memory(launch, device):
    terms, weights = drawn((2, 3), torch.float32, device, 1)
    before = terms[0].clone()
    launch.forecast_read(terms, weights).fill_(0)
    assert torch.equal(terms[0], before)
