"""The pytest plugin of fxcache: the fixture ``fxcache_gate``.

The plugin is no part of the package ``fxcache``, which imports torch: pytest imports its plugins in
every run.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fxcache.gate.gate import Outcome

OPTIONS = ("tiers", "rounds", "margin")
MARKER = "fxcache_gate(tiers, rounds, margin): options of the gate, see docs/gate.md of fxcache"
UPDATE = 'pytest --fxcache-update "why they change"'
CASES: pytest.StashKey[set[str]] = pytest.StashKey()


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
        sample: Your own loop, in place of ``inputs`` and ``steps``: a function of the model that
            calls it with fixed seeds, and returns a tensor or images.
        case: The name of the values in the file, by default the file and the name of the test.

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
        case: str = name_of(request),
    ) -> "Outcome | None":
        __tracebackhide__ = True
        from fxcache.gate.config import GateConfig
        from fxcache.gate.expected import expected_file
        from fxcache.gate.gate import check, update
        from fxcache.gate.loop import subject_of
        from fxcache.gate.output.text import as_text

        config = GateConfig(**marked_options(request))
        subject = subject_of(model, inputs or {}, steps, sample)
        name = request.config.getini("fxcache_expected")
        file = request.path.parent / expected_file(name, subject.device.type)
        require_first_use(request.config, f"{file}::{case}")
        reason = request.config.getoption("--fxcache-update")
        if reason is None:
            outcome = check(subject, case, file, config)
            if not outcome.passed:
                pytest.fail(as_text(outcome, UPDATE), pytrace=False)
            return outcome
        require_one_process(request.config)
        update(subject, case, file, config, reason)
        return None

    return gate


def name_of(request: pytest.FixtureRequest) -> str:
    """Return the name of the test with its file: tests of two files may have one name."""
    name: str = request.node.nodeid
    return name.rpartition("/")[2]


def marked_options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the options of the marker. Fail if one has no name, or does not exist."""
    marker = request.node.get_closest_marker("fxcache_gate")
    if marker is None:
        return {}
    wrong = [*map(repr, marker.args), *(marker.kwargs.keys() - OPTIONS)]
    if wrong:
        names = ", ".join(OPTIONS)
        pytest.fail(f"fxcache_gate takes {names} by name, not {', '.join(wrong)}", pytrace=False)
    return dict(marker.kwargs)


def require_first_use(config: pytest.Config, case: str) -> None:
    """Fail if another gate of this session has the same case: each would hold the other's."""
    used = config.stash.setdefault(CASES, set())
    if case in used:
        pytest.fail(f"two gates have the case {case}; name one with case=", pytrace=False)
    used.add(case)


def require_one_process(config: pytest.Config) -> None:
    """Fail if several processes would write the file at the same time."""
    if hasattr(config, "workerinput"):
        pytest.fail("--fxcache-update writes one file: run pytest without -n", pytrace=False)
