"""Tests the GPU bench on the CPU: a dry run reaches every line of it."""

import inspect
import json
import pickle
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.gpu import runner, stand_in
from bench.gpu.__main__ import main
from bench.gpu.items import Item
from bench.gpu.results import Results, Status
from bench.gpu.wheels import install
from tests.bench.dry_run import FOLDER, QUICK, DryRun, a_wheel, measured, succeeding
from tests.bench.tracing import lines_of_functions
from tests.once import made_once

pytestmark = [
    # Diffusers asks for versions in functions that torch.compile looks into.
    pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`"),
    pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning"),
]


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> DryRun:
    """Make the dry run in one process of the test run."""

    def make(folder: Path) -> None:
        found = measured(folder / "results", tmp_path_factory)
        (folder / "run.pickle").write_bytes(pickle.dumps(found))

    folder = made_once(tmp_path_factory, "dry-run", make)
    made: DryRun = pickle.loads((folder / "run.pickle").read_bytes())
    return made._replace(out=folder / "results")


def items_in(folder: Path, part: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((folder / f"{part}.json").read_text("utf-8"))
    return found


@pytest.mark.slow
def test_a_dry_run_measures_everything(dry_run):
    failures = [
        entry["error"]
        for part in QUICK
        for entry in items_in(dry_run.out, part).values()
        if entry["status"] != Status.DONE
    ]
    assert not failures, failures[0]
    assert dry_run.first == 0


@pytest.mark.slow
def test_a_dry_run_reaches_every_line(dry_run):
    missed = sorted(lines_of_functions(FOLDER) - dry_run.ran)
    names = [f"{Path(file).name}:{number}" for file, number in missed]
    assert [name for name in names if not name.startswith("native.py:")] == []


@pytest.mark.slow
def test_a_dry_run_of_native_code(tmp_path):
    assert main(["--dry-run", "--out", str(tmp_path), "--part", "native"]) == 0


@pytest.mark.slow
def test_every_item_names_its_environment(dry_run):
    for part in QUICK:
        for entry in items_in(dry_run.out, part).values():
            assert {"device", "driver", "torch", "triton", "revision"} <= set(entry["environment"])
            assert all(entry["environment"].values())


@pytest.mark.slow
def test_a_second_call_measures_no_item_again(dry_run):
    assert (dry_run.second, dry_run.files_changed) == (0, False)


@pytest.mark.slow
def test_items_are_selected_by_name(dry_run):
    assert list(json.loads(dry_run.selected["streams.json"])) == ["second"]


@pytest.mark.slow
def test_failures_are_tried_again_only_if_asked(dry_run):
    assert (dry_run.no_time, dry_run.failed, dry_run.not_retried, dry_run.retried) == (1, 1, 1, 0)


@pytest.mark.slow
def test_a_new_process_continues_after_a_lost_device(dry_run):
    (command,) = dry_run.restarts
    assert command[:3] == [sys.executable, "-m", "bench.gpu"]
    assert "--retry" not in command
    assert command[-2] == "--seconds"


@pytest.mark.slow
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
