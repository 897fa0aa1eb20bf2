"""A process that reads files and prepares payloads, outside of its parent's lock: what `ProcessReader` starts.

It says in JSON what became of each payload; bytes and pixels stay in shared memory. It ends when its parent is gone.
"""

from __future__ import annotations

import importlib
import mmap
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from embedstore._core.keys import hash_payload
from embedstore._core.messages import receive, send
from embedstore.errors import EmbedstoreError, EncoderError, PayloadError, one_line
from embedstore.sources.confined import Root
from embedstore.sources.files import read_into


class Preparing(NamedTuple):
    """What prepares the payloads of a space, and the shape of the arrays that it is to make."""

    factory: str
    call: Callable[[bytes], Any]
    shape: tuple[int, ...]


class Worker:
    """Answers the requests of one parent: a request's verb is a method."""

    def __init__(self) -> None:
        self._slabs: dict[int, memoryview] = {}
        self._spaces: dict[str, Preparing] = {}

    def hello(self) -> None:
        """It runs. What libraries print from now on is nobody's to read."""
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, sys.stderr.fileno())
        os.close(silence)

    def open(self, spaces: dict[str, Any]) -> None:
        """Make what prepares the payloads of each space, of (factory, arguments, shape)."""
        for name, (factory, arguments, shape) in spaces.items():
            module, _, attribute = factory.partition(":")
            call = getattr(importlib.import_module(module), attribute)(**arguments)
            self._spaces[name] = Preparing(factory, call, tuple(shape))

    def read(self, slab: int, root: str | None, each: Sequence[tuple[str, int, int]]) -> list[Any]:
        """Read files (path, offset, room) into a slab. Of each: size and hash, no hash if it filled its room, or a failure."""
        memory, inside = self._slabs[slab], None if root is None else Root(root).inside
        found: list[Any] = []
        for path, offset, room in each:
            try:
                size = read_into(path if inside is None else inside(path), memory[offset : offset + room])
                found.append([size, hash_payload(memory[offset : offset + size]).hex() if size < room else None])
            except PayloadError as error:
                found.append(_failure(error))
        return found

    def prepare(self, space: str, slab: int, pixels: int, at: int, each: Sequence[tuple[int, int, int]]) -> list[Any]:
        """Prepare payloads (place, offset, size) of a slab.

        An array goes into the slab `pixels`, to its place among those that begin at the byte `at`. Of each: None for an
        array, a list of what else its encoder is to know of it, or a failure.
        """
        preparing, memory, out = self._spaces[space], self._slabs[slab], self._slabs[pixels]
        found: list[Any] = []
        for place, offset, size in each:
            try:
                prepared = preparing.call(bytes(memory[offset : offset + size]))
            except PayloadError as error:
                found.append(_failure(error))
            except EmbedstoreError:
                raise
            except Exception as error:  # an encoder's own, or one of a library: it costs this payload alone
                found.append(_failure(PayloadError("decode", one_line(error))))
            else:
                found.append(_placed(prepared, preparing, out[at:], place))
        return found

    def map(self, slabs: Sequence[tuple[int, int]], descriptors: Sequence[int]) -> None:
        """Look at slabs (number, size) whose descriptors came along."""
        for (number, size), descriptor in zip(slabs, descriptors, strict=True):
            self._slabs[number] = memoryview(mmap.mmap(descriptor, size))
            os.close(descriptor)

    def forget(self, slabs: Sequence[int]) -> None:
        for number in slabs:
            self._slabs.pop(number, None)


def _failure(error: PayloadError) -> dict[str, str]:
    return {"stage": error.stage, "reason": error.reason}


def _placed(prepared: Any, preparing: Preparing, out: memoryview, place: int) -> list[Any] | None:
    if not isinstance(prepared, np.ndarray):
        return [prepared]
    if prepared.shape != preparing.shape or prepared.dtype != np.uint8:
        raise EncoderError(
            f"{preparing.factory} made an array of shape {prepared.shape}, {prepared.dtype}; its encoder declares "
            f"{preparing.shape}, uint8. Mend the encoder."
        )
    size = prepared.nbytes
    np.frombuffer(out[place * size : (place + 1) * size], np.uint8).reshape(prepared.shape)[...] = prepared
    return None


def serve(channel: socket.socket) -> None:
    """Answer until the parent is gone."""
    worker = Worker()
    while True:
        try:
            (verb, slabs, passing, arguments), descriptors = receive(channel)
        except EOFError:
            return
        try:
            try:
                worker.map(slabs, descriptors)
                send(channel, {"answer": getattr(worker, verb)(**arguments)})
            except OSError:
                raise
            except Exception as error:  # also of JSON, before anything was sent: what a preparation gave is not its kind
                ours = isinstance(error, EmbedstoreError)
                send(channel, {"error": type(error).__name__, "message": str(error) if ours else one_line(error, 200)})
            worker.forget(passing)
        except OSError:
            return


def main() -> None:
    """``python -m embedstore.ingest.read_worker DESCRIPTOR``: of the socket to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer: it closes the channel
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
