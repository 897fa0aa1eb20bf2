"""Clients that ask one server as fast as it answers, over connections that stay open; bytes in, bytes and times out."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Load:
    """What clients saw: seconds of each answer, and what was no answer."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    wall: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.seconds) / max(self.wall, 1e-9)

    def percentile(self, share: float) -> float:
        """Milliseconds."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def request_of(body: Any, path: str = "/v1/search") -> bytes:
    """A POST as it goes over the wire."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def load(port: int, requests: Sequence[bytes], *, clients: int, seconds: float = 5.0, count: int | None = None) -> Load:
    """Ask with so many clients for so long, or `count` requests in all."""
    return asyncio.run(_load(port, requests, clients, seconds, count))


async def _load(port: int, requests: Sequence[bytes], clients: int, seconds: float, count: int | None) -> Load:
    found = Load()
    started = time.perf_counter()
    left = [count if count is not None else 10**12]

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        at = number * 7919
        while left[0] > 0 and (count is not None or time.perf_counter() - started < seconds):
            left[0] -= 1
            at += 1
            before = time.perf_counter()
            writer.write(requests[at % len(requests)])
            status, body = await answer(reader)
            found.seconds.append(time.perf_counter() - before)
            if status != 200:
                found.errors.append(f"{status} {body[:100]!r}")
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    found.wall = time.perf_counter() - started
    return found


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of one answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
    return int(lines[0].split(b" ")[1]), await reader.readexactly(length)
