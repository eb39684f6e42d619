"""The file of results. Each part is written at once, so that a measurement can continue."""

import json
import os
from pathlib import Path
from typing import Any


class Results:
    """Results by subject and part, in a JSON file.

    Args:
        file: The file. It need not exist.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.content: dict[str, Any] = {"environment": {}, "subjects": {}}
        if file.exists():
            self.content = json.loads(file.read_text(encoding="utf-8"))

    def begin(self, environment: dict[str, Any]) -> None:
        """Drop all results of another environment."""
        if self.content["environment"] != environment:
            self.content = {"environment": environment, "subjects": {}}

    def has(self, subject: str, part: str, contender: str | None = None) -> bool:
        found = self.content["subjects"].get(subject, {}).get(part)
        return found is not None and (contender is None or contender in found)

    def failed(self, subject: str, contender: str) -> bool:
        """Return whether the contender failed in eager mode already."""
        return "error" in self.content["subjects"][subject]["eager"].get(contender, {})

    def add(self, subject: str, part: str, rows: dict[str, Any]) -> None:
        """Add the rows of contenders, and write the file."""
        parts = self.content["subjects"].setdefault(subject, {})
        parts.setdefault(part, {}).update(rows)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, self.file)
