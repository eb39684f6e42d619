"""Checks of options. A ConfigError says what is wrong with one."""

import math
from typing import Any

from fxcache.errors import ConfigError


def require_integer(asker: object, name: str, least: int, most: int | None = None) -> None:
    """Raise ConfigError unless the option ``name`` is an int from ``least`` to ``most``."""
    require_integer_value(getattr(asker, name), name, place(asker, name), least, most)


def require_integer_value(
    value: Any, name: str, where: str, least: int, most: int | None = None
) -> None:
    """Raise ConfigError unless ``value``, passed as ``name`` at ``where``, is such an int."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole and least <= value and (most is None or value <= most)):
        bound = f"at least {least}" if most is None else f"{least} to {most}"
        raise ConfigError(
            f"{name}={value!r} is not a whole number of {bound}",
            where=where,
            remedy=f"pass {name} as an int, {bound}",
        )


def require_number(
    asker: object, name: str, least: float, most: float = math.inf, exclusive: bool = False
) -> None:
    """Raise ConfigError unless the option ``name`` is a finite number from ``least`` to ``most``.

    Args:
        asker: The object with the option.
        name: The name of the option.
        least: The lower bound.
        most: The upper bound.
        exclusive: Whether ``least`` itself is too small.
    """
    value = getattr(asker, name)
    if is_number(value) and least <= value <= most and not (exclusive and value == least):
        return
    bound = f"more than {least}" if exclusive else f"at least {least}"
    bound += f" and at most {most}" if math.isfinite(most) else ""
    raise ConfigError(
        f"{name}={value!r} is not a number of {bound}",
        where=place(asker, name),
        remedy=f"pass {name} as a finite number, {bound}",
    )


def is_number(value: object) -> bool:
    """Return whether ``value`` is a finite int or float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def require_numbers(asker: object, name: str, least: int) -> None:
    """Convert the option ``name`` to a tuple of floats; raise ConfigError if it cannot be."""
    value = getattr(asker, name)
    listed = isinstance(value, list | tuple)
    if not listed or len(value) < least or not all(map(is_number, value)):
        raise ConfigError(
            f"{name}={value!r} is not a list of {least} or more finite numbers",
            where=place(asker, name),
            remedy=f"pass {name} as a list of numbers",
        )
    object.__setattr__(asker, name, tuple(map(float, value)))


def require_calibrated(asker: object, name: str) -> None:
    """Raise ConfigError if nothing was passed for ``name``, which calibration measures."""
    if getattr(asker, name):
        return
    raise ConfigError(
        f"{type(asker).__name__} has no {name}: the policy must be fitted to a model",
        where=place(asker, name),
        remedy="fit it with `fxcache calibrate`, and call optimize(model, plan)",
    )


def place(asker: object, name: str) -> str:
    """Return where the option ``name`` is passed: ``Uniform(interval=...)``."""
    return f"{type(asker).__name__}({name}=...)"
