"""Programs as JSON, and back: graph, inputs, sizes that may vary, and the structure of results."""

import hashlib
import math
import operator
import re
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from fxcache._torch import FakeRun, expression_of, hint_of
from fxcache.deploy import expressions
from fxcache.deploy.fields import Fields, built, damaged
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
from fxcache.deploy.operators import NAMES
from fxcache.deploy.results import spec_from_json, spec_to_json
from fxcache.deploy.values import MAX_NUMBER, encode
from fxcache.errors import ArtifactError
from fxcache.form import Key
from fxcache.program import Input, Program, output_node, value_of

MAX_BYTES = 2**44  # the greatest size of one value
MAX_VALUES = 65_536  # the number of tensors that one operator returns
RUNS = 4  # how often the nodes of a graph may run on average, those of regions included
NUMBERS = (int, float, torch.SymInt, torch.SymFloat, torch.SymBool)
DIVIDING = frozenset({"unbind", "split", "split_with_sizes", "chunk"})
DIGEST = re.compile("[0-9a-f]{64}")
PROGRAM = ("call", "inputs", "sizes", "conditions", "result", "constants", "graph")


def program_to_json(
    program: Program, kind: Hashable, constants: Mapping[str, Tensor], device: torch.device
) -> dict[str, Any]:
    """Return ``program`` as JSON.

    Args:
        program: The program.
        kind: The key of the calls that it serves.
        constants: The values of the inputs that the graph holds for, by path.
        device: The device of the model.

    Raises:
        ArtifactError: A part of the program cannot be part of an artifact. The error names it.
    """
    sizes = program.sizes
    symbols = sorted({str(e) for e in sizes.expressions.values() if not isinstance(e, int)})
    pairs = zip(program.inputs, program.placeholders, strict=True)
    return {
        "call": call_to_json(kind, device),
        "inputs": [input_to_json(given, value_of(node), device) for given, node in pairs],
        "sizes": {name: size_to_json(name, program) for name in symbols},
        "conditions": [expressions.to_json(g) for g in sizes.guards if g != True],  # noqa: E712, sympy
        "result": spec_to_json(program.out_spec),
        "constants": {path: digest(value) for path, value in constants.items()},
        "graph": graph_to_json(program.graph, program.weights, device),
    }


def call_to_json(kind: Hashable, device: torch.device) -> list[Any]:
    """Return the key of a call as JSON, which is only compared.

    Raises:
        ArtifactError: The call passes values that JSON cannot hold, objects that carry state, or a
            timestep that is a number.
    """
    if not isinstance(kind, Key):
        raise number_refused("timestep")
    parts: Any = kind.parts
    *_, objects = parts
    if objects:
        raise ArtifactError(
            "artifacts do not support objects that carry tensors or other state, such as a "
            "key/value cache",
            where=", ".join(path for path, _ in objects),
            remedy="pass tensors, or export the model after calls without it",
        )
    return [encode(typed(part), {}, device) for part in parts]


def number_refused(name: str) -> ArtifactError:
    """Return the error for a timestep, with this name, that is a Python number."""
    return ArtifactError(
        "artifacts do not support a timestep that is a Python number",
        where=name,
        remedy="pass the timestep as a tensor",
    )


def typed(part: Any) -> Any:
    """Return a part of a key with the names of types in place of types."""
    if isinstance(part, tuple):
        return [typed(item) for item in part]
    return f"{part.__module__}.{part.__qualname__}" if isinstance(part, type) else part


def digest(value: Tensor) -> str:
    """Return the SHA-256 of a tensor's values."""
    flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(bytes(flat.tolist())).hexdigest()


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

    def describe(self) -> str:
        """Return a description of the calls for messages: ``sample[2, 4, 64, 64] float32, …``."""
        parts = ((g.of("path", str), g.of("shape", list), g.of("dtype", str)) for g in self._inputs)
        return ", ".join(f"{path}{shape} {dtype}" for path, shape, dtype in parts)

    def program(self, weights: Mapping[str, Tensor], device: torch.device) -> Program:
        """Return the program.

        Args:
            weights: The weights by name.
            device: Their device.

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
        symbols = {name: expression_of(size) for name, size in fakes.symbols.items()}
        program = Program(
            self._model,
            graph,
            tuple(described),
            {**weights, **reader.regions},
            spec,
            frozenset(self.constants),
            varying_sizes(
                inputs, symbols, bounds, fields.of("conditions", list), f"{where}.conditions"
            ),
        )
        if not program.latents:
            raise fields.wrong("inputs", "no input is the latent")
        if not self.constants.keys() <= {given.path for given in described}:
            raise fields.wrong("constants", "they name other inputs")
        return program


def require_digest(value: object, fields: Fields) -> str:
    """Return ``value`` if it is a SHA-256; raise ArtifactError otherwise."""
    if isinstance(value, str) and DIGEST.fullmatch(value):
        return value
    raise fields.wrong("constants", "they are no digests")


def require_allowed(node: fx.Node, args: Sequence[Any]) -> None:
    """Raise ArtifactError if an operator of Python would run on anything but sizes."""
    name = str(getattr(node.target, "overloadpacket", "")).removeprefix("aten.")
    if name in DIVIDING and num_parts(name, args) > MAX_VALUES:
        raise damaged(f"an operator returns more than {MAX_VALUES:,} tensors", node.name)
    of_python = node.target in NAMES and node.target is not operator.getitem
    if of_python and not all(isinstance(value, NUMBERS) for value in args):
        raise damaged("an operator of Python is applied to something else than sizes", node.name)


def num_parts(name: str, args: Sequence[Any]) -> int:
    """Return at least how many tensors an operator returns that divides its first argument."""
    tensor, *numbers = args
    if name != "unbind" and numbers and isinstance(numbers[0], list | tuple):
        return len(numbers[0])
    first = int(numbers.pop(0)) if name != "unbind" and numbers else 1
    dim = int(numbers[0]) if numbers else 0
    size = hint_of(tensor.shape[dim]) or 1
    return first if name == "chunk" else size // max(first, 1)


class Budget:
    """Limits the nodes that run, and their values.

    Args:
        nodes: How many nodes may run.
    """

    def __init__(self, nodes: int):
        self._left = nodes

    def check(self, node: fx.Node, value: Any) -> None:
        """Raise ArtifactError if no more nodes may run, or if ``value`` is no value of a model."""
        self._left -= 1
        if self._left < 0:
            raise damaged("regions run too often", node.name)
        values = value if isinstance(value, list | tuple) else (value,)
        if len(values) > MAX_VALUES:
            raise damaged(f"an operator returns more than {MAX_VALUES:,} tensors", node.name)
        for part in values:
            require_bounded(node, part)


def require_bounded(node: fx.Node, value: Any) -> None:
    """Raise ArtifactError if ``value`` is no tensor or size, or is larger than any model's."""
    if isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:
        raise damaged(f"the size {node.name} is too large", node.name)
    if isinstance(value, Tensor):
        total = math.prod(hint_of(size) or 1 for size in value.shape) * value.element_size()
        if total > MAX_BYTES:
            raise damaged(f"a value would be larger than {MAX_BYTES:,} bytes", node.name)
    elif not isinstance(value, (*NUMBERS, type(None))):
        raise damaged(f"an operator returns a {type(value).__name__}", node.name)
