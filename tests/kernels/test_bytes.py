"""Tests the bytes that kernels move, computed from the sizes of their tensors."""

import pytest

from fxcache.kernels.binaries import launches_by_case

SD_1_5 = (640 + 320) * 2 * 64 * 64  # values
SDXL = (640 + 320) * 2 * 128 * 128
FLUX, SD3, WAN = 4096 * 3072, 2 * 4096 * 1536, 32760 * 1536


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("forecast_read", {"SDXL, fp16, order 1": 3 * 2 * 640 * 2 * 128**2 + 4}),
        ("forecast_read", {"FLUX, bf16, order 2": 4 * 2 * FLUX + 8}),
        ("residual_norm_modulate", {"SD3, fp16": 3 * 2 * SD3 + 2 * 2 * 2 * 1536}),
        ("residual_norm_modulate", {"FLUX, bf16": 3 * 2 * FLUX + 2 * 2 * 3072}),
        (
            "residual_norm_modulate",
            {"FLUX, bf16, order 2, sum kept": 6 * 2 * FLUX + 2 * 2 * 3072 + 8},
        ),
        (
            "residual_norm_modulate",
            {"FLUX, bf16, cached in int8": (2 * 2 + 1) * FLUX + 4 * 4096 + 2 * 2 * 3072},
        ),
        ("relative_l1", {"FLUX, bf16": 2 * 2 * FLUX + 2 * 2 * 4 * 3072 + 4}),
    ],
)
def test_each_tensor_is_read_or_written_once(kernel, expected):
    (case,) = expected
    found = sum(launch.nbytes for launch in launches_by_case(kernel)[case])
    assert found == expected[case]


@pytest.mark.sweep(1)
@pytest.mark.parametrize(
    ("case", "values", "size"), [("SD 1.5, fp16", SD_1_5, 2), ("SDXL, bf16", SDXL, 2)]
)
def test_the_fresh_half_is_read_twice_and_the_cached_once(case, values, size):
    """The moments of the cached half are given. Both halves are written joined and normalised."""
    fresh, normalized = launches_by_case("concat_group_norm_silu")[case]
    pieces = 2 * 32 * (values // (2 * 960) // 512) * 2 * 4
    assert fresh.nbytes == values // 3 * size + pieces
    assert normalized.nbytes == 3 * values * size + 2 * 960 * size + 2 * pieces
