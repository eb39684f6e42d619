"""Programs as JSON, and back: graph, inputs, sizes that may vary, and the structure of results."""

import json
import re
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fxcache._torch import FakeRun, expression_of
from fxcache.deploy import expressions
from fxcache.deploy.calls import call_to_json, digest, options_of, require_no_code
from fxcache.deploy.fields import Fields, built
from fxcache.deploy.files import to_bytes
from fxcache.deploy.graph import GraphReader, graph_to_json
from fxcache.deploy.inputs import (
    INPUT,
    Bounds,
    fake_input,
    input_to_json,
    role_of,
    size_to_json,
    varying_sizes,
)
from fxcache.deploy.limits import Budget, require_allowed
from fxcache.deploy.results import spec_from_json, spec_to_json
from fxcache.layout import layouts_of
from fxcache.program import Input, Program, output_node, value_of
from fxcache.runtime.capture_keys import Served

RUNS = 4  # how often the nodes of a graph may run on average, those of regions included
DIGEST = re.compile("[0-9a-f]{64}")
PROGRAM = ("call", "inputs", "layouts", "sizes", "conditions", "result", "constants", "graph")


def program_to_json(
    program: Program, kind: Hashable, served: Served, device: torch.device
) -> dict[str, Any]:
    """Return ``program`` as JSON.

    Args:
        program: The program.
        kind: The key of the calls that it serves.
        served: The values and layouts of inputs that it serves.
        device: The device of the model.

    Raises:
        ArtifactError: A part of the program cannot be part of an artifact. The error names it.
    """
    call = call_to_json(kind, device)  # its error names the argument
    require_no_code(program)
    sizes = program.sizes
    symbols = sorted({str(e) for e in sizes.expressions.values() if not isinstance(e, int)})
    pairs = zip(program.inputs, program.placeholders, strict=True)
    return {
        "call": call,
        "inputs": [input_to_json(given, value_of(node), device) for given, node in pairs],
        "layouts": served.layouts,
        "sizes": {name: size_to_json(name, program) for name in symbols},
        "conditions": [expressions.to_json(g) for g in sizes.guards if g != True],  # noqa: E712, sympy
        "result": spec_to_json(program.out_spec),
        "constants": {path: digest(value) for path, value in served.values.items()},
        "graph": graph_to_json(program.graph, program.weights, device),
    }


def layouts_to_json(tensors: Sequence[Tensor], any_size: bool) -> list[Any]:
    """Return the layouts of the inputs of a call, as ``ProgramReader.layouts`` lists them."""
    layouts: list[Any] = json.loads(json.dumps(layouts_of(tensors, any_size)))
    return layouts


class ProgramReader:
    """Makes programs from JSON, for one device.

    Args:
        model: The class name of the model.
        data: The result of ``program_to_json``.
        where: Its place in the artifact, for errors.

    Attributes:
        call: The calls that the program serves, as JSON.
        constants: The digests of the inputs that the graph holds for, by path.
        device_names: The device of each input, as the artifact names it.
    """

    def __init__(self, model: str, data: object, where: str):
        self._model, self._where = model, where
        self._fields = fields = Fields(data, where, PROGRAM)
        self.call = built(lambda: to_bytes(fields.of("call", list)), f"{where}.call")
        self.constants = {path: require_digest(d, fields) for path, d in fields.pairs("constants")}
        self._inputs = [
            Fields(given, f"{where}.inputs[{i}]", INPUT)
            for i, given in enumerate(fields.items("inputs", dict))
        ]

    @property
    def layouts(self) -> list[Any]:
        """The layouts of inputs that were captured, or that gave the same graph."""
        return self._fields.of("layouts", list)

    def describe(self) -> str:
        """Return a description of the calls for messages: ``sample[2…63, 4, 64] float32, …``."""
        bounds = {n: Bounds.of(v, self._where) for n, v in self._fields.pairs("sizes")}
        open_sizes = {n: f"{b.least}…{b.most or ''}" for n, b in bounds.items()}
        parts = []
        for given in self._inputs:
            sizes = (open_sizes.get(str(size), str(size)) for size in given.of("shape", list))
            parts.append(f"{given.of('path', str)}[{', '.join(sizes)}] {given.of('dtype', str)}")
        return ", ".join(parts) + self.options

    @property
    def options(self) -> str:
        """What the calls pass besides tensors, for messages: ``, return_dict=False``."""
        return options_of(self._fields.of("call", list))

    def program(
        self,
        weights: Mapping[str, Tensor],
        device: torch.device,
        dynamic: Mapping[str, Sequence[int]],
    ) -> Program:
        """Return the program.

        Args:
            weights: The weights by name.
            device: Their device.
            dynamic: The dimensions that calls leave open, by the path of the input.

        Raises:
            ArtifactError: The artifact holds no valid program.
        """
        fields, where = self._fields, self._where
        bounds = {n: Bounds.of(v, f"{where}.sizes.{n}") for n, v in fields.pairs("sizes")}
        fakes = FakeRun({name: bound.value for name, bound in bounds.items()})
        inputs = [
            built(partial(fake_input, given, fakes, device), given.where) for given in self._inputs
        ]
        reader = GraphReader(weights, device)
        graph = reader.read(fields.raw("graph"), f"{where}.graph")
        if len(graph.find_nodes(op="placeholder")) != len(inputs):
            raise fields.wrong("inputs", "the graph has another number of inputs")
        held = {name: fakes.like(weight) for name, weight in weights.items()} | reader.regions
        budget = Budget(RUNS * reader.num_nodes)
        built(
            lambda: fakes.run(graph, held, inputs, require_allowed, budget.check), f"{where}.graph"
        )
        spec = spec_from_json(fields.raw("result"), f"{where}.result")
        (results,) = output_node(graph).args
        if not isinstance(results, tuple) or spec.num_leaves != len(results):
            raise fields.wrong("result", "the graph has another number of results")
        described = [Input(g.of("path", str), role_of(g)) for g in self._inputs]
        open_dims = [frozenset(dynamic.get(given.path, ())) for given in described]
        conditions = fields.of("conditions", list)
        symbols = {name: expression_of(size) for name, size in fakes.symbols.items()}
        program = Program(
            self._model,
            graph,
            tuple(described),
            {**weights, **reader.regions},
            spec,
            frozenset(self.constants),
            varying_sizes(inputs, symbols, bounds, conditions, open_dims, f"{where}.conditions"),
        )
        self._require_consistent(program)
        return program

    def _require_consistent(self, program: Program) -> None:
        """Raise ArtifactError if no input is the latent, or a constant belongs to no input."""
        if not program.latents:
            raise self._fields.wrong("inputs", "no input is the latent")
        if not self.constants.keys() <= {given.path for given in program.inputs}:
            raise self._fields.wrong("constants", "they name other inputs")


def require_digest(value: object, fields: Fields) -> str:
    """Return ``value`` if it is a SHA-256; raise ArtifactError otherwise."""
    if isinstance(value, str) and DIGEST.fullmatch(value):
        return value
    raise fields.wrong("constants", "they are no digests")
