"""Changes the files of an artifact as an attacker would, with the right sizes and hashes."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fxcache

Edit = Callable[[Any], None]
GRAPH = "graphs/0.json"


def replace(folder: Path, name: str, content: bytes) -> None:
    """Write a file, and its size and hash to the manifest, as an attacker would."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"][name] = {"size": len(content), "sha256": digest}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def edit(folder: Path, name: str, change: Edit) -> None:
    """Change the JSON in a file with ``change``."""
    data = json.loads((folder / name).read_bytes())
    change(data)
    if name == "manifest.json":
        (folder / name).write_text(json.dumps(data))
    else:
        replace(folder, name, json.dumps(data).encode())


def refused(folder: Path, match: str) -> None:
    with pytest.raises(fxcache.ArtifactError, match=match):
        fxcache.load(folder)
