"""Every seam of embedstore: plugins by name, found through entry points; our own are registered the same way.

Knows nothing of what the plugins do, and imports none before it is asked for by name.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points
from importlib.metadata import version as metadata_version
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from embedstore.errors import MissingDependencyError, UsageError, one_line


@dataclass
class Registry:
    """Plugins of one entry-point `group`, names in the order in which they are listed and asked.

    Parameters
    ----------
    group : str
        Of entry points ``NAME = "module:attribute"``. The first line of the attribute's docstring is what help says of NAME.
    kind : str
        The word for a plugin in errors.
    order : tuple of str
        The names that come first; others follow, sorted.
    """

    group: str
    kind: str
    order: tuple[str, ...] = ()
    _extra: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def _entry_points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def register(self, name: str, plugin: Any) -> None:
        """Register `plugin` under `name` for this process, before any installed one of that name."""
        self._extra[name] = plugin

    def names(self) -> list[str]:
        known = {*self._entry_points, *self._extra}
        return [name for name in self.order if name in known] + sorted(known.difference(self.order))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._extra or name in self._entry_points

    def get(self, name: str) -> Any:
        """The plugin called `name`.

        Raises
        ------
        UsageError
            There is none; lists what exists.
        MissingDependencyError
            Its package is installed and cannot be imported.
        """
        if name in self._extra:
            return self._extra[name]
        if name not in self._entry_points:
            raise UsageError(f"No {self.kind} is called {name!r}. Known: {', '.join(self)}.")
        point = self._entry_points[name]
        try:
            return point.load()
        except MissingDependencyError:
            raise
        except (ImportError, AttributeError, SyntaxError) as error:
            package = f"package {point.dist.name}" if point.dist else point.value
            raise MissingDependencyError(
                f"The {self.kind} {name!r} of {package} cannot be loaded: {one_line(error, 200)} Update that package, or "
                "uninstall it."
            ) from error

    def summary(self, name: str) -> str:
        """One line about a plugin: the first of its docstring, read from its source, for help imports nothing."""
        if name in self._extra:
            return (self._extra[name].__doc__ or "").strip().split("\n")[0]
        point = self._entry_points[name]
        return docstring_of(point.module, point.attr).strip().split("\n")[0]


ENCODERS = Registry("embedstore.encoders", "encoder")
"""Factories, called with an `embedstore.encoders.EncoderRequest`."""

_SIMPLEST_FIRST = ("linear", "ridge", "knn", "kernel", "late", "weighted", "gated", "bilinear", "attention", "gbdt")
HEADS = Registry("embedstore.heads", "head", order=(*_SIMPLEST_FIRST, "ensemble", "auto"))
"""Subclasses of `embedstore.heads.Head` that predict classes, by their `kind`."""

REGRESSORS = Registry("embedstore.heads.regression", "head for numbers", order=("linear", "ridge", "knn", "gbdt"))
"""Subclasses of `embedstore.heads.Regressor`, by the kind that stands for them where the target is a number."""

_LABELLERS = ("linear", "knn", "weighted", "gated", "bilinear", "attention", "gbdt", "auto")
LABELLERS = Registry("embedstore.heads.multilabel", "head for several labels", order=_LABELLERS)
"""Subclasses of `embedstore.heads.Labeller`, by the kind that stands for them where an item has any number of labels."""

_TARGETS = ("linear", "knn", "weighted", "gated", "bilinear", "attention", "gbdt")
SEVERAL = Registry("embedstore.heads.several", "head for several targets", order=_TARGETS)
"""Subclasses of `embedstore.heads.TargetsHead`, by the kind that stands for them where an item has several targets."""
PROMPTED = Registry(
    "embedstore.heads.prompted", "head that begins with class names", order=("zeroshot", "tip-adapter", "prompted-linear")
)
"""Heads for classes, by their `kind`, that take ``texts``: an `embedstore.heads.class_texts.ClassTexts`."""

WRAPPERS = Registry("embedstore.heads.wrapping", "head around a head")
"""Heads that an option of training puts around another one: no kind that a user asks for."""

_OUR_HEADS = {
    **{"classification": HEADS, "regression": REGRESSORS, "multilabel": LABELLERS},
    **{"several": SEVERAL, "prompted": PROMPTED},
}
_OTHER_HEADS: dict[str, Registry] = {}


def heads_for(task: str) -> Registry:
    """The heads that a task takes, by its `heads`: those of a task that none of ours serves are ``embedstore.heads.TASK``."""
    if task in _OUR_HEADS:
        return _OUR_HEADS[task]
    return _OTHER_HEADS.setdefault(task, Registry(f"{HEADS.group}.{task}", f"head for {task}"))


def kinds_of_heads() -> Iterator[Registry]:
    """Every registry of heads: our own, then those for what other packages bring heads for, which are looked up."""
    yield from _OUR_HEADS.values()
    prefix = f"{HEADS.group}."
    found = {group.removeprefix(prefix) for group in entry_points().groups if group.startswith(prefix)}
    own = {*_OUR_HEADS, WRAPPERS.group.removeprefix(prefix)}
    yield from (heads_for(task) for task in sorted({*found, *_OTHER_HEADS} - own))


TASKS = Registry("embedstore.tasks", "task", order=("classification", "regression", "multilabel", "several", "matching"))
"""Subclasses of `embedstore.training.tasks.base.Task`; those in the order may claim a target for which no task was named."""

SOURCES = Registry(
    "embedstore.sources",
    "kind of dataset",
    order=("folder", "table", "arrow", "tars", "list", "media", "hub", "stdin", "memory"),
)
"""Functions from an `embedstore.sources.SourceRequest` to a `Source`, or to None where a dataset is of another kind."""


EXPORTERS = Registry(
    "embedstore.exporters",
    "target of an export",
    order=("parquet", "npy", "clip-retrieval", "lance", "qdrant", "milvus", "embedding-atlas"),
)
"""Subclasses of `embedstore.exporting.base.Exporter`, by what is asked for with ``--to``."""


def docstring_of(module: str, attribute: str) -> str:
    """The docstring of a class or function of a module, which is not imported; empty where there is none to read."""
    package, *inner = module.split(".")
    spec = find_spec(package)
    for name in inner:
        package = f"{package}.{name}"
        spec = spec and PathFinder.find_spec(package, spec.submodule_search_locations)
    try:
        source = getattr(spec and spec.loader, "get_source", lambda name: "")(module)
        nodes = ast.parse(source or "").body
    except (SyntaxError, ImportError):  # it is told when it is asked for by name
        return ""
    found = (node for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute)
    return next((ast.get_docstring(node) or "" for node in found), "")


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
