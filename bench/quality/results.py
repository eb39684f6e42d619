"""The measured results, in a JSON file that is written after each setting."""

import json
import os
from pathlib import Path
from typing import Any

from fxcache.errors import ModelFileError

Row = dict[str, Any]


class Results:
    """The rows of each model, and the protocol with which they were measured."""

    def __init__(self, file: Path):
        self.file = file
        self.models: dict[str, dict[str, Any]] = read(file) if file.exists() else {}
        self._wanted: dict[str, list[dict[str, Any]]] = {}

    def begin(self, model: str, protocol: Any, wanted: list[dict[str, Any]]) -> None:
        """Drop the model's rows of other settings or of another protocol."""
        self._wanted[model] = plain(wanted)
        known = self.models.get(model, {})
        rows = known["rows"] if known.get("protocol") == plain(protocol) else []
        kept = [row for row in rows if row["setting"] in self._wanted[model]]
        self.models[model] = {"protocol": plain(protocol), "rows": kept}

    def has(self, model: str, setting: dict[str, Any]) -> bool:
        return any(row["setting"] == plain(setting) for row in self.models[model]["rows"])

    def add(self, model: str, row: Row) -> None:
        """Add ``row``, in the order of the settings."""
        rows = self.models[model]["rows"]
        rows.append(plain(row))
        rows.sort(key=lambda known: self._wanted[model].index(known["setting"]))
        self.save()

    def save(self) -> None:
        """Write the file atomically."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".partial")
        text = json.dumps(self.models, indent=1, ensure_ascii=False)
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, self.file)


def read(file: Path) -> dict[str, dict[str, Any]]:
    """Read the results; raise ModelFileError if the file holds no results."""
    try:
        models = json.loads(file.read_text(encoding="utf-8"))
        for model in models.values():
            model["protocol"], model["rows"]
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ModelFileError(
            f"the file holds no results: {error!r}",
            where=str(file),
            remedy="restore the file, or remove it to measure everything again",
        ) from error
    return models


def plain(value: Any) -> Any:
    """Convert ``value`` to plain JSON types."""
    return json.loads(json.dumps(value))
