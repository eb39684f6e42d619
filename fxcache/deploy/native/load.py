"""Loads native code: checks that it belongs to the artifact and to this machine."""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from torch import fx

from fxcache._torch import MachineCode
from fxcache.capture.provided import CompiledGraph, CompiledGraphs
from fxcache.deploy.fields import Fields, damaged
from fxcache.deploy.files import MANIFEST, MAX_MANIFEST, Reader, content_of, parsed
from fxcache.deploy.native.format import GRAPH, NATIVE_FIELDS, NATIVE_FORMAT, PACKAGE
from fxcache.deploy.native.graph import digest_of
from fxcache.deploy.native.run import NativeGraph
from fxcache.deploy.native.sizes import Sizes
from fxcache.deploy.native.target import TARGET, require_target
from fxcache.deploy.signatures import NATIVE, require_signature
from fxcache.errors import ArtifactError

WHERE = f"{NATIVE}/{MANIFEST}"


class NativeCode(CompiledGraphs):
    """The native code of an artifact, loaded and checked.

    Args:
        folder: The folder of the artifact.
        digest: The SHA-256 of the artifact's manifest, as it was when it was read.
        device: The device of the model.
        public_key: The key that must belong to its signature; None to ask for none.

    Raises:
        ArtifactError: The native code is missing, damaged, for another artifact or machine, or not
            signed with the key.
    """

    def __init__(
        self, folder: Path, digest: str, device: torch.device, public_key: Path | None
    ) -> None:
        self._folder, self._digest, self._device = folder, digest, device
        self._public_key = public_key
        inside = folder / NATIVE
        if inside.is_symlink():
            raise damaged(f"{NATIVE} is a link", str(folder))
        fields = Fields(require_native_format(folder, public_key), WHERE, NATIVE_FIELDS)
        require_allowed(fields, digest, device)
        content = Reader(inside, dict(fields.pairs("files"))).read(PACKAGE)
        programs = [
            Sizes(data, f"{WHERE}: programs[{n}]")
            for n, data in enumerate(fields.items("programs", dict))
        ]
        with private_file(content) as package:
            self._graphs = dict(
                self._opened(package, name, data, programs) for name, data in fields.pairs("graphs")
            )

    def _opened(
        self, package: Path, name: str, data: object, programs: list[Sizes]
    ) -> tuple[str, NativeGraph]:
        """Return the digest of a graph, and its code."""
        fields = Fields(data, f"{WHERE}: graphs.{name[:80]}", GRAPH)
        if not name.isidentifier():
            raise damaged(f"the name {name[:80]!r} is not allowed", WHERE)
        sizes = programs[fields.size("program", len(programs) - 1)]
        try:
            code = MachineCode(package, name, self._device)
        except RuntimeError as error:
            raise damaged(f"{name} cannot be loaded: {str(error)[:80]}", PACKAGE) from error
        return fields.of("digest", str), NativeGraph(code, fields, sizes, self._device)

    def __deepcopy__(self, memo: dict[int, Any]) -> "NativeCode":
        """Load the code again: a copy of a model has weights of its own."""
        return type(self)(self._folder, self._digest, self._device, self._public_key)

    def find(self, graph: fx.GraphModule) -> CompiledGraph | None:
        """Return the machine code for a graph; None if it was not compiled."""
        found = self._graphs.get(digest_of(graph))
        return found.returning(graph) if found else None


def require_native_format(folder: Path, public_key: Path | None) -> Mapping[str, Any]:
    """Return the manifest of the native code.

    Raises:
        ArtifactError: It is of another format, or was not signed with the key.
    """
    if not (folder / NATIVE).is_dir():
        raise ArtifactError(
            "the artifact has no native code",
            where=str(folder / NATIVE),
            remedy=f"run `fxcache compile {folder} --steps N`, with the lengths of your runs",
        )
    content = content_of(folder / NATIVE, MANIFEST, MAX_MANIFEST)
    if public_key is not None:
        require_signature(folder / NATIVE, content, public_key)
    manifest = parsed(content, WHERE)
    found = manifest.get("fxcache_native") if isinstance(manifest, dict) else None
    if found != NATIVE_FORMAT:
        raise ArtifactError(
            f"this is no native code of format {NATIVE_FORMAT}",
            where=f"{WHERE}: fxcache_native={str(found)[:40]}",
            remedy="run `fxcache compile` of this version",
        )
    return manifest


def require_allowed(fields: Fields, digest: str, device: torch.device) -> None:
    """Raise ArtifactError unless the native code belongs to the artifact and to this machine.

    Loading native code runs it, so nothing of it is loaded before.

    Args:
        fields: The manifest of the native code.
        digest: The SHA-256 of the artifact's manifest.
        device: The device of the model.
    """
    if fields.of("artifact", str) != digest:
        raise ArtifactError(
            "the native code was made from another artifact",
            where=f"{WHERE}: artifact",
            remedy="run `fxcache compile` again, after each export",
        )
    require_target(Fields(fields.raw("target"), f"{WHERE}: target", TARGET), device)


def digest_of_manifest(content: bytes) -> str:
    """Return the SHA-256 of an artifact's manifest, which holds the hashes of all its files."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def private_file(content: bytes) -> Iterator[Path]:
    """Yield a file with ``content`` that no other user can change. It is removed afterwards."""
    folder = Path(mkdtemp(prefix="fxcache-"))
    try:
        file = folder / PACKAGE
        file.write_bytes(content)
        yield file
    finally:
        shutil.rmtree(folder, ignore_errors=True)
