"""What help calls the values of options: by what is typed, the same in every command, never by a type of Python."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import typer
from typer.models import OptionInfo

Command = TypeVar("Command", bound=Callable[..., None])

NAMES = {
    "ENCODER": ("image", "text", "audio", "video", "encoder"),
    "COLUMN": (
        *("id_column", "image_column", "text_column", "audio_column", "video_column", "vector_column"),
        *("group", "group_by"),
    ),
    "COLUMN,…": ("columns",),
    "SPACE": ("space", "source", "target"),
    "SPACE,…": ("inputs",),
    "ID": ("id", "ids", "like", "unlike"),
    "NAME": ("name",),
    "NUMBER,…": ("weights",),
    "SQL": ("where",),
    "SECONDS": ("timeout",),
    "SIZE": ("memory",),
    "TIME": ("latency",),
    "DEVICE": ("device",),
    "DTYPE": ("dtype",),
    "PRECISION": ("precision",),
    "RUNTIME": ("runtime",),
    "FUSION": ("fusion",),
    "STORE": ("store",),
    "FOLDER": ("root", "plots"),
    "QUERIES": ("batch",),
}
"""Metavar → parameters. What is not here is called by its type."""
OWN = {
    ("search", "text"): "TEXT",
    ("search", "image"): "FILE",
    ("search", "audio"): "FILE",
    ("search", "video"): "FILE",
    ("import", "ids"): "COLUMN",
    ("import", "modality"): "MODALITY",
    ("index", "queries"): "QUERIES",
    ("eval-search", "relevance"): "COLUMN",
    ("eval-search", "k"): "NUMBER,…",
    ("dedup", "space"): "SPACE,…",
}
"""Where a parameter is another thing in one command."""
TYPES = {str: "TEXT", Path: "FILE", int: "NUMBER", float: "NUMBER"}

_CALLED = {parameter: metavar for metavar, parameters in NAMES.items() for parameter in parameters}
_PYTHON = re.compile(r" <[^>]*>(\.\.\.)?$")
"""How typer tells an argument's type."""


def with_metavars(command: Command, name: str) -> Command:
    """Have the values of the options of a command, which is called `name`, be called by what is typed."""
    signature = inspect.signature(command, eval_str=True)
    parameters = [_called(parameter, name) for parameter in signature.parameters.values()]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


def _called(parameter: Parameter, command: str) -> Parameter:
    if get_origin(parameter.annotation) is not Annotated:
        return parameter
    typed, info, *_ = get_args(parameter.annotation)
    kind = next((of for of in TYPES if of in _types_in(typed)), None)
    if not isinstance(info, OptionInfo) or info.metavar is not None or kind is None:  # an argument, named, or a flag
        return parameter
    info = copy.copy(info)  # it may be another command's, too
    info.metavar = OWN.get((command, parameter.name)) or _CALLED.get(parameter.name) or TYPES[kind]
    return parameter.replace(annotation=Annotated[typed, info])


def _types_in(annotation: Any) -> list[Any]:
    """The types of an annotation: of ``list[str] | None`` they are list, str and NoneType."""
    inner = [one for part in get_args(annotation) for one in _types_in(part)]
    return [get_origin(annotation) or annotation, *inner]


@contextmanager
def without_types(formatter: Any) -> Iterator[None]:
    """Arguments are written by their names alone: ``STORE``, not ``STORE <path>``."""
    write = formatter.write_dl

    def plain(rows: Sequence[tuple[str, str]], *given: Any, **named: Any) -> None:
        write([(_PYTHON.sub("", name), told) for name, told in rows], *given, **named)

    formatter.write_dl = plain
    try:
        yield
    finally:
        formatter.write_dl = write


class PlainHelp(typer.core.TyperCommand):
    """Help in words of the command line."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        with without_types(formatter):
            super().format_options(ctx, formatter)
