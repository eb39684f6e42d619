"""Loops that cut one latent into tiles or into windows of frames, and what each call read."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import fxcache
from fxcache.runtime.module import engine_of
from tests import tiny

Window = tuple[int, ...]  # the places along the axis that is cut
Layout = Callable[[int], Sequence[Window]]  # the windows of a step


def span(start: int, stop: int) -> Window:
    return tuple(range(start, stop))


@dataclass
class Watched:
    """A model that knows from which latent each cached value was computed.

    Attributes:
        model: The model.
        step: The step of the loop.
        foreign: The steps and windows of calls that read what another window's latent gave.
        reused: The number of calls that read cached values.
    """

    model: nn.Module
    step: int = 0
    foreign: list[tuple[int, Window]] = field(default_factory=list)
    reused: int = 0
    _latents: dict[tuple[int, Window], Tensor] = field(default_factory=dict)
    _stored: dict[Any, tuple[int, Tensor]] = field(default_factory=dict)

    def __call__(self, window: Window, latent: Tensor, *inputs: Any, **named: Any) -> Tensor:
        result: Tensor = self.model(latent, *inputs, **named).sample
        self._latents[self.step, window] = latent
        engine = engine_of(self.model)
        if engine is not None:
            self._note(window, latent, engine.store.trajectories[-1])
        return result

    def _note(self, window: Window, latent: Tensor, trajectory: Any) -> None:
        if trajectory.last_refresh == trajectory.step:
            self._stored[trajectory] = self.step, latent
            return
        self.reused += 1
        step, stored = self._stored[trajectory]
        own = self._latents.get((step, window))
        if own is None or not torch.equal(own, stored):
            self.foreign.append((self.step, window))


@torch.no_grad()
def windowed(
    watched: Watched,
    layout: Layout,
    start: Tensor,
    text: Tensor,
    axis: int = -1,
    steps: int = 12,
    keyed: bool = False,
    number: bool = False,
) -> Tensor:
    """Denoise each window at each step, and average where windows overlap (MultiDiffusion).

    Args:
        watched: The model.
        layout: The windows of a step.
        start: The noise.
        text: The prompt.
        axis: The axis of ``start`` that is cut.
        steps: The number of steps.
        keyed: Whether each window has a session of its own.
        number: Whether timesteps are Python numbers.
    """
    scheduler = tiny.ddim()
    scheduler.set_timesteps(steps)
    latent = start
    for step, t in enumerate(scheduler.timesteps):
        watched.step = step
        total, count = torch.zeros_like(latent), torch.zeros_like(latent)
        for window in layout(step):
            places = torch.tensor(window)
            part = latent.index_select(axis, places)
            own: Any = fxcache.session(watched.model, key=window) if keyed else nullcontext()
            with own:
                given = int(t) if number else t
                predicted = watched(window, part, given, encoder_hidden_states=text)
            moved = scheduler.step(predicted, int(t), part).prev_sample
            total.index_add_(axis, places, moved)
            count.index_add_(axis, places, torch.ones_like(moved))
        latent = torch.where(count > 0, total / count.clamp(min=1), latent)
    return latent


def fixed(*windows: Window) -> Layout:
    return lambda step: windows


def shuffled(*windows: Window) -> Layout:
    return lambda step: random.Random(step).sample(windows, len(windows))


def jittered(size: int, *windows: Window) -> Layout:
    """Move all windows at each step by a number of places, cyclically."""

    def layout(step: int) -> Sequence[Window]:
        shift = random.Random(step).randrange(size)
        return [tuple((place + shift) % size for place in window) for window in windows]

    return layout


def uniform(frames: int, length: int, overlap: int, fraction: Callable[[int], float]) -> Layout:
    """Slide windows over all frames in a closed loop, as AnimateDiff-Evolved does in ComfyUI.

    At each step the windows begin elsewhere: at a ``fraction`` of the frames.
    """

    def windows(step: int) -> Iterator[Window]:
        shift = round(frames * fraction(step))
        for first in range(shift, frames + shift - overlap, length - overlap):
            yield tuple(place % frames for place in range(first, first + length))

    return lambda step: list(windows(step))


def halving(step: int) -> float:
    """Return the bits of ``step`` in reverse order as a fraction, as AnimateDiff-Evolved does."""
    return int(f"{step:064b}"[::-1], 2) / (1 << 64)
