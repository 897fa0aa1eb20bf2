"""Images that lie one behind the other go to a device in one copy; shared memory is locked for it, and let go."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from embedstore._core.slabs import SLAB, Slabs
from embedstore.encoders import load_encoder
from embedstore.encoders.runtimes.pytorch import TorchRuntime
from embedstore.encoders.runtimes.streams import page_locked, runs, writeable


def test_what_lies_together_is_one_piece() -> None:
    whole = np.arange(6 * 12, dtype=np.uint8).reshape(6, 2, 3, 2)
    other = np.full((2, 3, 2), 200, np.uint8)
    images = [whole[0], whole[1], whole[2], whole[4], whole[5], other, other.copy(), whole[3][:, ::-1], whole[4]]
    pieces = list(runs(images))
    assert [len(piece) for piece in pieces] == [3, 2, 1, 1, 1, 1]
    assert pieces[0].base is not None
    assert np.shares_memory(pieces[0], whole)
    np.testing.assert_array_equal(np.concatenate(pieces), np.stack(images))


def test_a_slab_is_one_piece_a_group() -> None:
    slabs = Slabs()
    groups = [slabs.take(40).memory[:40].reshape(4, 10) for _ in range(2)]
    for i, group in enumerate(groups):
        group[:] = np.arange(40).reshape(4, 10) + i
    images = [image for group in groups for image in group]
    assert [len(piece) for piece in runs(images)] == [4, 4]
    np.testing.assert_array_equal(np.concatenate(list(runs(images))), np.stack(images))
    np.testing.assert_array_equal(TorchRuntime("cpu", "auto").tensor(images).numpy(), np.stack(images))


@pytest.mark.parametrize("refused", [0, 2])
@pytest.mark.parametrize("device", ["cuda:1", "cuda"])
def test_shared_memory_is_locked_while_it_is_mapped(refused: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whichever thread, on the GPU that it is for."""
    said: list[tuple[str, Any]] = []
    current = ["cuda:0"]

    @contextmanager
    def on(entered: Any) -> Iterator[None]:
        current.append(entered)
        yield
        current.pop()

    def asked() -> Any:
        assert current[-1] == device
        return SimpleNamespace(
            cudaHostRegister=lambda address, size, flags: said.append(("lock", (size, flags, current[-1]))) or refused,
            cudaHostUnregister=lambda address: said.append(("unlock", current[-1])),
        )

    monkeypatch.setattr(torch.cuda, "cudart", asked)
    monkeypatch.setattr(torch.cuda, "device", on)
    slabs = Slabs(partial(page_locked, device=device))
    block = slabs.take(100_000, pinned=True)
    assert block.memory.ctypes.data % 4096 == 0
    del block, slabs
    assert said == [("lock", (SLAB, 1, device)), *([] if refused else [("unlock", device)])]


@pytest.mark.parametrize(
    ("asked", "locked"), [("cuda", "cuda"), ("auto", "cuda"), ("cuda:3", "cuda:3"), ("cuda:2,cuda:0", "cuda:2")]
)
def test_memory_is_locked_on_the_first_gpu_that_was_asked_for(asked: str, locked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder: Any = load_encoder("effnet-lite0", "image", device=asked, runtime="torch")
    encoder.__dict__.update(_on_gpu=True, _jpegs=None)
    pin: Any = encoder.outside.pin
    assert (pin.func, pin.keywords) == (page_locked, {"device": locked})


@pytest.mark.parametrize("strided", [False, True])
def test_read_only_memory_is_a_tensor_s_without_a_copy(strided: bool) -> None:
    """As the pixels are that Pillow's memory holds. torch warns of it once a process."""
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)[:, :: 2 if strided else 1]
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = torch.from_numpy(writeable(array))
    np.testing.assert_array_equal(tensor.numpy(), array)
    assert np.shares_memory(tensor.numpy(), array)
    assert not array.flags.writeable


def test_memory_seen_as_writeable_lives_as_long_as_it_is_seen() -> None:
    array = np.arange(5)
    array.flags.writeable = False
    seen, alive = writeable(array)[1:], weakref.ref(array)
    del array
    assert alive() is not None
    del seen
    assert alive() is None
