"""The device and the sizes of the bench: the only difference between a GPU and a dry run."""

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from bench.gpu import stand_in
from bench.gpu.layers import Size

SD_1_5, SDXL = "Stable Diffusion 1.5, 512×512", "Stable Diffusion XL, 1024×1024"
FLUX, WAN = "FLUX.1, 1024×1024", "Wan 2.1 1.3B, 832×480, 81 frames"
CompileOptions = Mapping[str, Any]  # keyword arguments of torch.compile


@dataclass(frozen=True)
class Setup:
    """The device, its runtime, and the sizes that suit it.

    Attributes:
        device: The type of the device, as PyTorch names it.
        runtime: ``torch.cuda``, or ``bench.gpu.stand_in``, which has the same names.
        pretended: A context around the bench, in which a dry run replaces parts of fxcache.
        environment: Variables to set before Triton is imported and the device is used.
        driver_command: The command that prints the version of the driver.
        full: Whether diffusers models and kernels have their full size.
        size: The size of the denoisers in ``bench.gpu.models``.
        models: The denoisers with which hoisting and streams are checked.
        denoisers: The models of diffusers whose steps are timed.
        ways: The ways to run their steps, from ``bench.gpu.step_times.WAYS``.
        peers: The models of ``bench.peers`` on which fxcache is compared with other caches.
        contenders: The names of those to compare; all if there are none.
        features: The options of fxcache to check in compiled graphs.
        dtypes: The dtypes in which correctness is checked.
        compiled: The options of torch.compile, by the name of the way to run.
        kernel_tests: The arguments of pytest that select tests of each kernel.
        repeats: The number of repetitions of each timed call.
        trajectories: The number of pairs of requests that run on two streams.
        delay_cycles: The cycles that a stream is delayed. An H100 runs 1.7e9 cycles a second.
        flushed_bytes: The bytes to write before each timed kernel, more than the L2 cache holds.
    """

    device: str
    runtime: Any
    pretended: Callable[[], AbstractContextManager[None]]
    environment: Mapping[str, str]
    driver_command: tuple[str, ...]
    full: bool
    size: Size
    models: tuple[str, ...]
    denoisers: tuple[str, ...]
    ways: tuple[str, ...]
    peers: tuple[str, ...]
    contenders: tuple[str, ...]
    features: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]
    compiled: Mapping[str, CompileOptions]
    kernel_tests: tuple[str, ...]
    repeats: int
    trajectories: int
    delay_cycles: int
    flushed_bytes: int


GPU = Setup(
    device="cuda",
    runtime=torch.cuda,
    pretended=nullcontext,
    # Without this, the bits of cuBLAS may vary if two streams run at the same time.
    environment={"CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
    driver_command=("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
    full=True,
    size=Size(width=512, blocks=8, heads=8, side=32, words=77),
    models=("DiT", "U-Net", "FLUX"),
    denoisers=(SD_1_5, FLUX, SDXL, WAN),
    ways=("eager", "compiled", "graphs", "eager, kernels", "graphs, hoisted"),
    peers=("FLUX-shaped", "U-Net", "Wan-shaped"),
    contenders=(),
    features=("kernels", "hoisted", "signal", "forecast", "int8 cache"),
    dtypes=(torch.bfloat16, torch.float32),
    compiled={"compiled": {}, "graphs": {"mode": "reduce-overhead"}},
    kernel_tests=(),
    repeats=50,
    trajectories=200,
    delay_cycles=30_000_000,
    flushed_bytes=256 * 2**20,
)
DRY_RUN = Setup(
    device="cpu",
    runtime=stand_in,
    pretended=stand_in.pretended_device,
    environment={"TRITON_INTERPRET": "1"},
    driver_command=(sys.executable, "-c", "print('no driver')"),
    full=False,
    size=Size(width=16, blocks=2, heads=2, side=4, words=3),
    models=("DiT",),
    denoisers=(SD_1_5, WAN),
    ways=("eager", "graphs"),
    peers=("FLUX-shaped",),
    contenders=("fxcache, automatic cut", "diffusers, MagCache, given steps", "fewer steps"),
    features=("kernels", "signal"),
    dtypes=(torch.float32,),
    compiled={"compiled": {"backend": "aot_eager"}, "graphs": {"backend": "eager"}},
    kernel_tests=("-k", "any_strides and float32"),
    repeats=2,
    trajectories=2,
    delay_cycles=1,
    flushed_bytes=2**10,
)
