"""The pipeline classes without a recipe, and why."""

LEFT_OUT: dict[str, str] = {}
