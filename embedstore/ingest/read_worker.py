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
from collections.abc import Callable
from typing import Any

import numpy as np

from embedstore._core.keys import hash_payload
from embedstore._core.messages import receive, send
from embedstore.errors import EmbedstoreError, PayloadError, one_line
from embedstore.sources.confined import Root
from embedstore.sources.files import read_into

Prepare = Callable[[bytes], Any]


class Worker:
    """Answers the requests of one parent."""

    def __init__(self) -> None:
        self._slabs: dict[int, memoryview] = {}
        self._prepare: dict[str, Prepare] = {}
        self._root: Root | None = None

    def open(self, spaces: dict[str, Any], root: str | None) -> Any:
        """Make what prepares the payloads of each space: (factory, arguments)."""
        self._root = None if root is None else Root(root)
        for name, (factory, arguments) in spaces.items():
            module, _, attribute = factory.partition(":")
            self._prepare[name] = getattr(importlib.import_module(module), attribute)(**arguments)
        return None

    def read(self, slab: int, first: int, each: list[tuple[str, int, int]]) -> list[Any]:
        """Read files (path, offset, room) into a slab. Of each: size and hash, no hash if it filled its room, or a failure."""
        memory = self._slabs[slab]
        found: list[Any] = []
        for path, offset, room in each:
            try:
                path = path if self._root is None else self._root.inside(path)
                size = read_into(path, memory[offset : offset + room])
                found.append([size, hash_payload(memory[offset : offset + size]).hex() if size < room else None])
            except PayloadError as error:
                found.append(_failure(error))
        return found

    def prepare(self, space: str, slab: int, pixels: int, first: int, each: list[tuple[int, int]]) -> list[Any]:
        """Prepare payloads that lie at (offset, size); an array goes into the slab `pixels`, the k-th to place `first` + k.

        Of each: None for an array, a list of what else its encoder is to know of it, or a failure.
        """
        prepare, memory, out = self._prepare[space], self._slabs[slab], self._slabs[pixels]
        found: list[Any] = []
        for place, (offset, size) in enumerate(each, first):
            try:
                prepared = prepare(bytes(memory[offset : offset + size]))
            except PayloadError as error:
                found.append(_failure(error))
            except EmbedstoreError:
                raise
            except Exception as error:  # an encoder's own, or one of a library: it costs this payload alone
                found.append(_failure(PayloadError("decode", one_line(error))))
            else:
                found.append(_placed(prepared, out, place))
        return found

    def map(self, slabs: list[tuple[int, int]], descriptors: list[int]) -> None:
        """Look at the slabs (number, size) whose descriptors came along."""
        for (number, size), descriptor in zip(slabs, descriptors, strict=True):
            self._slabs[number] = memoryview(mmap.mmap(descriptor, size))
            os.close(descriptor)


def _failure(error: PayloadError) -> dict[str, str]:
    return {"stage": error.stage, "reason": error.reason}


def _placed(prepared: Any, out: memoryview, place: int) -> list[Any] | None:
    if not isinstance(prepared, np.ndarray):
        return [prepared]
    size = prepared.nbytes
    np.frombuffer(out[place * size : (place + 1) * size], np.uint8).reshape(prepared.shape)[...] = prepared
    return None


def serve(channel: socket.socket) -> None:
    """Answer until the parent is gone."""
    worker = Worker()
    while True:
        try:
            (verb, slabs, arguments), descriptors = receive(channel)
        except EOFError:
            return
        try:
            worker.map(slabs, descriptors)
            answer = {"answer": getattr(worker, verb)(**arguments)}
        except Exception as error:
            ours = isinstance(error, EmbedstoreError)
            answer = {"error": type(error).__name__, "message": str(error) if ours else one_line(error, 200)}
        try:
            send(channel, answer)
        except OSError:
            return


def main() -> None:
    """``python -m embedstore.ingest.read_worker DESCRIPTOR``: of the socket to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer: it closes the channel
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
