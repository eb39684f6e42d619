"""The costs of a run's first call and of each call, and the delay by captures in other threads.

``python -m bench.start_of_run --out FILE`` measures this version and the version of the git
revision ``--baseline``, each in its own process with one thread. FLUX.1 and SDXL are on the meta
device, because comparing their modules takes no arithmetic.

- ``start_ms``: the time to compare unchanged structure and weights with those at capture.
- ``hooks_us``: the time to compare the hooks on all submodules at each call.
- ``dispatch``: the result of ``bench.dispatch``, in microseconds a call.
- ``steps_per_s``: steps of a small U-Net in one thread, alone and while another thread captures the
  same U-Net for another shape.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

import fxcache
from bench.dispatch import measure as dispatch
from bench.dispatch import unet
from bench.planning import model_and_call
from fxcache.runtime.module import engine_of

BASELINE = "8543c21"
TREES = ("FLUX.1, 1024×1024", "Stable Diffusion XL, 1024×1024")
ROUNDS, CALLS, SECONDS, CAPTURES = 9, 500, 3.0, 3


def microseconds(action: Callable[[], object], calls: int) -> float:
    """Return the median over rounds of the mean CPU time of one call in microseconds."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.thread_time()
        for _ in range(calls):
            action()
        rounds.append(1e6 * (time.thread_time() - started) / calls)
    return round(median(rounds), 1)


def captures_of(model: nn.Module) -> Any:
    engine = engine_of(model)
    assert engine is not None
    return engine.graphs


class Captured:
    """A stand-in for a capture, without a graph and without weights."""

    weights: dict[str, Any] = {}  # noqa: RUF012

    def read(self, weights: dict[str, Any]) -> None:
        """Do nothing."""


def pretend_captured(captures: Any, model: nn.Module) -> None:
    """Put ``captures`` into the state after a capture of ``model``, which would take minutes."""
    try:
        from fxcache.runtime.snapshot import Snapshot
    except ImportError:  # the baseline
        from fxcache.runtime.watch import structure  # type: ignore[import-not-found]

        captures.held[None], captures._structure = Captured(), structure(model)
    else:
        captures.changes.keep(captures.hooks.key(model), Snapshot(model))


def noticing(captures: Any, model: nn.Module) -> Callable[[], object]:
    """What looks for changes of ``model`` at the start of a run."""
    if not hasattr(captures, "changes"):  # the baseline
        return partial(captures.notice_changes, model)
    return partial(captures.changes.notice, model, captures.hooks.key(model))


def of_tree(name: str) -> dict[str, Any]:
    """Return the costs of a run's start and of one call, for the modules of a large model."""
    model = fxcache.optimize(model_and_call(name)[0])
    captures = captures_of(model)
    pretend_captured(captures, model)
    notice = noticing(captures, model)
    notice()
    found: dict[str, Any] = {
        "modules": len(list(model.modules())),
        "start_ms": microseconds(notice, 5) / 1000,
    }
    return found | of_hooks(model)


def of_hooks(model: nn.Module) -> dict[str, Any]:
    captures = captures_of(model)
    if not hasattr(captures, "hooks"):  # the baseline
        return {}
    return {"hooks_us": microseconds(lambda: captures.hooks.key(model), CALLS)}


def bundled() -> dict[str, nn.Module]:
    from diffusers import DiTTransformer2DModel, UNet2DConditionModel

    folder = Path(__file__).parent / "models"
    return {
        "emoji-sd": UNet2DConditionModel.from_pretrained(folder / "emoji-sd", subfolder="unet"),
        "emoji-dit": DiTTransformer2DModel.from_pretrained(
            folder / "emoji-dit", subfolder="transformer"
        ),
    }


@torch.no_grad()
def stepped(model: nn.Module, batch: int, timesteps: torch.Tensor) -> None:
    sample, text = torch.randn(batch, 4, 8, 8), torch.randn(batch, 77, 32)
    for t in timesteps:
        model(sample, t, encoder_hidden_states=text, return_dict=False)


def steps_in(model: nn.Module, done: Callable[[], bool]) -> float:
    """Return the steps per second, in runs of ten, until ``done``."""
    started, steps = time.perf_counter(), 0
    while not done():
        stepped(model, 2, torch.arange(900, 400, -50))
        steps += 10
    return round(steps / (time.perf_counter() - started), 1)


def of_threads() -> dict[str, Any]:
    """Measure steps of one shape, alone and while another thread captures other shapes."""
    model = fxcache.optimize(unet())
    stepped(model, 2, torch.arange(900, 400, -50))
    ends = time.perf_counter() + SECONDS
    alone = steps_in(model, lambda: time.perf_counter() > ends)
    started = time.perf_counter()

    def capture() -> None:
        for batch in range(3, 3 + CAPTURES):
            stepped(model, batch, torch.arange(1))

    thread = threading.Thread(target=capture)
    thread.start()
    beside = steps_in(model, lambda: not thread.is_alive())
    thread.join()
    return {
        "captures": CAPTURES,
        "capture_s": round((time.perf_counter() - started) / CAPTURES, 2),
        "steps_per_s_alone": alone,
        "steps_per_s_during_captures": beside,
    }


def measure() -> dict[str, Any]:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = {name: of_tree(name) for name in TREES}
    for name, model in bundled().items():
        found[name] = of_hooks(fxcache.optimize(model.eval()))
    times = {name: us for name, us in dispatch().items() if name in ("reuse_us", "refresh_us")}
    return {**found, "dispatch": times, "threads": of_threads()}


def measured_in(folder: Path) -> dict[str, Any]:
    """Run ``measure`` for the version of fxcache in ``folder``."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = [sys.executable, __file__, "--measure"]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)  # noqa: S603
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured_at(revision: str, repository: Path) -> dict[str, Any]:
    """Run ``measure`` for a git revision."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "archive.tar"
        command = ["git", "-C", str(repository), "archive", "-o", str(archive), revision]
        subprocess.run(command, check=True)  # noqa: S603
        subprocess.run(["tar", "-xf", str(archive), "-C", folder], check=True)  # noqa: S603, S607
        return measured_in(Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--baseline", default=BASELINE, help="a git revision")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure()))
        return
    repository = Path(__file__).resolve().parent.parent
    found = {
        "before": measured_at(arguments.baseline, repository),
        "after": measured_in(repository),
        "baseline": arguments.baseline,
        "device": f"CPU, {platform.machine()}, one thread",
        "load_average": os.getloadavg()[0],
        "torch": torch.__version__,
    }
    text = json.dumps(found, indent=2, ensure_ascii=False)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
