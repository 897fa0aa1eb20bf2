"""From a text payload's bytes to the text a model sees."""

from __future__ import annotations

from embedstore.errors import PayloadError


def decode_text(payload: bytes) -> str:
    """UTF-8 text; `PayloadError` otherwise."""
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise PayloadError("decode", f"not UTF-8 text: {error.reason} at byte {error.start}") from error
