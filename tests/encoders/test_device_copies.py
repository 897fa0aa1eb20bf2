"""Images that lie one behind the other go to a device in one copy; shared memory is locked for it, and let go."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from embedstore._core.slabs import SLAB, Slabs
from embedstore.encoders.runtimes.pytorch import TorchRuntime
from embedstore.encoders.runtimes.streams import page_locked, runs


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
def test_shared_memory_is_locked_while_it_is_mapped(refused: int, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, Any]] = []
    runtime = SimpleNamespace(
        cudaHostRegister=lambda address, size, flags: said.append(("lock", (size, flags))) or refused,
        cudaHostUnregister=lambda address: said.append(("unlock", None)),
    )
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    slabs = Slabs(page_locked)
    block = slabs.take(100_000, pinned=True)
    assert block.memory.ctypes.data % 4096 == 0
    del block, slabs
    assert said == [("lock", (SLAB, 1)), *([] if refused else [("unlock", None)])]
