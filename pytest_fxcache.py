"""The pytest plugin of fxcache: the fixture ``fxcache_gate``.

The plugin is no part of the package ``fxcache``, which imports torch: pytest imports its plugins in
every run.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fxcache.gate.gate import Outcome

MARKER = "fxcache_gate(tiers, rounds, margin): options of the gate, as of fxcache.gate.GateConfig"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes expected values, and the name of their file."""
    group = parser.getgroup("fxcache")
    group.addoption(
        "--fxcache-update",
        metavar="REASON",
        help="write the measured values of fxcache_gate as the expected ones, for this reason",
    )
    parser.addini(
        "fxcache_expected",
        "the file of expected values, in the folder of each test",
        default="expected-torch{torch}.json",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", MARKER)


@pytest.fixture
def fxcache_gate(request: pytest.FixtureRequest) -> "Callable[..., Outcome | None]":
    """Hold an optimised model to expected values: ``fxcache_gate(model, inputs)``.

    Args of the function:
        model: The optimised denoiser.
        inputs: The arguments of its first call, by name. The gate makes Euler steps from there.
        steps: The number of steps, 20 by default.
        sample: Your own loop, in place of ``inputs`` and ``steps``: it calls the model with fixed
            seeds, and returns a tensor or images.
        case: The name of the values in the file, by default the name of the test.

    The function fails the test if a value is not as expected. Otherwise it returns the outcome;
    with ``--fxcache-update REASON`` it writes the values and returns None. The file is in the
    folder of the test.
    """

    def gate(
        model: Any,
        inputs: Mapping[str, Any] | None = None,
        *,
        steps: int = 20,
        sample: Callable[[Any], Any] | None = None,
        case: str = request.node.name,
    ) -> "Outcome | None":
        __tracebackhide__ = True
        from fxcache.gate.config import GateConfig
        from fxcache.gate.expected import expected_file
        from fxcache.gate.gate import check, update
        from fxcache.gate.loop import subject_of
        from fxcache.gate.output.text import as_text

        marker = request.node.get_closest_marker("fxcache_gate")
        config = GateConfig(**(marker.kwargs if marker else {}))
        subject = subject_of(model, inputs or {}, steps, sample)
        name = request.config.getini("fxcache_expected")
        file = request.path.parent / expected_file(name, subject.device)
        reason = request.config.getoption("--fxcache-update")
        if reason is None:
            outcome = check(subject, case, file, config)
            if not outcome.passed:
                pytest.fail(as_text(outcome), pytrace=False)
            return outcome
        require_one_process(request.config)
        update(subject, case, file, config, reason)
        return None

    return gate


def require_one_process(config: pytest.Config) -> None:
    """Fail if several processes would write the file at the same time."""
    if hasattr(config, "workerinput"):
        pytest.fail("--fxcache-update writes one file: run pytest without -n", pytrace=False)
