"""Runs a model once without tracing it, and records what each call of a submodule does."""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fxcache._torch import Observed, is_fake, version_of
from fxcache.analysis.cost import Flops, flops_of_call
from fxcache.call import Call
from fxcache.capture.attributes import changed, contents_of
from fxcache.capture.isolation import default_dtype, own_context
from fxcache.capture.preserve import Preserved
from fxcache.capture.restored import generators_restored, memory_restored, values_restored
from fxcache.contents import PLAIN
from fxcache.opaque import TENSOR, Flat


class Kind(NamedTuple):
    """What a graph knows of a tensor."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> "Kind":
        """Return the kind of ``tensor``."""
        return cls(tensor.shape, tensor.stride(), tensor.dtype, tensor.device)


class CallRecord(NamedTuple):
    """One call of a submodule.

    Attributes:
        arguments: The structure of ``(args, kwargs)``.
        inputs: The kinds of the tensors in them.
        result: The structure of the result.
        outputs: The kinds of the tensors in it.
        flops: The FLOPs by kind.
        problem: Why a graph cannot make this call; empty if it can.
    """

    arguments: Flat
    inputs: tuple[Kind, ...]
    result: Flat
    outputs: tuple[Kind, ...]
    flops: Flops
    problem: str


class Probe(NamedTuple):
    """What a model does in one call.

    Attributes:
        records: The calls by the id of the submodule, in their order.
        changed: The attributes that the model sets on its submodules.
    """

    records: Mapping[int, Sequence[CallRecord]]
    changed: Mapping[nn.Module, Set[str]]


def can_run(module: nn.Module, call: Call) -> bool:
    """Return whether ``module`` can run ``call``: no tensor is fake, on meta, or of inference."""
    weights = list(chain(module.parameters(), module.buffers()))
    unusable = any(weight.is_inference() for weight in weights)
    return not unusable and not any(t.is_meta or is_fake(t) for t in (*weights, *call.tensors))


def probed(module: nn.Module, call: Call) -> Probe:
    """Run ``call`` once, and return what the submodules did.

    An error of the model is passed on. The module, and the generators of random numbers, are as
    before.
    """
    recorder, before = Recorder(), contents_of(module)
    inputs = [tensor.clone() for tensor in call.tensors]
    rebuilt = call.rebuilt(inputs, call.number)
    with (
        Preserved(module),
        generators_restored([t.device for t in inputs]),
        values_restored(module),
        memory_restored(module),
        default_dtype(),
        torch.inference_mode(False),
        torch.no_grad(),
        forwards(
            {m: recorder.around(m) for m in module.modules() if is_recorded(m) and m is not module}
        ),
        Observed(recorder.count),
    ):
        own_context(rebuilt.run, module)
        return Probe(recorder.records, changed(before, contents_of(module)))


def is_recorded(module: nn.Module) -> bool:
    """Return whether the forward of ``module`` can be replaced."""
    return not isinstance(module, torch.jit.ScriptModule)


class Recorder:
    """Records the calls of submodules.

    Attributes:
        records: The calls by the id of the submodule, in the order of their beginnings.
    """

    def __init__(self) -> None:
        self.records: dict[int, list[Any]] = defaultdict(list)
        self._flops: Counter[str] = Counter()

    def count(self, operator: Any, args: Sequence[Any], kwargs: Any, result: Any) -> None:
        """Count the FLOPs of an operator."""
        self._flops.update(flops_of_call(operator, args, kwargs, result))

    def around(self, module: nn.Module) -> Callable[..., Any]:
        """Return the forward of ``module`` that records each call."""
        inner = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            own = self.records[id(module)]
            own.append(None)
            index, before = len(own) - 1, self._flops.copy()
            arguments, inputs = Flat.of((args, kwargs))
            written = [*inputs, *module.parameters(), *module.buffers()]
            versions = list(map(version_of, written))
            result = inner(*args, **kwargs)
            structure, outputs = Flat.of(result)
            writes = versions != list(map(version_of, written))
            own[index] = CallRecord(
                arguments,
                tuple(map(Kind.of, inputs)),
                structure,
                tuple(map(Kind.of, outputs)),
                dict(self._flops - before),
                problem_of(arguments, structure, writes),
            )
            return result

        return forward


def problem_of(arguments: Flat, result: Flat, writes: bool) -> str:
    """Return why an operator of a graph cannot make a call; empty if it can."""
    if writes:
        return "it writes to its arguments, weights or buffers"
    for what, flat in (("gets", arguments), ("returns", result)):
        if TENSOR not in flat.leaves:
            return f"it {what} no tensors"
        for leaf in flat.leaves:
            if leaf is not TENSOR and not isinstance(leaf, PLAIN):
                return f"it {what} a {type(leaf).__name__}"
    return ""


@contextmanager
def forwards(by_module: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Replaces the forward of each module for this thread, in the block."""
    thread = threading.get_ident()
    with ExitStack() as stack:
        for module, forward in by_module.items():
            own = vars(module)
            stack.callback(put_forward, own, own.get("forward"))
            own["forward"] = for_thread(thread, forward, module.forward)
        yield


def for_thread(
    thread: int, forward: Callable[..., Any], others: Callable[..., Any]
) -> Callable[..., Any]:
    """Return a function that calls ``forward`` in one thread, and ``others`` elsewhere."""

    def choose(*args: Any, **kwargs: Any) -> Any:
        chosen = forward if threading.get_ident() == thread else others
        return chosen(*args, **kwargs)

    return choose


def put_forward(attributes: dict[str, Any], forward: Any) -> None:
    """Set the attribute ``forward``; None to leave that of the class."""
    if forward is None:
        attributes.pop("forward", None)
    else:
        attributes["forward"] = forward
