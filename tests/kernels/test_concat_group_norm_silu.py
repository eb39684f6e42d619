"""Compares with a float64 reference. The bound is a multiple of the error of PyTorch's result."""

from itertools import product
from types import ModuleType

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fxcache.kernels.concat_group_norm_silu import reference
from tests.kernels.comparing import DTYPES, Ran, assert_as_exact

EPS = 1e-5
# exp(-x) of the sigmoid may well be infinite; its inverse is 0 then, as it should be.
pytestmark = [
    pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning"),
    pytest.mark.usefixtures("poisoned"),
]


@pytest.fixture(scope="session")
def launch(device: str) -> ModuleType:
    from fxcache.kernels.concat_group_norm_silu import kernel
    from fxcache.kernels.concat_group_norm_silu import launch as found

    interpreted = type(kernel.normalize_kernel).__name__ == "InterpretedFunction"
    assert interpreted == (device == "cpu")
    return found


def computed(
    launch: ModuleType, a: Tensor, b: Tensor, w: Tensor, v: Tensor, groups: int, last: bool = False
) -> Tensor:
    """Run the kernels, those for channels-last if ``last``, and check the concatenation."""
    channels, ran = len(w), Ran()
    moments = [
        launch.moments(x, groups, channels, first, ran) for x, first in ((a, 0), (b, a.shape[1]))
    ]
    out, joined = launch.normalize(a, b, w, v, groups, EPS, *moments, True, ran)
    assert torch.equal(joined, torch.cat([a, b], dim=1))
    (alone,) = launch.normalize(a, b, w, v, groups, EPS, *moments)
    assert torch.equal(alone, out)
    if out.numel() and last:
        assert ran.names == ["moments_last_kernel"] * 2 + ["normalize_last_kernel"]
    elif out.numel() and a.is_contiguous() and b.is_contiguous():
        assert ran.names == ["moments_kernel"] * 2 + ["normalize_kernel"]
    return out


def channels_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def drawn(
    shape: tuple[int, ...], halves: tuple[int, int], dtype: torch.dtype, device: str = "cpu"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return random halves, of which the cached one is far from zero, weight and bias."""
    n, *spatial = shape
    torch.manual_seed(0)
    a, b = (torch.randn(n, c, *spatial) for c in halves)
    w, v = torch.randn(2, sum(halves))
    return tuple(x.to(device, dtype) for x in (a * 2 + 5, b, w, v))  # type: ignore[return-value]


def assert_close(found: Tensor, a: Tensor, b: Tensor, w: Tensor, v: Tensor, groups: int) -> None:
    """Check that the error is at most ``K`` times that of PyTorch's own result."""
    double = a.double(), b.double(), w.double(), v.double()
    exact, _ = reference.concat_group_norm_silu(*double, groups, EPS)
    own, _ = reference.concat_group_norm_silu(a, b, w, v, groups, EPS)
    assert_as_exact(found, own, exact)


@pytest.mark.sweep(5)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "halves", "groups"),
    [
        ((2, 8, 8), (64, 32), 32),  # the boundary is that of a group
        ((1, 5, 7), (20, 10), 3),  # a group lies across it
        ((2, 33, 37), (20, 10), 1),  # one group, two pieces
        ((1, 4), (3, 5), 8),  # one position a row: every group a channel
        ((1, 3, 4, 6), (6, 2), 2),  # frames
        ((2, 9, 9), (40, 60), 2),  # more channels in a group than a tile holds
        ((0, 4, 4), (4, 4), 2),  # no picture
    ],
)
def test_the_kernel_equals_the_reference(launch, device, dtype, shape, halves, groups):
    inputs = drawn(shape, halves, dtype, device)
    assert_close(computed(launch, *inputs, groups), *inputs, groups=groups)


@pytest.mark.sweep(4)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "halves", "groups"),
    [
        ((2, 8, 8), (64, 32), 32),  # one span of groups
        ((2, 5, 7), (320, 160), 16),  # four, the boundary inside the third
        ((1, 23, 25), (20, 10), 3),  # a group lies across it; two pieces
        ((1, 4, 5), (150, 130), 7),  # the last span has fewer groups
        ((1, 3, 4, 6), (6, 2), 2),  # frames
        ((2, 6), (12, 12), 4),  # tokens
        ((1, 2, 3), (100, 28), 1),  # the largest group that fits a span
    ],
)
def test_channels_last(launch, device, dtype, shape, halves, groups):
    a, b, w, v = drawn(shape, halves, dtype, device)
    inputs = (channels_last(a), channels_last(b), w, v)
    assert_close(computed(launch, *inputs, groups, last=True), *inputs, groups=groups)


def test_channels_last_groups_wider_than_a_span_are_exact(launch, device):
    a, b, w, v = drawn((1, 3, 4), (100, 30), torch.float32, device)
    inputs = (channels_last(a), channels_last(b), w, v)
    assert_close(computed(launch, *inputs, 1), *inputs, groups=1)


@pytest.mark.parametrize(
    ("size", "groups", "together"),
    [(10, 32, 12), (18, 32, 4), (30, 32, 4), (40, 32, 3), (45, 32, 2), (80, 32, 1), (3, 1, 1)],
)
def test_spans_begin_where_wide_loads_may(launch, size, groups, together):
    assert launch.groups_together(size, groups) == together


@pytest.mark.sweep(2)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "laid_out",
    [
        channels_last,
        lambda x: torch.cat([x, x], dim=1)[:, : x.shape[1]],  # a slice of more channels
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),  # rows and columns swapped
        lambda x: x[:, :, ::1, ::2].repeat_interleave(2, 3)[..., : x.shape[3]],
    ],
)
def test_any_strides(launch, device, dtype, laid_out):
    a, b, w, v = drawn((2, 6, 10), (12, 18), dtype, device)
    for x, y in ((laid_out(a), b), (a, laid_out(b)), (laid_out(a), laid_out(b))):
        inputs = (x, y, w, v)
        assert_close(computed(launch, *inputs, 6), *inputs, groups=6)


def test_the_result_has_pytorchs_strides(launch, device):
    a, b, w, v = drawn((2, 6, 10), (12, 18), torch.float32, device)
    forms = (torch.contiguous_format, torch.channels_last)
    for first, second in product(forms, repeat=2):
        inputs = a.contiguous(memory_format=first), b.contiguous(memory_format=second), w, v
        expected = reference.concat_group_norm_silu(*inputs, 6, EPS)
        assert computed(launch, *inputs, 6).stride() == expected[0].stride()
        moments = [
            launch.moments(x, 6, 30, first) for x, first in ((inputs[0], 0), (inputs[1], 12))
        ]
        found = launch.normalize(*inputs, 6, EPS, *moments, keeps_joined=True)
        assert [out.stride() for out in found] == [out.stride() for out in expected]


@pytest.mark.parametrize("halves", [(12, 18), (160, 140)], ids=["in spans", "in groups"])
def test_outputs_may_differ_in_layout_as_on_a_gpu(launch, device, halves, monkeypatch):
    """PyTorch's group norm is contiguous on a GPU, and the concatenation stays channels-last."""
    a, b, w, v = drawn((2, 6, 10), halves, torch.float32, device)
    inputs = channels_last(a), channels_last(b), w, v
    empty, forms = launch.empty, iter([False, True] * 2)
    monkeypatch.setattr(launch, "empty", lambda *given: empty(*given[:2], next(forms)))
    moments = [
        launch.moments(x, 2, len(w), f) for x, f in zip(inputs, (0, halves[0]), strict=False)
    ]
    out, joined = launch.normalize(*inputs, 2, EPS, *moments, keeps_joined=True)
    assert out.is_contiguous()
    assert joined.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(joined, torch.cat(inputs[:2], dim=1))
    assert_close(out, *inputs, groups=2)


def test_a_slice_of_one_channel_is_exact(launch, device):
    """A slice of one channel has channels-last strides, and is contiguous too."""
    torch.manual_seed(0)
    cached, wide = (channels_last(torch.randn(1, c, 2, 3).to(device)) for c in (3, 8))
    w, v = torch.randn(2, 4).to(device)
    for inputs in ((cached, wide[:, :1], w, v), (wide[:, :1], cached, w, v)):
        assert_close(computed(launch, *inputs, 2), *inputs, groups=2)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40)
)
def test_any_size(launch, device, groups, cached, more, height, width):
    fresh = groups * (cached + more) - cached
    a, b, w, v = drawn((1, height, width), (cached, fresh), torch.float32, device)
    for inputs in ((a, b, w, v), (channels_last(a), channels_last(b), w, v)):
        assert_close(computed(launch, *inputs, groups), *inputs, groups=groups)


def test_moments_are_those_of_the_reference(launch, device):
    a, b, _, _ = drawn((2, 33, 37), (20, 10), torch.float32, device)
    for x, first in ((a, 0), (b, 20), (channels_last(a), 0), (channels_last(b), 20)):
        found = launch.moments(x, 3, 30, first)
        expected = reference.group_moments(x, 3, 30, first)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_values_far_from_zero_keep_their_precision(launch, device):
    """The sum of squares minus the squared sum would lose all digits."""
    a, b, w, v = drawn((1, 16, 16), (8, 8), torch.float32, device)
    for inputs in ((a, b, w, v), (channels_last(a), channels_last(b), w, v)):
        far = (inputs[0] + 4000, inputs[1] + 4000, w, v)
        assert_close(computed(launch, *far, 2), *far, groups=2)
