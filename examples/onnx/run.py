"""Denoise with NumPy and ONNX Runtime: ``python run.py EXPORT INPUTS.npz OUT.npz --steps 20``.

EXPORT is a folder of ``fxcache.export_onnx``. INPUTS.npz holds an array for each input of the
model except the timestep; OUT.npz gets the denoised latents. The sampler is DDIM with the noise
schedule of fxcache's bundled models, which predict velocities. With ``--guidance``, the
conditioning holds the rows without a prompt first, and each call gets the latents twice.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

KEPT = np.cumprod(1 - np.linspace(0.00085**0.5, 0.02**0.5, 1000) ** 2)  # ᾱ of each timestep


class Model:
    """The graphs of a run. The cache is a dict of the caller, one for each trajectory."""

    def __init__(self, folder: Path, steps: int) -> None:
        schedule = json.loads((folder / "schedule.json").read_text(encoding="utf-8"))
        if schedule["fxcache_onnx"] != 1 or str(steps) not in schedule["runs"]:
            raise SystemExit(f"{folder} has no runs of {steps} steps in format 1")
        for name, file in schedule["files"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != file["sha256"]:
                raise SystemExit(f"{name} is not the file that was exported")
        self.graphs, self.steps = schedule["graphs"], schedule["runs"][str(steps)]
        self.constants = schedule["constants"]
        self.sessions = {
            name: ort.InferenceSession(folder / graph["file"], providers=["CPUExecutionProvider"])
            for name, graph in self.graphs.items()
        }

    def require_constants(self, inputs: Any) -> None:
        """Stop unless inputs whose values the graphs hold for have these values."""
        for name, known in self.constants.items():
            if name not in inputs or described(inputs[name]) != known:
                raise SystemExit(f"the graphs hold only for the {name} of the export: {known}")

    def __call__(self, step: int, latents: Any, t: int, inputs: Any, cache: dict[str, Any]) -> Any:
        """Return the prediction of one step, which adds and replaces values of ``cache``."""
        name, feeds = self.steps[step], {}
        for given in self.graphs[name]["inputs"]:
            value = cache if given["role"] == "cached" else inputs
            if given["role"] == "latent":
                value = {given["name"]: latents}
            elif given["role"] == "timestep":
                value = {given["name"]: np.full([len(latents)] if given["shape"] else [], t)}
            feeds[given["name"]] = np.asarray(value[given["name"]], given["dtype"])
        names = [output["name"] for output in self.graphs[name]["outputs"]]
        result, *cached = self.sessions[name].run(names, feeds)
        cache.update(zip(names[1:], cached, strict=True))
        return result


def described(value: Any) -> dict[str, Any]:
    """Return the description of an array, as ``constants`` of the schedule has it."""
    digest = hashlib.sha256(value.tobytes()).hexdigest()
    return {"dtype": str(value.dtype), "shape": list(value.shape), "sha256": digest}


def denoise(model: Model, x: Any, inputs: Any, guidance: float | None) -> Any:
    """Run DDIM: arXiv:2010.02502, equation 12, with the velocities of arXiv:2202.00512."""
    model.require_constants(inputs)
    steps, cache = len(model.steps), dict[str, Any]()
    for step in range(steps):
        t = round(1000 - step * 1000 / steps) - 1
        a, after = KEPT[t], KEPT[max(t - 1000 // steps, 0)]
        latents = x if guidance is None else np.concatenate([x, x])
        v = model(step, latents, t, inputs, cache)
        if guidance is not None:
            without, guided = np.split(v, 2)
            v = without + guidance * (guided - without)
        clean, noise = a**0.5 * x - (1 - a) ** 0.5 * v, a**0.5 * v + (1 - a) ** 0.5 * x
        x = after**0.5 * clean + (1 - after) ** 0.5 * noise
    return x


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for path in ("export", "inputs", "out"):
        parser.add_argument(path, type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float)
    given = parser.parse_args()
    model, inputs = Model(given.export, given.steps), dict(np.load(given.inputs))
    (name,) = (i["name"] for i in model.graphs["full"]["inputs"] if i["role"] == "latent")
    np.savez(given.out, **{name: denoise(model, inputs[name], inputs, given.guidance)})
