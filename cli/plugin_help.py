"""Help that ends with the plugins there are: those of other packages, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from typer.core import TyperCommand


class _PluginHelp(TyperCommand):
    """Looks plugins up when help is shown, and imports none of them."""

    seams: ClassVar[Mapping[str, str]]
    """Title of a section → name of a registry in `embedstore.registry`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        from embedstore import registry

        super().format_options(ctx, formatter)
        for title, seam in self.seams.items():
            plugins: registry.Registry = getattr(registry, seam)
            with formatter.section(title):
                formatter.write_dl([(name, plugins.summary(name)) for name in plugins])


class WithDatasets(_PluginHelp):
    seams: ClassVar[Mapping[str, str]] = {"Kinds of DATASET": "SOURCES"}


class WithHeads(_PluginHelp):
    seams: ClassVar[Mapping[str, str]] = {
        "Tasks": "TASKS",
        "Heads": "HEADS",
        "Heads for numbers": "REGRESSORS",
        "Heads for several labels": "LABELLERS",
    }
