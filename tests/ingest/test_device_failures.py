"""What an encoder's device does to a run: a dead one ends it and blames no payload, a full one is given half as much."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedstore as es
from embedstore.encoders.hash import HashEncoder
from embedstore.errors import EncoderError, EncoderOutOfMemoryError
from embedstore.sources import MemorySource

TEXTS = [f"text {i}" for i in range(9000)]
SOURCE = {"id": list(map(str, range(len(TEXTS)))), "text": TEXTS}


class OnDevice(HashEncoder):
    """Its device does `work` with each batch before there are vectors."""

    batch_size = 64

    def __init__(self, work: Callable[[list[bytes]], Any]) -> None:
        super().__init__(8, "text", "hash:8")
        self.work = work

    def encode(self, batch: Any) -> Any:
        self.work(batch)
        return super().encode(batch)


class Ahead(OnDevice):
    """One whose errors show when the vectors are waited for."""

    def start(self, batch: Any) -> Any:
        return lambda: self.encode(batch)


class AtOnce(OnDevice):
    """One whose errors show when a batch is begun."""

    def start(self, batch: Any) -> Any:
        vectors = self.encode(batch)
        return lambda: vectors


@pytest.mark.parametrize("kind", [OnDevice, Ahead, AtOnce])
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronous"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
        EncoderError("cuda failed (CUDA error: uncorrectable ECC error encountered)."),
    ],
    ids=["memory access", "cublas", "ecc"],
)
def test_a_dead_device_ends_the_run_and_no_payload_has_failed(kind: Any, error: Exception, tmp_path: Path) -> None:
    def dies(batch: list[bytes]) -> None:
        if b"text 7000" in batch or dead:
            dead.append(True)
            raise error

    dead: list[bool] = []
    with pytest.raises(EncoderError, match="failed") as raised:
        es.embed(MemorySource(SOURCE), tmp_path / "s", text=kind(dies))
    assert "\n" not in str(raised.value)
    space = es.Store.open(tmp_path / "s").space("text")
    assert (len(space.vectors()), space.failures.num_rows) == (4096, 0), "what came before is kept, nothing is blamed"
    report = es.embed(MemorySource(SOURCE), tmp_path / "s", text="hash:8")
    assert (report.spaces["text"].embedded, report.spaces["text"].failed) == (len(TEXTS) - 4096, 0)


class Activations:
    """Stands for memory of a forward pass."""


@pytest.mark.parametrize("kind", [OnDevice, Ahead, AtOnce])
@pytest.mark.parametrize("error", [EncoderOutOfMemoryError("full"), RuntimeError("CUDA error: out of memory")], ids=str)
def test_what_did_not_fit_is_gone_before_half_of_it_is_tried(kind: Any, error: Exception, tmp_path: Path) -> None:
    alive: weakref.WeakSet[Activations] = weakref.WeakSet()
    sizes: list[int] = []

    def fits_20(batch: list[bytes]) -> None:
        assert len(alive) == 0, "the batch that did not fit still holds its memory"
        held = Activations()
        alive.add(held)
        sizes.append(len(batch))
        if len(batch) > 20:
            raise error

    report = es.embed(MemorySource(SOURCE), tmp_path / "s", text=kind(fits_20))
    assert (report.spaces["text"].embedded, report.spaces["text"].failed) == (len(TEXTS), 0)
    assert max(sizes[-5:]) == 16, "half of half of 64 fits, and stays"
    expected = HashEncoder(8, "text").encode([text.encode() for text in TEXTS])
    np.testing.assert_array_equal(es.Store.open(tmp_path / "s").space("text").vectors(), expected.astype(np.float16))


def test_one_payload_that_does_not_fit_ends_the_run_with_a_line(tmp_path: Path) -> None:
    def full(batch: list[bytes]) -> None:
        raise EncoderOutOfMemoryError("cuda ran out of memory.")

    with pytest.raises(EncoderOutOfMemoryError, match=r"^cuda ran out of memory\.$"):
        es.embed(MemorySource(SOURCE), tmp_path / "s", text=OnDevice(full))
    report = es.embed(MemorySource(SOURCE), tmp_path / "s", text="hash:8")
    assert (report.spaces["text"].embedded, report.spaces["text"].failed) == (len(TEXTS), 0)
