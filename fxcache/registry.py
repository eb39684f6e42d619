"""Configuration objects that plans keep by name: policies and forecasts."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, ClassVar, Self

from fxcache.errors import ConfigError


class Registered:
    """Base of ``Policy`` and ``Forecast``: dataclasses that plans keep by name.

    A direct subclass opens a registry of its own. Every subclass of that one enters the registry
    when it is defined, also in a user's own script.

    Attributes:
        kinds: The registered classes by name. A class that is defined again replaces the first.
    """

    kinds: ClassVar[dict[str, type[Any]]]
    _registry: ClassVar[str]  # the name of the registry, and the key of the class's name in JSON

    def __init_subclass__(cls, registry: str = "", abstract: bool = False) -> None:
        if registry:
            cls.kinds, cls._registry = {}, registry
        elif not abstract:
            cls.kinds[cls.plan_name()] = cls

    @classmethod
    def plan_name(cls) -> str:
        """Return the name in plans: ``Uniform`` for built-in classes, else ``module:QualName``."""
        built_in = cls.__module__.partition(".")[0] == __name__.partition(".")[0]
        return cls.__name__ if built_in else f"{cls.__module__}:{cls.__qualname__}"

    def to_dict(self) -> dict[str, Any]:
        """Describe the object as JSON can hold it.

        Returns:
            The name of the class and its options. ``from_dict`` reads it back.
        """
        return {self._registry: self.plan_name(), **asdict(self)}  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make the object that ``to_dict`` described.

        Args:
            data: The name of the class and its options.

        Returns:
            The object.

        Raises:
            ConfigError: The name or an option is unknown, or an option has a value that it cannot
                have.
        """
        options = dict(data)
        name = options.pop(cls._registry, None)
        kind = cls.kinds.get(name) if isinstance(name, str) else None
        if kind is None:
            raise cls._unknown(name)
        known = {field.name for field in fields(kind)}
        if unknown := sorted(options.keys() - known):
            raise ConfigError(
                f"{name} has no option {', '.join(unknown)}",
                remedy=f"its options are: {', '.join(sorted(known))}",
            )
        return kind(**options)

    @classmethod
    def _unknown(cls, name: object) -> ConfigError:
        listed = f"use one of: {', '.join(sorted(cls.kinds))}"
        module, colon, qualname = str(name).partition(":")
        return ConfigError(
            f"there is no {cls._registry} named {name!r}",
            remedy=f"import {module} first, which defines {qualname}" if colon else listed,
        )
