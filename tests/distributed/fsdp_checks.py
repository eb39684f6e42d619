"""Checks of options of FSDP and of changed weights that two processes run."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FullyShardedDataParallel,
    MixedPrecisionPolicy,
    fully_shard,
)

import fxcache
from tests.distributed.checks import by_blocks, keeps_bits, mesh, refreshes
from tests.plain import DiT, denoised, dit


class Uneven(DiT):
    """A DiT with a layer of three rows, which two processes share unevenly."""

    def __init__(self) -> None:
        super().__init__(2)
        self.narrow, self.wide = nn.Linear(4, 3), nn.Linear(3, 4)

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return super().forward(self.wide(self.narrow(sample)), timestep, text)


def half_precision(rank: int) -> None:
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    keeps_bits(lambda: by_blocks(mp_policy=policy), rank)


def kept_whole(rank: int) -> None:
    keeps_bits(lambda: by_blocks(reshard_after_forward=False), rank)


def on_the_cpu(rank: int) -> None:
    keeps_bits(lambda: by_blocks(offload_policy=CPUOffloadPolicy(pin_memory=False)), rank)


def replicas_of_shards(rank: int) -> None:
    def make() -> Any:
        model, places = dit(2), init_device_mesh("cpu", (1, 2), mesh_dim_names=("copy", "shard"))
        for layer in model.layers:
            fully_shard(layer, mesh=places)
        return fully_shard(model, mesh=places)

    keeps_bits(make, rank)


def uneven(rank: int) -> None:
    def make() -> nn.Module:
        model = Uneven().eval()
        fully_shard(model.narrow, mesh=mesh())
        return by_blocks(model)

    keeps_bits(make, rank)


def blocks_only(rank: int) -> None:
    def make() -> nn.Module:
        model = dit(2)
        for layer in model.layers:
            fully_shard(layer, mesh=mesh())
        return model

    keeps_bits(make, rank)


def prefetching(rank: int) -> None:
    def make() -> nn.Module:
        model: Any = by_blocks()
        model.set_modules_to_forward_prefetch(list(model.layers))
        return model

    keeps_bits(make, rank)


def sharded_afterwards(rank: int) -> None:
    expected = denoised(by_blocks(), seed=rank)
    model = fxcache.optimize(dit(2), fxcache.Uniform(1))
    denoised(model, seed=rank)
    by_blocks(model)
    assert torch.equal(denoised(model, seed=rank), expected)
    fxcache.restore(model)
    assert torch.equal(denoised(model, seed=rank), expected)


def changed_weights(rank: int) -> None:
    plain, model = by_blocks(), by_blocks()
    fxcache.optimize(model, fxcache.Uniform(1))
    denoised(model, seed=rank)
    for one in (plain, model):
        with torch.no_grad():
            for weight in one.parameters():
                weight.mul_(1.5)
    assert torch.equal(denoised(model, seed=rank), denoised(plain, seed=rank))
    halved = {name: weight.clone() * 0.5 for name, weight in plain.state_dict().items()}
    for one in (plain, model):
        one.load_state_dict(halved)
    assert torch.equal(denoised(model, seed=rank), denoised(plain, seed=rank))


def wrapped(rank: int) -> None:
    """FSDP 1 is refused around blocks, and around an optimised model."""
    del rank
    model: Any = dit(2)
    model.layers[0] = FullyShardedDataParallel(model.layers[0], device_id=torch.device("cpu"))
    fxcache.optimize(model)
    with pytest.raises(fxcache.CaptureError, match="fully_shard"):
        denoised(model)
    with pytest.raises(fxcache.CaptureError, match="fully_shard"):
        denoised(fxcache.optimize(FullyShardedDataParallel(dit(2), device_id=torch.device("cpu"))))


def compiled(rank: int) -> None:
    model = fxcache.optimize(by_blocks(), fxcache.Uniform(3))
    expected = denoised(model, seed=rank)
    model.compile(backend="aot_eager", fullgraph=True)
    assert torch.equal(denoised(model, seed=rank), expected)
    assert refreshes(model) == [[0, 3, 6]] * 2
