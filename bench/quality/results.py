"""What was measured, kept in one JSON file from setting to setting."""

import json
import os
from pathlib import Path
from typing import Any

from fxcache.errors import ModelFileError

Row = dict[str, Any]


class Results:
    """The rows of each model, with the protocol by which they were measured."""

    def __init__(self, file: Path):
        self.file = file
        self.models: dict[str, dict[str, Any]] = read(file) if file.exists() else {}
        self._wanted: dict[str, list[dict[str, Any]]] = {}

    def begin(self, model: str, protocol: Any, wanted: list[dict[str, Any]]) -> None:
        """Forget the model's rows of other settings, or measured by another protocol."""
        self._wanted[model] = plain(wanted)
        held = self.models.get(model, {})
        rows = held["rows"] if held.get("protocol") == plain(protocol) else []
        kept = [row for row in rows if row["setting"] in self._wanted[model]]
        self.models[model] = {"protocol": plain(protocol), "rows": kept}

    def has(self, model: str, setting: dict[str, Any]) -> bool:
        return any(row["setting"] == plain(setting) for row in self.models[model]["rows"])

    def add(self, model: str, row: Row) -> None:
        """Keep ``row``, in the order in which the settings are listed."""
        rows = self.models[model]["rows"]
        rows.append(plain(row))
        rows.sort(key=lambda held: self._wanted[model].index(held["setting"]))
        self.save()

    def save(self) -> None:
        """A reader never sees half of it."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".partial")
        text = json.dumps(self.models, indent=1, ensure_ascii=False)
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, self.file)


def read(file: Path) -> dict[str, dict[str, Any]]:
    """Raises ModelFileError where ``file`` is no such JSON."""
    try:
        models = json.loads(file.read_text(encoding="utf-8"))
        for model in models.values():
            model["protocol"], model["rows"]
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ModelFileError(
            f"these are no results: {error!r}",
            where=str(file),
            remedy="restore the file, or remove it to measure all of it anew",
        ) from error
    return models


def plain(value: Any) -> Any:
    """``value`` as JSON gives it back."""
    return json.loads(json.dumps(value))
