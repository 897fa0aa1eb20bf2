"""What worker processes make their preparations of in tests; imported there by name."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np

from embedstore.errors import EncoderError, PayloadError


def first_bytes(width: int) -> Callable[[bytes], Any]:
    """The first `width` bytes; payloads that say so fail, end the process, or are kept as they are."""

    def prepare(payload: bytes) -> Any:
        if payload.startswith(b"fail"):
            raise PayloadError("decode", "it says so")
        if payload.startswith(b"odd"):
            raise ZeroDivisionError("odd")
        if payload.startswith(b"crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if payload.startswith(b"leave"):
            os._exit(3)
        if payload.startswith(b"broken"):
            raise EncoderError("The encoder is broken. Mend it.")
        if payload.startswith(b"keep"):
            return [len(payload)]
        return np.frombuffer(payload.ljust(width)[:width], np.uint8).copy()

    return prepare


def refusing() -> Callable[[bytes], Any]:
    raise EncoderError("There is no such model. Name another.")


def odd_arrays(shape: list[int], dtype: str) -> Callable[[bytes], Any]:
    """Arrays of another shape or type than an encoder declares."""
    return lambda payload: np.zeros(shape, dtype)


def unsayable() -> Callable[[bytes], Any]:
    """What JSON cannot say."""
    return lambda payload: [np.int64(3)]


def in_file(path: str, width: int) -> Callable[[bytes], Any]:
    """As `first_bytes`; while the file is there, payloads that say "die" are killed as the system does out of memory."""
    plain = first_bytes(width)

    def prepare(payload: bytes) -> Any:
        if payload.startswith(b"die") and os.path.exists(path):
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(payload)

    return prepare


def hanging() -> Callable[[bytes], Any]:
    """Never gives an answer."""

    def prepare(payload: bytes) -> Any:
        while True:
            signal.pause()

    return prepare
