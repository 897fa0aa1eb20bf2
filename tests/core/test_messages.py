"""Messages over a socket: what was said, and files that came along."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from embedstore._core.messages import receive, send
from embedstore._core.slabs import Shared, Slabs


def test_what_is_sent_arrives_with_its_files(tmp_path: Path) -> None:
    here, there = socket.socketpair()
    large = ["x" * 300_000, os.fsdecode(b"\xff"), {"é": [1, None]}]
    (tmp_path / "file").write_bytes(b"content")
    with open(tmp_path / "file", "rb") as file:
        sending = threading.Thread(target=send, args=(here, large, [file.fileno()]))
        sending.start()
        message, descriptors = receive(there)
        sending.join()
    assert message == large
    assert os.read(descriptors[0], 10) == b"content"
    os.close(descriptors[0])
    send(here, 1)
    send(here, 2)
    assert [receive(there), receive(there)] == [(1, []), (2, [])]


@pytest.mark.parametrize("sent", [b"", b"\5\0\0", (5).to_bytes(8, "little") + b"[1"])
def test_a_side_that_is_gone_is_the_end(sent: bytes) -> None:
    here, there = socket.socketpair()
    here.sendall(sent)
    here.close()
    with pytest.raises(EOFError):
        receive(there)


def test_pinned_memory_is_let_go_before_it_is_given_back() -> None:
    said = []

    def pin(memory: object) -> object:
        said.append("pinned")
        return lambda: said.append("let go")

    slabs = Slabs(pin)  # type: ignore[arg-type]
    slab, memory = slabs.take(10, pinned=True)
    assert slabs.take(10)[0].size == slab.size
    assert said == ["pinned"]
    shared = Shared(slab, memory, 2, 3)
    memory[:] = 7
    del memory
    assert slabs.take(10, pinned=True)[0] is not slab  # `shared` still looks at it
    assert (bytes(shared), bytes(shared.view), len(shared)) == (b"\7\7\7", b"\7\7\7", 3)
    del shared
    assert slabs.take(10, pinned=True)[0] is slab
    del slab, slabs
    assert said == ["pinned", "pinned", "let go", "let go"]
