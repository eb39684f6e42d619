"""torch.compile sees through our operators: their kernels, and what each of these writes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kernels.comparing import compiling


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Traced in a process of its own: in this one kernels may be interpreted."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.kernels.tracing"],
        cwd=Path(__file__).parents[2],
        env=compiling(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_operators_are_their_kernels_or_left_to_inductor(found):
    """Nothing else is thought to be written, which would be copied first."""
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
