"""Tests the bytes that Inductor's kernels would move, on graphs that can be counted by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from bench.eager_traffic import eager
from fxcache._torch import fake_gpu
from fxcache._torch.fake_gpu import compiled, on_fake_gpu
from tests.kernels.comparing import compiling

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results" / "traffic.json"
VALUES = 2 * 64 * 32 * 32
pytestmark = pytest.mark.usefixtures("clean_dynamo")


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.bfloat16, device="meta")


def graph_of(model: nn.Module, *inputs: Tensor) -> fx.GraphModule:
    module: fx.GraphModule = torch.export.export(model, inputs).module(check_guards=False)
    return module


class Chain(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return functional.silu(x + y).reshape(-1, 2) * 2


class Attention(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v)


def convolution(weight: Tensor) -> fx.GraphModule:
    """Return the graph of a convolution of a SiLU. The weight is an attribute, as in variants."""
    graph = fx.Graph()
    x = graph.call_function(torch.ops.aten.silu.default, (graph.placeholder("x"),))
    given = (x, graph.get_attr("weight"), None, [1, 1], [1, 1])
    graph.output((graph.call_function(torch.ops.aten.conv2d.default, given),))
    return fx.GraphModule({"weight": weight}, graph)


def test_a_chain_of_pointwise_operators_is_one_kernel():
    x, y = zeros(2, VALUES)
    called = on_fake_gpu(graph_of(Chain(), x, y), (x, y))
    (fused,) = compiled(called).kernels
    assert fused.nbytes == 3 * 2 * VALUES
    assert [kernel.nbytes // (2 * VALUES) for kernel in eager(called)] == [3, 2, 2]


@pytest.mark.parametrize("input_last", [False, True])
@pytest.mark.parametrize("weight_last", [False, True])
def test_convolutions_read_and_write_channels_last(input_last, weight_last):
    """Inductor converts other layouts: the weight before, the result after."""
    forms = [(torch.contiguous_format, torch.channels_last)[i] for i in (input_last, weight_last)]
    x = zeros(2, 64, 32, 32).contiguous(memory_format=forms[0])
    weight = zeros(64, 64, 3, 3).contiguous(memory_format=forms[1])
    kernels = compiled(on_fake_gpu(convolution(weight), (x,))).kernels
    of_weight, of_values = 2 * weight.numel(), 2 * VALUES
    expected = [2 * of_values, 2 * of_values + of_weight]
    expected += [2 * of_weight] * (not weight_last)
    expected += [2 * of_values] * (not (input_last or weight_last))
    assert sorted(kernel.nbytes for kernel in kernels) == sorted(expected)


def test_attention_stays_one_kernel():
    q, k, v = zeros(3, 1, 8, 256, 64)
    (found,) = compiled(on_fake_gpu(graph_of(Attention(), q, k, v), (q, k, v))).kernels
    assert "flash_attention" in str(found.ops)


def test_refused_cuda_graphs_have_a_reason():
    x, y = zeros(VALUES), torch.zeros(VALUES, dtype=torch.bfloat16)
    assert compiled(on_fake_gpu(graph_of(Chain(), x, x), (x, x))).refused is None
    assert "cpu" in str(compiled(on_fake_gpu(graph_of(Chain(), x, x), (y, y))).refused)


@pytest.mark.slow
def test_the_pretended_gpu_is_removed():
    """The stand-ins for a GPU are removed."""
    meta, x = zeros(8), torch.ones(8)
    compiled(on_fake_gpu(graph_of(Chain(), meta, meta), (meta, meta)))
    torch.testing.assert_close(torch.compile(Chain())(x, x), Chain()(x, x))
    assert torch._inductor.runtime.hints.DeviceProperties.create.__module__ != fake_gpu.__name__


@pytest.mark.slow
def test_stable_diffusions_traffic_equals_the_results(tmp_path):
    """It runs in another process, because kernels may be interpreted in this one."""
    (model,) = [name for name in json.loads(RESULTS.read_text())["models"] if "1.5" in name]
    command = [sys.executable, "-m", "bench.traffic", "--model", model]
    out = tmp_path / "traffic.json"
    subprocess.run([*command, "--out", out], cwd=ROOT, env=compiling(), check=True)
    found, expected = (json.loads(path.read_text())["models"] for path in (out, RESULTS))
    assert found[model] == expected[model]
