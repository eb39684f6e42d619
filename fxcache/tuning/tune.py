"""The tuner: finds the best plan for a model and a budget, and verifies it by real runs."""

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from statistics import median
from typing import Any

from torch import nn

from fxcache.calibration.calibration import recording
from fxcache.calibration.fingerprint import fingerprint
from fxcache.calibration.plan import Plan
from fxcache.errors import ConfigError, CutError
from fxcache.forecasts import Forecast, Taylor
from fxcache.partition.request import CutRequest
from fxcache.policies import Policy, Uniform
from fxcache.runtime.module import untouched
from fxcache.runtime.settings import Settings
from fxcache.tuning.baseline import Goal, baseline
from fxcache.tuning.candidates import full_shares, require_slower, scheduled
from fxcache.tuning.memory import Memory, trial_key
from fxcache.tuning.messages import Messages
from fxcache.tuning.options import Options
from fxcache.tuning.profile import Profile
from fxcache.tuning.sensitivity import sensitivity
from fxcache.tuning.solve import Solution, solve
from fxcache.tuning.trial import Sample, Trial, TrialRunner, psnr_db

SEARCHES = 6  # speed-ups that are tried for a PSNR
LEAST_SPEEDUP, MOST_SPEEDUP = 1.1, 12.0


class Tuner:
    """Searches for plans for one model and one ``sample`` function.

    Args:
        model: The model.
        sample: Runs the whole sampling loop and returns its result, as an array or tensor with
            values from 0 to 1. The result must be the same at every call.
        options: Options of the search.
        say: Called with messages about the progress.
        memory: What an earlier tuner with the same model, samples and options has measured.
        goal: What must be possible; anything by default.

    Raises:
        CutError: There is no cut, or no schedule reaches the goal.
    """

    def __init__(
        self,
        model: nn.Module,
        sample: Sample,
        options: Options | None = None,
        say: Callable[[str], None] = lambda _: None,
        memory: Memory | None = None,
        goal: Goal | None = None,
    ) -> None:
        self.model, self._sample, self.messages = untouched(model, "tune"), sample, Messages(say)
        self.options, self._memory = options or Options(), memory or Memory()
        self._runner = TrialRunner(self.model, sample)
        self.messages.say("sampling without caching")
        name = type(self.model).__name__
        self.original, self.cuts = baseline(
            self._runner, sample, self.options, goal or Goal(), name
        )
        self.profile = self._profiled()
        first = next(iter(self.cuts))
        local = self.profile.errors(first, 0)[:, 0].tolist()
        self.messages.begin("probe", min(self.options.probes, len(local) - 1))
        self.sensitivity = sensitivity(local, self.options.probes, lambda p: self.tried(p, first))

    def plan(self, trial: Trial, settings: Mapping[str, Any] | None = None) -> Plan:
        """The plan for a trial."""
        return Plan(
            trial.policy,
            trial.cut,
            fingerprint(self.model),
            settings or {},
            run_lengths=self.run_lengths,
            forecast=trial.forecast,
        )

    def best(self, speedup: float, costs: Mapping[str, float] | None = None) -> Trial:
        """The best schedule for a speed-up: the best trial of those with the least predicted error.

        Args:
            speedup: The least speed-up.
            costs: For each cut, the cost of a reuse step, as a multiple of a full step; None to
                compute it from FLOPs.

        Raises:
            ConfigError: The speed-up is not more than 1.
            CutError: No schedule reaches the speed-up.
        """
        if not speedup > 1:
            raise ConfigError(
                f"speedup={speedup!r} saves nothing", where="tune", remedy="pass more than 1"
            )
        solutions = list(self.solutions(speedup, costs))
        if not solutions:
            raise CutError(
                f"no schedule makes {type(self.model).__name__} {speedup:g} times as fast",
                where="tune",
                remedy="pass a smaller speed-up, or let values be reused over more steps "
                f"(gaps={self.options.gaps}; --gaps on the command line)",
            )
        solutions.sort(key=lambda candidate: candidate[1].error)
        trials = []
        self.messages.begin("schedule", min(len(solutions), self.options.verified))
        for order, solution in solutions[: self.options.verified]:
            policy, cut = scheduled(solution)
            forecast = Taylor(order) if order else None
            trials.append(self.tried(policy, cut, solution.error, forecast))
        return max(trials, key=lambda trial: -math.inf if trial.broken else trial.psnr_db)

    def closest(self, psnr_db: float) -> Trial:
        """The fastest schedule whose result has at least this PSNR against the uncached run.

        Raises:
            CutError: No schedule reaches the PSNR.
        """
        low, high = LEAST_SPEEDUP, MOST_SPEEDUP
        best: Trial | None = None
        for index in range(SEARCHES):
            middle = math.sqrt(low * high)
            self.messages.say(f"search {index + 1} of {SEARCHES}: {middle:.2f} times as fast")
            try:
                trial = self.best(middle)
            except CutError:
                high = middle
                continue
            if trial.psnr_db >= psnr_db:
                best = trial if best is None or trial.speedup > best.speedup else best
                low = middle
                continue
            high = middle
            if best is None:  # if the slowest schedule does not reach it, no other one will
                best = self.best(LEAST_SPEEDUP)
                if not best.psnr_db >= psnr_db:
                    best = None
                    break
        if best is None:
            raise CutError(
                f"no schedule of {type(self.model).__name__} that saves FLOPs reaches "
                f"{psnr_db:g} dB against the uncached run",
                where="tune",
                remedy="pass fewer decibels",
            )
        return best

    def within(self, budget_ms: float) -> Trial:
        """The best schedule for a budget in milliseconds, by measured times of the steps.

        Args:
            budget_ms: The greatest time of all denoiser calls in a run.

        Raises:
            CutError: The model is fast enough already, or no schedule is fast enough.
        """
        timed = {name: self._step_ms(name) for name in self.cuts}
        full_ms = median(full for full, _ in timed.values())
        costs = {name: reuse / full for name, (full, reuse) in timed.items()}
        self.messages.say(f"a full step takes {full_ms:.2f} ms")
        require_slower(budget_ms, type(self.model).__name__, self.profile.steps, full_ms)
        return self.best(self.profile.steps * full_ms / budget_ms, costs)

    def _step_ms(self, cut: str) -> tuple[float, float]:
        """The median time in milliseconds of a refresh step, and of a step that reuses ``cut``."""
        _, engine = self._runner.run(Settings(cut, Uniform(2)))
        runs = list(engine.runs)
        refresh, reuse = ([t for run in runs for t in run.times_ms(kind)] for kind in (True, False))
        return median(refresh), median(reuse)

    def solutions(
        self, speedup: float, costs: Mapping[str, float] | None = None
    ) -> Iterator[tuple[int, Solution]]:
        """The schedule with the least predicted error for each order and each set of cuts."""
        by_flops = full_shares(self.cuts)
        budget = self.profile.steps / speedup
        for order in range(self.options.order + 1):
            errors = {c: self.profile.errors(c, order) * self.sensitivity for c in self.cuts}
            for count in range(1, self.options.mixed + 1):
                for chosen in combinations(self.cuts, count):
                    tables = {c: errors[c] for c in chosen}
                    solution = solve(tables, costs or by_flops, budget)
                    if solution and set(solution.reused) - {None} == set(chosen):
                        yield order, solution

    def tried(
        self,
        policy: Policy,
        cut: CutRequest,
        predicted: float | None = None,
        forecast: Forecast | None = None,
    ) -> Trial:
        """Sample under ``policy``, and compare the result with the uncached run."""
        key = trial_key(policy, cut, forecast)
        if key not in self._memory.trials:
            settings = Settings(cut, policy, forecast, run_lengths=self.run_lengths)
            sampled, engine = self._runner.run(settings)
            runs = [run.ideal_speedup or 1.0 for run in engine.runs]
            speedup = len(runs) / sum(1 / s for s in runs) if runs else 1.0
            self._memory.keep_trial(key, speedup, psnr_db(sampled, self.original))
        trial = Trial(policy, cut, *self._memory.trials[key], predicted, forecast)
        text = f"{type(policy).__name__}: {trial.speedup:.2f}×, {trial.psnr_db:.2f} dB"
        self.messages.done(text)
        return trial

    def _profiled(self) -> Profile:
        """The error profile of all cuts, from one run without caching."""
        profile = Profile(self.options.gaps, self.options.order)
        if self._memory.profile is not None:
            profile.load(self._memory.profile)
            self.run_lengths = self._memory.run_lengths
            return profile
        self.messages.say(f"profiling {len(self.cuts)} cuts: {', '.join(self.cuts)}")
        engine = self._runner.engine
        with recording(self.model, profile, list(self.cuts), like=engine) as run_lengths:
            self._sample()
        self.run_lengths = tuple(run_lengths)
        self._memory.keep_profile(profile.to_dict(), self.run_lengths)
        return profile
