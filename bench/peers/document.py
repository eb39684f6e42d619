"""Makes ``docs/peers.md`` and its pictures from the results: ``python -m bench.peers.document``."""

import argparse
import json
from pathlib import Path
from typing import Any

from bench.peers.lineup import SUBJECTS
from bench.peers.pictures import draw_quality, draw_speed, quality_picture, speed_picture
from bench.peers.tables import compiled_table, eager_table, errors_table, quality_table
from bench.peers.timing import PLAIN
from bench.peers.winners import NOISE, same_rule_table, winners_table

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results" / "peers.json"
DOCUMENT = ROOT / "docs" / "peers.md"

HOW = """\
fxcache beside other caches, on the same models. `make peers` measures this and makes the page.

The U-Net, the FLUX-shaped and the Wan-shaped model are built from diffusers' classes with random
weights. They are small. The two others are the bundled models, with guidance in one batch. All
runs have {steps} steps, and contenders that take a list of steps compute every third one. Where a
threshold decides, it is searched until the run computes as many steps, if the method can. Other
settings are those of the packages' documentation, with three exceptions: cache-dit computes one
block first instead of eight (F1 in its settings), because the models are shallow; its warm-up is
at most two steps; and hicache-pp computes one step at the start instead of two, so that its steps
are those of the others. FasterCache skips attention only: it does not skip halves of the guidance.
A contender that fails has its error in the last table.

Times are milliseconds of the processor time of one thread ({processor}), in float32. All
contenders of a model are attached to models of their own in one process. In each round they take
turns in a random order, with uncached runs between them. The speed-up is the ratio to the uncached
runs just before and after: the median over the rounds, with the least and the greatest. Other
times are such ratios, multiplied by the median time of an uncached run. FLOPs are counted in the
run itself, and give the ideal speed-up. A step counts as computed if its FLOPs are closer to the
most of all steps than to the least. A wait reads a number from a tensor: on a GPU the host waits
for the device. fxcache reads timesteps that are new tensors, as the FLUX-shaped model's are, if no
pipeline tells it the step. Bytes are those of tensors that calls made: the most that are alive
between two steps (cached), and at any time (peak).

Versions: {versions}.

The random weights tell nothing about the quality of pictures. One thread of a CPU tells nothing
about a GPU, where launches and waits cost more, and arithmetic less. On a GPU,
`python -m bench.gpu --part peers` measures the same contenders. Few of them
[have been measured](gpu.md#results)."""

WINS = """\
The best of each side, among the contenders that compute as many steps as the list has. "Fewer
steps" does not count: it caches nothing. Values within {noise:.0%} have no winner. A peer
that wins is bold."""

SAME = """\
Each peer beside fxcache by the same rule: the same cut or the same signal. Latents that are not
equal differ by the greatest difference, relative to the greatest value of the latent. Where a peer
does not compute the same steps, the comparison says little."""

COMPILED = """\
cache-dit is compiled with the settings that it recommends, and once more with torch's own.
Graphs are counted with a backend that changes nothing, in the third run: the graphs that Dynamo
made in all, and those that a step calls. Times are measured with Inductor, each contender in turns
with the uncompiled model without caching. The last column is the speed-up over the compiled model
without caching."""

QUALITY = """\
PSNR in dB against the uncached pictures of the same seeds, at equal FLOPs: values between measured
settings are interpolated, and the highest is bold. A dash says that no setting on both sides of
that speed-up was measured. `fxcache tune` measures the model first, on other captions and seeds.
MagCache measures its ratios on the first of the pictures, and thresholds are searched there."""


NOTES = """\
- cache-dit: a transformer without its pipeline keeps its context after a run, and the mask of the
  next run is shifted by one step. So each run begins with `cache_dit.refresh_context`.
- SeaCache needs the noise levels of flow matching. DDIM has none, so on emoji-dit it computes every
  step, without an error.
- TaylorSeer lite caches the module `proj_out`. emoji-dit has none of this name: nothing is cached,
  and steps that skip the blocks compute a wrong prediction.
- FasterCache finds no attention in U-Nets, so it skips nothing there.
- para-attn calls FLUX's single blocks as older versions of diffusers defined them."""


def document(results: dict[str, Any]) -> str:
    """Return the page."""
    environment = results["environment"]
    subjects = {name: results["subjects"][name] for name in SUBJECTS if name in results["subjects"]}
    versions = ", ".join(f"{name} {found}" for name, found in environment["versions"].items())
    steps = next(iter(subjects.values()))["eager"][PLAIN]["steps"]
    processor = environment["machine"].partition(", threads")[0]
    how = HOW.format(steps=steps, processor=processor, versions=versions)
    parts = ["# Beside other caches", how, "## Who wins", WINS.format(noise=NOISE)]
    parts += [winners_table(subjects)]
    parts += [f"![Speed-up and ideal speed-up](pictures/{speed_picture().name})"]
    parts += ["## The same rule", SAME, same_rule_table(subjects)]
    for name, found in subjects.items():
        parts += [f"## {name}", eager_table(found["eager"])]
    parts += ["## With torch.compile", COMPILED]
    for name, found in subjects.items():
        if "graphs" in found or "compiled" in found:
            parts += [f"### {name}, compiled", compiled_table(found)]
    parts += ["## Pictures at equal FLOPs", QUALITY]
    for name, found in subjects.items():
        if "quality" in found:
            shown = f"![PSNR against speed-up](pictures/{quality_picture(name).name})"
            parts += [f"### {name}, pictures", shown, quality_table(found["quality"])]
    parts += ["## What failed", errors_table(subjects), "## What was noticed", NOTES]
    return "\n\n".join(parts) + "\n"


def read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return found


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    results = read()
    draw_speed(results["subjects"])
    for name, found in results["subjects"].items():
        if "quality" in found:
            draw_quality(name, found["quality"])
    DOCUMENT.write_text(document(results), encoding="utf-8")


if __name__ == "__main__":
    main()
