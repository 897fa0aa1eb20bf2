"""Options of commands, from frozen dataclasses of the library: their names, defaults and help are written there alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from inspect import Parameter
from typing import Annotated, Any, TypeVar

import typer

Command = TypeVar("Command", bound=Callable[..., None])


def takes(options: type) -> Callable[[Command], Command]:
    """Give a command an option for each field of `options` that has a ``help``; they come in its ``**given``.

    In help they stand before the command's keyword-only parameters.
    """

    def extended(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True)
        first = [p for p in own.parameters.values() if p.kind is Parameter.POSITIONAL_OR_KEYWORD]
        last = [p for p in own.parameters.values() if p.kind is Parameter.KEYWORD_ONLY]
        made = [_parameter(field) for field in fields(options) if "help" in field.metadata]
        signature = own.replace(parameters=[*first, *made, *last])
        command.__signature__ = signature  # type: ignore[attr-defined]
        return command

    return extended


def _parameter(field: Field[Any]) -> Parameter:
    said = field.metadata
    typed = said["type"] or field.type
    flag = said.get("flag", f"--{field.name.replace('_', '-')}")
    option = typer.Option(flag, help=said["help"], metavar=said.get("metavar"), readable=False)
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=Annotated[typed, option])
