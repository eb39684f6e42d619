"""The multiply-accumulates of DeepCache's models, beside the figures of its paper."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from bench.figures import result
from bench.paper_figures import is_reproduced, paper_figures
from bench.paper_macs import PAPER, counted

pytestmark = pytest.mark.usefixtures("shared_captures")

CIFAR = "DDPM, CIFAR-10 32×32"


@pytest.fixture(scope="module")
def cifar() -> dict[str, Any]:
    return counted(PAPER[CIFAR])


def test_the_cifar_model_reproduces_every_figure_of_the_paper(cifar):
    printed = {n: found for n, found in cifar["intervals"].items() if found["printed"]}
    assert list(printed) == ["1", "2", "3", "5", "10"]
    assert all(map(is_reproduced, printed.values()))
    assert [found["refreshes"] for found in printed.values()] == [100, 50, 34, 20, 10]


def test_the_result_on_file_is_that_of_the_command(cifar):
    assert result("paper_macs")[CIFAR] == cifar


def test_one_figure_is_not_reproduced():
    missed = [
        (name, interval)
        for name, model in result("paper_macs").items()
        for interval, found in model["intervals"].items()
        if found["printed"] and not is_reproduced(found)
    ]
    assert missed == [("Stable Diffusion 1.5, 512×512", "5")]
    assert "16 of the 17 figures" in paper_figures(result("paper_macs"))


def test_the_graph_is_counted_as_modules_are(cifar):
    """The same rules in hooks on modules, where the paper's tool has them."""
    total = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * (module.weight[0].numel() + 1)
        elif isinstance(module, nn.Linear):
            total += inputs[0].numel() * module.out_features + module.out_features
        elif isinstance(module, nn.GroupNorm):
            total += 2 * inputs[0].numel()

    model = PAPER[CIFAR].build()
    for module in model.modules():
        module.register_forward_hook(count)
    model(torch.empty(1, 3, 32, 32, device="meta"), torch.tensor(1, device="meta"))
    assert cifar["full"]["paper_tool"] == total


def test_fxcache_counts_what_the_cut_lists_say(cifar):
    reuse = cifar["reuse_by_skip_index"]
    assert len(reuse) == 12
    costs = [step["macs"] for step in reuse]
    assert costs == sorted(costs)
    assert math.isclose(cifar["intervals"]["1"]["macs"], cifar["full"]["macs"])
