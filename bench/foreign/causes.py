"""Why some models do not pass."""

CAUSES: dict[str, str] = {}
