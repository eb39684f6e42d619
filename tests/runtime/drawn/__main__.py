"""Draw calls at length and record how many: ``python -m tests.runtime.drawn --out FILE``."""

import argparse
import json
import warnings
from dataclasses import asdict
from pathlib import Path

import torch

import fxcache
from tests.runtime.drawn.world import draw, draw_in_threads

CALLS_A_SEED = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", fxcache.FxcacheWarning)
    torch.set_num_threads(1)
    found: dict[str, object] = {"torch": torch.__version__, "stale_values": 0}
    total = dict.fromkeys(("calls", "refreshes", "reuses", "extra_refreshes"), 0)
    kinds: set[str] = set()
    seed = 0
    while total["calls"] < arguments.calls:
        drawn = draw_in_threads(CALLS_A_SEED, seed) if seed % 10 == 9 else draw(CALLS_A_SEED, seed)
        kinds |= drawn.loops.keys()
        for name in total:
            total[name] += asdict(drawn)[name]
        seed += 1
    found |= total | {"kinds_of_loops": len(kinds), "seeds": seed}
    arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
