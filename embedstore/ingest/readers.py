"""Who reads payloads and prepares them: threads of this process, a few payloads at a time.

To hand over one payload at a time takes longer than to read it. `ProcessReader` does the same in processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from embedstore._core.arguments import TIMEOUT
from embedstore._core.keys import hash_payload
from embedstore._core.message_parts import packed
from embedstore._core.slabs import Shared
from embedstore.encoders.base import Encoder, prepare_all, prepare_one, stands_for
from embedstore.errors import EncoderError, PayloadError
from embedstore.sources.confined import Root
from embedstore.sources.files import read_payload

T = TypeVar("T")
Payload = bytes | Shared


class ToRead(NamedTuple):
    """One payload.

    Parameters
    ----------
    uri : str
    payload : bytes, optional
        If it came with its item; else the uri is to be read.
    size : int, optional
        Of the local file when its item was planned.
    parts : sequence of (str, ToRead)
        What a message is made of, by the columns' names; the rest says nothing then.
    """

    uri: str
    payload: bytes | None = None
    size: int | None = None
    parts: Sequence[tuple[str, ToRead]] = ()

    @property
    def held(self) -> int:
        """Bytes, as far as they are known."""
        own = len(self.payload) if self.payload is not None else self.size or 0
        return own + sum(part.held for _, part in self.parts)


@dataclass(frozen=True)
class Group:
    """Payloads (n,) that were read together, or why each could not be; and their content hashes, 16 bytes each."""

    payloads: Sequence[Payload | PayloadError]
    digests: Sequence[bytes]


class Reader(Protocol):
    """Is called from many threads at once."""

    def read(self, work: Sequence[ToRead]) -> Group:
        """Read and hash."""

    def prepare(self, encoder: Encoder, payloads: Sequence[Payload]) -> list[Any]:
        """What the encoder makes of payloads of a `Group`, or the `PayloadError` that each costs."""

    def abandon(self) -> None:
        """Nobody waits for answers any more: who is asked gives up."""

    def close(self) -> None:
        """No more is to be read."""


class ThreadReader:
    """Reads and prepares in the thread that calls it.

    Parameters
    ----------
    timeout : float
        Seconds that a read from a URL may take.
    root : Root, optional
        The folder that payloads have to lie in.
    """

    def __init__(self, timeout: float = TIMEOUT, root: Root | None = None) -> None:
        self._timeout = timeout
        self._root = root
        self._over = False

    def read(self, work: Sequence[ToRead]) -> Group:
        payloads = [self._payload(one) for one in self._unless_over(work)]
        return Group(payloads, [b"" if isinstance(p, PayloadError) else hash_payload(p) for p in payloads])

    def prepare(self, encoder: Encoder, payloads: Sequence[Payload]) -> list[Any]:
        if stands_for(encoder, "prepare_batch", "prepare"):
            return prepare_all(encoder, [bytes(payload) for payload in payloads])
        return [prepare_one(encoder, bytes(payload)) for payload in self._unless_over(payloads)]

    def abandon(self) -> None:
        self._over = True

    def close(self) -> None:
        pass

    def _unless_over(self, some: Iterable[T]) -> Iterator[T]:
        for one in some:
            if self._over:
                raise EncoderError("The run is over; nothing more is read.")
            yield one

    def _payload(self, one: ToRead) -> bytes | PayloadError:
        if one.payload is not None:
            return one.payload
        if one.parts:
            return self._message(one)
        try:
            return read_payload(one.uri, timeout=self._timeout, root=self._root)
        except PayloadError as error:
            return error

    def _message(self, one: ToRead) -> bytes | PayloadError:
        found = []
        for name, part in one.parts:
            payload = self._payload(part)
            if isinstance(payload, PayloadError):
                return PayloadError(payload.stage, f"{name}: {payload.reason}")
            found.append((name, payload))
        return packed(found)
