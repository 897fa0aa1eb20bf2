"""Help that ends with the plugins there are: those of other packages, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .metavars import PlainHelp

if TYPE_CHECKING:
    from embedstore.registry import Registry


class _PluginHelp(PlainHelp):
    """Looks plugins up when help is shown, and imports none of them."""

    def sections(self) -> dict[str, Registry]:
        """The plugins to list, by their title."""
        raise NotImplementedError

    def format_options(self, ctx: Any, formatter: Any) -> None:
        super().format_options(ctx, formatter)
        for title, plugins in self.sections().items():
            with formatter.section(title):
                formatter.write_dl([(name, plugins.summary(name)) for name in plugins])


class WithDatasets(_PluginHelp):
    def sections(self) -> dict[str, Registry]:
        from embedstore.registry import SOURCES

        return {"Kinds of DATASET": SOURCES}


class WithHeads(_PluginHelp):
    def sections(self) -> dict[str, Registry]:
        from embedstore.registry import TASKS, kinds_of_heads

        return {"Tasks": TASKS, **{heads.kind.replace("head", "Heads", 1): heads for heads in kinds_of_heads()}}


class WithTargets(_PluginHelp):
    def sections(self) -> dict[str, Registry]:
        from embedstore.registry import EXPORTERS

        return {"Targets": EXPORTERS}
