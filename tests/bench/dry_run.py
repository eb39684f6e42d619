"""A dry run of the GPU bench, and further calls of its command."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch._dynamo import convert_frame
from triton.runtime.interpreter import GridExecutor

from bench import gpu
from bench.gpu import environment, peers, stand_in, streams
from bench.gpu.__main__ import PARTS, main
from bench.gpu.items import Item, require
from bench.gpu.kernel_cases import cases
from bench.gpu.setup import DRY_RUN
from bench.peers.contender import Contender
from bench.peers.subject import Live
from fxcache.runtime import captures
from tests import shared
from tests.bench.processes import one_pytest
from tests.bench.tracing import Line, lines_that_run, untraced

FOLDER = Path(gpu.__file__).parent
QUICK = [part for part in PARTS if part != "native"]  # machine code takes half a minute


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
        with pytest.raises(peers.NotInstalledError):
            peers.require_packages([Contender("missing", "no-such-package", no_block)])
        patch.setattr(peers, "import_module", not_installed)
        (item,) = peers.items(DRY_RUN)
        with pytest.raises(ImportError):
            item.measure()
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


def no_block(*_: Any) -> Any:
    return nullcontext(Live(None))


def not_installed(name: str) -> None:
    raise ImportError(name)


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
