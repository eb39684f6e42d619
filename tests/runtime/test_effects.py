"""Tests calls that change Python objects of the model: processors, counters, settings.

The oracle is the original model: its results, and what its objects hold after each step.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import fxcache
from tests.engines import num_captures
from tests.loops import refreshes
from tests.plain import DiT, dit_inputs
from tests.runtime.sampled import CHANGES, assert_same, sampled


class Processed(DiT):
    """A transformer whose blocks pass their output through a processor."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__(2)
        self.processors = [make() for _ in self.layers]
        for block, processor in zip(self.layers, self.processors, strict=True):
            block.processor = processor

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        emb = self.time(timestep.reshape(-1, 1).to(sample.dtype) / 1000).expand(len(sample), -1)
        x = self.embed(sample) + self.position
        for layer in self.layers:
            x = layer.processor(layer(x, emb, text))
        return self.head(self.norm(x) * (1 + emb[:, None]))


class Kept:
    """Keeps its last value."""

    def __init__(self) -> None:
        self.held: Any = None

    def __call__(self, x: Tensor) -> Tensor:
        self.held = x.mean(-1)
        return x


class Listed(Kept):
    """Appends to a list, which nobody empties."""

    def __init__(self) -> None:
        self.held = []

    def __call__(self, x: Tensor) -> Tensor:
        self.held.append(x.mean(-1))
        return x


class Nested(Kept):
    """Stores values deep in an object of its own, as attention stores do."""

    def __init__(self) -> None:
        self.held = SimpleNamespace(by_kind={"self": {"lists": [[]]}})

    def __call__(self, x: Tensor) -> Tensor:
        self.held.by_kind["self"]["lists"][0].append((x[:1], {"mean": x.mean()}))
        return x


class Averaged(Kept):
    """Reads what it stored at the last call."""

    def __call__(self, x: Tensor) -> Tensor:
        self.held = x if self.held is None else 0.5 * self.held + x
        return x + self.held.mean()


class Counting(Kept):
    """Computes something else from its third call on, as editing by attention does."""

    def __call__(self, x: Tensor) -> Tensor:
        self.held = 1 if self.held is None else self.held + 1
        return x if self.held < 3 else 0.9 * x


class Slotted:
    """Counts in a slot."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.held += 1
        return x / self.held


PROCESSORS = [Kept, Listed, Nested, Averaged, Counting, Slotted]


def held_by_processors(model: Processed) -> list[Any]:
    return [processor.held for processor in model.processors]


@pytest.mark.parametrize("kind", PROCESSORS)
def test_processors_hold_what_they_would_hold(kind: Callable[[], Any]) -> None:
    model = fxcache.optimize(Processed(kind).eval(), fxcache.Uniform(3))
    with pytest.warns(fxcache.FxcacheWarning, match=CHANGES) as warned:
        found = sampled(model, held_by_processors)
    assert "layers.0.processor" in str(warned[0].message)
    assert_same(found, sampled(Processed(kind).eval(), held_by_processors))
    assert num_captures(model) <= 2
    assert "The original model runs them" in str(fxcache.report(model))


@pytest.mark.filterwarnings(f"ignore:.*{CHANGES}")
def test_a_second_run_needs_no_further_capture() -> None:
    model = fxcache.optimize(Processed(Nested).eval(), fxcache.Uniform(3))
    plain = Processed(Nested).eval()
    for _ in range(2):
        assert_same(sampled(model, held_by_processors), sampled(plain, held_by_processors))
    assert num_captures(model) == 1


class Counted(DiT):
    """Counts its calls and keeps its input, as models with a cache written by hand do."""

    count, previous = 0, None

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        change = 0 if self.previous is None else (sample - self.previous).abs().mean()
        self.count, self.previous = self.count + 1, sample
        return super().forward(sample, timestep, text) * (1 + change) / self.count


@pytest.mark.filterwarnings(f"ignore:.*{CHANGES}")
def test_attributes_of_the_model_itself() -> None:
    model = fxcache.optimize(Counted().eval(), fxcache.Uniform(3))
    assert_same(sampled(model, lambda m: m.count), sampled(Counted().eval(), lambda m: m.count))
    assert num_captures(model) <= 2


class Sized(DiT):
    """Notes the size of its input, and computes something else at its first call."""

    width, ready = 0, False

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        first = not self.ready
        self.width, self.ready = sample.shape[-1], True
        return super().forward(sample, timestep, text) * (2 if first else 1)


def test_settings_that_the_first_call_fills_in() -> None:
    """The original runs the first call. No later call changes anything, so that these reuse."""
    model = fxcache.optimize(Sized().eval(), fxcache.Uniform(1))
    assert_same(sampled(model, lambda m: m.width), sampled(Sized().eval(), lambda m: m.width))
    assert "first call changes settings of the model: width, ready" in str(fxcache.report(model))
    reusing = fxcache.optimize(Sized().eval(), fxcache.Uniform(2))
    sampled(reusing)
    assert refreshes(reusing) == [[0, 2]]  # of the calls after the first


@torch.no_grad()
def test_a_capture_leaves_all_objects_as_they_were() -> None:
    inputs = dit_inputs()
    example = (inputs["sample"], torch.tensor(900.0), inputs["text"])
    for kind in PROCESSORS:
        model, fresh = Processed(kind).eval(), Processed(kind).eval()
        fxcache.optimize(model, capture=fxcache.CaptureConfig(example_inputs=example))
        assert str(held_by_processors(model)) == str(held_by_processors(fresh))


@pytest.mark.filterwarnings(f"ignore:.*{CHANGES}")
def test_artifacts_name_what_a_call_changes(tmp_path: Any) -> None:
    model = fxcache.optimize(Processed(Kept).eval(), fxcache.Uniform(3))
    sampled(model)
    with pytest.raises(fxcache.ArtifactError, match=r"layers\.0\.processor\.held"):
        fxcache.export(model, tmp_path / "artifact")


@pytest.mark.filterwarnings(f"ignore:.*{CHANGES}")
def test_compiled_calls() -> None:
    model = fxcache.optimize(Processed(Counting).eval(), fxcache.Uniform(3))
    compiled = torch.compile(model, backend="eager")
    assert_same(sampled(compiled), sampled(Processed(Counting).eval()))
