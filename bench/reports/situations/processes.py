"""A report about several processes that share a model."""

import json
import logging
import os
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig
from torch import Tensor
from torch.multiprocessing import get_context

import fxcache
from bench.pipelines.parts import denoiser, noise
from bench.reports.report import PublicReport

PROCESSES = 2
PATIENCE_S = 240.0


def shared_model() -> Any:
    """Build a Wan transformer whose tokens the processes share (Ulysses)."""
    model = denoiser("WanTransformer3DModel")
    # diffusers asks for the number of accelerators.
    with mock.patch("torch.accelerator.device_count", return_value=PROCESSES):
        model.enable_parallelism(config=ContextParallelConfig(ulysses_degree=PROCESSES))
    return model


@torch.no_grad()
def sampled(model: Any) -> Tensor:
    latent = noise(1, 4, 2, 8, 8)
    for timestep in torch.linspace(0.9, 0.1, 7):
        inputs = {"timestep": timestep.expand(1), "encoder_hidden_states": noise(1, 6, 16, seed=1)}
        latent = latent - 0.1 * model(latent, **inputs, return_dict=False)[0]
    return latent


def faults_of_a_process() -> list[str]:
    plain, faults = sampled(shared_model()), []
    model = fxcache.optimize(shared_model(), fxcache.Uniform(1))
    if not torch.equal(sampled(model), plain):
        faults.append("refreshing at every step changes the result")
    for policy in (fxcache.Uniform(3), fxcache.FirstBlock(0.2)):
        fxcache.optimize(model, policy)
        first = sampled(model)
        found: list[Any] = [None] * PROCESSES
        mine = (first.tolist(), fxcache.report(model).runs[-1].refreshes)
        dist.all_gather_object(found, mine)
        if any(other != mine for other in found):
            faults.append(f"{type(policy).__name__}: the processes differ")
        if len(mine[1]) == 7 or not torch.equal(sampled(model), first):
            faults.append(f"{type(policy).__name__}: refreshed {mine[1]}, or differs again")
    return faults


def run(rank: int, folder: Path) -> None:
    """Be one of the processes. Its faults go to a file."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # of diffusers
    warnings.simplefilter("ignore")
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=PROCESSES)
    (folder / f"{rank}.json").write_text(json.dumps(faults_of_a_process()), "utf-8")
    dist.barrier()
    dist.destroy_process_group()


def shared_tokens() -> list[str]:
    """Sample in two processes that share the tokens of one latent."""
    context = get_context("spawn")
    faults: list[str] = []
    with TemporaryDirectory() as name, mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):
        processes = [context.Process(target=run, args=(n, Path(name))) for n in range(PROCESSES)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(PATIENCE_S)
            if process.is_alive():
                process.kill()
        for rank in range(PROCESSES):
            file = Path(name) / f"{rank}.json"
            ended = file.exists()
            faults += json.loads(file.read_text("utf-8")) if ended else [f"{rank} did not end"]
    return faults


REPORTS = (
    PublicReport(
        "vipshop/cache-dit",
        1094,
        "Wan 2.2 with Cache-DiT and Ulysses: an error at the first step, for the cache subtracts "
        "the tokens of one process from those of all.",
        shared_tokens,
        "Two processes with gloo that share the tokens of a Wan transformer: exact if every step "
        "refreshes, and the same decisions in both with `Uniform` and `FirstBlock`.",
        "Tried on the CPU only.",
    ),
)
