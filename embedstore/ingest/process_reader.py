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
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
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
LARGE = 1 << 20
"""Files of more bytes are read here: they keep Python's lock for next to nothing of what they take, and fill shared memory."""
PATIENCE = 5.0
"""Seconds that a process may take to end when it is no longer needed."""
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)
"""Signals that say nothing about the payload that a process was at: the system ran out of memory, or somebody ended it."""


class ProcessReader:
    """Reads small local files and prepares payloads in processes; what else there is, in the thread that calls it.

    Processes are started as they are needed.

    Parameters
    ----------
    count : int
        Processes at most; of more threads that call, some wait.
    encoders : sequence of Encoder
        Those with `Outside` are prepared for in processes.
    timeout : float
        Seconds that a read from a URL may take.
    root : Root, optional
        The folder that payloads have to lie in.
    """

    def __init__(self, count: int, encoders: Sequence[Encoder], timeout: float, root: Root | None = None) -> None:
        self._threads = ThreadReader(timeout, root)
        self._root = None if root is None else root.folder
        self._outside = {id(encoder): (str(i), given) for i, encoder in enumerate(encoders) if (given := outside_of(encoder))}
        pins = [given.pin for _, given in self._outside.values() if given.pin is not None]
        self._slabs = Slabs(pins[0] if pins else None)
        self._opening = threading.Lock()
        self._all = [_Process(self._spaces) for _ in range(count)]
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        for process in self._all:
            self._idle.put(process)

    def read(self, work: Sequence[ToRead]) -> Group:
        payloads: list[Payload | PayloadError | None] = [None] * len(work)
        digests = [b""] * len(work)
        for i, payload, digest in self._files([i for i, one in enumerate(work) if _is_small(one)], work):
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
            pixels = self._slabs.take(size * len(indices), pinned=True)
            images = pixels.memory[: size * len(indices)].reshape(-1, *given.shape)
            arguments = {"space": name, "slab": slab.number, "pixels": pixels.slab.number, "at": pixels.offset}
            placed = [[place, *where] for place, where in enumerate(at)]
            said = self._said("prepare", [slab, pixels.slab], arguments, placed)
            kept = sum(len(payloads[i]) for i, one in zip(indices, said, strict=True) if isinstance(one, list))
            alone = 2 * kept < sum(size for _, size in at)  # few of a group: they are not to hold the memory of all
            for k, (i, one) in enumerate(zip(indices, said, strict=True)):
                if isinstance(one, list):
                    out[i] = given.kept(bytes(payloads[i]) if alone else _viewed(payloads[i]), one[0])
                else:
                    out[i] = images[k] if one is None else one
        return out

    def abandon(self) -> None:
        """Nobody waits for answers any more: processes are ended, whatever they are at."""
        self._threads.abandon()
        for process in self._all:
            process.kill()

    def close(self) -> None:
        for process in self._all:
            process.hang_up()
        for process in self._all:
            process.end()

    def _spaces(self) -> dict[str, Any]:
        """What processes make their preparations of; it may be known only once a model is open."""
        with self._opening:
            return {name: (given.factory, dict(given.arguments()), given.shape) for name, given in self._outside.values()}

    def _files(self, small: Sequence[int], work: Sequence[ToRead]) -> Iterable[tuple[int, Payload | PayloadError, bytes]]:
        """Position, payload and hash of files; none of one that has grown since it was planned."""
        if not small:
            return
        rooms = [int(work[i].size or 0) + MARGIN for i in small]
        starts = np.cumsum([0, *rooms]).tolist()
        block = self._slabs.take(starts[-1])
        files = [[work[i].uri, block.offset + start, room] for i, start, room in zip(small, starts, rooms, strict=False)]
        arguments = {"slab": block.slab.number, "root": self._root}
        for i, start, said in zip(small, starts, self._said("read", [block.slab], arguments, files), strict=False):
            if isinstance(said, PayloadError):
                yield i, said, b""
            elif said[1] is not None:
                yield i, Shared(block, start, said[0]), bytes.fromhex(said[1])

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
            starts = np.cumsum([0, *(len(payloads[i]) for i in given)]).tolist()
            block = self._slabs.take(starts[-1])
            for i, start in zip(given, starts, strict=False):
                block.memory[start : start + len(payloads[i])] = np.frombuffer(bytes(payloads[i]), np.uint8)
            yield block.slab, [[block.offset + at, len(payloads[i])] for i, at in zip(given, starts, strict=False)], given

    def _said(self, verb: str, slabs: Sequence[Slab], arguments: Mapping[str, Any], each: list[list[Any]]) -> list[Any]:
        """What a process says of `each`, in order; `PayloadError` of what failed, and of what ended the process."""
        process = self._idle.get()
        try:
            with suppress(_EndedError):
                return _read(process.ask(verb, slabs, {**arguments, "each": each}))
            found = []
            for one in each:
                try:
                    found += _read(process.ask(verb, slabs, {**arguments, "each": [one]}))
                except _EndedError as ended:
                    found.append(PayloadError("read" if ended.from_outside or verb == "read" else "decode", str(ended)))
            return found
        finally:
            self._idle.put(process)


def _is_small(one: ToRead) -> bool:
    """Whether it is a local file for a process to read."""
    return one.payload is None and not one.parts and one.size is not None and one.size <= LARGE and not is_url(one.uri)


def _viewed(payload: Payload) -> bytes | memoryview:
    """The bytes of a payload, not copied."""
    return payload.view if isinstance(payload, Shared) else payload


def _read(said: list[Any]) -> list[Any]:
    return [PayloadError(one["stage"], one["reason"]) if isinstance(one, dict) else one for one in said]


class _EndedError(Exception):
    """A process ended before it had answered."""

    def __init__(self, code: int) -> None:
        self.from_outside = -code in FROM_OUTSIDE
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        again = "; the next run tries again" if self.from_outside else ""
        super().__init__(f"the process that was to do it {how}{again}")


class _Process:
    """A process that is started when it is first asked, and again after it has died.

    Parameters
    ----------
    spaces : callable
        Gives what `Worker.open` takes; called before the first payload is prepared.
    """

    def __init__(self, spaces: Callable[[], Mapping[str, Any]]) -> None:
        self._spaces = spaces
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._known: set[int] = set()
        self._opened = False
        self._over = False

    def ask(self, verb: str, slabs: Sequence[Slab], arguments: Mapping[str, Any]) -> Any:
        """The answer to a request that is about `slabs`.

        Raises
        ------
        EncoderError
            Processes cannot be started, or what prepares cannot; or the run is over.
        _EndedError
        """
        if self._over:
            raise EncoderError("The run is over; nothing more is read.")
        if self._channel is None:
            self._start()
        if verb == "prepare" and not self._opened:
            self._answer("open", [], {"spaces": self._spaces()})
            self._opened = True
        return self._answer(verb, slabs, arguments)

    def hang_up(self) -> None:
        """The process ends when it has answered."""
        self._over = True
        self._let_go()

    def kill(self) -> None:
        """The process ends now; who waits for its answer is told."""
        self._over = True
        if (process := self._process) is not None:
            process.kill()

    def end(self) -> None:
        """Wait until it has ended."""
        if (process := self._process) is not None:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._process = None

    def _let_go(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)  # an embedstore that was found so is found so there
        with theirs, tempfile.TemporaryFile() as said:
            self._process = subprocess.Popen(
                # -P: not from the folder that it is started in, which may be anybody's dataset
                [sys.executable, "-P", "-m", "embedstore.ingest.read_worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            )
            self._channel, self._known, self._opened = ours, set(), False
            theirs.close()
            try:
                self._answer("hello", [], {})
            except _EndedError as ended:
                said.seek(0)
                last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise EncoderError(f"A process that reads files could not be started ({last or ended}).") from ended

    def _answer(self, verb: str, slabs: Sequence[Slab], arguments: Mapping[str, Any]) -> Any:
        channel = self._channel
        distinct = {slab.number: slab for slab in slabs}
        fresh = [slab for slab in distinct.values() if slab.number not in self._known]
        passing = [slab.number for slab in fresh if slab.passing]
        try:
            if channel is None:
                raise EOFError
            named = [[slab.number, slab.size] for slab in fresh]
            send(channel, [verb, named, passing, dict(arguments)], [slab.fd for slab in fresh])
            answer, _ = receive(channel)
        except (OSError, EOFError):
            raise self._ended() from None
        self._known.update(slab.number for slab in fresh if not slab.passing)
        if "error" in answer:
            raise EncoderError(answer["message"])
        return answer["answer"]

    def _ended(self) -> _EndedError:
        process = self._process
        self._let_go()
        self.end()
        return _EndedError(0 if process is None else process.returncode)
