"""``schedule.json``: what a loop needs to know to run the graphs of an ONNX export."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fxcache.deploy.calls import digest
from fxcache.deploy.inputs import size_to_json
from fxcache.deploy.onnx.names import input_name, output_names, renamed, shape_of, size_names
from fxcache.form import Key
from fxcache.graph_inputs import InputKind, OutputKind
from fxcache.program import Program, dtype_name
from fxcache.rewrite.variant_signature import TensorSpec, VariantSignature

SCHEDULE = "schedule.json"
FORMAT = 1
PLAIN = (bool, int, float, str)


def call_to_json(program: Program, key: Key, constants: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what the graphs assume of a call: sizes, arguments, and values of inputs.

    Args:
        program: The captured program.
        key: The key of the calls that it serves.
        constants: The values of the inputs that the graphs hold for, by path.
    """
    names, sizes = size_names(program), program.sizes
    symbols = [str(e) for e in sizes.expressions.values() if not isinstance(e, int)]
    guards = [guard for guard in sizes.guards if guard != True]  # noqa: E712, sympy
    return {
        "sizes": {
            names[symbol]: bounds_of(symbol, program)
            for symbol in dict.fromkeys(symbols)
            if symbol in names
        },
        "conditions": [renamed(guard, names) for guard in guards],
        "arguments": fixed_arguments(key),
        "constants": {path: constant_to_json(value) for path, value in constants.items()},
    }


def bounds_of(symbol: str, program: Program) -> dict[str, Any]:
    """Return the least and the greatest value of a size; null if there is no greatest."""
    bounds = size_to_json(symbol, program)
    return {"least": bounds["least"], "most": bounds["most"]}


def fixed_arguments(key: Key) -> dict[str, Any]:
    """Return the arguments that are no tensors, by path. They are constants of the graphs."""
    parts: Any = key.parts
    typed = (part for part in parts if isinstance(part, tuple) and len(part) == 3)
    return {path: value for path, kind, value in typed if kind in PLAIN and type(value) in PLAIN}


def constant_to_json(value: Tensor) -> dict[str, Any]:
    """Return the description of an input whose values are constants of the graphs."""
    return {
        "dtype": dtype_name(value.dtype),
        "shape": list(value.shape),
        "sha256": digest(value),
    }


def graph_to_json(
    file: str,
    signature: VariantSignature,
    program: Program,
    results: Sequence[str],
    read: Sequence[str],
) -> dict[str, Any]:
    """Return the description of a graph.

    Args:
        file: The name of its file.
        signature: Its inputs and outputs.
        program: The captured program.
        results: The names of the results.
        read: The names of the inputs that its file has.
    """
    names = size_names(program)
    roles = {given.path: given.role.value for given in program.inputs}
    inputs = []
    for spec in signature.inputs:
        name = input_name(spec)
        if name in read and spec.tensor:
            user = spec.source.kind is InputKind.USER
            role = roles[name] if user else "cached"
            inputs.append({"name": name, "role": role, **tensor_to_json(spec.tensor, names)})
    outputs = []
    for name, output in output_names(signature, results):
        role = "result" if output.sink.kind is OutputKind.RESULT else "cached"
        assert output.tensor is not None
        outputs.append({"name": name, "role": role, **tensor_to_json(output.tensor, names)})
    return {"file": file, "inputs": inputs, "outputs": outputs}


def tensor_to_json(spec: TensorSpec, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the dtype and the shape of an input or output."""
    return {"dtype": dtype_name(spec.dtype), "shape": shape_of(spec.shape, names)}


def to_text(data: Mapping[str, Any]) -> bytes:
    """Return ``schedule.json``."""
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False).encode()
