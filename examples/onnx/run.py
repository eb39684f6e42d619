"""Denoise with ONNX Runtime and NumPy: ``python run.py EXPORT INPUTS.npz OUT.npz --steps 20``.

EXPORT is a folder of ``fxcache.export_onnx``. INPUTS.npz holds an array for each input of the
model except the timestep. OUT.npz gets the denoised latents. The sampler is DDIM with the schedule
of Stable Diffusion, for models that predict the velocity, such as the bundled ones. With guidance,
the conditioning has the rows without a prompt first, and the latents are doubled for each call.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

Arrays = dict[str, Any]


def checked(folder: Path) -> Any:
    """Return the schedule, after comparing the files with their hashes."""
    schedule = json.loads((folder / "schedule.json").read_text(encoding="utf-8"))
    if schedule["fxcache_onnx"] != 1:
        raise SystemExit("schedule.json has an unknown format")
    for name, file in schedule["files"].items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != file["sha256"]:
            raise SystemExit(f"{name} is not the file that was exported")
    return schedule


class Model:
    """The graphs of an export. The cache is a dict that the caller keeps, one for each run."""

    def __init__(self, folder: Path, steps: int):
        schedule = checked(folder)
        if str(steps) not in schedule["runs"]:
            raise SystemExit(f"exported for runs of {', '.join(schedule['runs'])} steps")
        self.graphs, self.steps = schedule["graphs"], schedule["runs"][str(steps)]
        self.sessions = {
            name: ort.InferenceSession(folder / graph["file"], providers=["CPUExecutionProvider"])
            for name, graph in self.graphs.items()
        }

    def __call__(self, step: int, latents: Any, t: int, inputs: Arrays, cache: Arrays) -> Any:
        """Return the prediction of one step. The step adds and replaces values of ``cache``."""
        name, feeds = self.steps[step], {}
        for given in self.graphs[name]["inputs"]:
            if given["role"] == "latent":
                value = latents
            elif given["role"] == "timestep":
                value = np.full([len(latents)] if given["shape"] else [], t)
            else:
                value = (cache if given["role"] == "cached" else inputs)[given["name"]]
            feeds[given["name"]] = np.asarray(value, given["dtype"])
        outputs = [output["name"] for output in self.graphs[name]["outputs"]]
        found = dict(zip(outputs, self.sessions[name].run(outputs, feeds), strict=True))
        result = found.pop(outputs[0])
        cache.update(found)
        return result


def main() -> None:
    """Run DDIM: arXiv:2010.02502, equation 12, with velocities as in arXiv:2202.00512."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("export", "inputs", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, help="such as 7.5; default: no guidance")
    given = parser.parse_args()
    model, inputs, cache = Model(given.export, given.steps), dict(np.load(given.inputs)), Arrays()
    (latent,) = (i["name"] for i in model.graphs["full"]["inputs"] if i["role"] == "latent")
    x, kept = inputs[latent], np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    for step in range(given.steps):
        t = round(1000 - step * 1000 / given.steps) - 1
        a, after = kept[t], kept[max(t - 1000 // given.steps, 0)]
        v = model(step, np.repeat(x[None], 1 if given.guidance is None else 2, 0).reshape(-1, *x.shape[1:]), t, inputs, cache)
        if given.guidance is not None:
            without, guided = np.split(v, 2)
            v = without + given.guidance * (guided - without)
        clean, noise = a**0.5 * x - (1 - a) ** 0.5 * v, a**0.5 * v + (1 - a) ** 0.5 * x
        x = after**0.5 * clean + (1 - after) ** 0.5 * noise
    np.savez(given.out, **{latent: x})


if __name__ == "__main__":
    main()
