"""Arguments at the public boundary: checks, and what they are where nothing is said."""

from __future__ import annotations

import dataclasses
import numbers
import operator
import os
import types
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import NoneType
from typing import Any, Union, get_args, get_origin

from embedstore.errors import UsageError, one_line

TIMEOUT = 60.0
"""Seconds that a remote read may take."""
DEVICES = "auto, cpu, cuda or cuda:N."
"""What help says of the device that encodes."""


def option(default: Any, help: str, type: Any = None, **typed: str) -> Any:
    """A field of an options object that a command has, too.

    Parameters
    ----------
    default : immutable
    help : str
        What the command's help says of it.
    type : optional
        Of the command's option, where a command line knows less than Python; default that of the field.
    typed : str
        ``flag``: how the option is typed, by default ``--`` and the field's name; ``metavar``: what help calls its value.
    """
    return dataclasses.field(default=default, metadata={"help": help, "type": type, **typed})


def check_types(options: Any) -> None:
    """Check each field of a frozen options object by its annotation, and keep its value as that type: NumPy's 3 as 3.

    A field whose annotation is a string, because it names what is imported for types alone, is left to its class.

    Raises
    ------
    UsageError
        Naming the first option that is of another type.
    """
    for name, default, annotation in _fields(type(options)):  # type: ignore[arg-type]
        value = getattr(options, name)
        if value is not default:  # a search has twenty options, and fractions of a millisecond
            object.__setattr__(options, name, as_type(value, annotation, name))


def check_least(options: Any, **least: int) -> None:
    """Raise `UsageError` where an option that is a number is below the least that it may be; None is no number."""
    for name, bound in least.items():
        if (value := getattr(options, name)) is not None and value < bound:
            raise UsageError(f"{name} must be at least {bound}. Got {value} instead.")


def check_coverage(coverage: float | None, per_class: bool) -> None:
    """`UsageError` where the options cannot be right."""
    if coverage is None and per_class:
        raise UsageError("per_class says of which items a coverage holds; name one: coverage=0.9 (--coverage 0.9).")
    if coverage is not None and not 0 < coverage < 1:
        raise UsageError(f"coverage must be above 0 and below 1, such as 0.9. Got {coverage} instead.")


def as_type(value: Any, annotation: Any, name: str) -> Any:
    """`value` as one of the types of `annotation`; `UsageError` names the argument where it is none of them.

    Known are ``int``, ``float``, ``bool``, ``str``, ``None``, paths, and sequences and mappings of these. One string, or one
    path, is a sequence of itself; other iterables become lists.
    """
    wrong: Any = _NOTHING
    kinds = _members(annotation)
    for kind in kinds:
        try:
            return _converted(value, kind)
        except _OddElementError as error:
            wrong = error.element
        except TypeError:
            continue
    got = f"{shown(value)} instead" if wrong is _NOTHING else f"{shown(wrong)} among them"
    raise UsageError(f"{name} must be {_described(kinds)}. Got {got}.")


@lru_cache
def _fields(options: type) -> tuple[tuple[str, Any, Any], ...]:
    """Name, default and annotation of each field that is checked by its annotation."""
    every = dataclasses.fields(options)
    return tuple((field.name, field.default, field.type) for field in every if not isinstance(field.type, str))


_NOTHING = object()


class _OddElementError(TypeError):
    """A sequence or mapping holds something else than it should."""

    def __init__(self, element: Any) -> None:
        self.element = element


@lru_cache
def _members(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _converted(value: Any, kind: Any) -> Any:
    """`value` as a `kind`, which is no union; `TypeError` where it is none."""
    if type(value) is kind:
        return value
    origin = get_origin(kind) or kind
    if origin is Sequence:
        return _several(value, *get_args(kind))
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise TypeError
        of_key, of_value = get_args(kind)
        return {_element(key, of_key): _element(one, of_value) for key, one in value.items()}
    if origin is Any:
        return value
    if origin is bool and type(value).__name__ in ("bool", "bool_"):  # NumPy's, too, which is not imported here
        return bool(value)
    if origin is int and not isinstance(value, bool):
        return operator.index(value)
    if origin is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        return value if isinstance(value, int | float) else float(value)
    if origin in (str, NoneType, os.PathLike, Path) and isinstance(value, origin):
        return value
    raise TypeError


def _several(value: Any, of: Any) -> Any:
    """`value` as a sequence of something."""
    if of is Any:  # columns of any kind, as they are
        if isinstance(value, str | bytes) or not isinstance(value, Iterable):
            raise TypeError
        return value
    if isinstance(value, str | os.PathLike):
        return [_element(value, of)]
    if isinstance(value, bytes | Mapping):
        raise TypeError
    found = [_element(one, of) for one in value]
    return tuple(found) if isinstance(value, tuple) else found


def _element(value: Any, annotation: Any) -> Any:
    """One value of a sequence or mapping."""
    for kind in _members(annotation):
        try:
            return _converted(value, kind)
        except TypeError:
            continue
    raise _OddElementError(value)


_WORDS: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("True or False", "True or False"),
    str: ("a string", "strings"),
    os.PathLike: ("a path", "paths"),
    Path: ("a path", "paths"),
}
"""Types as they are called, one and several."""


def _described(kinds: Iterable[Any], *, several: bool = False) -> str:
    """What an argument may be; that it may be left out goes without saying."""
    words = []
    for kind in kinds:
        origin = get_origin(kind) or kind
        if origin is Sequence:
            words.append(_described(_members(*get_args(kind)), several=True))
        elif origin is Mapping:
            words.append("a mapping")
        elif origin is not NoneType:
            words.append(_WORDS.get(origin, ("anything", "a sequence"))[several])
    if {"a path", "paths"} & {*words}:
        words = [word for word in words if word not in ("a string", "strings", "anything", "a sequence")]
    return " or ".join(dict.fromkeys(words))


def shown(value: Any) -> str:
    """A value in an error: on one line, and not longer than that."""
    return one_line(repr(value), 80)


def strings(given: str | Iterable[str], what: str) -> list[str]:
    """A list of strings; one string stands for itself, never for its letters.

    Raises
    ------
    UsageError
        Something in it is not a string.
    """
    if isinstance(given, bytes | Mapping) or not isinstance(given, Iterable):
        raise UsageError(f"{what} must be strings. Got {shown(given)} ({type(given).__name__}) instead.")
    found = [given] if isinstance(given, str) else list(given)
    for value in found:
        if not isinstance(value, str):
            raise UsageError(f"{what} must be strings. Got {shown(value)} ({type(value).__name__}) instead.")
        if not _is_unicode(value):
            raise UsageError(f"{what} must be valid Unicode. Got {value!a} instead.")
    return found


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
