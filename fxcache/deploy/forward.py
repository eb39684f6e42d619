"""The signature of a model's ``forward`` as JSON, and back."""

import inspect
from functools import partial
from typing import Any

import torch

from fxcache.deploy.fields import Fields, built, damaged
from fxcache.deploy.values import decode, encode

CPU = torch.device("cpu")
KINDS = {kind.name.lower(): kind for kind in inspect._ParameterKind}
PARAMETER = ("name", "kind", "default")


def parameters_to_json(declared: inspect.Signature) -> list[dict[str, Any]]:
    """Return the parameters of ``forward`` except ``self``, without annotations.

    Raises:
        ArtifactError: A default cannot be part of an artifact.
    """
    parameters = list(declared.parameters.values())[1:]
    return [
        {
            "name": p.name,
            "kind": p.kind.name.lower(),
            "default": None if p.default is p.empty else [encode(p.default, {}, CPU)],
        }
        for p in parameters
    ]


def parameters_from_json(data: list[Any], where: str) -> inspect.Signature:
    """Return the signature of ``forward``, with ``self``.

    Raises:
        ArtifactError: ``data`` describes no parameters.
    """
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    for index, item in enumerate(data):
        fields = Fields(item, f"{where}[{index}]", PARAMETER)
        default = fields.optional("default", list)
        if default is not None and len(default) != 1:
            raise damaged("a default is a list of one value", fields.where)
        value = inspect.Parameter.empty if default is None else decode(default[0], (), CPU, where)
        parameter = partial(
            inspect.Parameter,
            fields.of("name", str),
            KINDS[fields.one_of("kind", KINDS)],
            default=value,
        )
        parameters.append(built(parameter, where))
    if parameters[1:] and parameters[1].kind is inspect.Parameter.POSITIONAL_ONLY:
        parameters[0] = parameters[0].replace(kind=inspect.Parameter.POSITIONAL_ONLY)
    return built(lambda: inspect.Signature(parameters), where)
