"""``fxcache.report`` of a pipeline: the reports of its optimised components."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fxcache.report.report import Report
from fxcache.report.saved import saved_text, write_json


@dataclass(frozen=True)
class PipelineReport:
    """The reports of a pipeline's optimised components.

    Print it, take it as data with ``to_dict``, or take one component's report by its name, such as
    ``report["unet"]``.

    Attributes:
        pipeline: The name of the pipeline's class.
        components: The report of each optimised component, by name.
    """

    pipeline: str
    components: Mapping[str, Report]

    def to_dict(self) -> dict[str, Any]:
        """Describe the report as JSON can hold it.

        Returns:
            ``"pipeline"`` and ``"components"``, each component as ``Report.to_dict`` describes it.
        """
        components = {name: report.to_dict() for name, report in self.components.items()}
        return {"pipeline": self.pipeline, "components": components}

    def save(self, file: str | Path) -> None:
        """Write the report as JSON; ``fxcache report FILE`` prints it.

        Raises:
            ModelFileError: The file cannot be written.
        """
        write_json(self.to_dict(), file)

    def __getitem__(self, name: str) -> Report:
        """Return the report of one component.

        Raises:
            KeyError: There is no optimised component of this name.
        """
        return self.components[name]

    def __str__(self) -> str:
        return saved_text(self.to_dict())
