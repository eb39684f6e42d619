"""Tests models that keep tensors between calls, such as text that the first call of a run embeds.

The oracle is the original model: its results, and what it keeps after each step.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

import fxcache
from tests.engines import num_captures, optimized_engine
from tests.loops import refreshes
from tests.plain import DiT, dit_inputs
from tests.runtime.keeping import KINDS, InAttribute, InThread, Keeping
from tests.runtime.sampled import CHANGES

STEPS = 7


@torch.no_grad()
def sampled(model: Any, scale: float = 1.0, steps: int = STEPS) -> list[Tensor]:
    """Return the latent and the kept text after each step of a run, and end the run."""
    inputs, found = dit_inputs(), []
    latent, text = inputs["sample"], scale * inputs["text"]
    for t in torch.linspace(900, 100, steps):
        latent = latent - 0.1 * model(latent, t, text)
        found += [latent, model.kept()]
    model.keep(None)
    return found


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def pair(kind: Callable[[], Any], interval: int) -> tuple[Any, Any]:
    """Return a model and an optimised one with the same weights."""
    return kind().eval(), fxcache.optimize(kind().eval(), fxcache.Uniform(interval))


@pytest.mark.parametrize("kind", KINDS)
def test_every_run_is_exact_with_two_captures(kind: Callable[[], Any]) -> None:
    plain, model = pair(kind, 1)
    for scale in (1.0, 2.0, 3.0, 4.0):
        assert_equal(sampled(model, scale), sampled(plain, scale))
    made = optimized_engine(model).graphs.capture_s
    assert_equal(sampled(model, 5.0), sampled(plain, 5.0))
    assert optimized_engine(model).graphs.capture_s == made
    assert num_captures(model) == 2  # of the call that fills the attribute, which has no use, too


@pytest.mark.parametrize("kind", KINDS)
def test_calls_after_the_first_reuse(kind: Callable[[], Any]) -> None:
    _, model = pair(kind, 3)
    for scale in (1.0, 2.0, 3.0):
        sampled(model, scale)
    assert refreshes(model) == 3 * [[0, 3]]  # of the calls after the first
    assert "first call changes settings of the model" in str(fxcache.report(model))


def test_compiled_calls_and_further_options() -> None:
    plain, model = pair(InThread, 1)
    compiled = torch.compile(model, backend="eager")
    for scale in (1.0, 2.0, 3.0):
        assert_equal(sampled(compiled, scale), sampled(plain, scale))
    fxcache.optimize(model, fxcache.Uniform(1))  # takes over what is known of the model
    assert_equal(sampled(model), sampled(plain))


@torch.no_grad()
def test_kept_tensors_are_read_at_each_call() -> None:
    """A caller that replaces them, or writes to them, gets results for the new ones."""
    plain, model = pair(InAttribute, 3)
    inputs = dit_inputs()
    sampled(model)
    for kept in (inputs["text"], 2 * inputs["text"], inputs["text"]):
        plain.text, model.text = kept.clone(), kept.clone()
        for t in (900.0, 800.0):  # the second call would reuse
            call = (inputs["sample"], torch.tensor(t), inputs["text"])
            assert torch.equal(model(*call), plain(*call))
            plain.text.mul_(3.0)
            model.text.mul_(3.0)


class Again(InThread):
    """Embeds the text at each call, and keeps it nevertheless (as F5-TTS does if unguided)."""

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        self.keep(self.embed_text(text).tanh())
        return super().forward(sample, timestep, text)


class Recurrent(InAttribute):
    """Computes with the input of the call before."""

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        change = 0 if self.text is None else (sample - self.text).abs().mean()
        self.text = sample
        return super(Keeping, self).forward(sample, timestep, text) * (1 + change)


@pytest.mark.parametrize("kind", [Again, Recurrent])
def test_tensors_that_every_call_replaces_are_results(kind: Callable[[], Any]) -> None:
    plain, model = pair(kind, 1)
    for scale in (1.0, 2.0, 3.0):
        assert_equal(sampled(model, scale), sampled(plain, scale))
    assert num_captures(model) == 2
    fxcache.optimize(model, fxcache.Uniform(3))
    found, expected = sampled(model), sampled(plain)
    assert refreshes(model) == [[0, 3]]
    if kind is Again:
        assert_equal(found[1::2], expected[1::2])  # reuse steps keep the text too


class Growing(InAttribute):
    """Keeps the text of every call."""

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        self.keep((*(self.kept() or ()), text * timestep))
        return super(Keeping, self).forward(sample, timestep, sum(self.text) / len(self.text))


class Longer(InAttribute):
    """Keeps a tensor that grows with every call."""

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        self.keep(text if self.text is None else torch.cat((self.text, text), dim=1))
        return super(Keeping, self).forward(sample, timestep, self.text)


@pytest.mark.parametrize("kind", [Growing, Longer])
@pytest.mark.filterwarnings(f"ignore:.*{CHANGES}")
def test_what_grows_with_every_call_is_not_captured_each_time(kind: Callable[[], Any]) -> None:
    plain, model = pair(kind, 3)
    found, expected = sampled(model, steps=12), sampled(plain, steps=12)
    for one, other in zip(found, expected, strict=True):
        assert_equal([*one], [*other])
    assert "The original model runs them" in str(fxcache.report(model))
    made = optimized_engine(model).graphs.capture_s
    sampled(model, steps=20)
    assert optimized_engine(model).graphs.capture_s == made


class Halves(DiT):
    """Keeps one text for each half of the guidance, as F5-TTS does without packing them."""

    def __init__(self) -> None:
        super().__init__(2)
        self.texts: dict[bool, Tensor] = {}

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor, drop: bool = False) -> Tensor:
        if len(self.texts) < 2:
            self.texts[drop] = text * 0 if drop else text.tanh()
        return super().forward(sample, timestep, self.texts[drop])


@torch.no_grad()
def test_two_kinds_of_call_that_fill_one_dict() -> None:
    plain, model = pair(Halves, 1)
    inputs = dit_inputs()
    for scale in (1.0, 2.0, 3.0):
        for t in torch.linspace(900, 100, 5):
            for drop in (False, True):
                call = (inputs["sample"] / t, t, scale * inputs["text"], drop)
                assert torch.equal(model(*call), plain(*call))
        plain.texts.clear()
        model.texts.clear()
    fxcache.optimize(model, fxcache.Uniform(3))
    for t in torch.linspace(900, 100, 5):
        for drop in (False, True):
            model(inputs["sample"] / t, t, inputs["text"], drop)
    assert refreshes(model) == [[0, 3], [0, 3]]


class Ring(InAttribute):
    """Writes to what it keeps, at every call."""

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        if self.text is None:
            self.text = text.tanh()
        else:
            self.text.mul_(0.9).add_(text, alpha=0.1)
        return super(Keeping, self).forward(sample, timestep, self.text.clone())


@pytest.mark.filterwarnings(f"ignore:.*{CHANGES}")
def test_writes_to_kept_tensors() -> None:
    plain, model = pair(Ring, 1)
    inputs = dit_inputs()
    for scale in (1.0, 2.0):
        with torch.no_grad():
            for t in torch.linspace(900, 100, 4):
                call = (inputs["sample"] / t, t, scale * inputs["text"])
                assert torch.equal(model(*call), plain(*call))
                assert torch.equal(model.text, plain.text)
        plain.text = model.text = None


def test_threads_keep_their_own() -> None:
    plain, model = pair(InThread, 1)
    sampled(model)
    expected = [sampled(plain, scale) for scale in (1.0, 2.0)]
    with ThreadPoolExecutor(2) as threads:
        results = threads.map(lambda scale: sampled(model, scale), (1.0, 2.0))
        for found, kept in zip(results, expected, strict=True):
            assert_equal(found, kept)


def test_artifacts_refuse_what_a_model_keeps(tmp_path: Any) -> None:
    _, model = pair(InThread, 3)
    sampled(model)
    with pytest.raises(fxcache.ArtifactError, match=r"self\.threads|threads"):
        fxcache.export(model, tmp_path / "artifact")
