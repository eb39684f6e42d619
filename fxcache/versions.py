"""The versions of installed packages."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

RECORDED = ("fxcache", "torch", "diffusers")  # in plans, artifacts and results


def version_of(package: str) -> str | None:
    """Return the version of a package; None if no installer knows it.

    A checkout on the path can be imported, and has no version.
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def installed_versions(packages: Iterable[str] = RECORDED) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    return {package: found for package in packages if (found := version_of(package))}
