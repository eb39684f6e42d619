"""Tests that a capture restores the state of the process, also if it fails."""

import contextlib
import copy
import gc
import importlib
import io
import logging
import sys
import threading
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from tests.capture.prepared import Layer, captured

# torch counts calls in the first, and replaces all of the second, in each export. It replaces what
# the last two hold by equal copies: two threads that trace at once, with or without fxcache, can
# leave something in them. ``settings`` compares what they hold.
COUNTERS = {
    "torch.utils._stats.simple_call_counter",
    "torch.fx.experimental.proxy_tensor._FAKE_TENSOR_ID_TO_PROXY_MAP_FOR_EXPORT",
    "torch.fx.traceback.current_meta",
    "torch._higher_order_ops.flex_attention.current_meta",
}
LOGGERS = ("torch", "torch._dynamo", "torch.export", "diffusers", "transformers", "fxcache")
EVENTS: list[str] = []


@lru_cache
def size_of(name: str) -> int:
    """A cache of another part of the program, which the model uses too."""
    return len(name)


class Traced(nn.Module):
    """Calls a function while it runs."""

    def __init__(self, meanwhile: Callable[[Tensor], Any] = lambda x: None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.meanwhile = [meanwhile]
        self.layers = nn.ModuleList(Layer() for _ in range(3))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.meanwhile[0](x)
        for layer in self.layers:
            x = layer(x, t * size_of("four"))
        return x


def fail(x: Tensor) -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(True)
    if x.sum() > 0:
        raise AssertionError("the latent was read")


def settings() -> dict[str, Any]:
    """Return all settings of torch, warnings, logging and sys, by name."""
    names = [name for name in logging.root.manager.loggerDict if name in LOGGERS]
    return {
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "exporting": torch.compiler.is_exporting(),
        "compiling": torch.compiler.is_compiling(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "random": torch.get_rng_state().tolist(),
        "call": (nn.Module.__call__, nn.Module.__getattr__, nn.Module.__setattr__),
        "code": torch.fx.GraphModule.recompile,
        "tensor": dict(vars(Tensor)),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "logging": {name: logging.getLogger(name).level for name in (None, *names)},
        "streams": (sys.stdout, sys.stderr, sys.excepthook, threading.excepthook),
        "size_of": size_of.cache_info().currsize,
        "modes": len(torch.overrides._get_current_function_mode_stack()),
        "annotations": copy.deepcopy(torch.fx.traceback.get_current_meta()),
    }


def tables() -> dict[str, tuple[Any, Any]]:
    """Return the dicts and sets among the variables of the libraries' files, with copies."""
    found: dict[str, tuple[Any, Any]] = {}
    for name, file in list(sys.modules.items()):
        if name.partition(".")[0] in ("torch", "diffusers", "transformers"):
            for variable, value in list(vars(file).items()):
                if issubclass(type(value), dict | set) and f"{name}.{variable}" not in COUNTERS:
                    found[f"{name}.{variable}"] = (value, identities(value))
    return found


def identities(table: Any) -> Any:
    """Return the entries of a dict or the members of a set, in a comparable form."""
    if issubclass(type(table), dict):
        return [(id(key), id(value)) for key, value in dict.items(table)]
    return {id(member) for member in set.__iter__(table)}


def changed_tables(before: dict[str, tuple[Any, Any]]) -> list[str]:
    """Return the names of the tables whose entries are other objects now."""
    return [name for name, (table, entries) in before.items() if identities(table) != entries]


def capture_one(meanwhile: Callable[[Tensor], Any] = lambda x: None) -> None:
    """Make a capture, or one that is refused."""
    with torch.random.fork_rng(), contextlib.suppress(fxcache.CaptureError):
        captured(Traced(meanwhile).eval(), torch.randn(1, 8, 4), torch.tensor(3.0))


def in_a_thread() -> None:
    thread = threading.Thread(target=capture_one)
    thread.start()
    thread.join()


@pytest.mark.parametrize(
    "run", [capture_one, lambda: capture_one(fail), in_a_thread], ids=["good", "failed", "thread"]
)
def test_process_settings_are_restored(run):
    size_of("four")
    before = settings()
    run()
    after = settings()
    assert [name for name in before if before[name] != after[name]] == []


@pytest.mark.parametrize("run", [capture_one, lambda: capture_one(fail)], ids=["good", "failed"])
def test_tables_of_libraries_are_restored(run):
    for name in ("diffusers.models.activations", "transformers.activations"):
        importlib.import_module(name)
    run()  # torch fills tables of its own when it is first used
    before = tables()
    run()
    assert changed_tables(before) == []


def test_no_fake_tensor_stays_alive_in_the_model_or_its_file():
    model = Traced(lambda x: EVENTS.append("called")).eval()
    captured(model, torch.randn(1, 8, 4), torch.tensor(3.0))
    held = gc.get_referents(model, vars(sys.modules[__name__]), *model.modules())
    assert not any(isinstance(h, Tensor) and type(h) not in (Tensor, nn.Parameter) for h in held)


def test_values_of_other_code_stay():
    """The list holds no value of the trace, so another thread may have changed it."""
    EVENTS.clear()
    variables = "EVENTS"  # the function does not name the list itself
    other = Traced(lambda x: vars(sys.modules[__name__])[variables].append("a"))
    captured(other.eval(), torch.randn(1, 8, 4), torch.tensor(3.0))
    assert EVENTS
    assert set(EVENTS) == {"a"}


def test_other_threads_print_to_stderr_during_a_capture(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    def report(_: Tensor) -> None:
        sys.stderr.write("from the capture")
        thread = threading.Thread(target=sys.stderr.write, args=("from a thread",))
        thread.start()
        thread.join()

    capture_one(report)
    assert stream.getvalue() == "from a thread"
    assert sys.stderr is stream
