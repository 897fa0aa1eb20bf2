"""Messages over a socket: what was said, and files that came along."""

from __future__ import annotations

import os
import socket
import threading
import weakref
from pathlib import Path

import pytest

from embedstore._core.messages import receive, send
from embedstore._core.slabs import SLAB, Shared, Slabs


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
    block = slabs.take(SLAB, pinned=True)
    slab, start = block.slab, 2
    assert slabs.take(10).slab is not slab
    assert said == ["pinned"]
    shared = Shared(block, start, 3)
    block.memory[:] = 7
    del block
    assert slabs.take(SLAB, pinned=True).slab is not slab  # `shared` still looks at it
    assert (bytes(shared), bytes(shared.view), len(shared)) == (b"\7\7\7", b"\7\7\7", 3)
    del shared
    assert slabs.take(SLAB, pinned=True).slab is slab
    del slab, slabs
    assert said == ["pinned", "pinned", "let go", "let go"]


def test_blocks_are_apart_and_few_slabs_are_made() -> None:
    slabs = Slabs()
    held = [slabs.take(100_000) for _ in range(1000)]
    for i, block in enumerate(held):
        block.memory[:] = i % 251
    assert all((block.memory == i % 251).all() for i, block in enumerate(held))
    assert len({block.slab.number for block in held}) == 2  # 512 of 128 KiB in each
    assert len({(block.slab.number, block.offset) for block in held}) == 1000


def test_what_is_larger_than_a_slab_is_let_go_with_its_last_view() -> None:
    block = Slabs().take(SLAB + 1)
    assert (block.slab.passing, len(block.memory)) == (True, SLAB + 1)
    slab = weakref.ref(block.slab)
    del block
    assert slab() is None
