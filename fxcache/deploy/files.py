"""Reads and writes the files of an artifact. A file is checked before its content is used."""

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from fxcache.deploy.fields import Fields, damaged
from fxcache.errors import ArtifactError, ModelFileError

MANIFEST = "manifest.json"
MAX_MANIFEST = 2**26  # bytes
MAX_FILE = 2**40
NAME = re.compile(r"(?:[a-z0-9_]+/)?[a-z0-9_-]+\.(?:json|safetensors|pt2)")


@contextmanager
def new_folder(
    folder: Path, marker: str = MANIFEST, caller: str = "fxcache.export"
) -> Iterator[Path]:
    """Make a folder that takes the place of ``folder`` when the block ends without an error.

    Args:
        folder: The folder.
        marker: The file by which a folder that may be replaced is recognised.
        caller: The caller, for errors.

    Raises:
        ModelFileError: ``folder`` is not empty and has no file ``marker``, or cannot be written.
    """
    try:
        occupied = folder.exists() and not (folder / marker).is_file() and any(folder.iterdir())
    except OSError as error:
        raise unwritable(folder, error) from error
    if occupied:
        raise ModelFileError(
            f"{folder} is not empty, and holds no artifact ({marker})",
            where=caller,
            remedy="name a new folder",
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        yield made
        if folder.exists():
            shutil.rmtree(folder)
        made.chmod(0o755)
        made.rename(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def unwritable(folder: Path, error: OSError) -> ModelFileError:
    """Return the error for a folder that cannot be written."""
    return ModelFileError(
        f"the artifact cannot be written: {error}",
        where=str(folder),
        remedy="name a folder that you may write to, on a disk with enough space",
    )


def to_bytes(data: Any) -> bytes:
    """Return ``data`` as JSON, one line, without spaces."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


class Writer:
    """Writes the files of an artifact into a folder, and lists their sizes and hashes.

    Attributes:
        folder: The folder.
        files: The size and the hash of each file so far, by its name.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.files: dict[str, dict[str, Any]] = {}

    def write(self, name: str, content: bytes) -> None:
        """Write one file."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        self._list(name, content)

    def add(self, name: str) -> None:
        """List a file that is in the folder already."""
        self._list(name, (self.folder / name).read_bytes())

    def _list(self, name: str, content: bytes) -> None:
        self.files[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, which lists all files."""
        data = {**manifest, "files": self.files}
        (self.folder / MANIFEST).write_bytes(json.dumps(data, indent=1).encode())


class Reader:
    """Reads the files that the manifest of an artifact lists.

    Args:
        folder: The folder of the artifact.
        files: The manifest's list of files.

    Raises:
        ArtifactError: A name or a size in the list is not allowed.
    """

    def __init__(self, folder: Path, files: Mapping[str, Any]):
        self._folder = folder
        self._listed: dict[str, Fields] = {}
        for name, data in files.items():
            if NAME.fullmatch(name) is None:
                raise damaged(f"the file name {name[:80]!r} is not allowed", MANIFEST)
            self._listed[name] = Fields(data, f"{MANIFEST}: {name}", ("size", "sha256"))

    def read(self, name: str) -> bytes:
        """Return the content of a file, whose size and hash are those of the list.

        Raises:
            ArtifactError: They are not, or the list lacks the file.
        """
        if name not in self._listed:
            raise damaged(f"the manifest does not list {name[:80]!r}", MANIFEST)
        fields = self._listed[name]
        size = fields.size("size", MAX_FILE)
        content = content_of(self._folder, name, size)
        if len(content) != size or hashlib.sha256(content).hexdigest() != fields.of("sha256", str):
            raise damaged(f"{name} has another content than the manifest says", name)
        return content

    def read_json(self, name: str) -> Any:
        """Return the content of a JSON file."""
        return parsed(self.read(name), name)


def content_of(folder: Path, name: str, most: int) -> bytes:
    """Return the content of a regular file of at most ``most`` bytes. Links are not followed."""
    path = folder / name
    try:
        if path.parent != folder and path.parent.is_symlink():
            raise damaged(f"{path.parent.name} is a link", name)
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_size > most:
                raise damaged(f"{name} is no file of at most {most:,} bytes", name)
            return file.read(status.st_size + 1)  # no more, if it grows meanwhile
    except OSError as error:
        raise ArtifactError(
            f"{name} cannot be read: {error.strerror}",
            where=str(path),
            remedy="pass the folder that fxcache.export wrote, with all its files; an exported "
            "pipeline has a folder for each denoiser, such as artifact/unet",
        ) from error


def parsed(content: bytes, name: str) -> Any:
    """Return the JSON value in ``content``."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(content, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise damaged(f"{name} is not JSON: {str(error)[:80]}", name) from error
