"""Binds a timestep that is a Python number: finds the tensors that represent it in the graph."""

from dataclasses import replace
from numbers import Integral, Real

import torch
from torch import Tensor, nn

from fxcache.call import Call
from fxcache.capture.numbers import AsTensor, NumberTrace
from fxcache.capture.replay import record, values_at
from fxcache.errors import CaptureError

Trace = NumberTrace | AsTensor
# Raised by a model that expects a tensor: a missing attribute, or a function of another type.
EXPECTS_TENSOR = (AttributeError, TypeError)


def trace_of(module: nn.Module, call: Call) -> Trace:
    """Return how the number of ``call`` enters a graph of ``module``, which has its original class.

    Raises:
        CaptureError: The model itself fails for the number.
    """
    try:
        return record(module, call)
    except EXPECTS_TENSOR as error:
        return AsTensor(f"{type(error).__name__}: {error}")
    except Exception as error:
        raise CaptureError(
            f"the model cannot be traced with the Python number {call.number} as "
            f"{call.timestep_name}: {type(error).__name__}: {error}",
            where=f"{type(module).__name__}.forward",
            remedy="pass the timestep as a tensor",
        ) from error


def number_tensors(
    module: nn.Module, call: Call, trace: Trace
) -> tuple[Trace, tuple[Tensor, ...]] | None:
    """Return the tensors that represent the number of ``call``.

    Returns:
        The trace and one tensor for each of its slots. The trace gets additional slots if this
        number changes further arguments. None if the model makes other calls for this number.
    """
    if isinstance(trace, AsTensor):
        assert call.number is not None
        return trace, (number_tensor(call.number, call.latent.device),)
    values = values_at(trace, module, call, call.number)
    if values is None:
        return None
    slots = tuple(sorted({*trace.slots, *values}))
    if slots != trace.slots:
        trace = replace(trace, slots=slots)
    return trace, tuple(values[slot] for slot in slots)


def bound(module: nn.Module, call: Call) -> Call:
    """Trace the number of ``call`` and bind it.

    Raises:
        CaptureError: The model cannot be traced with the number.
    """
    traced = number_tensors(module, call, trace_of(module, call))
    if traced is None:
        raise CaptureError(
            f"two runs of the model with {call.timestep_name}={call.number} make different calls",
            where=f"{type(module).__name__}.forward",
            remedy="pass the timestep as a tensor",
        )
    trace, tensors = traced
    return call.with_number(tensors, trace)


def number_refusal(error: CaptureError, call: Call, trace: AsTensor) -> CaptureError:
    """Return the error for a number that the model accepts neither as it is nor as a tensor."""
    return CaptureError(
        f"{call.timestep_name} is a Python number, which the model does not accept "
        f"({trace.reason}); as a tensor it fails too: {error.what}",
        where=error.where,
        remedy="pass the timestep in a form that the model accepts",
    )


def number_tensor(value: Real, device: torch.device) -> Tensor:
    """A number as a 0-dim tensor: int64 for an integer, else float64 (float32 on MPS)."""
    if isinstance(value, Integral):
        return torch.tensor(int(value), dtype=torch.int64, device=device)
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return torch.tensor(float(value), dtype=dtype, device=device)
