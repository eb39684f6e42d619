"""Draws sampling loops of every kind that take turns on one model, and checks each of their calls.

Each loop knows what it computed itself: a refresh must equal the plain model bit for bit, and a
reuse must equal the head of the plain model on the deep value that this very loop last refreshed,
for the same prompt. An extra refresh needs a cause, and an ambiguity costs one.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import fxcache
from fxcache.runtime.module import engine_of
from fxcache.runtime.record import RunStep
from fxcache.runtime.trajectory.trajectory import Trajectory

TOKENS, WIDTH, WORDS = 64, 8, 3
INTERVAL = 3


class Denoiser(nn.Module):
    """A deep value that depends on latent and prompt, and a head that depends on all inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.text = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.deep = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.head = nn.Linear(WIDTH, WIDTH)
        self.failing = False

    def forward(
        self, sample: Tensor, timestep: Any, text: Tensor, residual: Tensor | None = None
    ) -> Tensor:
        h = self.embed(sample)
        deep = self.deep(h + self.text(text).mean(1, keepdim=True))
        return self.end(h, deep, timestep, residual)

    def end(self, h: Tensor, deep: Tensor, timestep: Any, residual: Tensor | None) -> Tensor:
        timestep = torch.as_tensor(timestep, dtype=h.dtype).reshape(-1, 1, 1)
        found: Tensor = self.head(h + deep) * (1 + timestep / 1000)
        return found if residual is None else found + residual


@dataclass(eq=False)
class Stream:
    """One trajectory as its caller knows it: one tile, one half of the guidance.

    ``computed``: at which step of the loop a deep value was computed, the value, and the prompt.
    """

    latent: Tensor
    prompt: Callable[[], Tensor]
    computed: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)
    calls: int = 0
    cause: str = "first call"  # why its next call may have to refresh
    extra: int = 0  # refreshes in a row without a cause


@dataclass(eq=False)
class Loop:
    """A sampling loop: at each step one call for each stream."""

    name: str
    streams: list[Stream]
    timesteps: list[Any]
    around: Callable[[Stream], AbstractContextManager[Any]]
    residuals: bool = False
    noise: float = 0.0
    step: int = 0
    atomic: AbstractContextManager[Any] | None = None  # a session that others may not interrupt


@dataclass
class Drawn:
    """What was drawn and seen."""

    calls: int = 0
    refreshes: int = 0
    reuses: int = 0
    ambiguities: int = 0
    loops: Counter[str] = field(default_factory=Counter)


class World:
    """An optimised model, its plain twin, and the loops that take turns on it."""

    def __init__(self, seed: int, limit: int = 24):
        self.random = random.Random(seed)
        torch.manual_seed(seed)
        self.plain = Denoiser().eval()
        self.model: Any = fxcache.optimize(
            Denoiser().eval(), policy=fxcache.Uniform(INTERVAL), cut="deep"
        )
        self.shared_text = torch.randn(1, WORDS, WIDTH)
        self.shared_schedule = torch.linspace(999, 1, 12)
        self.drawn = Drawn()
        self.keys = 0
        engine = engine_of(self.model)
        assert engine is not None
        self.engine = engine
        engine.store.limit = limit

    # Drawing

    def loop(self) -> Loop:
        """A loop of a kind that is drawn."""
        scope = self.random.choice(["none", "none", "session", "key", "keys"])
        steps = self.random.randint(2, 9)
        position, timesteps = self.timesteps(steps)
        prompts = self.random.choice(["own", "shared", "view", "rebuilt"])
        tiles = self.random.choice([1, 1, 1, 2, 3])
        guided = prompts != "shared" and self.random.random() < 0.25
        streams = []
        for _ in range(tiles):
            latent = torch.randn(1, TOKENS, WIDTH) * self.random.choice([1.0, 3.0])
            for _ in range(2 if guided else 1):
                streams.append(Stream(latent, self.prompt(prompts)))
        if guided and tiles > 1:
            halves = [s.prompt for s in streams[:2]]
            for i, stream in enumerate(streams):
                stream.prompt = halves[i % 2]
        loop = Loop(
            f"{position}, {prompts} prompt, {scope}" + (", guided" if guided else ""),
            streams,
            timesteps,
            self.around(scope, steps),
            residuals=self.random.random() < 0.2,
            noise=self.random.choice([0.0, 0.0, 0.2]),
        )
        if scope == "session":
            loop.atomic = fxcache.session(self.model, num_steps=None)
            loop.around = lambda _: nullcontext()
        return loop

    def timesteps(self, steps: int) -> tuple[str, list[Any]]:
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
            case "numbers":
                return kind, values.tolist()
            case "rising":
                return kind, values.flip(0).tolist()
            case "fresh tensors":
                return kind, [float(v) for v in values]  # made anew at each call
            case "tied":
                tied = torch.linspace(999, 999 - 3 * steps, steps).to(torch.bfloat16)
                return kind, [float(v) for v in tied]
        return kind, list(torch.linspace(first, 1, 2 * steps))[:steps]

    def prompt(self, kind: str) -> Callable[[], Tensor]:
        own = torch.randn(1, WORDS, WIDTH)
        match kind:
            case "shared":
                return lambda: self.shared_text
            case "view":
                both = torch.cat([own, torch.randn(1, WORDS, WIDTH)])
                return lambda: both[:1]
            case "rebuilt":
                return own.clone
        return lambda: own

    def around(self, scope: str, steps: int) -> Callable[[Stream], AbstractContextManager[Any]]:
        if scope == "key":  # one for the whole loop
            self.keys += 1
            key = self.keys
            return lambda _: fxcache.session(self.model, key=key, num_steps=steps)
        if scope == "keys":  # one for each stream
            return lambda stream: fxcache.session(self.model, key=id(stream))
        return lambda _: nullcontext()

    # Running

    def run(self, loop: Loop) -> Iterator[None]:
        """The loop's calls, one at a time."""
        self.drawn.loops[loop.name] += 1
        with loop.atomic or nullcontext():
            for loop.step, timestep in enumerate(loop.timesteps):
                residual = torch.randn(1, TOKENS, WIDTH) * 0.01 if loop.residuals else None
                for stream in loop.streams:
                    self.call(loop, stream, timestep, residual)
                    if loop.atomic is None:
                        yield
                self.move(loop, timestep)
        yield

    def move(self, loop: Loop, timestep: Any) -> None:
        """The sampler's update: streams of one latent go on with one latent."""
        moved: dict[int, Tensor] = {}
        for stream in loop.streams:
            x = stream.latent
            if id(x) not in moved:
                step = 0.05 * self.plain(x, float(timestep), stream.prompt())
                moved[id(x)] = x - step + loop.noise * torch.randn_like(x)
        for stream in loop.streams:
            stream.latent = moved[id(stream.latent)]

    def call(self, loop: Loop, stream: Stream, timestep: Any, residual: Tensor | None) -> None:
        if isinstance(timestep, float) and "fresh" in loop.name:
            timestep = torch.full((1,), timestep)
        if isinstance(timestep, float) and "tied" in loop.name:
            timestep = torch.tensor([timestep], dtype=torch.bfloat16)
        replaceable = "shared" not in loop.name and "guided" not in loop.name
        if replaceable and self.random.random() < 0.02:
            stream.prompt = self.prompt(self.random.choice(["own", "rebuilt"]))
            stream.cause = "another prompt"
        counts = self.engine.store.counts
        before = (counts.evicted, counts.ambiguous)
        text = stream.prompt()
        if self.random.random() < 0.02:
            self.fail(loop, stream, timestep, text, residual)
            stream.cause = stream.cause or "the same call before"
        with loop.around(stream):
            got = self.model(stream.latent, timestep, text, residual)
        if counts.evicted != before[0]:
            self.evicted()
        self.check(loop, stream, timestep, text, residual, got)

    def fail(
        self, loop: Loop, stream: Stream, timestep: Any, text: Tensor, residual: Tensor | None
    ) -> None:
        """A call that dies if it refreshes; the caller makes it again in any case."""

        def die(*_: Any) -> None:
            raise ZeroDivisionError

        handle = None
        (variants,) = list(self.engine.captures.values())[:1] or [None]
        if variants is None:
            return
        handle = variants.full.register_forward_pre_hook(die)
        try:
            with loop.around(stream):
                got = self.model(stream.latent, timestep, text, residual)
        except ZeroDivisionError:
            return
        finally:
            handle.remove()
        self.check(loop, stream, timestep, text, residual, got)

    def evicted(self) -> None:
        for stream in self.streams:
            stream.cause = stream.cause or "pushed out"

    @property
    def streams(self) -> list[Stream]:
        return [s for loop in self.active for s in loop.streams]

    active: list[Loop]
    trace = False

    # Checking

    def check(
        self,
        loop: Loop,
        stream: Stream,
        timestep: Any,
        text: Tensor,
        residual: Tensor | None,
        got: Tensor,
    ) -> None:
        trajectory: Trajectory = self.engine.store.held[-1]
        step: RunStep = trajectory.run.steps[-1]
        plain = self.plain
        h = plain.embed(stream.latent)
        self.drawn.calls += 1
        if self.trace:
            print(
                self.drawn.calls,
                f"{id(loop) % 10007}/{loop.streams.index(stream)}",
                loop.name,
                float(timestep),
                f"T{id(trajectory) % 10007}",
                trajectory.step,
                step.decision,
                stream.cause,
                loop.noise,
            )
        if step.decision.refresh:
            self.drawn.refreshes += 1
            expected = plain(stream.latent, timestep, text, residual)
            assert torch.equal(got, expected), f"{loop.name}: a refresh is the plain model"
            deep = plain.deep(h + plain.text(text).mean(1, keepdim=True))
            stream.computed.append((loop.step, deep, text.clone()))
            self.count_extra(loop, stream, step.decision.reason)
        else:
            self.drawn.reuses += 1
            assert stream.calls, f"{loop.name}: reused at its first call"
            own = [
                torch.equal(got, plain.end(h, deep, timestep, residual))
                for at, deep, prompt in stream.computed
                if loop.step - at < INTERVAL and torch.equal(prompt, text)
            ]
            assert any(own), f"{loop.name}: a value of another caller, prompt or age"
            stream.extra = 0
        stream.calls += 1
        stream.cause = ""

    def count_extra(self, loop: Loop, stream: Stream, reason: str) -> None:
        made_anew = "rebuilt" in loop.name and reason == "conditioning changed"
        if reason.startswith("every") or stream.cause or made_anew:
            stream.extra = 0
            return
        self.drawn.ambiguities += 1
        stream.extra += 1
        assert stream.extra <= self.allowed(loop), f"{loop.name}: {reason}, {stream.extra} times"

    def allowed(self, loop: Loop) -> int:
        return 1


@torch.no_grad()
def draw(calls: int, seed: int = 0, together: int = 4, trace: bool = False) -> Drawn:
    """Let loops take turns until the model was called ``calls`` times."""
    world = World(seed)
    world.trace = trace
    running: list[tuple[Loop, Iterator[None]]] = []
    world.active = []
    while world.drawn.calls < calls:
        if (len(running) < together and world.random.random() < 0.3) or not running:
            loop = world.loop()
            running.append((loop, world.run(loop)))
            world.active.append(loop)
        index = world.random.randrange(len(running))
        loop, turns = running[index]
        abandoned = world.random.random() < 0.003
        if abandoned or next(turns, StopIteration) is StopIteration:
            turns.close()
            del running[index]
            world.active.remove(loop)
    return world.drawn
