"""Files written so that a kill leaves the old or the new one, and their digests."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import mmap
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from embedstore._core.folders import Folder, plain_name, read_file, regular_file
from embedstore.errors import CorruptStoreError, StoreError, next_step, one_line

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

Document = TypeVar("Document")
Result = TypeVar("Result")
GENERATIONS = 20
"""So often may a document be replaced while it and its files are read."""


JSON_BYTES = 64 << 20
"""No JSON document of a store is larger: the manifest of 100,000 parts has half of that."""


def read_json(path: Path, root: Path | None = None) -> dict[str, Any]:
    """The JSON object in a file; one of the store at `root` is reached without following a link.

    Raises
    ------
    StoreError
    CorruptStoreError
        It is no JSON object, has more than `JSON_BYTES`, is nested too deep, or says something twice.
    """
    try:
        name = None if root is None else path.relative_to(root).as_posix()
        status = path.stat() if root is None or name is None else regular_file(root, name)
        if status.st_size > JSON_BYTES:
            raise CorruptStoreError(f"{path} has {status.st_size:,} bytes, more than any such file. Restore it from a backup.")
        if not stat.S_ISREG(status.st_mode):  # the reading of a pipe would wait for its other end
            raise StoreError(f"{path} is not a regular file.")
        content = path.read_bytes() if root is None or name is None else read_file(root, name)
        data = json.loads(content, object_pairs_hook=_object)
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist.") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.{next_step(error)}") from error
    except (ValueError, RecursionError) as error:
        raise CorruptStoreError(f"{path} is not valid JSON ({one_line(error, 160)}). Restore it from a backup.") from error
    if not isinstance(data, dict):
        raise CorruptStoreError(f"{path} should hold a JSON object. Restore it from a backup.")
    return data


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in found if names.count(name) > 1)[:60]!r} is there twice")
    return found


def named_files(document: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """What ``files`` of a JSON document says of the files beside it, by role; `path` is the document's.

    Raises
    ------
    CorruptStoreError
        It names one that is not beside it.
    """
    files = document.get("files")
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        raise CorruptStoreError(f"{path} does not say which its files are.")
    for entry in files.values():
        if not plain_name(entry.get("file")):
            raise CorruptStoreError(f"{path} names a file {entry.get('file')!r}, which cannot lie beside it.")
    return files


def of_one_generation(read: Callable[[], Document], use: Callable[[Document], Result]) -> Result:
    """`use` of the document that `read` returns, and of the files it names, none of which is older or newer.

    The document is replaced last, and its files may go once it is: where `use` fails and the document is another one by now,
    that one is used instead.

    Raises
    ------
    StoreError
        It is replaced faster than it can be read.
    """
    document = read()
    for _ in range(GENERATIONS):
        try:
            return use(document)
        except Exception:
            before, document = document, read()
            if document == before:
                raise
    raise StoreError(f"What is read was replaced {GENERATIONS} times meanwhile. Try again.")


def parquet_table(data: bytes) -> pa.Table:
    """The table in the bytes of a Parquet file.

    On this thread: those of pyarrow let go of Python's buffers after they are done with them, and where the interpreter is
    ending by then, the process is aborted (pyarrow 26, one exit in twenty-five on a busy machine).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)


def cache_home() -> Path:
    """The user's folder for what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "embedstore"


def json_bytes(data: Mapping[str, Any]) -> bytes:
    """A JSON document as it is stored."""
    return (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode()


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace `path`, which lies in no store, atomically and durably."""
    write_bytes(path, json_bytes(data))


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path`, which lies in no store, atomically and durably by `data`."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)  # or it would be written to where a link of that name leads
    with open(temporary, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    publish(temporary, path)


DIRECT_BYTES = 8 << 20
"""A file of so many bytes goes past the page cache: the kernel's copying would take half of an import's time."""
ALIGNED = 4096
"""What goes past it begins and ends at multiples of this, in memory and in the file; where a disk wants more, it does not."""


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """As `numpy.empty`; `write_hashed` need not copy it to write it past the page cache."""
    import numpy as np

    count = math.prod(shape)
    memory = mmap.mmap(-1, max(1, count * np.dtype(dtype).itemsize), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # begins at a page
    return np.frombuffer(memory, dtype, count).reshape(shape)


def write_hashed(folder: Folder, name: str, pieces: Sequence[bytes | memoryview]) -> str:
    """Replace the file `name` durably by `pieces` (of bytes), one after the other; their hexadecimal SHA-256."""
    with ThreadPoolExecutor(1) as pool, folder.replacing(name) as file:
        hashing = pool.submit(_sha256, pieces)
        if sum(map(len, pieces)) < DIRECT_BYTES:
            for piece in pieces:
                _write_all(file, memoryview(piece))
        else:
            _write_directly(file, pieces)
    return hashing.result()


def _write_directly(file: FileIO, pieces: Iterable[bytes | memoryview]) -> None:
    """Write `pieces` to an empty file, past the page cache where the file system can.

    A piece that is aligned in memory and comes to lie so in the file is written as it is, others by way of a block.
    """
    import numpy as np

    block = aligned_empty((DIRECT_BYTES,), np.uint8)
    _set_direct(file, True)
    held = 0
    for piece in pieces:
        left = np.frombuffer(piece, np.uint8)
        if not held % ALIGNED and not left.ctypes.data % ALIGNED:
            _write_all(file, block[:held].data)
            whole, held = len(left) // ALIGNED * ALIGNED, 0
            _write_all(file, left[:whole].data)
            left = left[whole:]
        while len(left):
            count = min(len(left), DIRECT_BYTES - held)
            block[held : held + count] = left[:count]  # without the GIL
            left, held = left[count:], held + count
            if held == DIRECT_BYTES:
                _write_all(file, block.data)
                held = 0
    whole = held // ALIGNED * ALIGNED
    _write_all(file, block[:whole].data)
    _set_direct(file, False)
    _write_all(file, block[whole:held].data)


def _write_all(file: FileIO, data: memoryview) -> None:
    while data:
        try:
            data = data[file.write(data) :]
        except OSError as error:  # what is not aligned as the file system wants it goes through the page cache
            if error.errno != errno.EINVAL or not _set_direct(file, False):
                raise


def _set_direct(file: FileIO, direct: bool) -> bool:
    """Switch O_DIRECT on or off for `file`; whether the flag changed. Some file systems cannot."""
    if not hasattr(os, "O_DIRECT"):
        return False
    import fcntl

    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    wanted = flags | os.O_DIRECT if direct else flags & ~os.O_DIRECT
    with contextlib.suppress(OSError):
        fcntl.fcntl(file, fcntl.F_SETFL, wanted)
    return fcntl.fcntl(file, fcntl.F_GETFL) != flags


def _sha256(pieces: Sequence[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


@contextlib.contextmanager
def completing(path: Path) -> Iterator[Path]:
    """A file beside `path`, which lies in no store, that takes its place once it is complete, and is gone where it is not."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)  # or it would be written to where a link of that name leads
    try:
        yield temporary
        fsync_path(temporary)
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: Path) -> None:
    """Rename a finished file, which lies in no store, into place and make the rename durable."""
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
