"""hicache-pp, which forecasts the whole prediction instead of calling the model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor

from bench.peers.contender import Attach, Contender
from bench.peers.subject import Ask, At, Live, Subject


def forecast_by(backend: str) -> Attach:
    """Return how to attach a backend, with one computed step at the start of a run.

    The package computes two by default. With one, the steps are those of the others.
    """

    @contextmanager
    def attach(subject: Subject, ask: Ask) -> Iterator[Live]:
        import hicache_pp

        state: dict[str, Any] = {}

        def run(steps: int) -> Any:
            state.clear()
            state.update(
                hicache_pp.hicache_init(
                    num_steps=steps, interval=ask.interval, first_enhance=1, backend=backend
                )
            )
            return nullcontext()

        def step(_: At, call: Callable[[], Tensor]) -> Tensor:
            return decided(state, call, backend)

        setting = f"backend={backend!r}, interval={ask.interval}, first_enhance=1"
        yield Live(subject.model, run, step, setting=setting)

    return attach


def decided(state: dict[str, Any], call: Callable[[], Tensor], backend: str) -> Tensor:
    """Compute or forecast the prediction, as the package's README shows."""
    import hicache_pp

    predicted: Tensor
    if hicache_pp.hicache_decide(state) == "forecast":
        forecast = (
            hicache_pp.dmd_forecast_state if backend == "dmd" else hicache_pp.hicache_forecast
        )
        predicted = forecast(state)
    else:
        predicted = call()
        hicache_pp.hicache_update_derivatives(state, predicted.detach())
        if backend == "dmd":
            hicache_pp.dmd_update_snapshots(state, predicted.detach(), state["history"])
    state["step"] += 1
    return predicted


HERMITE = Contender("hicache-pp, Hermite", "hicache-pp", forecast_by("hermite"))
DMD = Contender("hicache-pp, DMD", "hicache-pp", forecast_by("dmd"))
