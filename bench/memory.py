"""The memory of a process that goes on: ``python -m bench.memory --out bench/results/memory.json``.

One process draws 200 pictures with the bundled model, then pictures of 20 sizes in turns, then
pictures with 100 LoRA adapters, loaded one after another. The last two use a small U-Net with
random weights: most of their time is captures. After each part of the work, garbage is collected,
and the memory is noted: the resident set, and all tensors, graph modules and Python objects that
are alive. Counts of live objects are exact. The resident set also grows by what the allocator of
the C library keeps.
"""

import gc
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, fx, nn

import fxcache
from bench.environment import environment
from bench.output import run
from bench.pipelines.families import recipes

MODEL = Path(__file__).parent / "models" / "emoji-sd"
PICTURES, SIZES, SWITCHES = 200, 20, 100
SAMPLES = 10  # notes in each series
ROUNDS = 4  # through all sizes: more than fit into the captures, so that each is captured again
STEPS = 6
RANK = 2
STATUS = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Return the resident set of this process."""
    pages = int(STATUS.read_text("ascii").split()[1])
    return pages * resource.getpagesize()


def memory() -> dict[str, int]:
    """Return what is alive after a garbage collection."""
    gc.collect()
    alive = gc.get_objects()
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in alive
        if issubclass(type(t), Tensor) and t.device.type == "cpu" and type(t) in PLAIN
    }
    return {
        "resident_bytes": resident_bytes(),
        "tensor_bytes": sum(storages.values()),
        "tensors": sum(issubclass(type(value), Tensor) for value in alive),
        "graph_modules": sum(issubclass(type(value), fx.GraphModule) for value in alive),
        "objects": len(alive),
    }


PLAIN = (Tensor, nn.Parameter, nn.Buffer)


def series(work: Callable[[int], None], count: int) -> list[dict[str, int]]:
    """Do ``work`` for each number below ``count``, and return the notes after equal parts of it."""
    notes = []
    for number in range(count):
        work(number)
        if (number + 1) % max(1, count // SAMPLES) == 0:
            notes.append({"done": number + 1, **memory()})
    return notes


def drawing(pipe: Any) -> Callable[..., None]:
    """Optimise a pipeline, and return a function that draws one picture with it."""
    pipe.set_progress_bar_config(disable=True)
    fxcache.optimize(pipe, fxcache.Uniform(3))

    def draw(number: int, **options: Any) -> None:
        pipe(
            num_inference_steps=STEPS,
            generator=torch.Generator().manual_seed(number),
            output_type="latent",
            **options,
        )

    return draw


def pictures(count: int = PICTURES) -> list[dict[str, int]]:
    """Draw pictures, one after another."""
    draw = drawing(StableDiffusionPipeline.from_pretrained(MODEL, safety_checker=None))
    prompts = ("red apple", "tiger face", "penguin")
    return series(lambda number: draw(number, prompt=prompts[number % 3]), count)


def sizes(count: int = SIZES, rounds: int = ROUNDS) -> list[dict[str, int]]:
    """Draw pictures of ``count`` sizes, in turns. Each note is made after all sizes."""
    recipe = recipes()["StableDiffusionPipeline"]
    draw, arguments = drawing(recipe.build()), recipe.call()

    def draw_all(number: int) -> None:
        for index in range(count):
            sides: dict[str, Any] = {
                "height": 32 + 16 * (index % 5),
                "width": 32 + 16 * (index // 5),
            }
            draw(number, **{**arguments, **sides})

    return series(draw_all, rounds)


def lora(unet: UNet2DConditionModel, seed: int) -> dict[str, Tensor]:
    """Return a LoRA of the attention projections."""
    generator, made = torch.Generator().manual_seed(seed), {}
    for name, module in unet.named_modules():
        if isinstance(module, nn.Linear) and name.endswith(("to_q", "to_v")):
            shapes = {"A": (RANK, module.in_features), "B": (module.out_features, RANK)}
            for part, shape in shapes.items():
                made[f"unet.{name}.lora_{part}.weight"] = torch.randn(shape, generator=generator)
    return made


def switches(count: int = SWITCHES) -> list[dict[str, int]]:
    """Load a LoRA, draw, unload it, and load the next one."""
    recipe = recipes()["StableDiffusionPipeline"]
    pipe, arguments = recipe.build(), recipe.call()
    draw = drawing(pipe)

    def switch(number: int) -> None:
        pipe.load_lora_weights(lora(pipe.unet, number), adapter_name=f"style {number}")
        draw(number, **arguments)
        pipe.unload_lora_weights()

    return series(switch, count)


def growth(notes: list[dict[str, int]]) -> dict[str, int]:
    """Return by how much each value rose from the middle of a series to its end."""
    middle, last = notes[len(notes) // 2 - 1], notes[-1]
    return {name: last[name] - middle[name] for name in last if name != "done"}


def measure() -> dict[str, Any]:
    parts = {"pictures": pictures, "sizes": sizes, "lora_switches": switches}
    found = {name: part() for name, part in parts.items()}
    return {
        **environment("cpu"),
        "growth_in_second_half": {name: growth(notes) for name, notes in found.items()},
        **found,
    }


if __name__ == "__main__":
    run(__doc__, measure)
