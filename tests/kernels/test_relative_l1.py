"""Compares with float64, and tests the handling of values that are not finite."""

import math
from types import ModuleType

import pytest
import torch

from fxcache.kernels.relative_l1 import reference
from tests.kernels.comparing import DTYPES, Ran

pytestmark = [
    pytest.mark.usefixtures("poisoned"),
    pytest.mark.filterwarnings("ignore:(divide by zero|invalid value):RuntimeWarning"),
]


@pytest.fixture(scope="session")
def launch(device: str) -> ModuleType:
    from fxcache.kernels.relative_l1 import launch as found

    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1,), (2, 3, 7), (4096,), (3, 41, 50)])
def test_the_kernel_equals_the_reference(launch, device, dtype, shape):
    torch.manual_seed(0)
    now, then = (torch.randn(shape).to(device, dtype) for _ in range(2))
    ran = Ran()
    found = launch.relative_l1(now, then, ran)
    assert ran.names == ["sums_kernel", "quotient_kernel"]
    exact = (now.double() - then.double()).abs().sum() / then.double().abs().sum()
    assert float(found) == pytest.approx(float(exact), rel=1e-6)
    assert float(found) == pytest.approx(float(reference.relative_l1(now, then)), rel=1e-6)


def test_more_pieces_than_one_program_sums(launch, device, monkeypatch):
    monkeypatch.setattr(launch, "MOST_PIECES", 2)
    torch.manual_seed(0)
    now, then = torch.randn(2, 9 * launch.BLOCK + 5).to(device)
    expected = reference.relative_l1(now.double(), then.double())
    assert float(launch.relative_l1(now, then)) == pytest.approx(float(expected), rel=1e-6)


def test_the_result_has_the_same_bits_every_time(launch, device):
    torch.manual_seed(0)
    now, then = torch.randn(2, 30_000).to(device)
    found = {float(launch.relative_l1(now, then)) for _ in range(3)}
    assert len(found) == 1


@pytest.mark.parametrize(
    "laid_out",
    [
        lambda x: x.mT.contiguous().mT,
        lambda x: torch.cat([x, x], dim=-1)[..., : x.shape[-1]],
        lambda x: x[:, :1].expand_as(x),
    ],
)
def test_any_strides(launch, device, laid_out):
    torch.manual_seed(0)
    now, then = torch.randn(2, 4, 5, 6).to(device)
    for pair in ((laid_out(now), then), (now, laid_out(then)), (laid_out(now), laid_out(then))):
        expected = reference.relative_l1(*pair)
        assert float(launch.relative_l1(*pair)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(
    ("now", "then", "expected"),
    [
        ([0.0, 0.0], [0.0, 0.0], math.nan),
        ([1.0, 0.0], [0.0, 0.0], math.inf),
        ([math.nan, 1.0], [1.0, 1.0], math.nan),
        ([math.inf, 1.0], [1.0, 1.0], math.inf),
        ([], [], math.nan),
    ],
)
def test_nan_and_infinity_are_propagated(launch, device, now, then, expected):
    found = launch.relative_l1(torch.tensor(now, device=device), torch.tensor(then, device=device))
    assert float(found) == pytest.approx(expected, nan_ok=True)
