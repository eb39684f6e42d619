"""What torch.compile makes of our operators on a GPU, traced where there is none.

``python -m tests.kernels.tracing`` prints, by operator, the kernels that it launches and what
each of them writes. Triton is told of a GPU to analyse kernels for; nothing runs.
"""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
from torch import Tensor, fx
from torch._dynamo.backends.common import aot_autograd
from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table

import fxcache
from fxcache import operators
from fxcache._torch.fake_gpu import Driver
from fxcache.operators import operator_of
from tests import tiny

Launches = list[dict[str, Any]]


class Traced:
    """A backend that records the launches of a graph, and returns zeros for its results."""

    def __init__(self) -> None:
        self.launches: Launches = []

    def __call__(self, graph: fx.GraphModule, inputs: Sequence[Any]) -> Any:
        return aot_autograd(fw_compiler=self._keep)(graph, inputs)

    def _keep(self, graph: fx.GraphModule, _: Any) -> Callable[..., Any]:
        nodes = [n for n in graph.graph.nodes if "triton_kernel_wrapper" in str(n.target)]
        self.launches = [launch(node) for node in nodes]
        results = [n.meta["val"] for n in graph.graph.find_nodes(op="output")[0].args[0]]
        return lambda *_: [torch.zeros(r.shape, dtype=r.dtype) for r in results]


def launch(node: fx.Node) -> dict[str, Any]:
    index: Any = node.kwargs["kernel_idx"]
    kernel: Any = kernel_side_table.get_kernel(index)
    written: Any = node.kwargs["tensors_to_clone"]
    return {"kernel": kernel.fn.__name__, "writes": list(written)}


def traced(call: Callable[..., Any], *inputs: Any) -> Launches:
    """Return the launches in the graph of ``call``."""
    backend = Traced()
    torch._dynamo.reset()
    with torch.no_grad():
        torch.compile(call, backend=backend, fullgraph=True)(*inputs)
    return backend.launches


def operator_launches() -> dict[str, Launches]:
    concat = operator_of("concat_group_norm_silu")
    moments = operator_of("concat_group_norm_silu", "group_moments")
    quantize = operator_of("quantize_rows")
    norm, forecast = operator_of("residual_norm_modulate"), operator_of("forecast_read")
    halves, affine = (torch.randn(2, 16, 8, 8), torch.randn(2, 8, 8, 8)), torch.randn(2, 24)
    stream, cached, older = torch.randn(3, 2, 7, 32)
    weight, weights = torch.randn(32), torch.randn(1)
    scale, shift = torch.randn(2, 2, 32)

    def normed(x: Tensor, y: Tensor, z: Tensor, k: Tensor) -> Any:
        return norm(x, [y, z], k, weight, None, scale, shift, 1e-5, True, True)

    return {
        "group_moments": traced(lambda a: moments(a, 6, 24, 0), halves[0]),
        "concat_group_norm_silu": traced(
            lambda a, b, m: concat(a, b, *affine, 6, 1e-5, m), *halves, moments(halves[0], 6, 24, 0)
        ),
        "residual_norm_modulate": traced(normed, stream, cached, older, weights),
        "forecast_read": traced(lambda y, z, k: forecast([y, z], k), cached, older, weights),
        "quantize_rows": traced(lambda x: quantize(x, torch.float8_e4m3fn), stream[0]),
        "relative_l1": traced(operator_of("relative_l1"), stream, cached),
    }


def reuse_step_launches() -> Launches:
    """Return the launches of a whole reuse step, compiled through the optimised module."""
    unet = fxcache.optimize(
        tiny.small_unet(),
        fxcache.Uniform(2),
        cut=0,
        hoist=None,
        cache=fxcache.CacheConfig(kernels=True),
    )
    backend = Traced()
    compiled = torch.compile(unet, backend=backend, fullgraph=True)
    inputs = tiny.inputs()
    with torch.no_grad(), fxcache.session(unet):
        unet(timestep=500, **inputs)
        compiled(timestep=400, **inputs)
    (capture,) = fxcache.report(unet).captures
    (fusion,) = (fusion for variant in capture.variants for fusion in variant.kernels)
    assert not fusion["why_not"], "the operator is in the graph"
    return backend.launches


def main() -> None:
    triton.runtime.driver.set_active(Driver())
    operators.DEVICES = ("cpu", "cuda")
    found = operator_launches() | {"reuse step": reuse_step_launches()}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
