"""The time and memory of capture and planning: ``python -m bench.planning --out FILE``.

It measures the way from ``nn.Module`` to both variants, on meta tensors. Each model runs in a new
process. Times are in seconds of CPU time, and memory is the growth of the resident set in bytes.
"""

import argparse
import json
import multiprocessing
import resource
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.denoisers import RECIPES, classes
from bench.frontier import MODELS, on_meta
from fxcache.capture.capture import capture
from fxcache.integrations.example_inputs import example_inputs
from fxcache.partition.choose import choose
from fxcache.partition.frontier import Frontier
from fxcache.partition.request import AUTO
from fxcache.rewrite.variants import rewrite
from fxcache.signature import Signature

TRANSFORMERS = {
    "FLUX.1, 1024×1024": "FluxTransformer2DModel",
    "Wan 2.1 14B, 81 frames of 480×832": "WanTransformer3DModel",
}
UNETS = {
    "Stable Diffusion 1.5, 512×512": "Stable Diffusion 1.5, 512×512",
    "Stable Diffusion XL, 1024×1024": "Stable Diffusion XL, 1024×1024",
}


def model_and_call(name: str) -> tuple[nn.Module, dict[str, Any]]:
    if name in UNETS:
        unet = on_meta(MODELS[UNETS[name]])
        return unet, example_inputs(unet)
    recipe = RECIPES[TRANSFORMERS[name]]
    with torch.device("meta"):
        model: Any = classes()[recipe.kind](**recipe.default).eval()
        return model, recipe.inputs(model.config, True)


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def planned(name: str) -> dict[str, Any]:
    """Return the seconds of each stage, and the memory that they take besides the model."""
    torch.set_num_threads(1)
    model, inputs = model_and_call(name)
    signature = Signature(type(model))
    before, started = peak_bytes(), time.process_time()
    program = capture(model, signature, signature.call((), inputs))
    captured = time.process_time()
    frontier = Frontier(program)
    plan = choose(frontier, AUTO)
    chosen = time.process_time()
    rewrite(frontier, plan, "")
    rewritten = time.process_time()
    listed = len(frontier.cuts())
    return {
        "weights": sum(p.numel() for p in model.parameters()),
        "nodes": len(program.graph.nodes),
        "capture_s": round(captured - started, 1),
        "plan_s": round(chosen - captured, 2),
        "rewrite_s": round(rewritten - chosen, 2),
        "all_cuts_s": round(time.process_time() - rewritten, 1),
        "all_cuts": listed,
        "peak_bytes": peak_bytes() - before,
        "process_peak_bytes": peak_bytes(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"torch": torch.__version__}
    # A new process for each model: the peak must be that of one model.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in (*UNETS, *TRANSFORMERS):
            found[name] = pool.apply(planned, (name,))
            print(name, found[name], flush=True)
    text = json.dumps(found, indent=2, ensure_ascii=False)
    arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
