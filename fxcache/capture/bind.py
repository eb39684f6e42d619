"""A call whose timestep is a Python number gets the tensors that stand for it in the graph."""

from dataclasses import replace

from torch import Tensor, nn

from fxcache.call import Call, number_tensor
from fxcache.capture.numbers import AsTensor, NumberTrace
from fxcache.capture.replay import record, values_at
from fxcache.errors import CaptureError

Trace = NumberTrace | AsTensor
# What a model raises that takes no number: it has no such attribute, or no function takes it.
TAKES_NONE = (AttributeError, TypeError)


def trace_of(module: nn.Module, call: Call) -> Trace:
    """How the number of ``call`` enters a graph of ``module``, under its original class.

    Raises CaptureError where the model itself fails for it.
    """
    try:
        return record(module, call)
    except TAKES_NONE as error:
        return AsTensor(f"{type(error).__name__}: {error}")
    except Exception as error:
        raise CaptureError(
            f"{call.timestep_name} is the Python number {call.number}, and with it the model "
            f"cannot be traced: {type(error).__name__}: {error}",
            where=f"{type(module).__name__}.forward",
            remedy="pass the timestep as a tensor",
        ) from error


def number_tensors(
    module: nn.Module, call: Call, trace: Trace
) -> tuple[Trace, tuple[Tensor, ...]] | None:
    """What ``call``'s number is in graphs of ``trace``, with slots added where it reaches others.

    None where the model takes another way for this number.
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
    """``call`` with tensors for its number, by a trace of its own."""
    found = number_tensors(module, call, trace_of(module, call))
    if found is None:
        raise CaptureError(
            f"the model does not do the same twice for {call.timestep_name}={call.number}",
            where=f"{type(module).__name__}.forward",
            remedy="pass the timestep as a tensor",
        )
    trace, tensors = found
    return call.with_number(tensors, trace)


def number_refusal(error: CaptureError, call: Call, trace: AsTensor) -> CaptureError:
    """``error`` of a capture with a tensor for the number, which the model did not take."""
    return CaptureError(
        f"{call.timestep_name} is a Python number, which the model does not take "
        f"({trace.reason}), and as a tensor: {error.what}",
        where=error.where,
        remedy="pass the timestep as the model takes it",
    )
