"""What identifies a kind of call in an artifact."""

import ctypes
import hashlib
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from fxcache.deploy.values import encode
from fxcache.effect import named
from fxcache.errors import ArtifactError
from fxcache.form import Key
from fxcache.opaque import described
from fxcache.program import Program


def call_to_json(kind: Hashable, device: torch.device) -> list[Any]:
    """Return the key of a call as JSON, which is only compared.

    Raises:
        ArtifactError: The call passes values that JSON cannot hold, objects that carry state, or a
            timestep that is a number.
    """
    if not isinstance(kind, Key):
        raise number_refused("timestep")
    parts: Any = kind.parts
    *_, objects = parts
    if objects:
        raise ArtifactError(
            "artifacts do not support objects that carry tensors or other state, such as a "
            "key/value cache",
            where=", ".join(path for path, _ in objects),
            remedy="pass tensors, or export the model after calls without it",
        )
    return [encode(typed(part), {}, device) for part in parts]


def require_no_code(program: Program) -> None:
    """Raise ArtifactError if the program needs code of the model.

    That is a submodule that graphs call as it is, the class of a returned object, or code that
    changes objects of the model.
    """
    if program.effects:
        raise ArtifactError(
            "a call changes Python objects of the model, which an artifact does not have",
            where=named(program.effects),
            remedy="export the model without the hooks or processors that store values",
        )
    for called in described(program.opaque):
        raise ArtifactError(
            f"graphs call submodules that torch.export cannot trace, which are code: {called}",
            where=program.opaque[0].path,
            remedy="change that line so that it neither branches on values nor leaves PyTorch",
        )
    if program.returns_objects:
        raise ArtifactError(
            "artifacts do not support results with objects, such as a key/value cache",
            where=program.model,
            remedy="return tensors, or export the model after calls that return only tensors",
        )
    if program.writes:
        raise ArtifactError(
            "artifacts do not support calls that write to their arguments",
            where=program.model,
            remedy="return new tensors, or export the model after calls that write nothing",
        )


def options_of(call: Sequence[Any]) -> str:
    """Return what a call in JSON passes besides tensors, for messages: ``, return_dict=False``."""
    pairs = (part for part in call if isinstance(part, list) and len(part) == 3)
    plain = (pair for pair in pairs if not isinstance(pair[2], list | dict))
    return "".join(f", {str(path)[:40]}={str(value)[:40]}" for path, _, value in plain)


def number_refused(name: str) -> ArtifactError:
    """Return the error for a timestep, with this name, that is a Python number."""
    return ArtifactError(
        "artifacts do not support a timestep that is a Python number",
        where=name,
        remedy="pass the timestep as a tensor",
    )


def typed(part: Any) -> Any:
    """Return a part of a key with the names of types in place of types."""
    if isinstance(part, tuple):
        return [typed(item) for item in part]
    return f"{part.__module__}.{part.__qualname__}" if isinstance(part, type) else part


def digest(value: Tensor) -> str:
    """Return the SHA-256 of a tensor's values."""
    held = value.detach().cpu().contiguous()
    return hashlib.sha256(ctypes.string_at(held.data_ptr(), held.nbytes)).hexdigest()
