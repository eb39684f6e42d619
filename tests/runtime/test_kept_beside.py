"""Tests what stands beside kept tensors: flags, constants, slots, and objects that several share.

The oracle is the original model: its results, and what it keeps after each step.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import fxcache
from tests.engines import num_captures, optimized_engine
from tests.loops import refreshes
from tests.plain import DiT, dit_inputs
from tests.runtime.keeping import InAttribute, InDict, Keeping
from tests.runtime.sampled import CHANGES


class Flagged(InAttribute):
    """Keeps the text of the last run, and a flag that says that a run begins."""

    first = True

    def kept(self) -> Any:
        return None if self.first else self.text

    def keep(self, text: Any) -> None:
        self.first = text is None
        self.text = self.text if text is None else text


class Marked(InDict):
    """Keeps the flag in the same object as the text."""

    def kept(self) -> Any:
        return self.store.by_name["text"] if self.store.by_name.get("ready") else None

    def keep(self, text: Any) -> None:
        self.store.by_name["ready"] = text is not None
        if text is not None:
            self.store.by_name["text"] = text


class Sharing(Keeping):
    """Its blocks share one dict, through which each passes the text on."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: dict[str, Tensor] = {}
        for layer in self.layers:
            layer.texts = self.texts

    def kept(self) -> Any:
        return self.layers[1].texts.get("text")

    def keep(self, text: Any) -> None:
        self.texts.clear()
        if text is not None:
            self.layers[0].texts["text"] = text


class Rotary(InAttribute):
    """Keeps frequencies too, which depend on no value of an input."""

    frequencies: Any = None

    def keep(self, text: Any) -> None:
        self.text = self.frequencies = None
        if text is not None:
            self.frequencies = torch.arange(text.shape[1]).float()[:, None] / 10
            self.text = text + self.frequencies


class InSlot:
    """Holds the text in a slot."""

    __slots__ = ("text",)

    def __init__(self) -> None:
        self.text: Any = None


class Slotted(Keeping):
    """Keeps the text in an object without a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.slot = InSlot()

    def kept(self) -> Any:
        return self.slot.text

    def keep(self, text: Any) -> None:
        self.slot.text = text


KINDS = (Flagged, Marked, Sharing, Rotary, Slotted)


@torch.no_grad()
def sampled(model: Any, scale: float, number: bool = False, steps: int = 6) -> list[Tensor]:
    """Return the latent and the kept text after each step of a run, and end the run."""
    inputs, found = dit_inputs(), []
    latent, text = inputs["sample"], scale * inputs["text"]
    for t in torch.linspace(900, 100, steps):
        latent = latent - 0.1 * model(latent, float(t) if number else t, text)
        found += [latent, model.kept()]
    model.keep(None)
    return found


def assert_runs_are_equal(model: Any, plain: Any, runs: int = 4, number: bool = False) -> None:
    for scale in range(1, runs + 1):
        found, expected = sampled(model, scale, number), sampled(plain, scale, number)
        assert all(map(torch.equal, found, expected))


def capture_s(model: Any) -> float:
    return optimized_engine(model).graphs.capture_s


@pytest.mark.parametrize("kind", KINDS)
def test_every_run_is_exact_with_two_captures(kind: Callable[[], Any]) -> None:
    plain, model = kind().eval(), fxcache.optimize(kind().eval(), fxcache.Uniform(1))
    assert_runs_are_equal(model, plain)
    made = capture_s(model)
    assert_runs_are_equal(model, plain, 2)
    assert capture_s(model) == made
    assert num_captures(model) == 2
    fxcache.optimize(model, fxcache.Uniform(3))
    sampled(model, 1.0)
    assert refreshes(model) == [[0, 3]]  # of the calls after the first


class Timed:
    """Accepts a timestep that is a number."""

    def forward(self, sample: Tensor, timestep: Any, text: Tensor) -> Tensor:
        result: Tensor = super().forward(sample, torch.as_tensor(timestep), text)  # type: ignore[misc]
        return result


class TimedSharing(Timed, Sharing):
    """Shares its dict."""


class Counter(Timed, InAttribute):
    """Counts its steps."""

    step = 0

    def kept(self) -> Any:
        return self.text if self.step else None

    def forward(self, sample: Tensor, timestep: Any, text: Tensor) -> Tensor:
        result = super().forward(sample, timestep, text)
        self.step += 1
        return result

    def keep(self, text: Any) -> None:
        self.step = self.step if text is not None else 0
        self.text = text


@pytest.mark.filterwarnings(f"ignore:.*{CHANGES}")
@pytest.mark.parametrize("kind", [TimedSharing, Counter])
def test_timesteps_that_are_numbers_need_no_further_capture(kind: Callable[[], Any]) -> None:
    plain, model = kind().eval(), fxcache.optimize(kind().eval(), fxcache.Uniform(1))
    assert_runs_are_equal(model, plain, number=True)
    made = capture_s(model)
    assert_runs_are_equal(model, plain, 2, number=True)
    assert capture_s(model) == made


class Read(Sharing):
    """Reads the shared dict through a function, whose variables no trace replaces."""

    def __init__(self) -> None:
        super().__init__()
        texts = self.texts
        self.read = lambda: texts.get("text")

    def kept(self) -> Any:
        return self.read()


@pytest.mark.filterwarnings(f"ignore:.*{CHANGES}")
def test_objects_that_functions_share_stay_as_they_are() -> None:
    assert_runs_are_equal(fxcache.optimize(Read().eval(), fxcache.Uniform(1)), Read().eval())


class Repeated(InAttribute):
    """Replaces a tensor in a list that holds one dict twice, beside a list that it only reads."""

    def __init__(self) -> None:
        super().__init__()
        self.updated: Any = None

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        result = super().forward(sample, timestep, text)
        if self.updated is None:
            self.updated = ({"last": result},) * 2
        self.updated[0]["last"] = result
        return result + self.updated[1]["last"]

    def kept(self) -> Any:
        return self.text[0][0] if self.text else None

    def keep(self, text: Any) -> None:
        self.text = None if text is None else [[text]]


def test_an_object_that_is_kept_twice_stays_one() -> None:
    plain, model = Repeated().eval(), fxcache.optimize(Repeated().eval(), fxcache.Uniform(1))
    assert_runs_are_equal(model, plain)
    assert model.updated[0] is model.updated[1]


class Config:
    """A setting in a slot."""

    __slots__ = ("scale",)

    def __init__(self, scale: float) -> None:
        self.scale = scale


class Configured(DiT):
    """Reads a setting from a slot."""

    def __init__(self) -> None:
        super().__init__(2)
        self.config = Config(1.0)

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return super().forward(sample, timestep, self.config.scale * text)


@torch.no_grad()
def test_settings_in_slots_are_compared() -> None:
    plain, model = Configured().eval(), fxcache.optimize(Configured().eval(), fxcache.Uniform(1))
    inputs = dit_inputs()
    for scale in (1.0, 2.0, 1.0):
        plain.config.scale = model.config.scale = scale
        for t in torch.linspace(900, 100, 2):
            call = (inputs["sample"], t, inputs["text"])
            assert torch.equal(model(*call), plain(*call))
