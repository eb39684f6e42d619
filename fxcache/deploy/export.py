"""Writes an artifact: the graphs, the weights and the settings of an optimised model."""

import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from fxcache.calibration.fingerprint import fingerprint
from fxcache.calibration.plan_parts import joined
from fxcache.deploy.files import Writer, new_folder, to_bytes
from fxcache.deploy.forward import parameters_to_json
from fxcache.deploy.loaded import device_of
from fxcache.deploy.programs import program_to_json
from fxcache.deploy.settings import settings_to_json
from fxcache.deploy.weights import write_weights
from fxcache.errors import ArtifactError
from fxcache.runtime.denoisers import is_pipeline
from fxcache.runtime.engine import Engine
from fxcache.runtime.pipeline import optimized_modules, require_engine
from fxcache.versions import installed_versions

FORMAT = 2
PLAN = "plan.safetensors"
CONFIG = "config.json"


def export(model: object, folder: str | PathLike[str], *, weights: bool = True) -> Path:
    """Write an optimised model to a folder, from which it runs without its code.

    The folder holds a graph for each kind of call that the model has served since ``optimize``: its
    shapes, dtypes and options. Call the model once before, or pass
    ``CaptureConfig(example_inputs=...)``. ``fxcache.load`` reads the folder.

    Args:
        model: An optimised module, or a pipeline with optimised components. Each component becomes
            a folder of its own, with its name.
        folder: The folder to write. An artifact in it is replaced.
        weights: Whether to store the weights. Without them, ``fxcache.load`` needs a state dict.

    Returns:
        The folder.

    Raises:
        StateError: The model is not optimised.
        ArtifactError: A part of the model cannot be part of an artifact. The error names it.
        ModelFileError: The folder cannot be written, or holds something else.
    """
    target = Path(folder)
    for name, module in optimized_modules(model, "fxcache.export").items():
        inside = target / name if is_pipeline(model) else target
        engine = require_engine(module, "fxcache.export")
        with engine.weights_resident(), new_folder(inside) as made:
            write(module, engine, Writer(made), weights)
    return target


def write(module: nn.Module, engine: Engine, writer: Writer, stored: bool) -> None:
    """Write the files of the artifact of one module."""
    model, device = engine.signature.model, device_of(module)
    captures = list(engine.captures.values())
    if not captures:
        raise ArtifactError(
            f"{model} has not been called since it was optimised, so that it has no graph",
            where="fxcache.export",
            remedy="call it once, or pass optimize(capture=CaptureConfig(example_inputs=...))",
        )
    if any(variants.frontier.process_groups for variants in captures):
        raise ArtifactError(
            f"several processes share {model}, and an artifact belongs to one process",
            where="fxcache.export",
            remedy="export the model before it is sharded",
        )
    programs, tensors = write_programs(engine, writer, device)
    settings = engine.settings
    trained, config = joined(settings.adjustment, settings.correction), config_of(module)
    if trained:
        writer.write(PLAN, save({n: t.detach().cpu().contiguous() for n, t in trained.items()}))
    writer.write(CONFIG, to_bytes(config))
    described = write_weights(writer, module, tensors, stored)
    writer.finish({
        "fxcache_artifact": FORMAT,
        "versions": installed_versions(),
        "model": {
            "name": model,
            "parameters": parameters_to_json(engine.signature.declared),
            "fingerprint": fingerprint(module).to_dict(),
        },
        "settings": settings_to_json(settings),
        "programs": programs,
        "weights": described,
    })  # fmt: skip


def write_programs(
    engine: Engine, writer: Writer, device: torch.device
) -> tuple[list[str], dict[str, Tensor]]:
    """Write the program of each capture. Return the files' names, and all weights by name."""
    tensors: dict[str, Tensor] = {}
    names = []
    for number, (key, variants) in enumerate(engine.captures.items()):
        data = program_to_json(variants.program, key.kind, engine.graphs.served(key), device)
        names.append(f"graphs/{number}.json")
        writer.write(names[-1], to_bytes(data))
        tensors |= {n: w for n, w in variants.weights.items() if isinstance(w, Tensor)}
    return names, tensors


def config_of(module: nn.Module) -> dict[str, Any]:
    """Return what JSON can hold of the ``config`` of a model of diffusers; empty for others."""
    config = getattr(module, "config", None)
    found = {}
    for name, value in dict(config).items() if isinstance(config, dict) else ():
        try:
            found[name] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            continue
    return found
