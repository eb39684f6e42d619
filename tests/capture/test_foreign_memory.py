"""Tests constants that forward computes with NumPy and Python: they are exact or refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.torch_version import TorchVersion
from torch.utils.dlpack import from_dlpack

from fxcache.capture.foreign_memory import is_foreign, same_bits
from tests.capture.prepared import Prepare, Prepared, assert_exact, calls, captured, refusal

FLOATS: Any = np.arange(4, dtype=np.float32)
BUFFER = np.zeros(4, dtype=np.float32)


def positions(x: Tensor, _: Tensor) -> Tensor:
    """Compute a sine table as diffusers does: torch, NumPy, torch."""
    grid = np.meshgrid(torch.arange(x.shape[1]).numpy(), np.arange(4, dtype=np.float64))
    table = np.sin(grid[0] / 10) + np.cos(grid[1])
    return x + torch.from_numpy(table.T).to(x.device, x.dtype)


def made_inside_autocast(x: Tensor, _: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        scale = torch.tensor([1.0, 2.0, 3.0, 4.0])
        scale.mul_(2)
    return x * scale


# The arguments are Any: for mypy, no tensor can be added to what NumPy made.
EXACT: dict[str, Callable[[Any, Any], Tensor]] = {
    "from_numpy": lambda x, t: x + torch.from_numpy(np.arange(4.0)).float(),
    "as_tensor": lambda x, t: x + torch.as_tensor(np.arange(4.0), dtype=x.dtype, device=x.device),
    "asarray": lambda x, t: x + torch.asarray(FLOATS),
    "copied array": lambda x, t: x + torch.tensor(FLOATS),
    "list": lambda x, t: x + torch.tensor([1.0, 2.0, 3.0, 4.0]),
    "list of sizes": lambda x, t: x * torch.tensor([x.shape[1], x.shape[2]]).prod(),
    "legacy constructors": lambda x, t: x + torch.Tensor([1, 2, 3, 4]) + torch.FloatTensor([1.0]),
    "new_tensor": lambda x, t: x + x.new_tensor(FLOATS),
    "frombuffer": lambda x, t: x + torch.frombuffer(FLOATS.copy(), dtype=torch.float32),
    "dlpack": lambda x, t: x + from_dlpack(FLOATS.copy()),
    "moved and cast": lambda x, t: x + torch.from_numpy(np.arange(4)).to(x.device).to(x.dtype),
    "positions": positions,
    "made inside autocast": made_inside_autocast,
    "round trip": lambda x, t: x + torch.from_numpy(np.cos(torch.arange(4.0).numpy())),
    "np.asarray": lambda x, t: x + torch.tensor(np.asarray(torch.ones(4)) * 2),
    "ufunc of a tensor": lambda x, t: x + torch.as_tensor(np.sin(torch.arange(4.0))),
    "tensor times array": lambda x, t: x + torch.ones(4) * FLOATS,
    "tolist": lambda x, t: x + sum(torch.linspace(0, 1, 4).tolist()),
    "item": lambda x, t: x * int(torch.arange(4).max()),
    "in": lambda x, t: x + (1.0 if 3 in torch.arange(4) else 2.0),
    "formatted": lambda x, t: x + float(f"{torch.tensor(2.5):.1f}"),
    "numbers of NumPy": lambda x, t: x * np.float32(2) + np.prod(x.shape) + np.float64(0.1),
    "bucketized timestep": lambda x, t: (
        x + torch.bucketize(t, torch.from_numpy(np.array([100.0, 500.0]))).float()
    ),
    "sizes from values": lambda x, t: x + torch.arange(8.0)[torch.arange(8) > 3],
}
if TorchVersion(torch.__version__) >= "2.12":  # before, torch.export reads the index
    EXACT["looked up by the timestep"] = lambda x, t: (
        x + torch.from_numpy(np.arange(1e3))[t.long()].float()
    )


# NumPy warns of the way in which torch makes tensors of its results.
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")
@pytest.mark.parametrize("prepare", EXACT.values(), ids=list(EXACT))
def test_constants_are_exact(prepare):
    assert_exact(prepare)


def drawn_twice(x: Tensor, _: Tensor) -> Tensor:
    for value in range(3):
        BUFFER[:] = value
        x = x + torch.from_numpy(BUFFER)
    return x


def written_by_torch(x: Tensor, _: Tensor) -> Tensor:
    array = np.zeros(4, dtype=np.float32)
    torch.from_numpy(array)[1:].add_(1)
    return x + torch.tensor(array * 2)


def written_by_numpy(x: Tensor, _: Tensor) -> Tensor:
    tensor = torch.zeros(4)
    tensor.numpy()[1] = 5
    return x + tensor


REFUSED: dict[str, Prepare] = {
    "latent to NumPy": lambda x, t: x + torch.from_numpy(x.numpy() * 2),
    "latent as array": lambda x, t: x + torch.from_numpy(np.asarray(x) * 2),
    "latent to bool": lambda x, t: x + torch.tensor([1.0 if x.sum() > 0 else 2.0]),
    "timestep to NumPy": lambda x, t: x + torch.from_numpy(np.full(4, t.numpy(), np.float32)),
    "timestep as number": lambda x, t: x + torch.tensor([float(t)] * 4),
    "buffer used again": drawn_twice,
    "written by torch, read by NumPy": written_by_torch,
    "written by NumPy, read by torch": written_by_numpy,
}


@pytest.mark.parametrize("prepare", REFUSED.values(), ids=list(REFUSED))
def test_values_that_a_graph_would_freeze_are_refused(prepare):
    where = refusal(prepare).where
    assert "test_foreign_memory.py" in where or "prepared.py" in where


def test_constants_are_real_tensors_of_torch():
    program = captured(Prepared(EXACT["positions"]), *calls()[0])
    names = {node.target for node in program.graph.nodes if node.op == "get_attr"}
    constants = [program.weights[name] for name in names if "lifted" in name]
    assert constants
    assert all(type(c) is Tensor and not is_foreign(c) for c in constants)


def test_a_constant_is_not_the_arrays_memory():
    """The next call of forward may use the array for something else."""
    array = np.ones(4, dtype=np.float32)
    model = Prepared(lambda x, t: x + torch.from_numpy(array))
    program = captured(model, *calls()[0])
    array[:] = 7
    lifted = [value for name, value in program.weights.items() if "lifted" in name]
    assert [value.tolist() for value in lifted] == [[1.0] * 4]


def test_bits_are_compared_and_not_values():
    nan, zero = torch.tensor([float("nan")]), torch.tensor([0.0])
    assert same_bits(nan, nan.clone())
    assert not same_bits(zero, -zero)
    assert same_bits(torch.eye(3).T, torch.eye(3))
