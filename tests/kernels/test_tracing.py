"""Tests how torch.compile traces the operators: their kernels, and the tensors that they write."""

from typing import Any

import pytest

from tests.kernels.comparing import from_compiling


@pytest.fixture(scope="module")
def found() -> Any:
    """Trace the operators in another process, because kernels may be interpreted in this one."""
    return from_compiling("tests.kernels.tracing")


def test_operators_launch_kernels_or_are_left_to_inductor(found):
    """Inductor must not assume that other tensors are written, because it would copy them."""
    assert {name: launches for name, launches in found.items() if name != "reuse step"} == {
        "group_moments": [{"kernel": "moments_kernel", "writes": ["moments"]}],
        "concat_group_norm_silu": [],
        "residual_norm_modulate": [],
        "forecast_read": [],
        "quantize_rows": [{"kernel": "quantize_kernel", "writes": ["steps", "scales"]}],
        "relative_l1": [
            {"kernel": "sums_kernel", "writes": ["sums"]},
            {"kernel": "quotient_kernel", "writes": ["out"]},
        ],
    }


def test_a_compiled_reuse_step_is_one_graph_that_is_left_to_inductor(found):
    assert found["reuse step"] == []
