"""``fxcache.report`` of a pipeline: the reports of its optimised components."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fxcache.report.report import Report


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
        """Describe each component as JSON can hold it, by name; see ``Report.to_dict``."""
        return {name: report.to_dict() for name, report in self.components.items()}

    def __getitem__(self, name: str) -> Report:
        """Return the report of one component.

        Raises:
            KeyError: There is no optimised component of this name.
        """
        return self.components[name]

    def __str__(self) -> str:
        parts = [f"{name} of {self.pipeline}\n{r}" for name, r in self.components.items()]
        return "\n\n".join(parts) or f"{self.pipeline}: no component is optimised any more"
