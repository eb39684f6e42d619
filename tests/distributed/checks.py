"""Checks that two processes run, see ``processes.py``."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

import fxcache
from fxcache.analysis.collectives import collectives
from fxcache.runtime.agreement import ELSEWHERE
from tests.distributed.processes import on_all
from tests.engines import num_captures, optimized_engine, variants_of
from tests.plain import DiT, denoised, dit, dit_inputs

Make = Callable[[], Any]
MLP = {"mlp.0": ColwiseParallel(), "mlp.2": RowwiseParallel()}
# Alone, the data of the two processes leads to different decisions.
SIGNAL = fxcache.FirstBlock(0.2)


def mesh() -> DeviceMesh:
    return init_device_mesh("cpu", (2,))


def by_blocks(model: Any = None, **options: Any) -> nn.Module:
    """Return a model whose blocks FSDP gathers one by one."""
    model, shared = model or dit(2), mesh()
    for layer in model.layers:
        fully_shard(layer, mesh=shared, **options)
    return fully_shard(model, mesh=shared, **options)


def split(model: Any = None) -> nn.Module:
    """Return a model with tensor parallelism in the MLPs of its blocks."""
    model, shared = model or dit(2), mesh()
    for layer in model.layers:
        parallelize_module(layer, shared, MLP)
    return model


def refreshes(model: nn.Module) -> list[list[int]]:
    return [list(run.refreshes) for run in fxcache.report(model).runs]


def keeps_bits(make: Make, seed: int, run: Callable[..., Tensor] = denoised) -> nn.Module:
    """Refresh at all steps, then at every third. Return the optimised model after both runs."""
    expected = run(make(), seed=seed)
    model = fxcache.optimize(make(), fxcache.Uniform(1))
    assert torch.equal(run(model, seed=seed), expected)
    fxcache.optimize(model, fxcache.Uniform(3))
    run(model, seed=seed)
    assert refreshes(model) == [[0, 3, 6]]
    return model


def decides_alike(make: Make) -> None:
    """Observe a signal that differs between the processes, which must refresh at the same steps."""
    alone = fxcache.optimize(dit(2), SIGNAL)
    together = fxcache.optimize(make(), SIGNAL)
    rank = dist.get_rank()
    for model in (alone, together):
        denoised(model, 9, seed=rank + 1)
    first, second = on_all(refreshes(alone))
    assert first != second
    first, second = on_all(refreshes(together))
    assert first == second
    assert len(refreshes(together)[0]) < 9


def restarts(make: Make, rank: int) -> None:
    """Begin another run in one process only, in the middle of the run of the other one."""
    model, mine, other = make(), dit_inputs(seed=rank), dit_inputs(seed=7)
    fxcache.optimize(model, fxcache.Uniform(3))
    timesteps = torch.linspace(900, 100, 8)
    with torch.no_grad():
        for i in range(8):
            new = rank == 1 and i >= 4
            given, t = (other, timesteps[i - 4]) if new else (mine, timesteps[i])
            model(given["sample"], t, given["text"])
    assert refreshes(model) == ([[0, 3], [0, 2, 3]] if rank else [[0, 3, 4, 6, 7]])
    if rank == 0:
        steps = optimized_engine(model).runs[0].steps
        assert [step.decision.reason for step in steps].count(ELSEWHERE) == 2


def exchanges(model: nn.Module) -> tuple[int, int]:
    """Return how many nodes exchange data in the full and in the cached-skip graph."""
    variants = variants_of(model)
    graphs = variants.full.graph, variants.cached_skip.graph
    full, reuse = (len(list(collectives(graph.nodes))) for graph in graphs)
    return full, reuse


def data_parallel(rank: int) -> None:
    def make() -> nn.Module:
        return DistributedDataParallel(dit(2))

    expected = denoised(make(), seed=rank)
    model = fxcache.optimize(make(), fxcache.Uniform(1))
    assert torch.equal(denoised(model, seed=rank), expected)
    fxcache.optimize(model, SIGNAL)
    denoised(model, 9, seed=rank + 1)
    first, second = on_all(refreshes(model))
    assert first != second  # no data is exchanged: each process decides alone
    dist.barrier()


def sharded_as_a_whole(rank: int) -> None:
    keeps_bits(lambda: fully_shard(dit(2), mesh=mesh()), seed=rank)


def sharded_by_blocks(rank: int) -> None:
    model = keeps_bits(by_blocks, seed=rank)
    assert num_captures(model) == 1
    full, reuse = exchanges(model)
    assert reuse == 0 < full  # a reuse step gathers no block that it skips


def sharded_signals(rank: int) -> None:
    del rank
    decides_alike(by_blocks)


def sharded_restart(rank: int) -> None:
    restarts(by_blocks, rank)


def sharded_alone(rank: int) -> None:
    with mock.patch("fxcache.runtime.engine.agreed", lambda _, decision, __: decision):
        restarts(by_blocks, rank)


def split_weights(rank: int) -> None:
    del rank
    model = keeps_bits(split, seed=0)
    assert exchanges(model)[0] > 0
    latent = denoised(model)
    whole = [torch.empty_like(latent) for _ in range(2)]
    dist.all_gather(whole, latent)
    assert torch.equal(*whole)


def split_restart(rank: int) -> None:
    restarts(split, rank)


def refused(rank: int) -> None:
    guided = fxcache.optimize(split(), guidance=fxcache.GuidanceCache())
    twice = torch.cat([dit_inputs(1)["sample"]] * 2)
    with pytest.raises(fxcache.ConfigError, match="leave guidance= out"):
        denoised(guided, sample=twice)
    exported = fxcache.optimize(by_blocks())
    denoised(exported, 2)
    with pytest.raises(fxcache.ArtifactError, match="before it is sharded"):
        fxcache.export(exported, f"unused{rank}")
    given = dit_inputs()
    model = fxcache.optimize(split())
    with torch.no_grad():
        with pytest.raises(fxcache.CaptureError, match="pass the timestep as a tensor"):
            model(given["sample"], 900.0, given["text"])
        whole = DTensor.from_local(given["sample"], mesh(), [Replicate()])
        with pytest.raises(fxcache.CaptureError, match="DTensor"):
            model(whole, torch.tensor(900.0), given["text"])
        together: Any = DiT(2).eval()
        fully_shard(list(together.layers), mesh=mesh())
        fxcache.optimize(fully_shard(together, mesh=mesh()))
        with pytest.raises(fxcache.CaptureError, match="on each block alone"):
            together(given["sample"], torch.tensor(900.0), given["text"])
