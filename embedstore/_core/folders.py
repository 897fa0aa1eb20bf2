"""Folders of a store, held open: below its root no link is followed, and nothing but a regular file is read or written.

Every name is resolved against an open folder (``dir_fd``), so that what was checked is what is used. Outside of stores, users
may place links as they like: see `embedstore._core.atomic_files`.
"""

from __future__ import annotations

import errno
import io
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from embedstore.errors import StoreError, next_step, reason_of

_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
}
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_CAREFUL = os.O_NOFOLLOW | os.O_NONBLOCK  # an open of a pipe would wait for its other end


class Folder:
    """A folder, open until `close`; also a context manager.

    Parameters
    ----------
    descriptor : int
    path : Path
        For messages, and for libraries that open files by path alone.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        self.descriptor = descriptor
        self.path = path

    @classmethod
    def at(cls, path: Path) -> Folder:
        """The folder at `path`, which may be a link that its user made: a store's root."""
        return cls(os.open(path, _FOLDER), path)

    @classmethod
    def below(cls, root: Path, *names: str, create: bool = False) -> Folder:
        """The folder `names` below `root`, each of them a real one; see `child`."""
        with cls.at(root) as folder:
            return folder.inside(*names, create=create)

    def inside(self, *names: str, create: bool = False) -> Folder:
        """The folder `names` below this one, each of them a real one; see `child`."""
        folder = Folder(os.dup(self.descriptor), self.path)
        for name in names:
            with folder:
                folder = folder.child(name, create=create)
        return folder

    @classmethod
    def last(cls, path: Path, depth: int, *, create: bool = False) -> Folder:
        """The folder at `path`, whose last `depth` names are those of real folders of a store."""
        root, names = split_root(path, depth)
        return cls.below(root, *names, create=create)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self.descriptor)

    def child(self, name: str, *, create: bool = False) -> Folder:
        """The folder `name` in this one.

        Parameters
        ----------
        create : bool
            Make it where it is not there, and make it durable also where it is: who made it may have died before that.

        Raises
        ------
        StoreError
            It is a link, or no folder.
        FileNotFoundError
        """
        if create:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=self.descriptor)
            os.fsync(self.descriptor)
        try:
            return Folder(os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=self.descriptor), self.path / name)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            raise misplaced(self.path / name, self._status(name), "folder") from None

    def names(self) -> list[str]:
        """The names of all that is in this folder, whatever it is, sorted."""
        return sorted(os.listdir(self.descriptor))

    def listing(self) -> tuple[list[str], list[str]]:
        """The names of the files and of the folders in this one, sorted.

        Raises
        ------
        StoreError
            Something else is in it, such as a link.
        """
        files, folders = [], []
        with os.scandir(self.descriptor) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    files.append(entry.name)
                else:
                    with suppress(FileNotFoundError):  # since it was listed
                        raise misplaced(self.path / entry.name, self._status(entry.name), "file")
        return sorted(files), sorted(folders)

    def has(self, name: str) -> bool:
        """Whether there is a file `name`.

        Raises
        ------
        StoreError
            There is something of that name that is no file.
        """
        try:
            status = self._status(name)
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(status.st_mode):
            raise misplaced(self.path / name, status, "file")
        return True

    def open(self, name: str) -> io.FileIO:
        """The file `name`, to be read.

        Raises
        ------
        StoreError
            It is a link, or no file.
        FileNotFoundError
        """
        if not self.has(name):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(self.path / name))
        return self._open(name, os.O_RDONLY, "r")

    def read(self, name: str) -> bytes:
        """The bytes of the file `name`; see `open`."""
        with self.open(name) as file:
            return file.read()

    @contextmanager
    def replacing(self, name: str) -> Iterator[io.FileIO]:
        """A new file, which replaces `name` durably and at once when the block ends, and leaves no trace if it fails.

        It lies beside it as ``name.tmp`` meanwhile, and its ``name`` is the path of that.
        """
        temporary = f"{name}.tmp"
        self.has(name)
        self.unlink(temporary)
        with self._open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, "w") as file:
            try:
                yield file
                os.fsync(file.fileno())
                publish(self, temporary, name)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=self.descriptor)
                raise

    def write(self, name: str, data: bytes) -> None:
        """Replace the file `name` by `data`, durably and at once."""
        with self.replacing(name) as file:
            write_all(file, memoryview(data))

    def open_lock(self, name: str) -> io.FileIO:
        """The lock file `name`, made where it is not there. Its contents are left alone."""
        self.has(name)
        return self._open(name, os.O_RDWR | os.O_CREAT, "r+")

    def is_at(self, name: str, file: io.FileIO) -> bool:
        """Whether `file` is the one that `name` names now."""
        try:
            return os.path.samestat(self._status(name), os.fstat(file.fileno()))
        except FileNotFoundError:
            return False

    def unlink(self, name: str) -> None:
        """Remove the file `name`, if it is there.

        Raises
        ------
        StoreError
            It is something else, which is left alone.
        """
        if self.has(name):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.descriptor)

    def remove_empty(self, name: str) -> None:
        """Remove the folder `name` and those in it, as far as they are empty."""
        try:
            with self.child(name) as inner:
                for each in inner.listing()[1]:
                    inner.remove_empty(each)
            os.rmdir(name, dir_fd=self.descriptor)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise

    def remove(self, name: str) -> None:
        """Remove the folder `name` with all that is in it; a link in it is removed, and not followed."""
        with self.child(name) as inner:
            for each in inner.names():
                if stat.S_ISDIR(inner._status(each).st_mode):
                    inner.remove(each)
                else:
                    os.unlink(each, dir_fd=inner.descriptor)
        os.rmdir(name, dir_fd=self.descriptor)

    def _open(self, name: str, flags: int, mode: str) -> io.FileIO:
        def opener(path: str, _: int) -> int:
            return os.open(name, flags | _CAREFUL | os.O_CLOEXEC, 0o666, dir_fd=self.descriptor)

        try:
            file = io.FileIO(os.fspath(self.path / name), mode, opener=opener)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):  # ENXIO: a socket
                raise
            raise misplaced(self.path / name, self._status(name), "file") from None
        if not stat.S_ISREG((status := os.fstat(file.fileno())).st_mode):
            file.close()
            raise misplaced(self.path / name, status, "file")
        return file

    def _status(self, name: str) -> os.stat_result:
        return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)


def publish(folder: Folder, temporary: str, name: str) -> None:
    """Rename a finished file of `folder` into place, and make the rename durable."""
    os.rename(temporary, name, src_dir_fd=folder.descriptor, dst_dir_fd=folder.descriptor)
    os.fsync(folder.descriptor)


def write_all(file: io.FileIO, data: memoryview) -> None:
    """Write all of `data`: one call of the operating system writes 2 GiB at most."""
    while data:
        data = data[file.write(data) :]


def make_root(path: Path) -> None:
    """Make the folder `path` and its parents where they are not there, durably, and the last that is there as well.

    Who made that one may have died before it was durable.
    """
    missing, there = list[Path](), path
    while not there.exists():
        missing.append(there)
        there = there.parent
    with suppress(OSError):  # whoever made it; its parent may be another's, or of another kind
        _flush_parent(there)
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        with suppress(PermissionError):  # a parent that may be written to and not read
            _flush_parent(folder)


def _flush_parent(folder: Path) -> None:
    with Folder.at(folder) as opened, Folder(os.open("..", _FOLDER, dir_fd=opened.descriptor), folder.parent) as parent:
        os.fsync(parent.descriptor)


def split_root(path: Path, depth: int) -> tuple[Path, tuple[str, ...]]:
    """The root of a store, and the last `depth` names of `path`, which lies in it."""
    path = Path(os.path.abspath(path))
    names = path.parts[1:][-depth:]
    return path.parents[len(names) - 1] if names else path, names


def regular_file(root: Path, file: str) -> os.stat_result:
    """The status of `file` (with ``/``) below `root`, after a look at every folder between them; no byte is read.

    Raises
    ------
    StoreError
        It is no file, or it or one of the folders is a link.
    FileNotFoundError
    """
    at = os.fspath(root)
    *folders, name = file.split("/")
    for folder in folders:
        at = f"{at}/{folder}"
        if not stat.S_ISDIR((status := os.lstat(at)).st_mode):
            raise misplaced(Path(at), status, "folder")
    if not stat.S_ISREG((status := os.lstat(f"{at}/{name}")).st_mode):
        raise misplaced(Path(at, name), status, "file")
    return status


def read_file(root: Path, file: str) -> bytes:
    """The bytes of `file` (with ``/``) below `root`; raises what `regular_file` raises."""
    *folders, name = file.split("/")
    with Folder.below(root, *folders) as folder:
        return folder.read(name)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Errors of the operating system as one that names the file; that it is not there stays `FileNotFoundError`."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{error.filename or path} cannot be read: {reason_of(error)}.{next_step(error)}") from error


def plain_name(name: object) -> bool:
    """Whether `name`, which stood in a file, can be that of a file beside it, and of nothing elsewhere."""
    return isinstance(name, str) and bool(name) and name[0] != "." and "/" not in name and "\0" not in name


def misplaced(path: Path, status: os.stat_result, wanted: str) -> StoreError:
    """What to say of something at `path` where a file or a folder of a store should be."""
    kind = stat.S_IFMT(status.st_mode)
    remove = "Move it away." if kind in (stat.S_IFDIR, stat.S_IFREG) else f"Remove it: rm {shlex.quote(os.fspath(path))}"
    if kind == stat.S_IFLNK:
        remove = f"A store has no links inside. Put what it names in its place, or r{remove[1:]}"
    return StoreError(f"{path} is {_KINDS.get(kind, 'something else')}, not a {wanted} of this store. {remove}")
