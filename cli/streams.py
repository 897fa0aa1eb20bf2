"""Standard input, output and error, whatever they are: closed, a pipe that nobody reads any more, ASCII or latin-1.

`prepare` puts a `Stream` in the place of stdout and of stderr. Everything that a command prints goes through them, that of
typer, of logging and of other libraries too, so that no word of the data reaches a terminal as a command to it.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import json
import math
import os
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

STEERING = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
"""What is shown as an escape: control characters (C0 and C1), breaks and turns of the line, halves of surrogate pairs."""

_STEERING = re.compile(f"[{STEERING}]")
_STEERING_OR_BREAK = re.compile(f"[\t\n{STEERING}]")
_OF_PROGRESS = re.compile(r"(?:[\r\n]|\x1b\[A)*")  # how tqdm begins what it writes: it returns to the line of its bar

_PLAIN = {
    "…": "...",
    "–": "-",
    "—": "-",
    "−": "-",
    "·": "-",
    "•": "-",
    "×": "x",
    "²": "2",
    "±": "+/-",
    "→": "->",
    "≥": ">=",
    "≤": "<=",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "\xa0": " ",
}
_ERRORS = "embedstore-shown"


def shown(text: object) -> str:
    """`text` on one line, with escapes such as ``\\x1b`` in the place of characters that steer a terminal."""
    return _STEERING_OR_BREAK.sub(_escape, str(text))


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """What stands for the characters that a stream's encoding does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or c.encode("unicode_escape").decode() for c in missing), error.end


codecs.register_error(_ERRORS, _in_ascii)


class Stream(io.TextIOBase):
    """A text stream over `inner` that shows what would steer a terminal, and outlives its reader.

    Without a ``buffer``, so that click does not write UTF-8 past it to an ASCII terminal.

    Parameters
    ----------
    inner : text file
    sure : bool
        Whether what cannot be written is an error. A reader that is gone is none: it has had enough.
    raw : bool
        Pass everything: for a console of rich, whose texts were `shown` before it styles them.
    """

    def __init__(self, inner: TextIO, *, sure: bool, raw: bool = False) -> None:
        self._inner, self._sure, self._raw = inner, sure, raw

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._inner.encoding or "utf-8"

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._inner.errors

    def raw(self) -> Stream:
        """The same stream for a console."""
        return Stream(self._inner, sure=self._sure, raw=True)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._inner.isatty()

    def fileno(self) -> int:
        return self._inner.fileno()

    def write(self, text: str) -> int:
        with self._outliving():
            self._inner.write(text if self._raw else self._safe(text))
        return len(text)

    def flush(self) -> None:
        with self._outliving():
            self._inner.flush()

    def _safe(self, text: str) -> str:
        start = 0 if self._sure else _OF_PROGRESS.match(text).end()  # type: ignore[union-attr]
        return text[:start] + _STEERING.sub(_escape, text[start:])

    @contextlib.contextmanager
    def _outliving(self) -> Any:
        """Once a write failed, this and all that follows goes nowhere: the interpreter flushes again as it ends."""
        try:
            yield
        except OSError as error:
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._inner.fileno())
                os.close(nowhere)
            if self._sure and error.errno not in (errno.EPIPE, errno.EBADF):
                raise OSError(error.errno, error.strerror, "standard output") from error


def prepare() -> None:
    """Make stdout and stderr `Stream` objects. Call it before anything opens a file.

    A closed descriptor would become that of the next file that is opened: what a library prints would go into the store.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
    sys.stdout = _stream(sys.stdout, 1, sure=True)
    sys.stderr = _stream(sys.stderr, 2, sure=False)


def _stream(given: Any, descriptor: int, *, sure: bool) -> Any:
    if given is None:  # Python's own sign that it was closed
        given = open(descriptor, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (as long as the process)
    if isinstance(given, io.TextIOWrapper):
        given.reconfigure(errors=_ERRORS)
    return Stream(given, sure=sure)


def console(*, stderr: bool = False) -> Console:
    """A console of rich for texts that are `shown`, without markup, emoji codes or highlights."""
    from rich.console import Console

    stream: Any = sys.stderr if stderr else sys.stdout
    file: Any = stream.raw() if isinstance(stream, Stream) else stream
    return Console(file=file, markup=False, emoji=False, highlight=False, soft_wrap=not stderr and not stream.isatty())


def plain(text: object, to: Console) -> str:
    """`text` on one line as `to` can show it, so that columns keep their widths."""
    line = shown(text)
    return line if to.encoding.startswith("utf") else line.encode(to.encoding, _ERRORS).decode(to.encoding)


def say(line: object, *, stderr: bool = False) -> None:
    """One line for people, on stdout unless stdout is for machines; a terminal breaks it between words."""
    text = shown(line)
    if stderr or not sys.stdout.isatty():
        (sys.stderr if stderr else sys.stdout).write(text + "\n")
        return
    to = console()
    to.print(plain(text, to))


def print_json(document: Mapping[str, Any]) -> None:
    """One document on stdout, in ASCII where the stream has no other characters for it."""
    unicode = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    text = json.dumps(_finite(document), ensure_ascii=not unicode, default=str, allow_nan=False)
    sys.stdout.write(_STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def _finite(value: Any) -> Any:
    """`value` with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value
