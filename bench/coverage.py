"""Finds which denoisers of diffusers can be cut, and the savings: ``python -m bench.coverage``.

It captures every class of ``diffusers.models.unets`` and ``diffusers.models.transformers`` in its
default configuration and at its usual size, on fake tensors, without weights and arithmetic. It
writes ``bench/results/coverage.json`` after every class, so that ``--resume`` can continue, and
``docs/coverage.md``.
"""

import argparse
import json
import re
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import diffusers
import torch
from tabulate import tabulate
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.overrides import TorchFunctionMode

from bench.denoisers import RECIPES, classes
from bench.denoisers.recipe import Recipe
from fxcache.capture.capture import capture
from fxcache.errors import FxcacheError
from fxcache.partition.choose import choose
from fxcache.partition.frontier import Frontier
from fxcache.partition.request import AUTO
from fxcache.signature import Signature

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "coverage.json"
TABLE = ROOT / "docs" / "coverage.md"
NO_FORWARD = {"MotionAdapter": "holds weights for UNetMotionModel; its forward does nothing"}
ENOUGH_SAVED, ENOUGH_BLOCKS = 0.5, 4
LARGE = 2**20

Row = dict[str, Any]


class Sketch(TorchFunctionMode):
    """Makes large tensors fake, such as weights, latents and prompts.

    Small tensors have values, because a trace may read masks, lengths and tables of frequencies.
    """

    def __init__(self, mode: FakeTensorMode):
        super().__init__()
        self.mode = mode

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        with self.mode:
            made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.numel() <= LARGE:
            return func(*args, **(kwargs or {}))
        return made


def row(recipe: Recipe) -> Row:
    """Capture and cut one class. Return its data, or the reason of a refusal."""
    torch.manual_seed(0)
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    with Sketch(mode):
        model: Any = classes()[recipe.kind](**recipe.default).eval()
    weights = sum(p.numel() for p in model.parameters())
    found: Row = {"weights": weights}
    signature = Signature(type(model), recipe.latent)
    started = time.perf_counter()
    with Sketch(mode):
        inputs = recipe.inputs(model.config, True)
    try:
        program = capture(model, signature, signature.call((), inputs))
        found |= {
            "nodes": len(program.graph.nodes),
            "capture_s": round(time.perf_counter() - started, 1),
            "specialized_on": sorted(program.specialized),
        }
        started = time.perf_counter()
        plan = choose(Frontier(program), AUTO)
        found |= {"plan_s": round(time.perf_counter() - started, 1), "cut": plan.cut.to_dict()}
    except FxcacheError as error:
        found |= {"what": error.what, "where": in_package(error.where)}
    return found


def in_package(where: str) -> str:
    """Remove the installation folder from a source line."""
    return re.sub(r"^.*site-packages/", "", where)


def measure(kinds: list[str], known: dict[str, Row]) -> dict[str, Row]:
    rows = dict(known)
    for kind in kinds:
        rows[kind] = row(RECIPES[kind])
        write(rows)
        cut = rows[kind].get("cut")
        summary = f"{cut['share_saved']:.1%} at {cut['name']}" if cut else rows[kind]["what"]
        print(f"{kind}: {summary}", file=sys.stderr, flush=True)
    return rows


def write(rows: dict[str, Row]) -> None:
    versions = {"diffusers": diffusers.__version__, "torch": torch.__version__}
    data = versions | {"classes": dict(sorted(rows.items()))}
    RESULTS.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def counts(classes_found: dict[str, Row]) -> dict[str, int]:
    """Count all classes, and those that were captured, cut, and cut with enough savings."""
    cuts = [found["cut"] for found in classes_found.values() if "cut" in found]
    return {
        "classes": len(classes_found) + len(NO_FORWARD),
        "captured": sum("nodes" in found for found in classes_found.values()),
        "cut": len(cuts),
        "halved": sum(
            c["share_saved"] >= ENOUGH_SAVED and c["blocks_skipped"] >= ENOUGH_BLOCKS for c in cuts
        ),
    }


def line(kind: str, found: Row) -> dict[str, str]:
    cut = found["cut"]
    return {
        "class": kind,
        "10⁹ weights": f"{found['weights'] / 1e9:.2f}",
        "graph nodes": str(found["nodes"]),
        "cut": f"`{cut['name']}`",
        "caches": cut["mode"],
        "blocks skipped": str(cut["blocks_skipped"]),
        "FLOPs saved": f"{100 * cut['share_saved']:.2f}%",
        "cached, float32": f"{cut['cache_bytes'] / 2**20:.1f} MiB in {cut['cached_tensors']}",
        "captured for the values of": ", ".join(f"`{p}`" for p in found["specialized_on"]),
    }


def document(data: dict[str, Any]) -> str:
    """Return the text of ``docs/coverage.md``."""
    total = counts(data["classes"])
    cuts = {kind: found for kind, found in data["classes"].items() if "cut" in found}
    refused = {kind: found for kind, found in data["classes"].items() if "cut" not in found}
    summary = (
        f"Every class that diffusers {data['diffusers']} defines in `models.unets` and "
        f"`models.transformers`: {total['classes']}. Captured: {total['captured']}; with a cut: "
        f"{total['cut']}; with a cut that saves at least half the FLOPs on four or more blocks: "
        f"{total['halved']}."
    )
    how = (
        '`cut="auto"`, default configurations (where these do not construct, the nearest that '
        "does: `bench/denoisers/`), batch 1, the size people run, torch "
        f"{data['torch']}. Made by `make coverage`. Small versions of all of them run in "
        "`tests/test_denoisers.py`: refreshing equals the original bit for bit, reuse with "
        "unchanged inputs equals it to rounding."
    )
    table = tabulate(
        [line(*pair) for pair in cuts.items()],
        headers="keys",
        tablefmt="github",
        disable_numparse=True,
    )
    reasons = [f"- **{k}**: {found['what']} At `{found['where']}`." for k, found in refused.items()]
    reasons += [f"- **{kind}**: {reason}." for kind, reason in NO_FORWARD.items()]
    parts = ("# Coverage", summary, how, table, "## Refused", "\n".join(reasons))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help="only these classes")
    parser.add_argument("--resume", action="store_true", help="keep the existing rows")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    keep = arguments.resume or arguments.kinds
    known = json.loads(RESULTS.read_text("utf-8"))["classes"] if keep and RESULTS.exists() else {}
    kinds = arguments.kinds or [kind for kind in sorted(RECIPES) if kind not in known]
    measure(kinds, known)
    TABLE.write_text(document(json.loads(RESULTS.read_text("utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
