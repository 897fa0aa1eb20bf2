"""Messages between a process and one that it has started: JSON and file descriptors over a socket. Standard library only.

No pickle: a process that is given hostile files to decode has nothing to say that its parent would execute.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

_HEADER = struct.Struct("<Q")
MOST_DESCRIPTORS = 64


def send(channel: socket.socket, message: Any, descriptors: Sequence[int] = ()) -> None:
    """Send what JSON can say, and open files.

    Raises
    ------
    OSError
        The other side is gone.
    """
    body = json.dumps(message).encode()  # ASCII: file names that are not Unicode travel as lone surrogates
    socket.send_fds(channel, [_HEADER.pack(len(body))], list(descriptors))
    channel.sendall(body)


def receive(channel: socket.socket) -> tuple[Any, list[int]]:
    """The next message and the open files that came with it.

    Raises
    ------
    EOFError
        The other side is gone.
    """
    header, descriptors, _, _ = socket.recv_fds(channel, _HEADER.size, MOST_DESCRIPTORS)
    if len(header) < _HEADER.size:
        header += _exactly(channel, _HEADER.size - len(header))
    return json.loads(_exactly(channel, *_HEADER.unpack(header))), list(descriptors)


def _exactly(channel: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        try:
            more = channel.recv(min(size - len(found), 1 << 20))
        except ConnectionError:
            more = b""
        if not more:
            raise EOFError("the other side of the channel is gone")
        found += more
    return bytes(found)
