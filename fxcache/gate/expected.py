"""The file of expected values: one for each minor version of torch and type of device."""

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Self

import torch

from fxcache.errors import ConfigError, ModelFileError
from fxcache.gate.tree import MISSING, differences, entry_of

FORMAT = 1
# A list of numbers or texts, which json would spread over many lines.
FLAT_LIST = re.compile(r"\[\n\s*([^\[\]{}]*?)\n\s*\]")
Values = dict[str, Any]  # by tier


@dataclass(frozen=True)
class Update:
    """One change of expected values.

    Attributes:
        date: The day, such as ``"2026-01-31"``.
        case: The case that was updated.
        reason: Why the values changed.
        changed: For each exact count that changed, the value before and after.
    """

    date: str
    case: str
    reason: str
    changed: Mapping[str, tuple[Any, Any]]


@dataclass
class Expected:
    """The expected values of all cases, and their history.

    Attributes:
        torch: The minor version of torch with which they were measured, such as ``"2.13"``.
        device: The type of device.
        cases: The values of each case by tier.
        updates: The changes so far, the oldest first.
    """

    torch: str
    device: str
    cases: dict[str, Values] = field(default_factory=dict)
    updates: list[Update] = field(default_factory=list)

    @classmethod
    def for_here(cls, device: str) -> Self:
        """Return a file without values, for this version of torch."""
        return cls(minor_version(), device)

    @classmethod
    def load(cls, file: Path, device: str) -> Self:
        """Read a file. A file that does not exist has no values.

        Raises:
            ModelFileError: The file cannot be read, or is no file of expected values.
            ConfigError: Its values are for another version of torch or another type of device.
        """
        if not file.exists():
            return cls.for_here(device)
        found = cls.read(file)
        found.require_here(file, device)
        return found

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a file, for whatever version of torch and type of device its values are.

        Raises:
            ModelFileError: The file cannot be read, or is no file of expected values.
        """
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            if data.pop("fxcache_expected") != FORMAT:
                raise ValueError("its format has another version")
            updates = [Update(**update) for update in data.pop("updates")]
            return cls(**data, updates=updates)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelFileError(
                f"this is no file of expected values: {error!r}",
                where=str(file),
                remedy="pass a file that `fxcache gate --update` wrote",
            ) from error

    def require_here(self, file: Path, device: str) -> None:
        """Raise ConfigError if the values are for another torch or type of device."""
        have, here = (self.torch, self.device), (minor_version(), device)
        if have != here:
            raise ConfigError(
                f"the values are for torch {have[0]} on {have[1]}; this is torch {here[0]} on "
                f"{here[1]}",
                where=str(file),
                remedy="keep a file for each: write {torch} and {device} in its name, such as "
                "expected-torch{torch}-{device}.json",
            )

    def update(self, case: str, values: Values, reason: str) -> None:
        """Replace the values of one case. Tiers that were not measured stay as they are."""
        before = self.cases.get(case, {})
        old, new = before.get("exact", MISSING), values.get("exact", MISSING)
        found = () if old is MISSING or new is MISSING else differences(old, new)
        changed = {entry_of(path): (plain(b), plain(n)) for path, b, n in found}
        self.cases[case] = merged(before, values)
        self.updates.append(Update(date.today().isoformat(), case, reason, changed))

    def remove(self, case: str, reason: str) -> None:
        """Remove a case. The history keeps that and why."""
        del self.cases[case]
        gone = {"the case": ("expected", "removed")}
        self.updates.append(Update(date.today().isoformat(), case, reason, gone))

    def save(self, file: Path) -> None:
        """Write the file.

        Raises:
            ModelFileError: The file cannot be written.
        """
        data = {"fxcache_expected": FORMAT, **vars(self), "updates": list(map(vars, self.updates))}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(as_json(data), encoding="utf-8")
        except OSError as error:
            raise ModelFileError(
                f"the expected values cannot be written: {error}",
                where=str(file),
                remedy="choose a file in a writable folder",
            ) from error


def merged(before: Values, values: Values) -> Values:
    """Return ``before`` with the tiers of ``values``. Times of other devices stay."""
    times = {**before.get("advisory", {}), **values.get("advisory", {})}
    return {**before, **values, **({"advisory": times} if times else {})}


def expected_file(name: str, device: str) -> Path:
    """Return the file with ``{torch}``, ``{python}`` and ``{device}`` in its name replaced."""
    python = ".".join(platform.python_version_tuple()[:2])
    for part, value in (("torch", minor_version()), ("python", python), ("device", device)):
        name = name.replace(f"{{{part}}}", value)
    return Path(name)


def minor_version() -> str:
    """Return the minor version of torch, such as ``"2.13"``."""
    return ".".join(torch.__version__.split(".")[:2])


def as_json(data: Any) -> str:
    """Return readable JSON: lists of numbers or texts take one line."""
    text = json.dumps(data, indent=1, ensure_ascii=False)
    return FLAT_LIST.sub(lambda m: "[" + re.sub(r"\s*\n\s*", " ", m[1]) + "]", text) + "\n"


def plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it."""
    return None if value is MISSING else value
