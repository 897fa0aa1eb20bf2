"""Reading and preparing in processes: as many payloads a second as there are processors, whatever Python's lock allows.

Each process is called by one thread at a time. Bytes and pixels lie in shared memory, which a device may copy from directly.
A payload that ends a process costs itself: the process is started again, and its other payloads are asked for one by one.
"""

from __future__ import annotations

import math
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from embedstore._core.messages import receive, send
from embedstore._core.slabs import Shared, Slab, Slabs
from embedstore.encoders.base import Encoder, outside_of
from embedstore.errors import EncoderError, PayloadError
from embedstore.ingest.readers import Group, Payload, ThreadReader, ToRead
from embedstore.sources.confined import Root
from embedstore.sources.files import is_url

MARGIN = 1
"""Bytes of room after each file: one that has grown fills it."""
PATIENCE = 5.0
"""Seconds that a process may take to end when it is no longer needed."""


class ProcessReader:
    """Reads local files and prepares payloads in processes; what else there is, in the thread that calls it.

    Parameters
    ----------
    count : int
        Processes, as many as threads that call.
    encoders : sequence of Encoder
        Those with `Outside` are prepared for in processes.
    timeout : float
        Seconds that a read from a URL may take.
    root : Root, optional
        The folder that payloads have to lie in.
    """

    def __init__(self, count: int, encoders: Sequence[Encoder], timeout: float, root: Root | None = None) -> None:
        self._threads = ThreadReader(timeout, root)
        self._outside = {id(encoder): (str(i), given) for i, encoder in enumerate(encoders) if (given := outside_of(encoder))}
        pins = [given.pin for _, given in self._outside.values() if given.pin is not None]
        self._slabs = Slabs(pins[0] if pins else None)
        spaces = {name: (given.factory, dict(given.arguments)) for name, given in self._outside.values()}
        opening = {"spaces": spaces, "root": None if root is None else root.folder}
        self._all = [_Process(opening) for _ in range(count)]
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        for process in self._all:
            self._idle.put(process)

    def read(self, work: Sequence[ToRead]) -> Group:
        payloads: list[Payload | PayloadError | None] = [None] * len(work)
        digests = [b""] * len(work)
        local = [i for i, one in enumerate(work) if one.payload is None and one.size is not None and not is_url(one.uri)]
        for i, payload, digest in self._files(local, work):
            payloads[i], digests[i] = payload, digest
        rest = [i for i, payload in enumerate(payloads) if payload is None]
        there = self._threads.read([work[i] for i in rest])
        for i, payload, digest in zip(rest, there.payloads, there.digests, strict=True):
            payloads[i], digests[i] = payload, digest
        return Group([payload for payload in payloads if payload is not None], digests)

    def prepare(self, encoder: Encoder, payloads: Sequence[Payload]) -> list[Any]:
        if id(encoder) not in self._outside:
            return self._threads.prepare(encoder, payloads)
        name, given = self._outside[id(encoder)]
        out: list[Any] = [None] * len(payloads)
        for slab, at, indices in self._places(payloads):
            size = math.prod(given.shape)
            pixels, memory = self._slabs.take(size * len(indices), pinned=True)
            arguments = {"space": name, "slab": slab.number, "pixels": pixels.number}
            images = memory[: size * len(indices)].reshape(-1, *given.shape)
            for k, (i, said) in enumerate(zip(indices, self._said("prepare", [slab, pixels], arguments, at), strict=True)):
                if isinstance(said, PayloadError):
                    out[i] = said
                else:
                    out[i] = images[k] if said is None else given.kept(_viewed(payloads[i]), said[0])
        return out

    def close(self) -> None:
        for process in self._all:
            process.hang_up()
        for process in self._all:
            process.end()

    def _files(self, local: Sequence[int], work: Sequence[ToRead]) -> Iterable[tuple[int, Payload | PayloadError, bytes]]:
        """Position, payload and hash of local files; none of one that has grown since it was planned."""
        if not local:
            return
        rooms = [int(work[i].size or 0) + MARGIN for i in local]
        offsets = np.cumsum([0, *rooms]).tolist()
        slab, memory = self._slabs.take(offsets[-1])
        files = [[work[i].uri, offset, room] for i, offset, room in zip(local, offsets, rooms, strict=False)]
        for i, offset, said in zip(local, offsets, self._said("read", [slab], {"slab": slab.number}, files), strict=False):
            if isinstance(said, PayloadError):
                yield i, said, b""
            elif said[1] is not None:
                yield i, Shared(slab, memory, offset, said[0]), bytes.fromhex(said[1])

    def _places(self, payloads: Sequence[Payload]) -> Iterable[tuple[Slab, list[list[int]], list[int]]]:
        """Slabs that hold the payloads, (offset, size) of each there, and which they are; bytes are copied into one."""
        there: dict[int, tuple[Slab, list[list[int]], list[int]]] = {}
        for i, payload in enumerate(payloads):
            if isinstance(payload, Shared):
                _, at, indices = there.setdefault(payload.slab.number, (payload.slab, [], []))
                at.append([payload.offset, len(payload)])
                indices.append(i)
        yield from there.values()
        given = [i for i, payload in enumerate(payloads) if not isinstance(payload, Shared)]
        if given:
            offsets = np.cumsum([0, *(len(payloads[i]) for i in given)]).tolist()
            slab, memory = self._slabs.take(offsets[-1])
            for i, offset in zip(given, offsets, strict=False):
                memory[offset : offset + len(payloads[i])] = np.frombuffer(bytes(payloads[i]), np.uint8)
            yield slab, [[offset, len(payloads[i])] for i, offset in zip(given, offsets, strict=False)], given

    def _said(self, verb: str, slabs: Sequence[Slab], arguments: Mapping[str, Any], each: list[list[Any]]) -> list[Any]:
        """What a process says of `each`, in order; `PayloadError` of what failed, and of what ended the process."""
        process = self._idle.get()
        try:
            with suppress(_EndedError):
                return _read(process.ask(verb, slabs, {**arguments, "first": 0, "each": each}))
            found = []
            for i, one in enumerate(each):
                try:
                    found += _read(process.ask(verb, slabs, {**arguments, "first": i, "each": [one]}))
                except _EndedError as died:
                    found.append(PayloadError("read" if verb == "read" else "decode", str(died)))
            return found
        finally:
            self._idle.put(process)


def _viewed(payload: Payload) -> bytes | memoryview:
    """The bytes of a payload, not copied."""
    return payload.view if isinstance(payload, Shared) else payload


def _read(said: list[Any]) -> list[Any]:
    return [PayloadError(one["stage"], one["reason"]) if isinstance(one, dict) else one for one in said]


class _EndedError(Exception):
    """A process ended before it had answered."""


class _Process:
    """A process that is started when it is first asked, and again after it has died."""

    def __init__(self, opening: Mapping[str, Any]) -> None:
        self._opening = opening
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._known: set[int] = set()

    def ask(self, verb: str, slabs: Sequence[Slab], arguments: Mapping[str, Any]) -> Any:
        """The answer to a request that is about `slabs`.

        Raises
        ------
        EncoderError
            Processes cannot be started, or what prepares cannot.
        _EndedError
        """
        if self._channel is None:
            self._start()
        return self._answer(verb, slabs, arguments)

    def hang_up(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def end(self) -> None:
        """Wait until it has ended; it does when its channel is closed."""
        if self._process is not None:
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)  # an embedstore that was found so is found so there
        with theirs, tempfile.TemporaryFile() as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "embedstore.ingest.read_worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            )
            self._channel, self._known = ours, set()
            theirs.close()
            try:
                self._answer("open", [], self._opening)
            except _EndedError as died:
                said.seek(0)
                last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise EncoderError(f"A process that reads files could not be started ({last or died}).") from died

    def _answer(self, verb: str, slabs: Sequence[Slab], arguments: Mapping[str, Any]) -> Any:
        assert self._channel is not None
        fresh = [slab for slab in {slab.number: slab for slab in slabs}.values() if slab.number not in self._known]
        try:
            named = [[slab.number, slab.size] for slab in fresh]
            send(self._channel, [verb, named, dict(arguments)], [slab.fd for slab in fresh])
            answer, _ = receive(self._channel)
        except (OSError, EOFError):
            raise self._died() from None
        self._known.update(slab.number for slab in fresh)
        if "error" in answer:
            raise EncoderError(answer["message"])
        return answer["answer"]

    def _died(self) -> _EndedError:
        process = self._process
        self.hang_up()
        self.end()
        code = 0 if process is None else process.returncode
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        return _EndedError(f"the process that was to do it {how}")
