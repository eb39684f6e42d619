"""Tests that a case which no test measures any more fails a whole run, and no other run.

The tests of these suites take the fixture, and say which case they measure instead of measuring.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_fxcache_unused import Seen
from tests.gate.running import OPTIONS, run_here

pytest_plugins = ["pytester"]
XDIST = ("-p", "xdist.plugin")
CONFTEST = """
    import pytest
    import pytest_fxcache

    @pytest.fixture
    def measured(request):
        seen = request.config.stash[pytest_fxcache.OBSERVER].seen
        return lambda case: seen.use(request.path.parent / "expected.json", case)
"""
SUITE = """
    import pytest

    def test_one(fxcache_gate, measured):
        assert measured("one")

    def test_two(fxcache_gate, measured):
        assert measured("two")

    def test_another():
        pass
"""
SECOND = """
    def test_three(fxcache_gate, measured):
        assert measured("three")
"""


def expect(pytester: pytest.Pytester, *cases: str, **settings: Any) -> None:
    """Write a file that expects these cases."""
    values = {"exact": {"settings": settings}}
    content = {"fxcache_expected": 1, "torch": "2.13", "device": "cpu", "updates": []}
    content["cases"] = dict.fromkeys(cases, values)
    (pytester.path / "expected.json").write_text(json.dumps(content))


def cases_in(pytester: pytest.Pytester) -> set[str]:
    return set(json.loads((pytester.path / "expected.json").read_text())["cases"])


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    pytester.makepyfile(conftest=CONFTEST, test_first=SUITE, test_second=SECOND)
    expect(pytester, "one", "two", "three", "gone", steps=5)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # others take most of the time
    monkeypatch.setenv("PYTEST_PLUGINS", "pytest_fxcache")
    return pytester


def is_told(result: pytest.RunResult) -> bool:
    found = any("'gone' is a case that no test measures any more" in x for x in result.outlines)
    assert found == (result.ret == pytest.ExitCode.TESTS_FAILED) or result.parseoutcomes().get(
        "failed"
    )
    return found


def test_a_case_without_a_test_fails_a_whole_run(suite):
    result = run_here()
    assert is_told(result)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(['*remove them: pytest --fxcache-update "why they change"*'])
    assert cases_in(suite) == {"one", "two", "three", "gone"}


def test_an_update_removes_it(suite):
    result = run_here("--fxcache-update", "the test is gone")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*'gone' is a case that no test measures: removed*"])
    assert cases_in(suite) == {"one", "two", "three"}
    (entry,) = json.loads((suite.path / "expected.json").read_text())["updates"]
    assert (entry["case"], entry["reason"]) == ("gone", "the test is gone")
    assert run_here().ret == pytest.ExitCode.OK


@pytest.mark.parametrize(
    "arguments",
    [
        ("-k", "one"),
        ("-k", "not two"),
        ("-m", "none"),
        ("test_first.py",),
        ("test_first.py::test_one", "test_second.py"),
        ("test_first.py::test_one", "test_first.py::test_two", "test_second.py"),
        ("--deselect", "test_first.py::test_one"),
        ("--ignore", "test_second.py"),
        ("--collect-only",),
    ],
    ids=" ".join,
)
def test_a_part_of_the_tests_tells_nothing(suite, arguments):
    assert not is_told(run_here(*arguments))


@pytest.mark.parametrize(
    "arguments", [("-k", "not another"), (".",), ("test_first.py", "test_second.py")]
)
def test_all_gates_are_enough(suite, arguments):
    assert is_told(run_here(*arguments))


@pytest.mark.parametrize(
    "line", ["pytest.skip('')", "assert False", "pytest.xfail('')", "raise KeyboardInterrupt"]
)
def test_a_gate_that_does_not_pass_tells_nothing(suite, line):
    file = suite.path / "test_first.py"
    file.write_text(file.read_text().replace('assert measured("one")', line))
    assert not is_told(run_here())


def test_a_file_that_cannot_be_collected_tells_nothing(suite):
    (suite.path / "test_second.py").write_text("import pytest\npytest.importorskip('no_such')")
    assert not is_told(run_here())


def test_failed_tests_alone_tell_nothing(suite):
    """With ``--lf``, pytest leaves out whole files, and reports that it collected them."""
    file = suite.path / "test_second.py"
    right = file.read_text()
    file.write_text(right.replace("assert", "assert not"))
    assert not is_told(run_here(options=()))
    file.write_text(right)
    result = run_here("--lf", options=())
    result.assert_outcomes(passed=1)
    assert not is_told(result)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_several_processes_tell_it_together(suite, count):
    result = suite.runpytest_subprocess(*OPTIONS, *XDIST, "-n", str(count))
    assert is_told(result)
    assert not is_told(suite.runpytest_subprocess(*OPTIONS, *XDIST, "-n", str(count), "-k", "one"))


def test_what_several_processes_saw_is_added():
    first, second = Seen({"a.py"}, {"x"}, {"a::t": "y"}, {"a::t"}), Seen(modules={"b.py"})
    assert first.use(Path("e.json"), "one")
    assert second.use(Path("e.json"), "two")
    second.add(Seen.from_dict(json.loads(json.dumps(first.to_dict()))))
    assert second == Seen(
        {"a.py", "b.py"}, {"x"}, {"a::t": "y"}, {"a::t"}, {"e.json": {"one", "two"}}
    )


def test_a_case_of_the_command_is_no_tests(suite):
    expect(suite, "one", "two", "three", "gone", prompts=["a red apple"])
    assert not is_told(run_here())


def test_a_case_of_another_file_of_tests_is_left(suite):
    (suite.path / "checks.py").write_text("")  # no name of a test file: it is run by its own
    expect(suite, "one", "two", "three", "checks.py::test_speed", steps=5)
    assert run_here().ret == pytest.ExitCode.OK
    (suite.path / "checks.py").unlink()
    assert run_here().ret == pytest.ExitCode.TESTS_FAILED
