"""Every error that embedstore raises on purpose.

::

    EmbedstoreError
    ├── UsageError               an argument that cannot be right (exit code 2)
    ├── SourceError              a dataset that cannot be read
    │   └── DuplicateIdError     two rows of a dataset carry one id
    ├── PayloadError             one payload that cannot be embedded; becomes a failure row
    ├── EncoderError             an encoder that cannot be loaded or run
    │   └── EncoderOutOfMemoryError
    ├── FingerprintError         vectors of different origin would be mixed or compared
    ├── StoreError               a store that cannot be opened, read or written
    │   ├── FormatVersionError   written by a version this one does not read
    │   ├── CorruptStoreError    bytes differ from what was committed
    │   └── StoreLockedError     another process is writing
    ├── OutputError              a file of results that cannot be written
    ├── HeadError                a head that cannot be trained, loaded or applied
    └── MissingDependencyError   an optional package is not installed

A message is one line: what happened, with the value and what was expected, then what to do.
"""

from __future__ import annotations

import errno
import os


class EmbedstoreError(Exception):
    """Base class of all errors raised on purpose; ``str(error)`` is a complete, single line."""


class UsageError(EmbedstoreError, ValueError):
    """An argument that cannot be right, whatever the data."""


class SourceError(EmbedstoreError):
    """A dataset that cannot be read."""


class DuplicateIdError(SourceError):
    """Two rows of a dataset carry the same id."""


class PayloadError(EmbedstoreError):
    """One payload that cannot be embedded.

    Parameters
    ----------
    stage : str
        Where it failed: ``"read"``, ``"decode"`` or ``"encode"``.
    reason : str
        One line for people.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason


class EncoderError(EmbedstoreError):
    """An encoder that cannot be loaded or run."""


class EncoderOutOfMemoryError(EncoderError):
    """The batch did not fit on the device; a smaller one may."""


class FingerprintError(EmbedstoreError):
    """Vectors of different origin would be mixed or compared; the message shows both fingerprints."""


class StoreError(EmbedstoreError):
    """A store that cannot be opened, read or written."""


class FormatVersionError(StoreError):
    """A file written in a format version that this embedstore does not read."""


class CorruptStoreError(StoreError):
    """Bytes on disk differ from what was committed.

    Parameters
    ----------
    fact : str
        What is damaged.
    remedy : str
        What to do about it, where `fact` does not say; for `verify` the fact alone counts.
    """

    def __init__(self, fact: str, remedy: str = "") -> None:
        super().__init__(f"{fact} {remedy}".rstrip())
        self.fact = fact


class StoreLockedError(StoreError):
    """Another process is writing to the store."""


class OutputError(EmbedstoreError):
    """A file of results that cannot be written: the disk is full, or it may not be."""


class HeadError(EmbedstoreError):
    """A head that cannot be trained, loaded or applied."""


class MissingDependencyError(EmbedstoreError, ImportError):
    """An optional package is not installed."""


def reason_of(error: OSError) -> str:
    """The operating system's words for an error, whatever a library made of its text."""
    return os.strerror(error.errno) if error.errno else one_line(error)


def next_step(error: OSError) -> str:
    """What a user can do about an error of the operating system: a sentence after a blank, or nothing."""
    if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return " Make room or raise the limit, then run the same command again: what was committed is kept."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return " Check its owner and permissions (ls -ld), or choose another path."
    return ""


def one_line(error: BaseException | str, limit: int = 300) -> str:
    """The error's text on one line of at most `limit` characters; its type where it has no text."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
