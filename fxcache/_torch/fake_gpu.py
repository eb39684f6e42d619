"""Finds which kernels Inductor would generate for an NVIDIA GPU, without a GPU.

Inductor chooses its kernels before it generates code. Here it gets the properties of an H200 and
fake tensors, and is stopped after the choice. Nothing is compiled and nothing runs.

Why: there is no public way. This module imports Triton, so that ``fxcache._torch`` does not import
it.
"""

import copy
import operator
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import triton
from torch import Tensor, fx
from torch._dynamo.device_interface import CudaInterface
from torch._inductor import compile_fx, config, ir, memory, scheduler
from torch._inductor.cudagraph_utils import check_multiple_devices_or_any_cpu_nodes as refusal
from torch._inductor.fx_passes import joint_graph
from torch._inductor.graph import GraphLowering
from torch._inductor.runtime.hints import DeviceProperties
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._ordered_set import OrderedSet
from triton.backends.compiler import GPUTarget

CUDA = torch.device("cuda", 0)
H200 = DeviceProperties(
    type="cuda",
    index=0,
    multi_processor_count=132,
    cc=90,
    major=9,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    warp_size=32,
)
PROPERTIES = SimpleNamespace(
    name="NVIDIA H200",
    multi_processor_count=132,
    major=9,
    minor=0,
    total_memory=143771 * 2**20,
    gcnArchName="",
)
ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
FLASH_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention.default


class Kernel(NamedTuple):
    """A kernel: the names of the operators that it computes, and the bytes that it moves."""

    ops: tuple[str, ...]
    nbytes: int


class Decision(NamedTuple):
    """The choices of Inductor.

    Attributes:
        kernels: The kernels.
        refused: Why Inductor would not capture a CUDA graph; None if it would.
        peak_bytes: Inductor's estimate of the most memory that results and values inside the graph
            take at once. Inputs do not count.
    """

    kernels: list[Kernel]
    refused: str | None
    peak_bytes: int


class DecidedError(Exception):
    """Stops Inductor after it has chosen its kernels."""

    def __init__(self, decision: Decision):
        super().__init__()
        self.decision = decision


class Driver:
    """A stand-in for the driver of Triton."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_active_torch_device(self) -> torch.device:
        return CUDA


class FakeGPUCall(NamedTuple):
    """A graph with fake weights and inputs on a GPU, and their fake mode."""

    module: Any  # a GraphModule
    inputs: list[Any]
    fakes: FakeTensorMode


def on_fake_gpu(
    module: fx.GraphModule, inputs: Sequence[Any], device: torch.device = CUDA
) -> FakeGPUCall:
    """Move ``module`` and ``inputs`` to a fake GPU, with the same strides.

    Tensors on the meta device move. Inputs on another device stay there. torch's build for the CPU
    cannot trace writes to inputs on a GPU: graphs that write their inputs need another ``device``.
    """
    fakes = FakeTensorMode(allow_non_fake_inputs=True)

    def faked(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        place = device if value.is_meta else value.device
        with fakes:
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=place)

    graph = gpu_graph(module.graph, device)
    names = {str(node.target) for node in graph.find_nodes(op="get_attr")}
    weights = {name: faked(getattr(module, name)) for name in names}
    return FakeGPUCall(fx.GraphModule(weights, graph), [faked(value) for value in inputs], fakes)


def compiled(called: FakeGPUCall) -> Decision:
    """Return the kernels that Inductor would launch."""
    with gpu_pretended(), torch.no_grad(), called.fakes:
        try:
            found: Any = compile_fx.compile_fx(called.module, called.inputs)
            found(*called.inputs)
        except Exception as error:
            if (decided := cause_of(error)) is None:
                raise
            return decided.decision
    raise AssertionError("Inductor did not choose its kernels")


def gpu_graph(graph: fx.Graph, device: torch.device) -> fx.Graph:
    """Copy a graph for the GPU, with flash attention. Without a GPU, torch would decompose it."""
    found = copy.deepcopy(graph)
    for node in list(found.nodes):
        if torch.device(node.kwargs.get("device") or "cpu").type == "meta":
            node.update_kwarg("device", device)
        if node.target is ATTENTION and len(node.args) == 3 and node.meta["val"].dim() == 4:
            with found.inserting_before(node):
                flash = found.call_function(FLASH_ATTENTION, node.args)
                node.replace_all_uses_with(found.call_function(operator.getitem, (flash, 0)))
            found.erase_node(node)
    return found


def cause_of(error: BaseException | None) -> DecidedError | None:
    """Find the DecidedError in the causes of ``error``; None if there is none."""
    while error is not None and not isinstance(error, DecidedError):
        error = error.__cause__ or error.__context__
    return error


@contextmanager
def gpu_pretended() -> Iterator[None]:
    """Pretend inside the block that there is a GPU, and stop Inductor after its choice."""
    properties = lambda *_: PROPERTIES  # noqa: E731
    replaced: list[tuple[Any, str, Any]] = [
        (GraphLowering, "compile_to_module", stop),
        (DeviceProperties, "create", classmethod(lambda *_: H200)),
        (CudaInterface, "get_device_properties", staticmethod(properties)),
        (CudaInterface, "is_bf16_supported", staticmethod(lambda *_, **__: True)),
        (torch.cuda, "get_device_properties", properties),
        (torch.cuda, "get_device_capability", lambda *_: (9, 0)),
        (torch.cuda, "current_device", lambda: 0),
        (torch._C, "_conv_determine_backend_memory_format", cudnn_memory_format),
        (triton.runtime.driver, "_active", Driver()),
        (scheduler, "has_triton", lambda *_: True),
        # Patterns for attention and random numbers are traced with tensors on the GPU.
        (joint_graph, "lazy_init", lambda *_: None),
    ]
    with ExitStack() as stack:
        for owner, name, stand_in in replaced:
            stack.enter_context(patch.object(owner, name, stand_in))
        # Constant folding would use tensors on the GPU.
        stack.enter_context(config.patch(joint_graph_constant_folding=False))
        yield


def stop(lowering: GraphLowering) -> None:
    lowering.init_wrapper_code()
    lowering._update_scheduler()
    nodes = lowering.scheduler.nodes
    kernels = [Kernel(ops_of(node), nbytes_of(node)) for node in nodes]
    refused = lowering.disable_cudagraphs_reason or refusal(lowering.device_node_mapping)
    kernels = [kernel for kernel in kernels if kernel.nbytes]
    raise DecidedError(Decision(kernels, refused, peak_of(lowering)))


def peak_of(lowering: GraphLowering) -> int:
    """Return Inductor's estimate of the peak of memory, in the order of its kernels."""
    planned, outputs = lowering.scheduler, OrderedSet(lowering.get_output_names())
    nodes, buffers = planned.nodes, planned.name_to_buf
    memory.assign_memory_planning_info_for_scheduler_buffers(nodes, buffers)
    memory.assign_memory_planning_info_for_scheduler_nodes(
        nodes, planned.name_to_fused_node, buffers, {}
    )
    peak, _ = memory.estimate_peak_memory(nodes, {}, outputs)
    return int(peak)


def ops_of(node: scheduler.BaseSchedulerNode) -> tuple[str, ...]:
    parts: list[Any] = [part.node for part in node.get_nodes()]
    origins = (origin for part in parts for origin in part.get_origins())
    return tuple(dict.fromkeys(str(origin.target) for origin in origins))


def nbytes_of(node: scheduler.BaseSchedulerNode) -> int:
    """Return Inductor's count of bytes. For a Triton kernel, each tensor counts once."""
    if not isinstance(node.node, ir.UserDefinedTritonKernel):
        return int(node.get_read_write_buffers_sizes())
    inputs: Sequence[Any] = node.node.inputs
    tensors = {(t.get_name(), str(t.get_layout())): t for t in inputs}
    return sum(int(t.get_numel()) * t.get_dtype().itemsize for t in tensors.values())


def cudnn_memory_format(given: Tensor, weight: Tensor, _: Any) -> torch.memory_format:
    """Apply cuDNN's rule: channels-last if the input or the weight is channels-last."""
    last = any(
        x.dim() == 4
        and x.is_contiguous(memory_format=torch.channels_last)
        and not x.is_contiguous()
        for x in (given, weight)
    )
    return torch.channels_last if last else torch.contiguous_format
