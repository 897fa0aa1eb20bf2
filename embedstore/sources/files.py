"""Bytes of files: local ones, and those at URLs through fsspec (extra ``remote``).

A URL is anything with ``://`` in it. What a remote read waits for is bounded: a thread of its own does it, and is given
up after the timeout (a thread cannot be stopped; it is a daemon, so that it never keeps the process alive).
"""

from __future__ import annotations

import glob
import io
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any, TypeVar

from embedstore._core.arguments import TIMEOUT
from embedstore.errors import MissingDependencyError, PayloadError, SourceError, next_step, one_line
from embedstore.registry import require
from embedstore.sources.confined import Root

T = TypeVar("T")

NEAR = 3
"""Similar names that are shown."""
PAYLOAD_BYTES = 2 << 30
"""No payload is larger: it is read into memory."""

_FILE = "file://"
_PACKAGE_OF = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}


def is_url(path: str) -> bool:
    return "://" in path


def read_file(path: str) -> bytes:
    """The bytes of a local file.

    Raises
    ------
    PayloadError
    """
    with readable(path) as file:
        return file.read()


def read_into(path: str, room: memoryview) -> int:
    """Read a local file into `room` and return how many bytes that were; as many as there is room if it may have more.

    Raises
    ------
    PayloadError
    """
    with readable(path) as file:
        size = 0
        while size < len(room) and (more := file.readinto(room[size:])):
            size += more
        return size


@contextmanager
def readable(path: str) -> Iterator[io.FileIO]:
    """A local file, unbuffered; what the system says against it, or against reading it, becomes a `PayloadError`."""
    if is_url(path):
        raise PayloadError("read", f"{path} is not a local file; download it first")
    try:
        status = os.stat(path)  # first: to open a pipe would wait for its other end
        if not stat.S_ISREG(status.st_mode):
            raise PayloadError("read", f"{path} is not a regular file")
        if status.st_size > PAYLOAD_BYTES:
            raise PayloadError("read", f"{path} has {status.st_size:,} bytes, of at most {PAYLOAD_BYTES:,}")
        with open(path, "rb", buffering=0) as file:
            yield file
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PayloadError("read", f"{path}: {reason}") from error


def read_payload(path: str, *, timeout: float = TIMEOUT, root: Root | None = None) -> bytes:
    """The bytes of a local file or of a URL, which may take `timeout` seconds; below `root` alone, where there is one.

    Raises
    ------
    PayloadError
    MissingDependencyError
        fsspec, or its package for the protocol, is not installed.
    """
    path = path if root is None else root.inside(path)
    if path.lower().startswith(_FILE):
        path = path[len(_FILE) :]
    if not is_url(path):
        return read_file(path)
    try:
        return within(timeout, lambda: _fetched(path))
    except (MissingDependencyError, PayloadError):
        raise
    except TimeoutError:
        raise PayloadError("read", f"{path}: no answer in {timeout:g} s; --timeout raises the limit") from None
    except Exception as error:  # each protocol's client has errors of its own: they cost this payload alone
        raise PayloadError("read", f"{path}: {_reason(error)}") from error


def _fetched(url: str) -> bytes:
    """The bytes at a URL, in one request; of a file that is too large, no more than shows that it is."""
    filesystem, inner = resolve(url)
    try:
        payload = bytes(filesystem.cat_file(inner, end=PAYLOAD_BYTES + 1))
    except FileNotFoundError:
        raise
    except Exception:
        if filesystem.size(inner) == 0:  # of nothing there is no range
            return b""
        raise
    if len(payload) > PAYLOAD_BYTES:
        raise PayloadError("read", f"{url} has more than {PAYLOAD_BYTES:,} bytes")
    return payload


def open_file(path: str, *, timeout: float = TIMEOUT) -> IO[bytes]:
    """A local file or a URL, to be read from its start to its end.

    Raises
    ------
    SourceError
    MissingDependencyError
    """
    if not is_url(path):
        try:
            return open(path, "rb")
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}.{next_step(error)}") from error
    opened = remote(path, timeout, lambda filesystem, inner: filesystem.open(inner, "rb"))
    return _Timed(path, opened, timeout)  # type: ignore[return-value]


def remote(path: str, timeout: float, work: Callable[[Any, str], T]) -> T:
    """`work` of the fsspec filesystem of the URL `path` and of its path there.

    Raises
    ------
    SourceError, MissingDependencyError
    """
    try:
        return within(timeout, lambda: work(*resolve(path)))
    except (MissingDependencyError, SourceError):
        raise
    except TimeoutError:
        raise SourceError(f"{path}: no answer in {timeout:g} s; --timeout raises the limit.") from None
    except Exception as error:  # each protocol's client has errors of its own
        raise SourceError(f"{path} cannot be read: {_reason(error)}.") from error


def resolve(url: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URL, and the path there.

    Raises
    ------
    MissingDependencyError
        Naming the package for the protocol.
    ValueError
        fsspec does not know the protocol.
    """
    core = require("fsspec.core", extra="remote")
    try:
        filesystem, inner = core.url_to_fs(url)
    except ImportError as error:
        protocol = url.partition("://")[0]
        package = _PACKAGE_OF.get(protocol)
        way = f"Run: pip install {package}" if package else one_line(error)
        raise MissingDependencyError(f"Reading {protocol}:// needs a package of its own. {way}") from error
    return filesystem, inner


def exists(path: str, *, timeout: float = TIMEOUT) -> bool:
    return bool(remote(path, timeout, lambda fs, inner: fs.exists(inner))) if is_url(path) else os.path.exists(path)


def absent(path: str) -> str:
    """That there is no such file, folder or URL, with the names that are like it where it should be."""
    if is_url(path):
        return f"{path} does not exist."
    if os.path.islink(path):
        return f"{path} is a link to nothing."
    lacking = wanted = os.path.abspath(path)
    while not os.path.isdir(os.path.dirname(lacking)):
        lacking = os.path.dirname(lacking)
    if os.path.exists(lacking):
        return f"{path} does not exist: {lacking} is a file."
    why = "" if lacking == wanted else f": there is no folder {lacking}"
    folder, name = os.path.split(lacking)
    near = _names_like(name, folder)
    return f"{path} does not exist{why}." + (f" Similar names in {folder}: {', '.join(near)}." if near else "")


def _names_like(name: str, folder: str) -> list[str]:
    """Names in `folder` that may have been meant, the nearest first; those with another ending, too."""
    try:
        names = sorted(other for other in os.listdir(folder) if other.startswith(".") == name.startswith("."))
    except OSError:  # it may not be listed
        return []
    lower = {other.lower(): other for other in names}
    near = [lower[other] for other in get_close_matches(name.lower(), lower, NEAR)]
    return [*near, *(other for other in names if os.path.splitext(other)[0] == name and other not in near)][:NEAR]


def matching(pattern: str, *, timeout: float = TIMEOUT) -> list[str]:
    """The files that match a glob pattern, sorted."""
    if not is_url(pattern):
        return sorted(glob.glob(pattern))
    return remote(pattern, timeout, lambda fs, inner: sorted(fs.unstrip_protocol(p) for p in fs.glob(inner)))


def natural(paths: Iterable[str]) -> list[str]:
    """Paths with the numbers in their names in numerical order: ``emb_2`` before ``emb_10``."""
    return sorted(paths, key=lambda p: [(int(w), w) if w.isdigit() else (-1, w) for w in re.split(r"(\d+)", p)])


def natural_paths(paths: Iterable[Path]) -> list[Path]:
    """As `natural`."""
    return [Path(path) for path in natural(map(str, paths))]


def relative_to(folder: str, path: str) -> str:
    """`path`, taken from `folder` (a folder or a URL) where it is relative."""
    if is_url(path):
        return path
    if not is_url(folder):
        return os.path.normpath(os.path.join(folder, path))
    protocol, _, rest = folder.partition("://")
    return f"{protocol}://{path}" if path.startswith("/") else f"{protocol}://{rest.rstrip('/')}/{path}"


def folder_of(path: str) -> str:
    """The folder in which a file lies: absolute, or a URL."""
    return path.rpartition("/")[0] if is_url(path) else os.path.dirname(os.path.abspath(path))


def absolute(path: str) -> str:
    return path if is_url(path) else os.path.abspath(path)


def within(seconds: float, work: Callable[[], T]) -> T:
    """`work` in a daemon thread, given up after `seconds`.

    Raises
    ------
    TimeoutError
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="embedstore-remote", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError
    return results[0]


class _Timed(io.RawIOBase):
    """A remote file of which every `read` is bounded in time."""

    def __init__(self, path: str, file: IO[bytes], timeout: float) -> None:
        self._path, self._file, self._timeout = path, file, timeout

    def read(self, size: int = -1) -> bytes:
        try:
            return within(self._timeout, lambda: self._file.read(size))
        except TimeoutError:
            raise SourceError(f"{self._path}: no answer in {self._timeout:g} s; --timeout raises the limit.") from None

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _reason(error: Exception) -> str:
    words = getattr(error, "strerror", None) or ("No such file" if isinstance(error, FileNotFoundError) else one_line(error))
    return str(words).rstrip(".")
