"""Writes the graphs of an optimised model as ONNX, with one file of weights for all of them."""

from collections.abc import Hashable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from fxcache.deploy.calls import call_to_json as require_supported
from fxcache.deploy.calls import require_no_code
from fxcache.deploy.files import Writer, new_folder
from fxcache.deploy.loaded import device_of
from fxcache.deploy.onnx.graphs import translated
from fxcache.deploy.onnx.model import drop_unread, rename, simplify, tidy
from fxcache.deploy.onnx.names import input_name, output_names, result_names, size_names
from fxcache.deploy.onnx.schedule import (
    FORMAT,
    SCHEDULE,
    call_to_json,
    graph_to_json,
    to_text,
)
from fxcache.deploy.onnx.weights import WEIGHTS, WeightsFile, move_out
from fxcache.deploy.step_table import captured, lengths_of, named, require_table, reused_at_steps
from fxcache.errors import ArtifactError
from fxcache.form import Key
from fxcache.integrations.diffusers import installed
from fxcache.program import Program
from fxcache.rewrite.graph_module import weight_names
from fxcache.rewrite.variant import Variant
from fxcache.rewrite.variants import Variants
from fxcache.runtime.denoisers import is_pipeline
from fxcache.runtime.engine import Engine
from fxcache.runtime.pipeline import optimized_modules, require_engine
from fxcache.versions import installed_versions

CALLER = "fxcache.export_onnx"
PACKAGES = ("onnx", "onnxscript")


def export_onnx(model: object, folder: str | PathLike[str], num_steps: int | Iterable[int]) -> Path:
    """Write the graphs of an optimised model as ONNX, for runtimes other than PyTorch.

    The folder holds one ONNX file for each graph that a run needs (``full.onnx``,
    ``cached_skip.onnx``, ``reuse_1.onnx`` and so on), ``weights.bin`` with the weights of all of
    them, each once, and ``schedule.json``. The cache is outside: cached values are outputs of one
    graph and inputs of the next. ``schedule.json`` names the inputs and outputs of each graph, and
    the graph of each step. A result that is alone is named ``output``.

    The model must have served one kind of call since ``optimize``. Leave sizes open with
    ``CaptureConfig(dynamic=...)``. An input that a graph does not read is no input of its file.

    Args:
        model: An optimised module, a loaded artifact, or a pipeline with optimised components.
            Each component becomes a folder of its own, with its name.
        folder: The folder to write. An ONNX export in it is replaced.
        num_steps: How many times a run calls the model; several numbers for runs of several
            lengths.

    Returns:
        The folder.

    Raises:
        StateError: The model is not optimised.
        ConfigError: A length is no positive whole number.
        ArtifactError: The steps need more than graphs and a table, or ONNX has no counterpart for a
            part of the model. The error names it.
        ScheduleError: The policy was calibrated for runs of another length.
        ModelFileError: The folder cannot be written or holds something else, or the packages
            ``onnx`` and ``onnxscript`` are not installed.
    """
    lengths = lengths_of(num_steps, CALLER)
    require_packages()
    target = Path(folder)
    for name, module in optimized_modules(model, CALLER).items():
        inside = target / name if is_pipeline(model) else target
        engine = require_engine(module, CALLER)
        with engine.weights_resident(), new_folder(inside, SCHEDULE, CALLER) as made:
            write(module, engine, lengths, made)
    return target


def require_packages() -> None:
    """Raise ModelFileError if a package that writes ONNX is not installed."""
    for package in PACKAGES:
        installed(package, "onnx")


def write(module: nn.Module, engine: Engine, lengths: Sequence[int], folder: Path) -> None:
    """Write the files of one module."""
    key, variants = captured(engine, CALLER)
    require_table(engine.settings, variants, CALLER)
    require_no_code(variants.program)
    kind = require_onnx(engine, key.kind, module)
    graphs, runs = graphs_of_runs(engine, variants, lengths)
    program, writer, described = variants.program, Writer(folder), dict[str, Any]()
    with WeightsFile(folder) as weights:
        for name, variant in graphs.items():
            described[name] = write_graph(f"{name}.onnx", variant, program, weights, writer)
    schedule = {
        "fxcache_onnx": FORMAT,
        "versions": installed_versions(),
        "model": engine.signature.model,
        **call_to_json(program, kind, engine.graphs.served(key).values),
        "graphs": described,
        "runs": {str(length): list(names) for length, names in runs.items()},
        "files": {WEIGHTS: weights.describe(), **writer.files},
    }
    (folder / SCHEDULE).write_bytes(to_text(schedule))


def require_onnx(engine: Engine, kind: Hashable, module: nn.Module) -> Key:
    """Return the key of the call; raise ArtifactError if the graphs cannot be ONNX."""
    require_supported(kind, device_of(module))
    if engine.settings.cache.kernels:
        raise ArtifactError(
            "CacheConfig(kernels=True) makes graphs with operators of fxcache, which ONNX lacks",
            where=CALLER,
            remedy="optimize the model again without kernels; its captures are kept",
        )
    assert isinstance(kind, Key)
    return kind


def graphs_of_runs(
    engine: Engine, variants: Variants, lengths: Sequence[int]
) -> tuple[dict[str, Variant], dict[int, list[str]]]:
    """Return the graphs by name, and the names of the graphs of each step by length."""
    policy = engine.settings.policy
    reused = {length: reused_at_steps(policy, variants, length) for length in lengths}
    names = named([groups for run in reused.values() for groups in run], variants.all)
    graphs = {name: variants.variant(groups) for groups, name in names.items()}
    return graphs, {length: [names[groups] for groups in run] for length, run in reused.items()}


def write_graph(
    file: str, variant: Variant, program: Program, weights: WeightsFile, writer: Writer
) -> dict[str, Any]:
    """Write one graph, and return its description for the schedule."""
    from onnx_ir import to_proto

    signature, results = variant.signature, result_names(program)
    inputs = [input_name(spec) for spec in signature.inputs]
    outputs = [name for name, _ in output_names(signature, results)]
    model = translated(variant.module, program.model)
    simplify(model)
    tidy(model, weight_names(variant.module), size_names(program))
    rename(model, inputs, outputs)
    read = drop_unread(model)
    move_out(model, weights)
    writer.write(file, valid(to_proto(model), program.model).SerializeToString())
    return graph_to_json(file, signature, program, results, read)


def valid(proto: Any, model: str) -> Any:
    """Return an ONNX model; raise ArtifactError if its operators do not fit their inputs."""
    from onnx import shape_inference

    try:
        shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    except shape_inference.InferenceError as error:
        raise ArtifactError(
            f"torch.onnx made a graph of {model} that is not valid: {str(error)[:300]}",
            where=CALLER,
            remedy="report this to PyTorch; use fxcache.export meanwhile",
        ) from error
    return proto
