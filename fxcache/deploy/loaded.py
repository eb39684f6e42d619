"""A model without its code: it runs the graphs of an artifact."""

import inspect
from collections.abc import Mapping, Sequence, Set
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, fx, nn

from fxcache.call import Call
from fxcache.capture.config import CaptureConfig
from fxcache.capture.provided import CompiledGraphs, ProvidesPrograms
from fxcache.deploy.calls import call_to_json, digest, number_refused, options_of
from fxcache.deploy.files import to_bytes
from fxcache.deploy.programs import ProgramReader, layouts_to_json
from fxcache.deploy.weights import TRAINABLE
from fxcache.errors import ArtifactError
from fxcache.program import Program, copy_graph
from fxcache.rewrite.graph_module import graph_module, rebind
from fxcache.runtime.objects import returned
from fxcache.runtime.structure import live_weights
from fxcache.signature import Signature


class Config(dict[str, Any]):
    """The configuration of a model, with its entries as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


class Programs:
    """The programs of an artifact. Each is made once for a device.

    It has no ``__dict__``, so that it counts as one unchanging setting of the model.
    """

    __slots__ = ("_graphs", "_made", "_readers", "_weights", "config", "native")

    def __init__(
        self,
        readers: Sequence[ProgramReader],
        weights: Mapping[str, Tensor],
        config: CaptureConfig,
    ):
        self._readers, self._weights, self.config = readers, dict(weights), config
        self.native: CompiledGraphs | None = None
        self._made: dict[tuple[int, torch.device], Program] = {}
        self._graphs: dict[int, fx.GraphModule] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Programs":
        """Return the programs for a copy of the model, which has weights of its own.

        They are made again, because torch cannot copy values with varying sizes.
        """
        made = type(self)(self._readers, deepcopy(self._weights, memo), self.config)
        made.native = deepcopy(self.native, memo)
        return made

    def all(self, device: torch.device) -> list[Program]:
        """Return all programs. They are made now, so that none of them fails later."""
        return [self._program(number, device) for number in range(len(self._readers))]

    def for_call(self, call: Call, model: nn.Module, name: str) -> Program:
        """Return the program that serves ``call``, if possible one for the layouts of its inputs.

        Raises:
            ArtifactError: There is none.
        """
        if not call.is_bound:
            raise number_refused(call.timestep_name)
        device = device_of(model)
        kind, values = call_to_json(call.key, device), call.by_path()
        wanted = to_bytes(kind)
        layouts = layouts_to_json(call.tensors, any_size=bool(self.config.dynamic))
        found = []
        for number, reader in enumerate(self._readers):
            if reader.call != wanted:
                continue
            same = all(digest(values[path]) == known for path, known in reader.constants.items())
            program = self._program(number, device)
            if same and program.sizes.admit(call.tensors):
                found.append((layouts not in reader.layouts, number))
        if found:
            return self._program(min(found)[1], device)
        served = "; ".join(reader.describe() for reader in self._readers[:3])
        given, known = options_of(kind), {reader.options for reader in self._readers}
        raise ArtifactError(
            f"the artifact of {name} has no graph for this call: {call.describe()}{given}",
            where=f"it serves: {served}",
            remedy=other_options(given, known)
            + "export the model again, after calls of every kind that it is to serve",
        )

    def plain_graph(self, program: Program) -> fx.GraphModule:
        """Return the graph of one of the programs as a module, which is made once."""
        if id(program) not in self._graphs:
            graph, _ = copy_graph(program.graph)
            self._graphs[id(program)] = graph_module(graph, program.weights, program.model, {})
        return self._graphs[id(program)]

    def _program(self, number: int, device: torch.device) -> Program:
        """Return a program on ``device``."""
        key = number, device
        if key not in self._made:
            on_device = {name: weight.to(device) for name, weight in self._weights.items()}
            self._made[key] = self._readers[number].program(
                on_device, device, self.config.dynamic or {}
            )
        return self._made[key]


def other_options(given: str, known: Set[str]) -> str:
    """Return how to change the options of a call, for messages; nothing if an artifact has them."""
    if given in known:
        return ""
    wanted = " or ".join(sorted(o.removeprefix(", ") or "no such option" for o in known))
    return f"pass {wanted}, as the exported calls did; or "


class LoadedModel(nn.Module, ProvidesPrograms):
    """A model whose graphs and weights come from an artifact. Call it as the original.

    It returns plain containers: a named tuple in place of an output class.
    """

    fxcache_programs: Programs
    config: Config

    @property
    def capture_config(self) -> CaptureConfig:
        """The options with which the programs were captured."""
        return self.fxcache_programs.config

    def program_for(self, call: Call) -> Program:
        """Return the program that serves ``call``."""
        return self.fxcache_programs.for_call(call, self, type(self).__name__)

    @property
    def compiled_graphs(self) -> CompiledGraphs | None:
        """The native code of the artifact; None if it was not loaded."""
        return self.fxcache_programs.native

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return device_of(self)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first weight that holds floating-point numbers."""
        weights = (t for t in (*self.parameters(), *self.buffers()) if t.is_floating_point())
        return next((weight.dtype for weight in weights), torch.get_default_dtype())


def plain_forward(self: LoadedModel, *args: Any, **kwargs: Any) -> Any:
    """Run the graph of the call, without a cache."""
    config = self.capture_config
    call = Signature(type(self), config.latent, config.dynamic).call(args, kwargs)
    program = self.program_for(call)
    module = self.fxcache_programs.plain_graph(program)
    rebind(module, live_weights(self, program.weights))
    return returned(call, list(module(*call.tensors)), program)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the first weight of ``model``; the CPU if it has none."""
    weights = (*model.parameters(), *model.buffers())
    return weights[0].device if weights else torch.device("cpu")


def model_class(name: str, declared: inspect.Signature) -> type[LoadedModel]:
    """Return a class with this name, whose ``forward`` takes the parameters ``declared``."""

    def forward(self: LoadedModel, *args: Any, **kwargs: Any) -> Any:
        return plain_forward(self, *args, **kwargs)

    forward.__signature__ = declared  # type: ignore[attr-defined]
    return type(name, (LoadedModel,), {"forward": forward, "__module__": __name__})


def model_of(
    kind: type[LoadedModel],
    weights: Mapping[str, Tensor],
    kinds: Mapping[str, str],
    config: Mapping[str, Any],
) -> LoadedModel:
    """Return a model in eval mode with these weights, under their original names, and no programs.

    Raises:
        ArtifactError: Two names exclude each other.
    """
    model = kind()
    model.config = Config(config)
    for name, weight in weights.items():
        if kinds[name] == "constant":
            continue
        path, _, leaf = name.rpartition(".")
        owner = submodule(model, path)
        if not leaf or hasattr(owner, leaf):
            raise ArtifactError(
                f"the weight {name[:80]!r} has the name of something else",
                where="manifest.json: weights",
                remedy="export the model again",
            )
        if kinds[name] == "buffer":
            owner.register_buffer(leaf, weight)
        else:
            owner.register_parameter(leaf, parameter_of(weight, kinds[name] == TRAINABLE))
    return model.eval()


def parameter_of(weight: Tensor, trainable: bool) -> nn.Parameter:
    """Return ``weight`` itself if it is such a parameter, else one that shares its memory.

    A parameter of the caller's own model moves to another device with that model.
    """
    if isinstance(weight, nn.Parameter) and weight.requires_grad == trainable:
        return weight
    return nn.Parameter(weight, requires_grad=trainable)


def submodule(model: nn.Module, path: str) -> nn.Module:
    """Return the module at ``path`` inside ``model``, and make it where there is none."""
    for part in filter(None, path.split(".")):
        if part not in model._modules:
            if hasattr(model, part):
                raise ArtifactError(
                    f"the module {path[:80]!r} has the name of something else",
                    where="manifest.json: weights",
                    remedy="export the model again",
                )
            model.add_module(part, nn.Module())
        inner = model._modules[part]
        assert inner is not None
        model = inner
    return model
