"""Messages: payloads made of several columns of an item. How one is asked for, and its bytes. Standard library only."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable

from embedstore.errors import UsageError
from embedstore.spec import MESSAGE

EXAMPLE = "both={image}+{text}"

_ASKED = re.compile(r"(?:(?P<space>[^={}]+)=)?(?P<parts>\{[^{}]+\}(?:\+\{[^{}]+\})*)")
_HEADER = struct.Struct("<IQ")


def parsed(asked: str) -> tuple[str, tuple[str, ...]]:
    """The space and the columns of ``SPACE={COLUMN}+{COLUMN}``, or of ``{COLUMN}+{COLUMN}``.

    Raises
    ------
    UsageError

    Examples
    --------
    >>> parsed("both={image}+{text}")
    ('both', ('image', 'text'))
    """
    found = _ASKED.fullmatch(asked)
    parts = () if found is None else tuple(found["parts"][1:-1].split("}+{"))
    if found is None or len(parts) < 2 or len(set(parts)) < len(parts):
        raise UsageError(f"A message is of two columns or more, each once, such as {EXAMPLE}. Got {asked!r} instead.")
    return found["space"] or MESSAGE, parts


def asked_with(given: str) -> tuple[str, str]:
    """``SPACE={COLUMN}+{COLUMN}=ENCODER`` as what `parsed` takes, and the encoder.

    Raises
    ------
    UsageError
    """
    found = _ASKED.match(given)
    encoder = "" if found is None else given[found.end() :]
    if found is None or len(encoder) < 2 or not encoder.startswith("="):
        raise UsageError(
            f'--message takes columns and an encoder, such as "{EXAMPLE}=st:Qwen/Qwen3-VL-Embedding-2B". Got {given!r} instead.'
        )
    return found[0], encoder[1:]


def spelled(parts: Iterable[str]) -> str:
    """``{COLUMN}+{COLUMN}``"""
    return "+".join(f"{{{part}}}" for part in parts)


def packed(parts: Iterable[tuple[str, bytes]]) -> bytes:
    """The bytes of a message: of each part the lengths of name (uint32) and payload (uint64), little-endian; name; payload."""
    found = []
    for name, payload in parts:
        encoded = name.encode()
        found += [_HEADER.pack(len(encoded), len(payload)), encoded, payload]
    return b"".join(found)


def unpacked(message: bytes) -> list[tuple[str, bytes]]:
    """The parts of what `packed` made.

    Raises
    ------
    ValueError
        It is something else.
    """
    parts, at = [], 0
    while at < len(message):
        try:
            name, size = _HEADER.unpack_from(message, at)
            start = at + _HEADER.size + name
            parts.append((message[start - name : start].decode(), message[start : start + size]))
        except (struct.error, UnicodeDecodeError) as error:
            raise ValueError("is no message of several parts") from error
        at = start + size
    if at > len(message) or not parts:
        raise ValueError("is no message of several parts")
    return parts
