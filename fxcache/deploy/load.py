"""Reads an artifact: checks it, and makes an optimised model from it."""

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fxcache.analysis.hoisting import HoistLevel
from fxcache.deploy.export import CONFIG, FORMAT, PLAN
from fxcache.deploy.fields import Fields, built, damaged
from fxcache.deploy.files import MANIFEST, MAX_MANIFEST, Reader, content_of, parsed
from fxcache.deploy.forward import parameters_from_json
from fxcache.deploy.loaded import LoadedModel, Programs, model_class, model_of
from fxcache.deploy.native.load import NativeCode, digest_of_manifest
from fxcache.deploy.programs import ProgramReader
from fxcache.deploy.settings import settings_from_json
from fxcache.deploy.signatures import require_signature
from fxcache.deploy.weights import WeightReader, read_tensors
from fxcache.errors import ArtifactError, ConfigError
from fxcache.runtime.module import attach
from fxcache.runtime.structure import live_weights

FIELDS = (
    "fxcache_artifact", "versions", "model", "settings", "programs", "weights", "files",
)  # fmt: skip
MODEL = ("name", "parameters", "fingerprint")
MAX_PROGRAMS = 256


def load(
    folder: str | PathLike[str],
    *,
    device: torch.device | str | None = None,
    weights: Mapping[str, Tensor] | None = None,
    native: bool = False,
    signed_by: str | PathLike[str] | None = None,
    allow_unsigned: bool = False,
) -> LoadedModel:
    """Load a model that ``fxcache.export`` wrote.

    The model needs neither the code of the original model nor the library that it comes from. It
    takes the same arguments, and returns plain containers: a named tuple in place of an output
    class. It is optimised, with the settings of the exported model: ``session``, ``report`` and
    ``torch.compile`` work as usual, and ``optimize`` replaces the settings. Results are those of
    the exported model, bit for bit, on the same machine.

    Nothing in the folder is executed, unless ``native=True`` asks for it. Every file is checked
    against the manifest before it is used.

    Args:
        folder: The folder.
        device: The device for the weights, by default the CPU.
        weights: Weights by name, such as the state dict of the original model, on their device.
            They are used in place of those in the folder, and are not copied.
        native: Whether to run the machine code that ``fxcache.compile_artifact`` wrote. This
            executes what is in the folder. Nothing is hoisted. A graph that was not compiled runs
            as a graph of PyTorch, with a warning.
        signed_by: The path of an Ed25519 public key in PEM. The artifact must have been signed with
            its private key, see ``fxcache.sign``, and so must the native code. By default no
            signature is asked for, except for native code.
        allow_unsigned: Whether native code may run without ``signed_by``.

    Returns:
        The model, in eval mode.

    Raises:
        ArtifactError: The folder holds no artifact of this version, is damaged, lacks weights, or
            was not signed with the key.
        ConfigError: ``device`` is no device, ``signed_by`` holds no key, both ``device`` and
            ``weights`` are passed, or ``native`` without ``signed_by`` or ``allow_unsigned``.
    """
    source, place = Path(folder), require_device(device, weights)
    key = require_key_for(native, signed_by, allow_unsigned)
    content = content_of(source, MANIFEST, MAX_MANIFEST)
    if key is not None:
        require_signature(source, content, key)
    fields = Fields(require_format(parsed(content, MANIFEST)), MANIFEST, FIELDS)
    files = dict(fields.pairs("files"))
    reader = Reader(source, files)
    kind = class_in(fields)
    stored = WeightReader(dict(fields.pairs("weights")), f"{MANIFEST}: weights")
    tensors = weights_of(stored, reader, weights, place)
    trained = trained_weights(reader) if PLAN in files else {}
    settings = settings_from_json(fields.raw("settings"), trained, f"{MANIFEST}: settings")
    graphs = fields.items("programs", str)
    if not 0 < len(graphs) <= MAX_PROGRAMS:
        raise fields.wrong("programs", f"there are {len(graphs)} programs")
    readers = [ProgramReader(kind.__name__, reader.read_json(file), file) for file in graphs]
    model = model_of(kind, tensors, stored.kinds, config_in(reader))
    # The model's own weights, so that nothing keeps those from before `model.to(...)`.
    programs = Programs(readers, live_weights(model, tensors), settings.capture)
    model.fxcache_programs = programs
    programs.all(model.device)
    if native:
        programs.native = NativeCode(source, digest_of_manifest(content), model.device, key)
        settings = replace(settings, hoist=HoistLevel.NOTHING, hoist_requested=False)
    built(lambda: attach(model, settings), MANIFEST)
    return model


def class_in(fields: Fields) -> type[LoadedModel]:
    """Return a class with the name and the parameters of the exported one."""
    described = Fields(fields.raw("model"), f"{MANIFEST}: model", MODEL)
    name = described.of("name", str)
    if not name.isidentifier():
        raise described.wrong("name", "it is no name of a class")
    where = f"{MANIFEST}: model.parameters"
    return model_class(name, parameters_from_json(described.of("parameters", list), where))


def trained_weights(reader: Reader) -> dict[str, Tensor]:
    """Return the weights of the plan's trained parts, which must be finite."""
    trained = read_tensors(reader, PLAN)
    if not all(bool(tensor.isfinite().all()) for tensor in trained.values()):
        raise damaged("its numbers are not all finite", PLAN)
    return trained


def config_in(reader: Reader) -> dict[str, Any]:
    """Return the configuration of the original model."""
    config = reader.read_json(CONFIG)
    if not isinstance(config, dict):
        raise damaged("it is no JSON object", CONFIG)
    return config


def require_key_for(
    native: bool, signed_by: str | PathLike[str] | None, allow_unsigned: bool
) -> Path | None:
    """Return the path of the public key; None for no signature."""
    if native and signed_by is None and not allow_unsigned:
        raise ConfigError(
            "native code runs whatever its author wrote, and nothing says who that is",
            where="fxcache.load(native=True)",
            remedy="pass signed_by=, the author's public key, or allow_unsigned=True for code that "
            "you compiled yourself",
        )
    return None if signed_by is None else Path(signed_by)


def require_format(manifest: Any) -> Any:
    """Return ``manifest``; raise ArtifactError if it is of another format."""
    found = manifest.get("fxcache_artifact") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise ArtifactError(
            f"this is no artifact of format {FORMAT}",
            where=f"{MANIFEST}: fxcache_artifact={str(found)[:40]}",
            remedy="pass a folder that fxcache.export of this version wrote",
        )
    return manifest


def require_device(device: object, weights: object) -> torch.device:
    """Return ``device`` as a device, by default the CPU."""
    if device is not None and weights is not None:
        raise ConfigError(
            "weights are used on the device on which they are",
            where="fxcache.load(device=..., weights=...)",
            remedy="leave out device, or move the weights there",
        )
    try:
        return torch.device("cpu" if device is None else device)  # type: ignore[call-overload]
    except (RuntimeError, TypeError) as error:
        raise ConfigError(
            f"device={device!r} is no device", where="fxcache.load", remedy='pass "cpu" or "cuda"'
        ) from error


def weights_of(
    stored: WeightReader,
    reader: Reader,
    given: Mapping[str, Tensor] | None,
    device: torch.device,
) -> dict[str, Tensor]:
    """Return the weights by name: those of the caller, or those of the artifact."""
    if given is not None:
        return stored.bound(given)
    if not stored.are_stored:
        raise ArtifactError(
            "the artifact was exported without its weights",
            where=MANIFEST,
            remedy="pass fxcache.load(folder, weights=model.state_dict())",
        )
    return stored.read(reader, device)
