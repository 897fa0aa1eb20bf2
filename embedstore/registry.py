"""Lazy lookup of plugins by name through entry points; our own are registered the same way.

Knows nothing of what the plugins do.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points
from importlib.metadata import version as metadata_version
from types import ModuleType
from typing import Any

from embedstore.errors import MissingDependencyError, UsageError


@dataclass
class Registry:
    """Plugins of one entry-point `group`; `kind` is the word used for them in errors."""

    group: str
    kind: str
    _extra: dict[str, Callable[..., Any]] = field(default_factory=dict)

    @cached_property
    def _entry_points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def register(self, name: str, plugin: Callable[..., Any]) -> None:
        """Register `plugin` under `name` for this process, before any installed one of that name."""
        self._extra[name] = plugin

    def names(self) -> list[str]:
        return sorted({*self._entry_points, *self._extra})

    def get(self, name: str) -> Callable[..., Any]:
        """The plugin called `name`; `UsageError` lists what exists."""
        if name in self._extra:
            return self._extra[name]
        if name not in self._entry_points:
            raise UsageError(f"No {self.kind} is called {name!r}. Known: {', '.join(self.names())}.")
        plugin: Callable[..., Any] = self._entry_points[name].load()
        return plugin


def version(distribution: str) -> str:
    """The installed version of a package, which is not imported."""
    try:
        return metadata_version(distribution)
    except PackageNotFoundError:
        return "unknown"


def refuse_older(distribution: str, least: int, *, extra: str) -> None:
    """Refuse an installed `distribution` whose major version is below `least`, without importing it.

    Raises
    ------
    MissingDependencyError
        Naming the pip command.
    """
    found = version(distribution)
    major = found.partition(".")[0]
    if major.isdigit() and int(major) < least:
        raise MissingDependencyError(
            f"{distribution} {found} is installed; embedstore needs {least} or newer. Run: pip install -U 'embedstore[{extra}]'"
        )


def require(module: str, *, extra: str | None = None) -> ModuleType:
    """Import `module` or say which pip command brings it.

    Parameters
    ----------
    module : str
        Dotted module name.
    extra : str, optional
        The extra of embedstore that installs it; a core dependency if omitted.

    Raises
    ------
    MissingDependencyError
        Naming the pip command.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != module.split(".")[0]:
            raise
        target = f"'embedstore[{extra}]'" if extra else module
        raise MissingDependencyError(f"{module!r} is not installed. Run: pip install {target}") from error
