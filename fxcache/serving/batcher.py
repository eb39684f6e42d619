"""Runs many requests at once: waiting steps are grouped, and each group shares one call."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from torch import nn

from fxcache.errors import StateError
from fxcache.policies import Policy
from fxcache.runtime.pipeline import require_engine
from fxcache.serving.calls import WHERE, Calls
from fxcache.serving.executor import Executor
from fxcache.serving.options import require_options, require_same_values, require_steps, sizes
from fxcache.serving.request import Pending, Request, Trajectory
from fxcache.serving.rounds import finish_other_stream, held_back, kinds
from fxcache.serving.shared_calls import Compiler, SharedCalls
from fxcache.serving.statistics import Counts, Statistics


class Batcher:
    """Lets requests of different lengths, steps and policies share calls of one model.

    A request makes one step at a time. In a round, all waiting steps are grouped by the values that
    they reuse, and each group is one call of a graph. Results of a request are those that it would
    get alone, up to rounding: kernels may sum in another order for other batch sizes.

    Inside ``with Batcher(model) as batcher:`` a thread runs the rounds. Without ``with``, they run
    in ``run_round``, and in calls that wait for a result.

    The model must have been optimised with ``CaptureConfig(dynamic=...)`` that names dimension 0 of
    each input that has a row for each picture, the timestep included. It must compute each row by
    itself. Hoisted values are computed at each step.

    Args:
        model: An optimised module, or a loaded artifact.
        max_batch: The greatest number of rows of a call, 2 or more.
        buckets: The sizes of batches, ascending, from 2 to ``max_batch``. A batch is padded to the
            next size. By default the powers of two, and ``max_batch``.
        linger: How many seconds a waiting step waits for those of other open requests.
        align: For how many rounds the first step of a request waits for a round in which another
            request refreshes, so that both share this call, and later ones.
        compiler: A function that is applied to each graph, such as ``torch.compile``.

    Raises:
        StateError: The model is not optimised.
        ConfigError: An option has a value that it cannot have, or requests cannot share calls.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        max_batch: int = 8,
        buckets: Sequence[int] | None = None,
        linger: float = 0.005,
        align: int = 0,
        compiler: Compiler | None = None,
    ) -> None:
        engine = require_engine(model, WHERE)
        self._linger, self._align = require_options(linger, align)
        self._settings, self._counts = engine.settings, Counts()
        self._calls = Calls(engine.signature, engine.settings, sizes(max_batch, buckets))
        shared = SharedCalls(self._calls, compiler)
        self._executor = Executor(model, engine, self._calls, shared, self._counts)
        self._round = threading.RLock()  # one round at a time
        self._changed = threading.Condition()  # guards what follows
        self._open: set[Request] = set()
        self._waiting: list[Pending] = []
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self, num_steps: int, policy: Policy | None = None) -> Request:
        """Begin a request.

        Args:
            num_steps: How many steps it will make.
            policy: Decides which of its steps refresh, by default as for the model. It must observe
                the same signal as the model's policy.

        Raises:
            ConfigError: ``policy`` needs other values than the model computes.
            StateError: The batcher is closed.
        """
        own = policy or self._settings.policy
        require_same_values(own, self._settings.policy)
        require_steps(num_steps)
        request = Request(Trajectory(own, num_steps), self)
        with self._changed:
            self._require_open()
            self._open.add(request)
        return request

    def run_round(self) -> int:
        """Run the steps that wait now, except those that ``align`` holds back. Return their number.

        Steps that are submitted meanwhile wait for the next round.
        """
        with self._round:
            with self._changed:
                taken, self._waiting = self._waiting, []
                held = held_back(taken, self._align)
                self._waiting += held
            steps = [step for step in taken if step not in held]
            steps = [step for step in steps if step.future.set_running_or_notify_cancel()]
            try:
                for kind in kinds(steps, self._calls.alike):
                    self._executor.run(kind)
            except BaseException as error:  # nobody may wait for these steps forever
                for step in steps:
                    if not step.future.done():
                        step.future.set_exception(error)
                raise
            self._counts.add_round()
            return len(steps)

    @property
    def statistics(self) -> Statistics:
        """What the batcher did so far, and what it holds now."""
        with self._changed:
            requests, waiting = list(self._open), len(self._waiting)
        held = sum(request.cached_bytes for request in requests)
        return self._counts.read(len(requests), waiting, held)

    def close(self) -> None:
        """Stop. Steps that wait are cancelled; a round of the thread ends first."""
        with self._changed:
            self._closed = True
            waiting, self._waiting = self._waiting, []
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        for step in waiting:
            if step.future.cancel():
                step.future.set_running_or_notify_cancel()  # wakes those who wait for it
        if thread not in (None, threading.current_thread()):
            thread.join()

    def __enter__(self) -> "Batcher":
        with self._changed:
            self._require_open()
            if self._thread is not None:
                raise StateError(
                    "the batcher runs already", where="Batcher", remedy="use one with block"
                )
            self._thread = threading.Thread(target=self._serve, name="fxcache-batcher", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(
        self, request: Request, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> "Future[Any]":
        """Let the next step of ``request`` wait for its call."""
        trajectory = request.trajectory
        if trajectory.index >= trajectory.num_steps:
            raise StateError(
                f"the request has made its {trajectory.num_steps} steps",
                where="Request",
                remedy="start another request, with the number of steps that it makes",
            )
        pending = Pending(trajectory, self._calls.of(args, kwargs), Future())
        pending.stream = finish_other_stream(pending.call.latent)
        with self._changed:
            self._require_open()
            if request not in self._open:
                raise StateError(
                    "the request is closed", where="Request", remedy="start another request"
                )
            self._waiting.append(pending)
            self._changed.notify_all()
        return pending.future

    def result(self, future: "Future[Any]") -> Any:
        """Wait for a step. Without a thread, run the rounds here."""
        while self._thread is None and not self._closed and not future.done():
            self.run_round()
        return future.result()

    def forget(self, request: Request) -> None:
        """End a request, for which the others no longer wait."""
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def _require_open(self) -> None:
        if self._closed:
            raise StateError("the batcher is closed", where="Batcher", remedy="make a new Batcher")

    def _serve(self) -> None:
        """Run rounds until the batcher is closed."""
        while True:
            with self._changed:
                while not self._closed and (left := self._seconds_left()) > 0:
                    self._changed.wait(left)
                if self._closed:
                    return
            with suppress(Exception):  # the callers of the steps received it
                self.run_round()

    def _seconds_left(self) -> float:
        """Return for how long the next round waits for more steps; 0 if it should begin."""
        if not self._waiting:
            return threading.TIMEOUT_MAX
        if len(self._waiting) >= len(self._open):
            return 0
        left = self._waiting[0].arrived + self._linger - time.monotonic()
        return min(left, threading.TIMEOUT_MAX)
