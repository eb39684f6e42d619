"""The file of a part: every item with its status, written as soon as the item is done."""

import json
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

# The git revision is left out, because it may change between two calls. Each item has its own.
MACHINE = ("device", "driver", "torch", "triton")


class Status(StrEnum):
    """The status of an item. STARTED means that it was interrupted."""

    STARTED = "started"
    DONE = "done"
    FAILED = "failed"
    MISSING = "missing"


class Results:
    """The items of one part, in ``<folder>/<part>.json``.

    Args:
        folder: The folder of the file.
        part: The name of the part.
        environment: The device and the versions. Items of another machine count as missing.
    """

    def __init__(self, folder: Path, part: str, environment: Mapping[str, str]):
        self.file = folder / f"{part}.json"
        self.environment = dict(environment)
        self.items: dict[str, dict[str, Any]] = {}
        if self.file.exists():
            self.items = json.loads(self.file.read_text(encoding="utf-8"))

    def status(self, name: str) -> Status:
        """Return the status of an item on this machine."""
        entry = self.items.get(name)
        if entry is None or not self._measured_here(entry):
            return Status.MISSING
        return Status(entry["status"])

    def write(self, name: str, status: Status, entry: Mapping[str, Any]) -> None:
        """Write the item to the file atomically."""
        self.items[name] = {"status": status, **entry, "environment": self.environment}
        text = json.dumps(self.items, indent=2, ensure_ascii=False)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        written = self.file.with_suffix(".json.new")
        written.write_text(text + "\n", encoding="utf-8")
        os.replace(written, self.file)

    def _measured_here(self, entry: Mapping[str, Any]) -> bool:
        known = entry["environment"]
        return all(known.get(key) == self.environment[key] for key in MACHINE)
