"""Dataclasses from JSON, every value of the type that its field says: a file may have been written by anybody."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from functools import lru_cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from embedstore.errors import one_line

T = TypeVar("T")


def from_json(cls: type[T], data: Any) -> T:
    """A `cls`, which is a dataclass, of the values in a JSON object.

    Raises
    ------
    ValueError
        Something else, or a field that is unknown, missing or of another type.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"a {cls.__name__} is {_shown(data)}")
    hints = _hints(cls)  # type: ignore[arg-type]
    needed = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}  # type: ignore[arg-type]
    if odd := sorted(set(map(str, data)) - set(hints)) or sorted(needed - set(data)):
        raise ValueError(f"a {cls.__name__} has or lacks {_shown(odd)}")
    for name, value in data.items():
        if not fits(value, hints[name]):
            raise ValueError(f"{name} of a {cls.__name__} is {_shown(value)}")
    return cls(**data)


def fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value, or a part that was made of one already, is of the type `hint`."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin in (list, Sequence):
        return isinstance(value, list) and all(fits(one, inner[0]) for one in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    return type(value) is hint


@lru_cache
def _hints(cls: type) -> dict[str, Any]:
    return {name: hint for name, hint in get_type_hints(cls).items() if name in {f.name for f in fields(cls)}}


def _shown(value: object) -> str:
    return one_line(repr(value), 60)
