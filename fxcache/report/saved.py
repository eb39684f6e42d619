"""Reports as JSON files, and the text of what such a file holds."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fxcache.errors import ModelFileError
from fxcache.report.text import as_text

COMPONENTS = "components"  # the key of the reports in the report of a pipeline


def write_json(report: Mapping[str, Any], file: str | Path) -> None:
    """Write a report.

    Raises:
        ModelFileError: The file cannot be written.
    """
    try:
        Path(file).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ModelFileError(
            f"the report cannot be written: {error.strerror}",
            where=str(file),
            remedy="pass the name of a file in a folder that you may write to",
        ) from error


def saved_text(report: Mapping[str, Any]) -> str:
    """Return the text of a report of a module or of a pipeline, which may come from JSON."""
    if COMPONENTS not in report:
        return as_text(dict(report))
    pipeline = report["pipeline"]
    parts = [f"{name} of {pipeline}\n{as_text(r)}" for name, r in report[COMPONENTS].items()]
    return "\n\n".join(parts) or f"{pipeline}: no component is optimised any more"


def components_of(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the reports of modules in a report, by the name of the component.

    The report of a module alone has the name of its class.
    """
    if COMPONENTS in report:
        return dict(report[COMPONENTS])
    return {str(report.get("model", "")): dict(report)}
