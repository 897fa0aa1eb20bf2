"""Arguments at the public boundary: checks, and what they are where nothing is said."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from embedstore.errors import UsageError

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


def strings(given: str | Iterable[str], what: str) -> list[str]:
    """A list of strings; one string stands for itself, never for its letters.

    Raises
    ------
    UsageError
        Something in it is not a string.
    """
    found = [given] if isinstance(given, str) else list(given)
    for value in found:
        if not isinstance(value, str):
            raise UsageError(f"{what} should be strings. Got {value!r} ({type(value).__name__}) instead.")
        if not _is_unicode(value):
            raise UsageError(f"{what} should be valid Unicode. Got {value!a} instead.")
    return found


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
