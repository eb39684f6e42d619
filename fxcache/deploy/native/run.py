"""Runs native code: checks every input before each call, because the code itself checks none."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fxcache._torch import MachineCode
from fxcache.capture.provided import CompiledGraph
from fxcache.deploy.fields import Fields
from fxcache.deploy.native.format import PACKAGE, WEIGHT
from fxcache.deploy.native.sizes import InputCheck, Sizes, is_dense
from fxcache.errors import ArtifactError
from fxcache.program import dtype_name, output_node


class NativeGraph(CompiledGraph):
    """The machine code of one graph, in place of the graph.

    Args:
        code: The code.
        fields: Its description in the manifest.
        sizes: The sizes that may vary.
        device: The device of the model.

    Raises:
        ArtifactError: The code and its description differ.
    """

    def __init__(self, code: MachineCode, fields: Fields, sizes: Sizes, device: torch.device):
        self._code, self._sizes, self._device = code, sizes, device
        self._inputs = [
            InputCheck.of(data, f"{fields.where}.inputs[{n}]", sizes)
            for n, data in enumerate(fields.items("inputs", dict))
        ]
        self._weights = {
            name: Fields(data, f"{fields.where}.weights.{name[:80]}", WEIGHT)
            for name, data in fields.pairs("weights")
        }
        if code.weights != self._weights.keys():
            differing = sorted(code.weights ^ self._weights.keys())
            raise fields.wrong("weights", f"the code has others: {', '.join(differing[:3])}")
        self._num_outputs = len(fields.of("outputs", list))
        self._constants: list[Any] = []
        self._bound: list[tuple[Tensor, int]] = []
        self._held: list[dict[str, Tensor]] = []
        self._by_name: Mapping[str, Any] = {}

    def returning(self, graph: fx.GraphModule) -> "NativeGraph":
        """Return this code, which will also return the constants that ``graph`` returns."""
        (values,) = output_node(graph.graph).args
        self._constants = [OUTPUT if isinstance(v, fx.Node) else v for v in values]  # type: ignore[union-attr]
        if self._constants.count(OUTPUT) != self._num_outputs:
            raise ArtifactError(
                f"the native code has {self._num_outputs} outputs, and its graph others",
                where=PACKAGE,
                remedy="run `fxcache compile` again",
            )
        return self

    def __call__(self, *inputs: Tensor) -> tuple[Any, ...]:
        """Return the values that the graph returns.

        Raises:
            ArtifactError: An input has another dtype, shape, stride or device.
        """
        self.require(inputs)
        if any(weight.data_ptr() != address for weight, address in self._bound):
            self.read(self._by_name)  # a weight got other memory
        outputs = iter(self._code.run(inputs))
        return tuple(next(outputs) if c is OUTPUT else c for c in self._constants)

    def require(self, inputs: Sequence[Tensor]) -> None:
        """Raise ArtifactError unless the code was compiled for inputs like these."""
        if len(inputs) != len(self._inputs):
            raise ArtifactError(
                f"the native code takes {len(self._inputs)} inputs, not {len(inputs)}",
                where=", ".join(check.name for check in self._inputs),
                remedy="pass them in this order",
            )
        sizes: dict[str, int] = {}
        for check, value in zip(self._inputs, inputs, strict=True):
            check.require(value, self._device, sizes)
        if sizes:
            self._sizes.require(sizes, self._inputs[0].name)

    def read(self, weights: Mapping[str, Any]) -> None:
        """Let the code read these tensors by their names in the program.

        Raises:
            ArtifactError: A weight has another dtype, shape, stride or device.
        """
        wanted = {name: weights[f.of("name", str)] for name, f in self._weights.items()}
        for name, weight in wanted.items():
            self._require_weight(weight, self._weights[name])
        # Aliases keep the memory that a run of another thread may still read.
        aliases = {name: weight.detach() for name, weight in wanted.items()}
        self._held = [aliases, *self._held[:1]]
        self._code.bind(aliases)
        self._by_name = weights
        self._bound = [(weight, weight.data_ptr()) for weight in wanted.values()]

    def _require_weight(self, weight: Tensor, fields: Fields) -> None:
        shape, order = fields.items("shape", int), fields.items("order", int)
        same = list(weight.shape) == shape and dtype_name(weight.dtype) == fields.of("dtype", str)
        if not same or weight.device != self._device or not is_dense(weight, order):
            raise fields.wrong(
                "name",
                f"the weight {fields.of('name', str)[:80]} is {dtype_name(weight.dtype)} "
                f"{list(weight.shape)} with strides {list(weight.stride())} on {weight.device}",
            )


OUTPUT = object()  # stands for a tensor among the constants that a graph returns
