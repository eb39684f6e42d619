"""Compiles an artifact to native code: machine code for its graphs, which shares its weights."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.export import Dim

from fxcache._torch import compile_graph, hint_of, pack_graphs
from fxcache.deploy.files import MANIFEST, MAX_MANIFEST, Writer, content_of, new_folder
from fxcache.deploy.load import load
from fxcache.deploy.native.format import NATIVE_FORMAT, PACKAGE
from fxcache.deploy.native.graph import describe_graph, example_inputs, not_compilable
from fxcache.deploy.native.load import digest_of_manifest
from fxcache.deploy.native.sizes import sizes_to_json
from fxcache.deploy.native.target import target_of
from fxcache.deploy.native.trial import require_loads
from fxcache.deploy.signatures import NATIVE
from fxcache.deploy.step_table import lengths_of, named, require_table, reused_at_steps
from fxcache.graph_inputs import InputKind
from fxcache.partition.frontier import Frontier
from fxcache.program import Program, Role, copy_graph, output_node
from fxcache.rewrite.variant import Variant
from fxcache.runtime.pipeline import require_engine
from fxcache.runtime.rewriting import variants_of
from fxcache.runtime.settings import Settings

COMPILE = "fxcache.compile_artifact"


def compile_artifact(
    folder: str | PathLike[str],
    num_steps: int | Iterable[int],
    *,
    device: torch.device | str | None = None,
    weights: Mapping[str, Tensor] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Compile the graphs of an artifact ahead of time, for this machine.

    AOTInductor compiles every graph that runs of these lengths need. The weights stay in the
    artifact: all graphs share them. ``fxcache.load(folder, native=True)`` runs the code, and so
    does a C++ program without Python, such as ``examples/cpp``.

    Args:
        folder: The artifact. The code becomes its folder ``native``; one that exists is replaced.
        num_steps: How many times a run calls the model; several numbers for runs of several
            lengths.
        device: The device to compile for, by default the CPU.
        weights: Weights by name, for an artifact without weights.
        say: Called with messages about the progress. A graph takes a minute or more.

    Returns:
        The folder with the code.

    Raises:
        ArtifactError: The folder holds no artifact, its steps need more than graphs and a table, or
            this machine's compiler makes code that cannot be loaded.
        ConfigError: A length is no positive whole number.
        ScheduleError: The policy was calibrated for runs of another length.
        ModelFileError: The folder cannot be written.
    """
    source, lengths = Path(folder), lengths_of(num_steps, COMPILE)
    digest = digest_of_manifest(content_of(source, MANIFEST, MAX_MANIFEST))
    model = load(source, device=device, weights=weights)
    settings = require_engine(model, COMPILE).settings
    plans = [
        Compilation.of(number, program, settings, lengths)
        for number, program in enumerate(model.fxcache_programs.all(model.device))
    ]
    with new_folder(source / NATIVE) as made:
        write(Writer(made), compiled_graphs(plans, say), plans, digest, model.device)
    return source / NATIVE


class Compilation(NamedTuple):
    """What is to be compiled of one program.

    Attributes:
        number: The number of the program in the artifact.
        program: The program.
        graphs: The graphs by name.
        runs: For each length, the name of the graph of each step.
    """

    number: int
    program: Program
    graphs: Mapping[str, Variant]
    runs: Mapping[int, list[str]]

    @classmethod
    def of(
        cls, number: int, program: Program, settings: Settings, lengths: Sequence[int]
    ) -> "Compilation":
        """Return the graphs that runs of these lengths need."""
        variants = variants_of(Frontier(program), settings, program.model)
        require_table(settings, variants, COMPILE)
        reused = {n: reused_at_steps(settings.policy, variants, n) for n in lengths}
        every = [
            frozenset[str](),
            variants.all,
            *(groups for one in reused.values() for groups in one),
        ]
        names = {groups: f"{name}_{number}" for groups, name in named(every, variants.all).items()}
        graphs = {name: variants.variant(groups) for groups, name in names.items()}
        runs = {n: [names[groups] for groups in found] for n, found in reused.items()}
        return cls(number, program, graphs, runs)


def compiled_graphs(plans: Sequence[Compilation], say: Callable[[str], None]) -> dict[str, Any]:
    """Compile every graph. Return the code of each by its name."""
    graphs = [(plan, name) for plan in plans for name in plan.graphs]
    codes = {}
    for number, (plan, name) in enumerate(graphs, 1):
        say(f"compiling graph {number} of {len(graphs)}: {name}")
        codes[name] = compiled(plan.graphs[name], plan.program)
    return codes


def write(
    writer: Writer,
    codes: Mapping[str, Any],
    plans: Sequence[Compilation],
    digest: str,
    device: torch.device,
) -> None:
    """Write the code and its manifest.

    Raises:
        ArtifactError: This machine cannot load the code.
    """
    pack_graphs(writer.folder / PACKAGE, codes)
    require_loads(writer.folder / PACKAGE, codes, device)
    writer.add(PACKAGE)
    writer.finish({
        "fxcache_native": NATIVE_FORMAT,
        "artifact": digest,
        "target": target_of(device),
        "graphs": {
            name: describe_graph(variant, plan.program, plan.number)
            for plan in plans
            for name, variant in plan.graphs.items()
        },
        "programs": [sizes_to_json(plan.program.sizes) for plan in plans],
        "runs": [
            {"program": plan.number, "steps": graphs}
            for plan in plans
            for graphs in plan.runs.values()
        ],
    })  # fmt: skip


def compiled(variant: Variant, program: Program) -> Any:
    """Compile one graph, without the outputs that are constants.

    Raises:
        ArtifactError: torch cannot compile it.
    """
    graph, _ = copy_graph(variant.module.graph)
    output = output_node(graph)
    output.args = (tuple(v for v in output.args[0] if isinstance(v, fx.Node)),)  # type: ignore[union-attr]
    module = fx.GraphModule(variant.module, graph, type(variant.module).__name__)
    values = example_inputs(variant)
    offsets = [int(is_timestep(spec.source, program)) for spec in variant.signature.inputs]
    bounds = sizes_to_json(program.sizes)["sizes"]
    dims = {name: Dim(name, min=least, max=most) for name, (least, most) in bounds.items()}
    try:
        return compile_graph(
            module, list(map(example_of, values, offsets)), [varying(v, dims) for v in values]
        )
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise not_compilable(str(error).partition("\n")[0][:200], program.model) from error


def is_timestep(source: Any, program: Program) -> bool:
    """Return whether an input of a graph is the timestep of the call."""
    return source.kind is InputKind.USER and program.inputs[source.key].role is Role.TIMESTEP


def example_of(value: Tensor, offset: int) -> Tensor:
    """Return zeros like a fake tensor without gaps.

    Args:
        value: The fake tensor.
        offset: The number of elements before it in its memory. For a GPU, Inductor compiles reads
            of 16 aligned bytes if the example is aligned, and copies other tensors at each call. A
            timestep is an element of the scheduler's tensor, and may be anywhere.
    """
    shape, stride = (
        [hint_of(size) or 0 for size in sizes] for sizes in (value.shape, value.stride())
    )
    memory = torch.zeros(math.prod(shape) + offset, dtype=value.dtype, device=value.device)
    return memory.as_strided(shape, stride, offset)


def varying(value: Tensor, dims: Mapping[str, Any]) -> dict[int, Any]:
    """Return the ``Dim`` of each dimension that may vary."""
    return {n: dims[str(s)] for n, s in enumerate(value.shape) if not isinstance(s, int)}
