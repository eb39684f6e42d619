"""The pytest plugin of fxcache: the fixture ``fxcache_gate``, and reports of what it found.

The plugin is no part of the package ``fxcache``, which imports torch: pytest imports its plugins in
every run.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_fxcache_unused import FIXTURE, Observer

if TYPE_CHECKING:
    from fxcache.gate.gate import Outcome

OPTIONS = ("tiers", "rounds", "margin")
MARKER = "fxcache_gate(tiers, rounds, margin): options of the gate, see docs/gate.md of fxcache"
UPDATE = 'pytest --fxcache-update "why they change"'
OBSERVER: pytest.StashKey[Observer] = pytest.StashKey()
UNUSED: pytest.StashKey[list[str]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the gate, and the name of the file of expected values."""
    group = parser.getgroup("fxcache")
    group.addoption(
        "--fxcache-update",
        metavar="REASON",
        help="write the measured values of fxcache_gate as the expected ones, for this reason",
    )
    for kind, shown in (("html", "a page"), ("junit", "JUnit XML")):
        group.addoption(
            f"--fxcache-{kind}",
            metavar="FOLDER",
            type=Path,
            help=f"write what each fxcache_gate found to this folder, as {shown}",
        )
    parser.addini(
        "fxcache_expected",
        "the file of expected values, in the folder of each test",
        default="expected-torch{torch}.json",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and follow the run."""
    config.addinivalue_line("markers", MARKER)
    observer = config.stash[OBSERVER] = Observer(config)
    config.pluginmanager.register(observer, "fxcache-unused")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if a case of an expected file is measured by no test; an update removes it."""
    config = session.config
    observer = config.stash[OBSERVER]
    if hasattr(config, "workeroutput"):  # the process that started this one decides
        config.workeroutput[FIXTURE] = observer.seen.to_dict()
        return
    reason = config.getoption("--fxcache-update")
    lines = config.stash[UNUSED] = []
    for file, cases in observer.unused().items():
        if reason is not None:
            remove(file, cases, reason)
        verb = "measures: removed" if reason is not None else "measures any more"
        lines += [f"{file}: {case!r} is a case that no test {verb}" for case in cases]
    if lines and reason is None:
        lines.append(f"If this is intended, remove them: {UPDATE}, with the same tests")
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def remove(file: Path, cases: list[str], reason: str) -> None:
    """Remove cases from a file of expected values."""
    from fxcache.gate.expected import Expected

    expected = Expected.read(file)
    for case in cases:
        expected.remove(case, reason)
    expected.save(file)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name the cases that no test measures."""
    if lines := config.stash.get(UNUSED, []):
        terminalreporter.section("unused expected values of fxcache_gate")
        for line in lines:
            terminalreporter.line(line)


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
        require_first_use(request.config, file, case)
        reason = request.config.getoption("--fxcache-update")
        if reason is None:
            outcome = check(subject, case, file, config)
            write_reports(outcome, request.config)
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


def require_first_use(config: pytest.Config, file: Path, case: str) -> None:
    """Fail if another gate of this session has the same case: each would hold the other's."""
    if not config.stash[OBSERVER].seen.use(file, case):
        pytest.fail(f"two gates have the case {file}::{case}; name one with case=", pytrace=False)


def write_reports(outcome: "Outcome", config: pytest.Config) -> None:
    """Write the reports that the options ask for, a file for each case."""
    from fxcache.gate.output.junit import as_junit
    from fxcache.gate.output.page import as_html

    for option, suffix, shown in (("html", "html", as_html), ("junit", "xml", as_junit)):
        folder = config.getoption(f"--fxcache-{option}")
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"{report_name(outcome.file, outcome.case)}.{suffix}"
            file.write_text(shown(outcome), encoding="utf-8")


def report_name(file: Path, case: str) -> str:
    """Return the name of a case's reports: its readable part, and a digest that no other has."""
    digest = hashlib.sha256(f"{file}::{case}".encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_.]+', '-', case)[:80].strip('-')}-{digest}"


def require_one_process(config: pytest.Config) -> None:
    """Fail if several processes would write the file at the same time."""
    if hasattr(config, "workerinput"):
        pytest.fail("--fxcache-update writes one file: run pytest without -n", pytrace=False)
