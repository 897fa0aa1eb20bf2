"""Payloads that come with the items: what is read again, embedded again, kept; and how much memory they take."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from formats import ThumbnailEncoder, write_tar
from helpers import write_image

import embedstore as es
from embedstore.encoders.hash import HashEncoder
from embedstore.ingest import chunks
from embedstore.sources import MemorySource


def counts(report: es.EmbedReport, space: str) -> tuple[int, int, int, int]:
    s = report.spaces[space]
    return s.embedded, s.unchanged, s.missing, s.failed


def items(**columns: list[object]) -> MemorySource:
    n = len(next(iter(columns.values())))
    return MemorySource({"id": [f"i{i}" for i in range(n)], **columns})


def payloads(n: int) -> list[object]:
    return [f"payload {i}".encode() for i in range(n)]


def test_only_changed_bytes_are_embedded_again(tmp_path: Path) -> None:
    data = payloads(6)
    data[3] = None
    data[4] = data[0]
    report = es.embed(items(image=data), tmp_path / "s", image="hash:8")
    assert counts(report, "image") == (5, 0, 1, 0)
    assert report.spaces["image"].distinct == 4
    data[1] = b"another"
    report = es.embed(items(image=data), tmp_path / "s", image="hash:8")
    assert (counts(report, "image"), report.updated) == ((1, 4, 1, 0), 1)
    data[3] = b"now there"
    data[2] = None
    report = es.embed(items(image=data), tmp_path / "s", image="hash:8")
    assert (counts(report, "image"), report.updated) == ((1, 4, 1, 0), 2)
    store = es.Store.open(tmp_path / "s")
    assert store.items.table(["image"]).column("image").null_count == 1
    expected = HashEncoder(8, "image").encode([p for p in data if p is not None]).astype(np.float16)
    rows = store.items.rows_of([f"i{i}" for i in (0, 1, 3, 4, 5)])
    np.testing.assert_array_equal(store.space("image").take(rows), expected)
    assert es.verify(store).clean


def test_a_second_space_reads_all_and_rewrites_nothing(tmp_path: Path) -> None:
    source = items(image=payloads(6), text=["a", "b", "c", "d", "e", "f"])
    es.embed(source, tmp_path / "s", text="hash:8")
    assert es.embed(source, tmp_path / "s", image="hash:8").updated == 0
    report = es.embed(source, tmp_path / "s", image={"other": "hash:4"})
    assert (report.updated, counts(report, "other")) == (0, (6, 0, 0, 0))
    store = es.Store.open(tmp_path / "s")
    assert len(store.manifest.items) == 1
    changed = items(image=[b"new", *payloads(6)[1:]], text=["a", "b", "c", "d", "e", "f"])
    report = es.embed(changed, store, text="hash:8")  # does not look at the images
    assert (report.updated, counts(report, "text")) == (0, (0, 6, 0, 0))
    assert counts(es.embed(changed, store.refresh(), image="hash:8"), "image") == (1, 5, 0, 0)
    assert counts(es.embed(changed, store.refresh(), image={"other": "hash:4"}), "other") == (1, 5, 0, 0)


def test_metadata_changes_carry_the_vectors(tmp_path: Path) -> None:
    es.embed(items(image=payloads(3), label=["a", "b", "c"]), tmp_path / "s", image="hash:8")
    report = es.embed(items(image=payloads(3), label=["a", "x", "c"]), tmp_path / "s", image="hash:8")
    assert (report.updated, counts(report, "image")) == (1, (0, 3, 0, 0))
    report = es.embed(items(text=["1", "2", "3"], image=payloads(3)), tmp_path / "s", text="hash:8")
    assert report.updated == 3
    assert counts(es.embed(items(image=payloads(3)), tmp_path / "s", image="hash:8"), "image") == (0, 3, 0, 0)


def test_failures_of_the_same_bytes_are_not_tried_again(tmp_path: Path) -> None:
    tried = []

    class Picky(HashEncoder):
        def prepare(self, payload: bytes) -> bytes:
            tried.append(payload)
            if payload == b"bad":
                raise ValueError("not this one")
            return payload

    source = items(image=[b"good", b"bad"])
    encoder = Picky(4, "image")
    assert counts(es.embed(source, tmp_path / "s", image=encoder), "image") == (1, 0, 0, 1)
    assert counts(es.embed(source, tmp_path / "s", image=encoder), "image") == (0, 1, 0, 1)
    assert len(tried) == 2
    assert counts(es.embed(source, tmp_path / "s", image=encoder, retry_failed=True), "image") == (0, 1, 0, 1)
    assert len(tried) == 3
    assert counts(es.embed(items(image=[b"good", b"mended"]), tmp_path / "s", image=encoder), "image") == (1, 1, 0, 0)


def test_the_same_picture_as_a_file_and_as_bytes(tmp_path: Path) -> None:
    paths = [write_image(tmp_path / f"{i}.png", seed=i) for i in range(3)]
    es.embed(items(image=[str(path) for path in paths]), tmp_path / "s", image=ThumbnailEncoder())
    report = es.embed(items(image=[path.read_bytes() for path in paths]), tmp_path / "s", image=ThumbnailEncoder())
    assert (report.updated, counts(report, "image")) == (3, (0, 3, 0, 0))
    report = es.embed(items(image=[str(path) for path in paths]), tmp_path / "s", image=ThumbnailEncoder())
    assert (report.updated, counts(report, "image")) == (3, (0, 3, 0, 0))
    assert es.verify(es.Store.open(tmp_path / "s")).clean


def test_a_changed_file_is_not_forgotten_by_a_space_that_was_not_there(tmp_path: Path) -> None:
    """A run that embeds into another space of the modality records the file's new size and mtime."""
    path = write_image(tmp_path / "0.png", seed=1)
    source = items(image=[str(path)])
    es.embed(source, tmp_path / "s", image={"a": "hash:4"})
    write_image(path, seed=2)
    es.embed(source, tmp_path / "s", image={"b": "hash:4"})
    assert counts(es.embed(source, tmp_path / "s", image={"a": "hash:4"}), "a") == (1, 0, 0, 0)
    store = es.Store.open(tmp_path / "s")
    np.testing.assert_array_equal(store.space("a").vectors(), store.space("b").vectors())


def batches(sizes: list[int], rows: int) -> Iterator[pa.RecordBatch]:
    data = [b"x" * size for size in sizes]
    for lo in range(0, len(data), rows):
        part = data[lo : lo + rows]
        ids = [str(i) for i in range(lo, lo + len(part))]
        yield pa.record_batch({"id": ids, "image.bytes": pa.array(part, pa.large_binary()), "image": pa.array(ids)})


def test_chunks_are_bounded_by_bytes_whatever_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1000)
    sizes = np.random.default_rng(0).integers(1, 400, 500).tolist()
    cuts = [[start for start, _ in chunks.chunks(batches(sizes, rows))] for rows in (1, 7, 64, 500)]
    assert cuts[0] == cuts[1] == cuts[2] == cuts[3]
    totals = [sum(sizes[lo:hi]) for lo, hi in zip(cuts[0], [*cuts[0][1:], 500], strict=True)]
    assert all(1000 <= total < 1400 for total in totals[:-1])
    assert sum(len(table) for _, table in chunks.chunks(batches(sizes, 64))) == 500


@pytest.mark.parametrize("least", [chunks.LEAST_ROWS, chunks.LEAST_TEXTS])
def test_a_kill_costs_a_small_share_of_what_was_done(least: int) -> None:
    position = parts = 0
    while position < 20_000_000:
        rows = chunks.part_rows(position, least)
        assert rows == least or rows <= position / 16
        assert rows <= max(1024, least) or rows <= min(position / 64, 1 << 16)
        position, parts = position + rows, parts + 1
    assert parts < 1200
    assert chunks.part_rows(10**9, least) == 1 << 16


def test_a_store_made_in_small_chunks_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 100)

    class Tired(HashEncoder):
        def encode(self, batch):  # type: ignore[no-untyped-def]
            if any(b"payload 50" in payload for payload in batch):
                raise KeyboardInterrupt
            return super().encode(batch)

    source = items(image=payloads(80))
    with pytest.raises(KeyboardInterrupt):
        es.embed(source, tmp_path / "s", image=Tired(8, "image"))
    assert 30 < len(es.Store.open(tmp_path / "s")) <= 50
    es.embed(source, tmp_path / "s", image="hash:8")
    es.embed(source, tmp_path / "whole", image="hash:8")
    stores = [es.Store.open(tmp_path / name) for name in ("s", "whole")]
    files = [{ref.file: (store.path / ref.file).read_bytes() for ref in store.manifest.refs()} for store in stores]
    assert files[0] == files[1]


MEASURE = """
import resource, sys
import embedstore as es
from embedstore.ingest import chunks
from embedstore.sources import records, table
chunks.CHUNK_BYTES, records.BATCH_BYTES, table.BATCH_BYTES = 4 << 20, 1 << 19, 1 << 19
for path in sys.argv[1:]:
    es.embed(path, path + ".store", image="hash:8")
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_memory_does_not_grow_with_the_dataset(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{n}.{kind}" for n in (500, 2500)]
    for path in paths:
        payloads = [rng.bytes(50_000) for _ in range(int(path.stem))]
        if kind == "tar":
            write_tar(path, {f"{i}.jpg": payload for i, payload in enumerate(payloads)})
        else:
            pq.write_table(pa.table({"image": pa.array(payloads, pa.binary())}), path, row_group_size=100)
    done = subprocess.run([sys.executable, "-c", MEASURE, *map(str, paths)], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"peak \d+\npeak \d+\n", done.stdout), repr(done.stdout)
    small, large = (int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("peak"))
    assert large - small < 40  # 100 MB more data
