"""Whatever requests, prompts, shapes and weights do, in any order: nothing stale, nothing mixed.

The oracle holds for each request what it computed itself, with a plain copy of the model: a
refresh must equal the plain model bit for bit; a reuse must equal its head on what this very
request last refreshed, for the same conditioning and weights.
"""

import argparse
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import fxcache
from fxcache.runtime.trajectory.trajectory import Trajectory
from tests.engines import optimized_engine
from tests.plain import CHANNELS, TOKENS, WIDTH, WORDS, DiT

INTERVAL, RUN = 3, 7
counted: dict[str, int] = {"calls": 0, "reuses": 0, "refreshes": 0}


@dataclass
class Request:
    """A caller's loop, and its record of its last refresh."""

    batch: int
    text: Tensor
    timesteps: Tensor
    index: int = 0
    difference: Tensor | None = None
    prompt: int = 0  # how often the text was replaced
    refreshed_for: Any = None  # prompt, weights as noticed, dtype


def text_for(batch: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(batch, WORDS, WIDTH, dtype=dtype)


class Requests(RuleBasedStateMachine):
    """Up to four requests on one optimised model."""

    policy: fxcache.Policy = fxcache.Uniform(interval=INTERVAL)
    hoist: Literal["once"] | None = None

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.plain = DiT(depth=2).eval()
        model = DiT(depth=2).eval()
        self.model: Any = fxcache.optimize(model, policy=self.policy, hoist=self.hoist)
        self.requests: dict[int, Request] = {}
        self.weights = 0  # how often they changed
        self.noticed = 0  # what of it fxcache must have noticed: at the last planned refresh
        self.pending: list[float] = []  # changes of a weight tensor that was replaced
        self.dtype = torch.float32

    slots = st.integers(0, 3)

    @rule(slot=slots, batch=st.integers(1, 2))
    def new_run(self, slot: int, batch: int) -> None:
        old = self.requests.get(slot)
        text = old.text if old and old.batch == batch else text_for(batch, self.dtype)
        self.requests[slot] = Request(batch, text, torch.linspace(900, 100, RUN))

    @rule(slot=slots, steps=st.integers(1, 4))
    def step(self, slot: int, steps: int) -> None:
        for _ in range(steps):
            request = self.requests.get(slot)
            if request is None or request.index == RUN:
                return
            self._call(request)

    @rule(turns=st.integers(1, 3))
    def take_turns(self, turns: int) -> None:
        for _ in range(turns):
            for slot in sorted(self.requests):
                self.step(slot, 1)

    def _call(self, request: Request) -> None:
        sample = torch.randn(request.batch, TOKENS, CHANNELS, dtype=self.dtype)
        timestep = request.timesteps[request.index]
        with torch.no_grad():
            got = self.model(sample, timestep, request.text)
            trajectory = self._trajectory()
            self._notice_if_fxcache_does(trajectory)
            expected = self.plain(sample, timestep, request.text)
        refreshed = trajectory.run.steps[-1].decision.refresh
        assert refreshed or request.index > 0, "the first call of a run"
        self._check(request, sample, timestep, refreshed, got, expected)
        request.index += 1

    def _notice_if_fxcache_does(self, trajectory: Trajectory) -> None:
        """Notice changes of weights where fxcache does: at the start of a run and as planned."""
        if trajectory.step == 0 or self._is_planned(trajectory.step):
            self._notice()
            self.noticed = self.weights

    def _is_planned(self, step: int) -> bool:
        """Return whether the policy refreshes at this step, so that a change is noticed."""
        return isinstance(self.policy, fxcache.Uniform) and step % INTERVAL == 0

    def _check(
        self,
        request: Request,
        sample: Tensor,
        timestep: Tensor,
        refreshed: bool,
        got: Tensor,
        expected: Tensor,
    ) -> None:
        counted["calls"] += 1
        counted["refreshes" if refreshed else "reuses"] += 1
        if refreshed:
            assert torch.equal(got, expected), "a refresh is the plain model"
            request.difference = self._stream(sample, timestep, request.text, True)
            request.refreshed_for = (request.prompt, self.noticed, self.dtype)
            return
        prompt, noticed, dtype = request.refreshed_for
        assert prompt == request.prompt, "another prompt"
        assert noticed == self.noticed, "other weights, noticed since"
        assert dtype == self.dtype
        assert request.difference is not None
        with torch.no_grad():
            base = self._stream(sample, timestep, request.text, False)
            emb = self._embedded(timestep, request.batch)
            x = base + request.difference
            head = self.plain.head(self.plain.norm(x) * (1 + emb[:, None]))
        torch.testing.assert_close(got, head, rtol=1e-4, atol=1e-5)

    @torch.no_grad()
    def _stream(self, sample: Tensor, timestep: Tensor, text: Tensor, difference: bool) -> Tensor:
        """Return the stream before the blocks, or the sum that the blocks add to it."""
        start = x = self.plain.embed(sample) + self.plain.position
        if not difference:
            return start
        emb = self._embedded(timestep, len(sample))
        for layer in self.plain.layers:
            x = layer(x, emb, text)
        return x - start

    def _embedded(self, timestep: Tensor, batch: int) -> Tensor:
        return self.plain.time(timestep.reshape(-1, 1).to(self.dtype) / 1000).expand(batch, -1)

    def _trajectory(self) -> Trajectory:
        """Return the trajectory of the last call."""
        engine = optimized_engine(self.model)
        return engine.store.trajectories[-1]

    @rule(slot=slots, keep_old=st.booleans())
    def change_prompt(self, slot: int, keep_old: bool) -> None:
        request = self.requests.get(slot)
        if request is None:
            return
        if keep_old:  # it may belong to somebody else
            self.kept = request.text
        request.prompt += 1
        request.text = text_for(request.batch, self.dtype)

    @rule(slot=slots)
    def change_shape(self, slot: int) -> None:
        request = self.requests.get(slot)
        if request is not None:
            self.new_run(slot, 3 - request.batch)

    @rule(scale=st.floats(0.5, 1.5), replace=st.booleans())
    def change_weights(self, scale: float, replace: bool) -> None:
        """Write a weight in place, which counts at once, or replace it, which counts later."""
        self.weights += 1
        layer = self.model.layers[1].out
        with torch.no_grad():
            if replace:
                layer.weight = nn.Parameter(layer.weight * scale)
            else:
                layer.weight.mul_(scale)
        self.pending.append(scale)
        if not replace and len(self.pending) == 1:
            self._notice()

    def _notice(self) -> None:
        with torch.no_grad():
            for scale in self.pending:
                self.plain.layers[1].out.weight.mul_(scale)
        self.pending.clear()

    @rule()
    def load_lora(self) -> None:
        """Put an adapter around a linear layer, as PEFT does, or remove it."""
        self.weights += 1
        for model in (self.plain, self.model):
            mlp = model.layers[0].mlp
            if isinstance(mlp[0], nn.Linear):
                torch.manual_seed(self.weights)
                mlp[0] = Adapted(mlp[0], self.dtype)
            else:
                mlp[0] = mlp[0].base
        for request in self.requests.values():  # a graph of another structure: not mid-run
            request.index = RUN

    @rule()
    def change_dtype(self) -> None:
        self.weights += 1
        self._notice()
        self.dtype = torch.float64 if self.dtype == torch.float32 else torch.float32
        self.plain.to(self.dtype)
        self.model.to(self.dtype)
        self.requests.clear()

    @precondition(lambda self: self.requests)
    @rule(slot=slots, after=st.integers(0, 2))
    def fail(self, slot: int, after: int) -> None:
        """Make a call that fails inside the model. The loop continues with the next step."""
        request = self.requests.get(slot)
        if request is None or request.index in (0, RUN):
            return
        sample = torch.randn(request.batch, TOKENS, CHANNELS, dtype=self.dtype)
        with torch.no_grad(), pytest.raises(ZeroDivisionError), Failing(after):
            self.model(sample, request.timesteps[request.index], request.text)
        self._notice_if_fxcache_does(self._trajectory())  # it may have begun a run
        request.index += 1

    @rule()
    def reset(self) -> None:
        self._notice()
        fxcache.restore(self.model)
        fxcache.optimize(self.model, policy=self.policy, hoist=self.hoist)
        self.requests.clear()

    @invariant()
    def bounded(self) -> None:
        engine = optimized_engine(self.model)
        assert len(engine.store.trajectories) <= engine.store.limit
        assert len(engine.captures) <= 8


class Adapted(nn.Module):
    def __init__(self, base: nn.Linear, dtype: torch.dtype):
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False, dtype=dtype)
        self.up = nn.Linear(2, base.out_features, bias=False, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


class Failing(TorchDispatchMode):
    """Raises in the linear layer that runs after ``after`` others."""

    def __init__(self, after: int):
        super().__init__()
        self.left = after

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.addmm.default:
            if not self.left:
                raise ZeroDivisionError
            self.left -= 1
        return func(*args, **(kwargs or {}))


QUICK = settings(
    max_examples=12, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
IGNORED = pytest.mark.filterwarnings("ignore::fxcache.FxcacheWarning")


class ObservedRequests(Requests):
    """Requests with a policy that observes a signal, so that every step has a prefix."""

    policy = fxcache.TeaCache(threshold=3.0, coefficients=(1.0, 0.0))


class HoistedRequests(Requests):
    """Requests whose keys and values of the text are hoisted."""

    hoist = "once"


TestRequests = IGNORED(Requests.TestCase)
TestRequests.settings = QUICK
TestObservedRequests = IGNORED(ObservedRequests.TestCase)
TestObservedRequests.settings = QUICK
TestHoistedRequests = IGNORED(HoistedRequests.TestCase)
TestHoistedRequests.settings = QUICK


def long_run(calls: int) -> dict[str, int]:
    """Draw sequences until the model was called ``calls`` times, and return their counts."""
    counted.update(dict.fromkeys(counted, 0))
    sequences = 0
    many = settings(QUICK, max_examples=50, stateful_step_count=50, database=None)
    while counted["calls"] < calls:
        for machine in (Requests, ObservedRequests, HoistedRequests):
            run_state_machine_as_test(machine, settings=many)
            sequences += many.max_examples
    return {"sequences": sequences, **counted}


@pytest.mark.slow
@IGNORED
def test_ten_thousand_calls():
    drawn = long_run(10_000)
    assert drawn["calls"] >= 10_000
    assert drawn["reuses"] > drawn["calls"] / 10


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the state machine at length.")
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    drawn = long_run(arguments.calls) | {"failures": 0, "torch": torch.__version__}
    arguments.out.write_text(json.dumps(drawn, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
