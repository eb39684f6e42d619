"""Tests the GPU bench on the CPU: a dry run reaches every line of it."""

import inspect
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch._dynamo import convert_frame
from triton.runtime.interpreter import GridExecutor

from bench import gpu
from bench.gpu import environment, runner, stand_in, streams
from bench.gpu.__main__ import PARTS, main
from bench.gpu.items import Item, require
from bench.gpu.kernel_cases import cases
from bench.gpu.results import Results, Status
from bench.gpu.setup import DRY_RUN
from bench.gpu.wheels import install
from fxcache.runtime import captures
from tests import shared
from tests.bench.processes import one_pytest
from tests.bench.tracing import Line, lines_of_functions, lines_that_run, untraced
from tests.once import made_once

FOLDER = Path(gpu.__file__).parent
QUICK = [part for part in PARTS if part != "native"]  # machine code takes half a minute
pytestmark = [
    # Diffusers asks for versions in functions that torch.compile looks into.
    pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`"),
    pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning"),
]


class DryRun(NamedTuple):
    """The exit statuses, commands and executed lines of a dry run and of the calls after it."""

    out: Path
    first: int
    second: int
    files_changed: bool
    no_time: int
    selected: dict[str, str]
    failed: int
    not_retried: int
    retried: int
    restarts: list[list[str]]
    ran: set[Line]


def failing() -> dict[str, Any]:
    require(False, "this one holds", {})
    return {}


def succeeding() -> dict[str, Any]:
    return {"answer": 42}


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> DryRun:
    """Make the dry run in one process of the test run."""

    def make(folder: Path) -> None:
        found = measured(folder / "results", tmp_path_factory)
        (folder / "run.pickle").write_bytes(pickle.dumps(found))

    folder = made_once(tmp_path_factory, "dry-run", make)
    made: DryRun = pickle.loads((folder / "run.pickle").read_bytes())
    return made._replace(out=folder / "results")


def measured(out: Path, tmp_path_factory: pytest.TempPathFactory) -> DryRun:
    """Measure everything once, and call the command in further ways."""
    out.mkdir(parents=True)
    other = tmp_path_factory.mktemp("failing")
    wheel = a_wheel(tmp_path_factory.mktemp("wheels"))
    torch._dynamo.reset()
    with pytest.MonkeyPatch.context() as patch, lines_that_run(FOLDER) as ran:
        patch.setattr(sys, "path", [*sys.path])
        # What the bench itself does not do takes most of the time.
        patch.setattr(captures, "capture", untraced(shared.Captures()))
        patch.setattr(subprocess, "run", untraced(one_pytest(subprocess.run)))
        patch.setattr(GridExecutor, "__call__", untraced(GridExecutor.__call__))
        patch.setattr(convert_frame, "compile_frame", untraced(convert_frame.compile_frame))
        everything = ["--dry-run", "--out", str(out), *(f"--part={part}" for part in QUICK)]
        first = main([*everything, "--wheels", str(wheel.parent)])
        before = contents(out)
        second = main(everything)
        files_changed = contents(out) != before

        one_part = ["--dry-run", "--out", str(other), "--part", "streams"]
        no_time = main([*one_part, "--seconds", "0"])
        give_items(patch, failing, succeeding)
        main([*one_part, "--item", "second"])
        selected = contents(other)
        shutil.rmtree(other)
        give_items(patch, failing, succeeding)
        failed, not_retried = main(one_part), main(one_part)
        give_items(patch, succeeding, succeeding)
        retried = main([*one_part, "--retry", "--revision", "of this test"])

        restarts: list[list[str]] = []
        patch.setattr(os, "execv", lambda _, command: restarts.append(command))
        patch.setattr(stand_in, "synchronize", failing_device)
        give_items(patch, failing, succeeding, names=("third", "fourth"))
        main([*one_part, "--retry"])
        cases(replace(DRY_RUN, full=True))  # which are listed only, without a GPU
        environment.first_line(["/nowhere/nvidia-smi"])
        patch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(SystemExit):
            main(["--out", str(other)])
    torch._dynamo.reset()
    return DryRun(
        out,
        first,
        second,
        files_changed,
        no_time,
        selected,
        failed,
        not_retried,
        retried,
        restarts,
        ran,
    )


def failing_device() -> None:
    raise RuntimeError("an illegal memory access was encountered")


def give_items(
    patch: pytest.MonkeyPatch,
    *calls: Callable[[], dict[str, Any]],
    names: tuple[str, ...] = ("first", "second"),
) -> None:
    items = [Item(name, call) for name, call in zip(names, calls, strict=True)]
    patch.setattr(streams, "items", lambda setup: iter(items))


def a_wheel(folder: Path) -> Path:
    """Make a wheel of a package ``carried`` that holds only a number."""
    file = folder / "carried-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as wheel:
        wheel.writestr("carried.py", "ANSWER = 42\n")
        info = "carried-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n")
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/WHEEL", tags)
        wheel.writestr(f"{info}/RECORD", "")
    return file


def items_in(folder: Path, part: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((folder / f"{part}.json").read_text("utf-8"))
    return found


def test_a_dry_run_measures_everything(dry_run):
    failures = [
        entry["error"]
        for part in QUICK
        for entry in items_in(dry_run.out, part).values()
        if entry["status"] != Status.DONE
    ]
    assert not failures, failures[0]
    assert dry_run.first == 0


def test_a_dry_run_reaches_every_line(dry_run):
    missed = sorted(lines_of_functions(FOLDER) - dry_run.ran)
    names = [f"{Path(file).name}:{number}" for file, number in missed]
    assert [name for name in names if not name.startswith("native.py:")] == []


@pytest.mark.slow
def test_a_dry_run_of_native_code(tmp_path):
    assert main(["--dry-run", "--out", str(tmp_path), "--part", "native"]) == 0


def test_every_item_names_its_environment(dry_run):
    for part in QUICK:
        for entry in items_in(dry_run.out, part).values():
            assert {"device", "driver", "torch", "triton", "revision"} <= set(entry["environment"])
            assert all(entry["environment"].values())


def test_a_second_call_measures_no_item_again(dry_run):
    assert (dry_run.second, dry_run.files_changed) == (0, False)


def test_items_are_selected_by_name(dry_run):
    assert list(json.loads(dry_run.selected["streams.json"])) == ["second"]


def test_failures_are_tried_again_only_if_asked(dry_run):
    assert (dry_run.no_time, dry_run.failed, dry_run.not_retried, dry_run.retried) == (1, 1, 1, 0)


def test_a_new_process_continues_after_a_lost_device(dry_run):
    (command,) = dry_run.restarts
    assert command[:3] == [sys.executable, "-m", "bench.gpu"]
    assert "--retry" not in command
    assert command[-2] == "--seconds"


def test_realised_speedups_are_compared_with_those_of_flops(dry_run):
    for entry in items_in(dry_run.out, "step_times").values():
        for interval in entry["result"]["intervals"].values():
            expected = interval["realised"] / interval["ideal"]
            assert interval["realised_over_ideal"] == expected > 0
            assert interval["ideal"] > 1


def test_the_stand_in_has_the_names_and_parameters_of_torch_cuda():
    own = [
        (name, value)
        for name, value in vars(stand_in).items()
        if getattr(value, "__module__", "") == stand_in.__name__ and name != "pretended_device"
    ]
    assert {"Event", "Stream", "_sleep", "synchronize"} <= {name for name, _ in own}
    for name, value in own:
        known = getattr(torch.cuda, name)
        if inspect.isfunction(known):
            inspect.signature(known).bind(*inspect.signature(value).parameters)


def test_the_dry_run_leaves_nothing_behind():
    from fxcache import operators
    from fxcache.runtime import offload

    threads = torch.get_num_threads()
    with stand_in.pretended_device():
        assert "cpu" in operators.DEVICES
        assert offload.HOST.type == "meta"
    assert "cpu" not in operators.DEVICES
    assert offload.HOST.type == "cpu"
    assert torch.get_num_threads() == threads


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_written(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path / "out")])
    assert "no GPU" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_packages_are_imported_from_wheels(tmp_path, monkeypatch):
    wheel = a_wheel(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    install(wheel.parent, tmp_path / "unpacked")
    assert import_module("carried").ANSWER == 42
    del sys.modules["carried"]


def test_interrupted_items_are_measured_last(tmp_path):
    known = {"device": "a", "driver": "b", "torch": "c", "triton": "d", "revision": "e"}
    items = [Item(name, succeeding) for name in ("cut off", "done", "failed", "new")]
    results = Results(tmp_path, "part", known)
    results.write("cut off", Status.STARTED, {})
    results.write("done", Status.DONE, {"result": {}})
    results.write("failed", Status.FAILED, {"error": "…"})

    def names(retries: bool, **changed: str) -> list[str]:
        read = Results(tmp_path, "part", {**known, **changed})
        return [item.name for item in runner.pending(items, read, retries)]

    assert names(False) == ["new", "cut off"]
    assert names(True) == ["failed", "new", "cut off"]
    assert names(False, revision="another") == ["new", "cut off"]
    assert names(False, device="another") == ["cut off", "done", "failed", "new"]
    assert not list(tmp_path.glob("*.new"))
