"""Drawn loops take turns on one optimised model, and each of their calls is checked.

Each loop knows what it computed itself: a call must equal the plain model bit for bit, or the head
of the plain model on a deep value that this very stream refreshed within the interval, for the same
prompt and under the same hooks. A refresh that the policy did not ask for needs a cause that was
drawn, and an ambiguity costs one.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import fxcache
from tests.engines import interrupted, optimized_engine
from tests.loops import refresh_graphs
from tests.runtime.drawn.loops import Drawing, Loop, Stream
from tests.runtime.drawn.model import TOKENS, WIDTH, Denoiser, doubled

INTERVAL = 3
# An unclear call refreshes. Where only latents connect calls, the next ones may be unclear too.
MAX_UNCLEAR = 4


@dataclass
class Drawn:
    """The random choices and the observed counts."""

    calls: int = 0
    refreshes: int = 0
    reuses: int = 0
    extra_refreshes: int = 0
    loops: Counter[str] = field(default_factory=Counter)


class World:
    """An optimised model, its plain twin, and the running loops."""

    def __init__(self, seed: int, limit: int = 32):
        self.plain = Denoiser().eval()
        self.hooked = Denoiser().eval()
        self.hooked.deep[0].register_forward_hook(doubled)
        self.model: Any = fxcache.optimize(
            Denoiser().eval(),
            fxcache.Uniform(INTERVAL),
            cut="deep",
            cache=fxcache.CacheConfig(max_trajectories=limit),
            capture=fxcache.CaptureConfig(max_captures=32),  # more than there are kinds of call
        )
        self.drawing = Drawing(self.model, seed)
        self.active: list[Loop] = []
        self.drawn = Drawn()
        engine = optimized_engine(self.model)
        self.engine = engine

    def run(self, loop: Loop) -> Iterator[None]:
        """Yield the loop's calls, one at a time."""
        self.drawn.loops[loop.name] += 1
        with loop.whole:
            for step in range(len(loop.timesteps)):
                loop.step = step
                residual = 0.01 * self.drawing.normal(1, TOKENS, WIDTH) if loop.residuals else None
                for stream in loop.streams:
                    self.call(loop, stream, residual)
                    yield
                self.move(loop)
                loop.scheduler.step_index = step + 1

    def move(self, loop: Loop) -> None:
        """Apply the sampler's update. Streams of one latent continue with one latent."""
        moved: dict[int, Tensor] = {}
        for stream in loop.streams:
            x = stream.latent
            if id(x) not in moved:
                step = 0.05 * self.plain(x, float(loop.timestep()), stream.prompt())
                moved[id(x)] = x - step + loop.noise * self.drawing.normal(*x.shape)
        for stream in loop.streams:
            stream.latent = moved[id(stream.latent)]

    def call(self, loop: Loop, stream: Stream, residual: Tensor | None) -> None:
        """Make one call, perhaps with a new prompt, perhaps after a failure of the same call."""
        if loop.may_change_prompt and self.drawing.chance(0.01):
            kind = self.drawing.random.choice(["own", "rebuilt"])
            changed = {id(s.prompt): self.drawing.prompt(kind) for s in loop.streams}
            for other in loop.streams:
                other.prompt, other.cause = changed[id(other.prompt)], "another prompt"
        timestep, text = loop.timestep(), stream.prompt()
        if self.drawing.chance(0.02):
            self.fail(loop, stream, timestep, text, residual)
            for other in loop.streams:  # what is called twice may be taken for the other half
                other.cause = other.cause or "the same call before"
        evicted = self.engine.store.counts.evicted
        got = self.called(loop, stream, timestep, text, residual)
        if self.engine.store.counts.evicted != evicted:
            for other in (s for known in self.active for s in known.streams):
                other.cause = other.cause or "pushed out"
        self.check(loop, stream, timestep, text, residual, got)

    def called(
        self, loop: Loop, stream: Stream, timestep: Any, text: Tensor, residual: Tensor | None
    ) -> Tensor:
        with ExitStack() as around:
            around.enter_context(loop.around(stream))
            if stream.hooked:
                handle = self.model.deep[0].register_forward_hook(doubled)
                around.callback(handle.remove)
            found: Tensor = self.model(stream.latent, timestep, text, residual)
        return found

    def fail(
        self, loop: Loop, stream: Stream, timestep: Any, text: Tensor, residual: Tensor | None
    ) -> None:
        """Make a call that fails if it refreshes. The caller repeats it in any case."""

        def die() -> None:
            raise ZeroDivisionError

        with ExitStack() as failures:
            for graph in refresh_graphs(self.model):
                failures.enter_context(interrupted(self.model, graph, die))
            try:
                got = self.called(loop, stream, timestep, text, residual)
            except ZeroDivisionError:
                return
        self.check(loop, stream, timestep, text, residual, got)

    def check(
        self,
        loop: Loop,
        stream: Stream,
        timestep: Any,
        text: Tensor,
        residual: Tensor | None,
        got: Tensor,
    ) -> None:
        """Check that the result equals the plain model's, or follows from the deep value."""
        plain: Any = self.hooked if stream.hooked else self.plain
        self.drawn.calls += 1
        deep = plain.deep_value(stream.latent, text)
        if torch.equal(got, plain.end(stream.latent, deep, timestep, residual)):
            self.drawn.refreshes += 1
            stream.computed = [*stream.computed[-INTERVAL:], (loop.step, deep, text.clone())]
            self.count_extra(loop, stream)
        else:
            self.drawn.reuses += 1
            own = (
                torch.equal(got, plain.end(stream.latent, kept, timestep, residual))
                for step, kept, prompt in stream.computed
                if loop.step - step < INTERVAL and torch.equal(prompt, text)
            )
            assert stream.calls, f"{loop.name}: reused at its first call"
            assert any(own), f"{loop.name}: a value of another caller, prompt, hook or age"
            stream.extra = 0
        stream.calls, stream.cause = stream.calls + 1, ""

    def count_extra(self, loop: Loop, stream: Stream) -> None:
        """Count refreshes that neither the policy nor an event asked for."""
        reason = self.engine.store.trajectories[-1].run.steps[-1].decision.reason
        made_anew = "rebuilt" in loop.name and reason == "conditioning changed"
        if reason.startswith("every") or stream.cause or made_anew:
            stream.extra = 0
            return
        self.drawn.extra_refreshes += 1
        stream.extra += 1
        assert stream.extra <= MAX_UNCLEAR, f"{loop.name}: {reason}, {stream.extra} times in a row"


@torch.no_grad()
def draw(calls: int, seed: int = 0, together: int = 4) -> Drawn:
    """Let loops take turns in one thread until the model was called ``calls`` times."""
    world = World(seed)
    running: list[tuple[Loop, Any]] = []
    while world.drawn.calls < calls:
        if not running or (len(running) < together and world.drawing.chance(0.3)):
            loop = world.drawing.loop()
            world.active.append(loop)
            running.append((loop, (copy_context(), world.run(loop))))
        index = world.drawing.random.randrange(len(running))
        loop, (context, turns) = running[index]
        abandoned = world.drawing.chance(0.003)
        if abandoned or context.run(next, turns, StopIteration) is StopIteration:
            context.run(turns.close)
            del running[index]
            world.active.remove(loop)
    return world.drawn


class Threaded(World):
    """Loops in separate threads in any order: only values are checked."""

    def count_extra(self, loop: Loop, stream: Stream) -> None:
        pass

    def fail(self, *_: Any) -> None:
        pass


def draw_in_threads(calls: int, seed: int = 0, threads: int = 3) -> Drawn:
    """Let each thread run one loop after the other."""
    world, failures = Threaded(seed), list[BaseException]()
    capture_first(world.model)

    @torch.no_grad()
    def work() -> None:
        try:
            while world.drawn.calls < calls and not failures:
                loop = world.drawing.loop()
                if any(stream.hooked for stream in loop.streams):
                    continue  # a hook is set for the whole model, not for a thread
                for _ in world.run(loop):
                    pass
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
    return world.drawn


@torch.no_grad()
def capture_first(model: nn.Module) -> None:
    """Capture a call with a tensor, so that threads share a capture."""
    text = torch.zeros(1, 3, WIDTH)
    model(torch.zeros(1, TOKENS, WIDTH), torch.zeros(1), text)
