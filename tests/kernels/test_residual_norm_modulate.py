"""Compares with a float64 reference. The bound is a multiple of the error of PyTorch's result."""

from itertools import product
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from fxcache.codecs.quantized_rows import QuantizedRows
from fxcache.kernels.residual_norm_modulate import reference
from tests.kernels.comparing import DTYPES, Ran, assert_as_exact

EPS = 1e-6
pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.fixture(scope="session")
def launch(device: str) -> ModuleType:
    from fxcache.kernels.residual_norm_modulate import kernel
    from fxcache.kernels.residual_norm_modulate import launch as found

    interpreted = type(kernel.residual_norm_modulate_kernel).__name__ == "InterpretedFunction"
    assert interpreted == (device == "cpu")
    return found


class Drawn(NamedTuple):
    """The arguments of both the kernel and its reference."""

    stream: Tensor
    terms: list[Tensor]
    weights: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    scale: Tensor | None
    shift: Tensor | None
    eps: float = EPS
    rms: bool = False
    row_scale: Tensor | None = None
    adds_one: bool = True

    def double(self) -> "Drawn":
        return Drawn._make(exact(value) for value in self)

    def computed(self, launch: ModuleType, keeps_total: bool = True) -> list[Tensor]:
        ran = Ran()
        *given, row_scale, adds_one = self
        options = (keeps_total, row_scale, adds_one)
        found: list[Tensor] = launch.residual_norm_modulate(*given, *options, ran)
        assert ran.names == ["residual_norm_modulate_kernel"] * bool(self.stream.numel())
        return found


def exact(value: object) -> object:
    if isinstance(value, list):
        return [exact(item) for item in value]
    return value.double() if isinstance(value, Tensor) else value


def drawn(
    shape: tuple[int, ...], dtype: torch.dtype, device: str, order: int = 0, affine: bool = False
) -> Drawn:
    """Return a stream far from zero, cached values, and half of a larger modulation."""
    torch.manual_seed(0)
    stream = torch.randn(shape) * 3 + 5
    terms = [torch.randn(shape) * 2 ** (1 - i) for i in range(order + 1)]
    scale, shift = torch.randn(shape[0], 2 * shape[-1]).to(device, dtype).chunk(2, dim=1)
    weight, bias = torch.randn(2, shape[-1]).to(device, dtype) if affine else (None, None)
    weights = torch.randn(order).to(device) if order else None
    moved = [value.to(device, dtype) for value in (stream, *terms)]
    return Drawn(moved[0], moved[1:], weights, weight, bias, scale, shift)


def assert_close(found: list[Tensor], given: Drawn) -> None:
    own = reference.residual_norm_modulate(*given)
    expected = reference.residual_norm_modulate(*given.double())
    for value, like, true in zip(found, own, expected, strict=True):
        assert_as_exact(value, like.to(value.dtype), true)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 7, 64), (1, 3, 100), (3, 5), (1, 2, 3, 33)])
@pytest.mark.parametrize("rms", [False, True])
def test_the_kernel_equals_the_reference(launch, device, dtype, shape, rms):
    given = drawn(shape, dtype, device)._replace(rms=rms)
    assert_close(given.computed(launch), given)


def test_one_channel(launch, device):
    given = drawn((2, 3, 1), torch.float32, device)
    assert_close(given._replace(rms=True).computed(launch), given._replace(rms=True))
    assert given.shift is not None
    assert torch.equal(given.computed(launch)[0], given.shift[:, None].expand(2, 3, 1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spread", [False, True])
def test_the_scale_may_be_the_factor(launch, device, dtype, spread):
    """A hoisted scale already includes the 1. It may have a dimension for tokens or not."""
    given = drawn((2, 5, 48), dtype, device)._replace(adds_one=False)
    if spread:
        assert given.scale is not None
        assert given.shift is not None
        given = given._replace(scale=given.scale[:, None], shift=given.shift[:, None])
    assert_close(given.computed(launch), given)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_kernel_evaluates_the_forecast(launch, device, dtype, order):
    given = drawn((2, 5, 48), dtype, device, order)
    assert_close(given.computed(launch), given)


@pytest.mark.parametrize("steps", [torch.int8, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 7, 64), (3, 5), (1, 2, 3, 33)])
def test_the_kernel_restores_eight_bit_values(launch, device, dtype, shape, steps):
    given = drawn(shape, dtype, device)
    kept, row_scale = QuantizedRows(steps).quantize(given.terms[0].flatten(0, -2)[None])
    kept, row_scale = kept.view(shape), row_scale.view(*shape[:-1], 1)
    given = given._replace(terms=[kept], row_scale=row_scale)
    assert_close(given.computed(launch), given)


def test_every_float8_is_read_exactly(launch, device):
    """The sum shows the values of all 256 codes, including subnormal ones and NaN."""
    steps = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)[None, :, None]
    stream, row_scale = torch.zeros(1, 256, 1), torch.ones(1, 256, 1)
    given = Drawn(stream, [steps], None, None, None, None, None, row_scale=row_scale)
    moved = Drawn._make(onto(value, device) for value in given)
    _, total = moved.computed(launch)
    expected = steps.float().to(device)
    assert torch.equal(total.isnan(), expected.isnan())
    assert torch.equal(total.nan_to_num(), expected.nan_to_num())


def onto(value: Any, device: str) -> Any:
    if isinstance(value, list):
        return [onto(item, device) for item in value]
    return value.to(device) if isinstance(value, Tensor) else value


@pytest.mark.parametrize("parts", list(product([False, True], repeat=4)))
def test_absent_arguments_are_left_out(launch, device, parts):
    names = ("weight", "bias", "scale", "shift")
    without: dict[str, Any] = {name: None for name, left in zip(names, parts, strict=True) if left}
    given = drawn((2, 3, 20), torch.float32, device, affine=True)._replace(**without)
    assert_close(given.computed(launch), given)


def test_the_sum_is_written_only_if_needed(launch, device):
    given = drawn((2, 3, 20), torch.float32, device)
    (alone,) = given.computed(launch, keeps_total=False)
    assert torch.equal(alone, given.computed(launch)[0])


@pytest.mark.parametrize("which", ["stream", "cached", "both"])
@pytest.mark.parametrize(
    "laid_out",
    [
        lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),  # channels first
        lambda x: torch.cat([x, x], dim=1)[:, x.shape[1] :],  # tokens of a longer sequence
        lambda x: torch.cat([x, x], dim=2)[..., : x.shape[2]],  # channels of a wider one
        lambda x: x[:1].expand_as(x),  # one sample, repeated
    ],
)
def test_any_strides(launch, device, laid_out, which):
    given = drawn((2, 6, 20), torch.float32, device, order=1)
    if which != "cached":
        given = given._replace(stream=laid_out(given.stream))
    if which != "stream":
        given = given._replace(terms=[laid_out(given.terms[0]), given.terms[1]])
    assert_close(given.computed(launch), given)


def test_no_tokens_at_all(launch, device):
    given = drawn((2, 0, 20), torch.float32, device)
    assert [value.shape for value in given.computed(launch)] == [(2, 0, 20)] * 2


def test_values_far_from_zero_keep_their_precision(launch, device):
    """The mean of squares minus the squared mean would lose all digits."""
    given = drawn((1, 4, 64), torch.float32, device)
    given = given._replace(stream=given.stream + 4000)
    assert_close(given.computed(launch), given)
