"""Checks of arguments at the public boundary."""

from __future__ import annotations

from collections.abc import Iterable

from embedstore.errors import UsageError


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
