"""Files written so that a kill leaves the old or the new one, and their digests. Standard library only."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from embedstore.errors import CorruptStoreError, StoreError


def read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist.") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise CorruptStoreError(f"{path} is not valid JSON ({error}). Restore it from a backup.") from error
    if not isinstance(data, dict):
        raise CorruptStoreError(f"{path} should hold a JSON object. Restore it from a backup.")
    return data


def cache_home() -> Path:
    """The user's folder for what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "embedstore"


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace `path` atomically and durably."""
    write_bytes(path, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` atomically and durably by `data`."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    publish(temporary, path)


FLUSHED_BYTES = 8 << 20
"""Of a large file the disk begins with so many while the next are written: it would stand still until the flush otherwise."""


def write_hashed(path: Path, pieces: Sequence[bytes | memoryview]) -> str:
    """Replace `path` atomically and durably by `pieces`, one after the other; their hexadecimal SHA-256."""
    temporary = path.with_name(path.name + ".tmp")
    with ThreadPoolExecutor(1) as pool, open(temporary, "wb", buffering=0) as file:
        hashing = pool.submit(_sha256, pieces)
        at = 0
        for piece in pieces:
            left = memoryview(piece).cast("B")
            while left:
                count = file.write(left[:FLUSHED_BYTES])
                _begin_flush(file.fileno(), at, count)
                left, at = left[count:], at + count
        os.fsync(file.fileno())
        digest = hashing.result()
    publish(temporary, path)
    return digest


def _begin_flush(descriptor: int, at: int, count: int) -> None:
    """Have the disk begin with `count` bytes of a file from `at` on; without waiting, and without a word where it cannot.

    Linux starts to write what it is told will not be needed; what is still being written stays in the page cache.
    """
    if count >= FLUSHED_BYTES and hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, at, count, os.POSIX_FADV_DONTNEED)


def _sha256(pieces: Sequence[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def publish(temporary: Path, path: Path) -> None:
    """Rename a finished file into place and make the rename durable."""
    os.replace(temporary, path)
    fsync_path(path.parent)


def fsync_path(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        buffer = memoryview(bytearray(1 << 20))
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()
