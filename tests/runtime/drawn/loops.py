"""Random sampling loops of every kind."""

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

import fxcache
from fxcache.runtime.pipeline import PipelineRun
from fxcache.runtime.schedule import Schedule
from tests.runtime.drawn.model import TOKENS, WIDTH, WORDS

Prompt = Callable[[], Tensor]


@dataclass(eq=False)
class Stream:
    """One trajectory as its caller knows it: one tile, one half of the guidance.

    ``computed``: at which step of the loop a deep value was computed, the value, and the prompt.
    ``cause``: why the next call may have to refresh. ``extra``: refreshes in a row without one.
    """

    latent: Tensor
    prompt: Prompt
    hooked: bool = False
    computed: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)
    calls: int = 0
    cause: str = "first call"
    extra: int = 0


@dataclass(eq=False)
class Loop:
    """A sampling loop: at each step one call for each stream.

    ``whole``: what is open as long as the loop lasts; ``around``: what is open around each call.
    """

    name: str
    streams: list[Stream]
    timesteps: Sequence[Any]
    whole: AbstractContextManager[Any]
    around: Callable[[Stream], AbstractContextManager[Any]]
    scheduler: Any = None
    residuals: bool = False
    noise: float = 0.0
    step: int = 0

    @property
    def may_change_prompt(self) -> bool:
        return "shared prompt" not in self.name and len({id(s.latent) for s in self.streams}) == 1

    def timestep(self) -> Any:
        """Return the timestep of this step, as a new tensor if the loop makes one."""
        value = self.timesteps[self.step]
        if "fresh tensors" in self.name or "pipeline" in self.name:
            return torch.full((1,), float(value))
        return torch.tensor([value], dtype=torch.bfloat16) if "tied" in self.name else value


class Drawing:
    """Draws loops on one optimised model."""

    def __init__(self, model: nn.Module, seed: int):
        self.model, self.random = model, random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.shared_text = self.normal(1, WORDS, WIDTH)
        self.shared_schedule = torch.linspace(999, 1, 12)
        self.keys = 0

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def loop(self) -> Loop:
        """Draw one loop."""
        scope = self.random.choice(["none", "none", "session", "key", "keys", "pipeline"])
        steps = self.random.randint(2, 9)
        kind, timesteps = self.timesteps(steps)
        prompt = self.random.choice(["own", "shared", "view", "rebuilt"])
        streams = self.streams(prompt)
        scheduler = SimpleNamespace(step_index=None, timesteps=torch.arange(float(len(timesteps))))
        return Loop(
            f"{kind}, {prompt} prompt, {scope}",
            streams,
            timesteps,
            self.whole(scope, scheduler),
            self.around(scope, steps),
            scheduler,
            residuals=self.chance(0.2),
            noise=self.random.choice([0.0, 0.0, 0.2]),
        )

    def streams(self, prompt: str) -> list[Stream]:
        """Draw one to three tiles, guided by another prompt or a hook, or unguided."""
        guide = self.random.choice(["none", "none", "prompt", "hook"])
        if guide == "prompt" and prompt == "shared":
            guide = "none"
        prompts = [(self.prompt(prompt), False)]
        if guide == "prompt":
            prompts.append((self.prompt(prompt), False))
        if guide == "hook":
            prompts.append((prompts[0][0], True))
        found = []
        for _ in range(self.random.choice([1, 1, 1, 2, 3])):
            latent = self.normal(1, TOKENS, WIDTH) * self.random.choice([1.0, 3.0])
            found += [Stream(latent, text, hooked) for text, hooked in prompts]
        return found

    def timesteps(self, steps: int) -> tuple[str, Sequence[Any]]:
        first = self.random.choice([999.0, 999.0, 700.0])
        values = torch.linspace(first, self.random.uniform(1, 99), steps)
        kind = self.random.choice(
            ["elements", "shared elements", "numbers", "rising", "fresh tensors", "tied", "part"]
        )
        match kind:
            case "elements":
                return kind, list(values)
            case "shared elements":
                start = self.random.randint(0, 3)
                return kind, list(self.shared_schedule)[start : start + steps]
            case "rising":
                return kind, values.flip(0).tolist()
            case "tied":
                return kind, torch.linspace(999, 999 - 3 * steps, steps).bfloat16().tolist()
            case "part":
                return kind, list(torch.linspace(first, 1, 2 * steps))[:steps]
        return kind, values.tolist()

    def prompt(self, kind: str) -> Prompt:
        own = self.normal(1, WORDS, WIDTH)
        match kind:
            case "shared":
                return lambda: self.shared_text
            case "view":
                both = torch.cat([own, self.normal(1, WORDS, WIDTH)])
                return lambda: both[:1]
            case "rebuilt":
                return own.clone
        return lambda: own

    def whole(self, scope: str, scheduler: Any) -> AbstractContextManager[Any]:
        if scope == "session":
            return fxcache.session(self.model)
        if scope == "pipeline":
            return PipelineRun((self.model,), Schedule(scheduler))
        return nullcontext()

    def around(self, scope: str, steps: int) -> Callable[[Stream], AbstractContextManager[Any]]:
        self.keys += 1
        key = self.keys
        if scope == "key":  # one for the whole loop
            return lambda _: fxcache.session(self.model, key=key, num_steps=steps)
        if scope == "keys":  # one for each stream
            return lambda stream: fxcache.session(self.model, key=(key, id(stream)))
        return lambda _: nullcontext()
