"""How well latents alone attribute calls: ``python -m bench.latents --out FILE``.

Generates many images with the bundled model, for each solver and number of steps. It compares the
latent of each call of the denoiser with the latents of earlier calls in the same trajectory, and
with those of other trajectories at the same step and its two neighbours.
"""

import argparse
import json
import time
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from bench.environment import environment
from bench.trajectories import (
    STEPS,
    Request,
    Trajectories,
    add_arguments,
    load,
    solvers_and_steps,
    trajectories,
)

DTYPES = (torch.float32, torch.bfloat16)
SHARES = (0.25, 0.5, 0.75)  # the closest distance as a share of the second closest distance
SAMPLE = 1024  # elements
ROUNDING = 1e-6  # a distance (1 - cosine) that may come from rounding
CAPTIONS = ("penguin", "fire engine", "sunflower", "grinning face", "slice of pizza", "owl")
NEAR = (("red apple", "green apple"), ("tiger", "tiger face"))
STRENGTHS = (0.3, 0.6, 0.9)
REQUESTS = (
    *(Request(caption, seed) for seed, caption in enumerate(CAPTIONS)),
    *(Request("red apple", seed) for seed in range(100, 105)),
    *(Request(caption, 200 + i) for i, pair in enumerate(NEAR) for caption in pair),
    *(Request("red apple", 300 + i, s) for s in STRENGTHS for i in range(3)),
)


def sample(latents: Tensor) -> Tensor:
    """Return at most ``SAMPLE`` strided elements of each latent: ``[..., C, H, W] -> [..., S]``."""
    flat = latents.flatten(-3).float()
    return flat[..., :: max(1, flat.shape[-1] // SAMPLE)][..., :SAMPLE]


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosine of each pair, over the elements that differ; 1 if none differs.

    Args:
        first: ``[A, S]``.
        second: ``[B, S]``.

    Returns:
        ``[A, B]``.
    """
    differs = first[:, None] != second[None]
    one, other = first[:, None] * differs, second[None] * differs
    norms = one.square().sum(-1).sqrt() * other.square().sum(-1).sqrt()
    found = (one * other).sum(-1) / norms.clamp(min=1e-30)
    return torch.where(differs.any(-1), found.clamp(-1, 1), torch.ones(()))


def relation(one: Request, other: Request) -> str:
    """Return what a request has in common with another one."""
    if one.strength is not None and other.strength is not None:
        return "same picture"
    if one.caption == other.caption:
        return "same caption"
    return "same seed" if one.seed == other.seed else "unrelated"


def quantiles(values: Tensor) -> dict[str, float]:
    names = {"min": 0.0, "1%": 0.01, "median": 0.5, "99%": 0.99, "max": 1.0}
    found = values.quantile(torch.tensor(list(names.values()))).tolist()
    return dict(zip(names, found, strict=True))


def rivalry(own: Tensor, foreign: Tensor) -> dict[str, Any]:
    """Count how own cosines ``[P]`` compare with the closest foreign cosines ``[P]``."""
    return {
        "calls": len(own),
        "max_cosine": float(foreign.max()),
        "own_closest": int((own > foreign).sum()),
        "own_clearly": {str(r): int((1 - own <= r * (1 - foreign)).sum()) for r in SHARES},
        "foreign_clearly": {str(r): int((1 - foreign <= r * (1 - own)).sum()) for r in SHARES},
    }


class Comparison:
    """The cosines between the calls of several requests.

    Attributes:
        samples: The samples, ``[K, N, S]``, by call and request.
        runs: Whether the request has begun at the call, ``[K, N]``.
        relations: Whether two requests have a relation, ``[N, N]``, by the name of the relation.
    """

    def __init__(self, drawn: Trajectories, requests: tuple[Request, ...], dtype: torch.dtype):
        self.requests, self.first = requests, drawn.first
        self.samples = sample(drawn.latents.to(dtype))
        self.runs = torch.arange(len(self.samples))[:, None] >= torch.tensor(drawn.first)
        kinds = [[relation(a, b) if a is not b else "own" for b in requests] for a in requests]
        names = sorted({kind for row in kinds for kind in row} - {"own"})
        self.relations = {
            name: torch.tensor([[kind == name for kind in row] for row in kinds]) for name in names
        }
        self.relations["all"] = ~torch.eye(len(requests), dtype=torch.bool)

    def own(self, distance: int) -> Tensor:
        """Return the cosine of each call with the call ``distance`` before, ``[K, N]``, or NaN."""
        calls, count = self.runs.shape
        found = torch.full((calls, count), torch.nan)
        for k in range(distance, calls):
            now, then = self.samples[k], self.samples[k - distance]
            found[k] = cosines(now, then).diagonal()
        found[distance:][~self.runs[: calls - distance]] = torch.nan
        return found

    def near(self, call: int) -> Tensor:
        """Return the highest cosine with each request at this step or its neighbours, [N, N]."""
        beside = range(max(0, call - 1), min(len(self.samples), call + 2))
        return torch.stack([self.between(call, other) for other in beside]).amax(0)

    def between(self, call: int, other: int) -> Tensor:
        """Return the cosines of all requests at two calls, ``[N, N]``; -1 before the first call."""
        found = cosines(self.samples[call], self.samples[other])
        return torch.where(self.runs[other], found, -torch.ones(()))

    def rivals(self) -> dict[str, Any]:
        """Compare the own trajectory with the closest other one, by relation."""
        own, near = self.own(1), torch.stack([self.near(k) for k in range(len(self.samples))])
        found = {}
        for name, members in self.relations.items():
            best = torch.where(members, near, -torch.inf).amax(-1)
            counted = own.isfinite() & best.isfinite() & (best > -1)
            if counted.any():
                found[name] = rivalry(own[counted], best[counted])
        return found

    def starts(self) -> dict[str, dict[str, float]]:
        """Return the highest cosine of a first call with any call of another trajectory.

        The result is by the start of the request (noise or an image) and by relation.
        """
        found: dict[str, dict[str, float]] = {}
        for i, request in enumerate(self.requests):
            begin = self.samples[self.first[i], i : i + 1]
            best = torch.where(self.runs, self.with_all(begin), -torch.inf).amax(0)
            source = "noise" if request.strength is None else f"picture {request.strength}"
            group = found.setdefault(source, {})
            for name, members in self.relations.items():
                if members[i].any():
                    group[name] = max(group.get(name, -1.0), float(best[members[i]].max()))
        return found

    def restarts(self) -> float:
        """Return the highest cosine of a request's first call with its last: it is repeated."""
        firsts = torch.stack([self.samples[k, i] for i, k in enumerate(self.first)])
        return float(cosines(firsts, self.samples[-1]).diagonal().max())

    def with_all(self, one: Tensor) -> Tensor:
        """Return the cosines of a sample ``[1, S]`` with all calls of all requests, ``[K, N]``."""
        return cosines(one, self.samples.flatten(0, 1)).reshape(self.runs.shape)

    def measure(self) -> dict[str, Any]:
        """Return all measurements."""
        own = self.own(1)
        distances = 1 - own
        ratios = torch.where(distances[:-1] > ROUNDING, distances[1:] / distances[:-1], torch.nan)
        second = self.own(2)
        return {
            "own": quantiles(own[own.isfinite()]),
            "own_at_distance_2": quantiles(second[second.isfinite()]),
            "own_distance_ratio": quantiles(ratios[ratios.isfinite()]),
            "rivals": self.rivals(),
            "starts": self.starts(),
            "restart": self.restarts(),
        }


def row(name: str, steps: int, dtype: str, found: dict[str, Any]) -> list[Any]:
    rivals, starts = found["rivals"]["all"], found["starts"]
    clearly = f"{rivals['own_clearly']['0.5']}, {rivals['foreign_clearly']['0.5']}"
    pictures = max(v["all"] for source, v in starts.items() if source != "noise")
    return [
        *(name, steps, dtype, found["own"]["min"], found["own_at_distance_2"]["min"]),
        *(rivals["max_cosine"], f"{rivals['own_closest']} of {rivals['calls']}", clearly),
        *(starts["noise"]["unrelated"], pictures, found["own_distance_ratio"]["99%"]),
    ]


HEADERS = (
    *("solver", "steps", "dtype", "own ≥", "at 2 ≥", "other ≤", "own closest"),
    *("clearly: own, other", "start ≤", "from picture ≤", "ratio 99%"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    arguments = parser.parse_args()
    if min(arguments.steps or STEPS) < 3:
        parser.error("--steps must be at least 3: ratios of distances need three calls")
    pipeline, rows, results = load(), [], []
    for solver, steps in solvers_and_steps(arguments):
        started = time.perf_counter()
        drawn = trajectories(pipeline, solver, steps, REQUESTS)
        for dtype in DTYPES:
            name = str(dtype).removeprefix("torch.")
            found = Comparison(drawn, REQUESTS, dtype).measure()
            results.append({"solver": solver, "steps": steps, "dtype": name} | found)
            rows.append(row(solver, steps, name, found))
        print(f"{solver}, {steps} steps: {time.perf_counter() - started:.0f} s", flush=True)
        content = environment("cpu") | {"requests": len(REQUESTS), "results": results}
        text = json.dumps(content, indent=1, ensure_ascii=False)
        arguments.out.write_text(text + "\n", encoding="utf-8")
    print(tabulate(rows, HEADERS, floatfmt=".2f"))


if __name__ == "__main__":
    main()
