"""Tests that the tests of the pure functions catch one-line mutants of these functions."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDER = "fxcache/runtime/trajectory"
TESTS = [
    f"tests/runtime/trajectory/test_{name}.py" for name in ("attribution", "state", "position")
]

ATTRIBUTION = [
    ("CLOSE = 0.5", "CLOSE = 0.9"),
    ("CLOSE = 0.5", "CLOSE = 0.0"),
    ("CLOSE_AGAIN = 0.9", "CLOSE_AGAIN = 0.5"),
    ("FIRST_DISTANCE = 0.005", "FIRST_DISTANCE = 0.5"),
    ("GROWTH = 4.0", "GROWTH = 40.0"),
    ("CLEARLY = 0.5", "CLEARLY = 1.0"),
    ("if e.busy or not e.same_name", "if not e.same_name"),
    ("if e.busy or not e.same_name", "if e.busy"),
    ("e.motion in (Motion.BACK, Motion.OTHER)", "e.motion is Motion.OTHER"),
    ("e.motion in (Motion.BACK, Motion.OTHER)", "e.motion is Motion.BACK"),
    ("e.conditioning is Match.FOREIGN and not e.keyed", "e.conditioning is Match.FOREIGN"),
    ("if not e.same_kind and not (e.scheduled", "if not e.same_kind and (e.scheduled"),
    ("if e.motion is Motion.NEXT and e.proven", "if e.motion is Motion.NEXT"),
    ("if e.motion is Motion.SKIP and e.trusted", "if e.motion is Motion.SKIP"),
    ("if candidates[i].same_kind] or possible", "if True] or possible"),
    ("len(possible) == 1 and verdicts", "verdicts"),
    ("    near = most_alike(candidates, near)\n", ""),
    ("(found[i].cosine, i)", "(found[i].cosine, -i)"),
    ("or motion is Motion.REPEAT\n", "or False\n"),
    ("clear = bool(near) and not", "clear = not"),
    ("and not is_past(candidates[best]) and", "and"),
    ("is not Motion.SKIP]", "is not Motion.NEXT]"),
    ("again = closest.identical and not candidates[best].trusted", "again = False"),
    ("again = closest.identical and not candidates[best].trusted", "again = closest.identical"),
    ("closest.cosine < CLOSE and not", "closest.cosine < CLOSE and"),
    ("closest.cosine < CLOSE and not candidates[best].proven", "False"),
    ("max(steps, default=0.0) >= CLOSE", "False"),
    ("if candidates[best].may_be_two and not closest.identical:", "if False:"),
    ("candidates[best].may_be_two and not closest.identical", "candidates[best].may_be_two"),
    ("(match is Match.FOREIGN)", "0"),
    ("(evidence.trusted or not (evidence.restarted or evidence.begun))", "True"),
    ("return on_purpose or not evidence.begun", "return True"),
    ("return on_purpose or not evidence.begun", "return not evidence.begun"),
    ("return evidence.proven or 1 - likeness.cosine", "return 1 - likeness.cosine"),
    ("return evidence.proven or 1 - likeness.cosine", "return True or 1 - likeness.cosine"),
    ("    if closest == other:\n        return True\n", ""),
    ("if elements <= 2:", "if elements <= 0:"),
]
STATE = [
    ("if not state.complete or not isinstance", "if not isinstance"),
    ("state.direction) is not Motion.NEXT:", "state.direction) is Motion.OTHER:"),
    ("state.step + 1, state.direction)", "state.step, state.direction)"),
    ("state.step + 1, direction", "state.step, direction"),
    ("direction = state.direction or direction_of", "direction = direction_of"),
    ("direction, stride)", "direction, 1)"),
    ("direction, stride)", "direction, stride, state.complete)"),
    ("moved is Motion.REPEAT)", "False)"),
    ("if not state.complete:", "if False:"),
    ("if event.certainty is Certainty.AMBIGUOUS:", "if False:"),
    ("if event.conditioning is Match.REWRITTEN:", "if False:"),
    ("if event.conditioning >= Match.REPLACED:", "if event.conditioning > Match.REPLACED:"),
    ("if moved is Motion.SKIP and stride > state.stride:", "if False:"),
    ("if moved is Motion.SKIP and stride > state.stride:", "if moved is Motion.SKIP:"),
    ("-(-left // state.stride)", "left // state.stride"),
    (">= length - 1", ">= length"),
]
POSITION = [
    ("if stride < 0:", "if stride <= 0:"),
    ("if stride < 2 else Motion.SKIP", "if stride < 2 else Motion.NEXT"),
    ("if last.same_schedule(now) else", "if True else"),
    ("direction in (0, found)", "direction in (0, found, -found)"),
    ("direction in (0, found)", "direction == found"),
    ("(now.value > last.value) - (now.value < last.value)", "(now.value < last.value)"),
]
MUTANTS = [
    *(("attribution.py", *mutant) for mutant in ATTRIBUTION),
    *(("state.py", *mutant) for mutant in STATE),
    *(("position.py", *mutant) for mutant in POSITION),
]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the package and of the tests, which may be changed."""
    root = tmp_path_factory.mktemp("mutants")
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("fxcache", "tests", "kernels"):
        shutil.copytree(ROOT / folder, root / folder, symlinks=True, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m[0]}: {m[1].strip()} -> {m[2]}")
def test_each_mutant_is_caught(copied, mutant):
    name, old, new = mutant
    file = copied / FOLDER / name
    source = file.read_text()
    assert source.count(old) >= 1, "the mutant is out of date"
    file.write_text(source.replace(old, new, 1))
    environment = {**os.environ, "PYTHONPATH": str(copied), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TESTS],
            cwd=copied,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        file.write_text(source)
    assert done.returncode == 1, f"not caught\n{done.stdout[-500:]}"
