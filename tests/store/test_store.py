"""The store: what is committed is found again, damage is found, other versions are refused."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import resource
import shutil
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import TESTS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import embedstore as es
from embedstore._core.atomic_files import (
    ALIGNED,
    DIRECT_BYTES,
    _set_direct,
    _write_directly,
    aligned_empty,
    parquet_table,
    write_hashed,
)
from embedstore._core.folders import Folder
from embedstore._core.keys import hash_strings
from embedstore.encoders.hash import HashEncoder
from embedstore.errors import (
    CorruptStoreError,
    FingerprintError,
    FormatVersionError,
    StoreError,
    StoreLockedError,
    UsageError,
)
from embedstore.sources import MemorySource
from embedstore.store.combined import write_combined
from embedstore.store.format import PartRef
from embedstore.store.parts import VECTORS, _frame, read_array, row_numbers, write_table, write_vectors
from embedstore.store.writer import NewVectors

ARCHIVE = TESTS / "data" / "store-v1"


def files_of(store: es.Store) -> list[Path]:
    return [store.path / ref.file for ref in store.manifest.refs()]


def test_vectors_are_the_encoder_s(store: es.Store) -> None:
    space = store.space("text")
    texts = store.items.take(space.rows, ["text"]).column("text").to_pylist()
    encoder = HashEncoder(16, "text")
    expected = encoder.encode([encoder.prepare(t.encode()) for t in texts])
    np.testing.assert_array_equal(space.vectors(), expected.astype(np.float16))
    assert space.dtype == np.float16
    assert len(store) == 12
    assert len(space) == 11


def test_h5py_alone_reads_what_the_store_gives(store: es.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store.remove(["item-05", "item-06"])
    moved = tmp_path / "elsewhere" / "b.store"
    moved.parent.mkdir()
    shutil.move(store.path, moved)
    monkeypatch.chdir("/")
    opened = es.Store.open(moved)
    with h5py.File(moved / "embeddings.h5", "r") as h5:
        for name, space in opened.spaces.items():
            np.testing.assert_array_equal(h5[name]["vectors"][()], space.vectors())
            np.testing.assert_array_equal(h5[name]["row"][()], space.rows)
            ids = opened.items.take(space.rows, ["id"]).column("id").to_pylist()
            assert [i.decode() for i in h5[name]["id"][()]] == ids
            assert "item-05" not in ids


def test_unmappable_part_is_read_through_hdf5(store: es.Store) -> None:
    ref = store.manifest.spaces["image"].parts[0]
    mapped = read_array(store.files, ref, VECTORS, np.float16, 32)
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(read_array(store.files, replace(ref, offsets={}), VECTORS, np.float16, 32), mapped)


def test_remove_is_a_tombstone_and_readers_keep_their_generation(store: es.Store) -> None:
    after = store.remove(["item-00"])
    assert (len(store), len(after)) == (12, 11)
    assert len(after.space("image")) == 11
    assert store.space("image").vectors().shape == (12, 32)
    with pytest.raises(UsageError, match="item-00"):
        after.items.rows_of(["item-00"])
    report = es.embed(store.path.parent / "table.csv", store.path, image="hash:32", text="hash:16")
    again = store.refresh()
    assert report.added == 1
    assert len(again) == 12
    assert again.items.rows_of(["item-00"])[0] == 12  # a new row: rows are never reused


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_byte_is_found(store: es.Store, tmp_path: Path, data: st.DataObject) -> None:
    """A byte flipped anywhere in any committed file makes verify fail."""
    copy = tmp_path / "copy.store"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(store.path, copy)
    candidates = [*files_of(store), store.path / "spaces/image/space.json"]
    victim = copy / data.draw(st.sampled_from(candidates)).relative_to(store.path)
    content = bytearray(victim.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    victim.write_bytes(bytes(content))
    report = es.verify(es.Store.open(copy))
    assert not report.clean
    assert victim.name in report.problems[0]


def test_verify_is_clean_and_names_leftovers(store: es.Store) -> None:
    assert es.verify(store).clean
    (store.path / "items" / "part-000009.parquet").write_bytes(b"half")
    report = es.verify(store)
    assert report.clean
    assert "part-000009" in report.notes[0]
    with store.writer():
        pass
    assert es.verify(store.refresh()).notes == []


def test_truncated_part_is_refused_on_reading(store: es.Store) -> None:
    part = store.path / store.manifest.spaces["image"].parts[0].file
    part.write_bytes(part.read_bytes()[:-10])
    with pytest.raises(CorruptStoreError, match=r"part-000000\.h5 has 8,\d+ bytes, committed were 8,\d+"):
        es.Store.open(store.path).space("image").vectors()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"encoding-type": "other"}', b"\xff\xfe"])
def test_damaged_manifest_is_refused(store: es.Store, content: bytes) -> None:
    (store.path / "store.json").write_bytes(content)
    with pytest.raises(CorruptStoreError, match=r"store\.json"):
        es.Store.open(store.path)


def test_unknown_version_is_refused_with_both_versions(store: es.Store) -> None:
    path = store.path / "store.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "encoding-version": 99}))
    with pytest.raises(FormatVersionError, match=r"version 99; this embedstore reads \[1, 2\]"):
        es.Store.open(store.path)


def test_archived_store_still_opens(tmp_path: Path) -> None:
    """Written by 0.1.0; every later version has to read it."""
    path = tmp_path / "old.store"
    shutil.copytree(ARCHIVE, path)
    old = es.Store.open(path)
    assert es.verify(old).clean
    expected = json.loads((ARCHIVE.parent / "store-v1.json").read_text())
    assert old.items.table().column("id").to_pylist() == expected["ids"]
    for name, vectors in expected["vectors"].items():
        np.testing.assert_array_equal(old.space(name).vectors().astype(float), vectors)
    assert old.space("text").failures.num_rows == 0
    assert es.predict(old, "label").labels.tolist() == expected["predictions"]


def test_second_writer_is_refused(store: es.Store) -> None:
    with store.writer(), pytest.raises(StoreLockedError, match="Another process is writing"), store.writer():
        pass


def test_other_fingerprint_is_refused_with_both(store: es.Store, table: Path) -> None:
    other = HashEncoder(64, "image").spec.fingerprint
    with pytest.raises(FingerprintError) as error:
        es.embed(table, store, image="hash:64")
    assert store.space("image").fingerprint in str(error.value)
    assert other in str(error.value)
    assert store.refresh().generation == store.generation


def test_open_says_what_is_wrong(tmp_path: Path, store: es.Store) -> None:
    with pytest.raises(StoreError, match=r"There is no store at .*a\.store"):
        es.Store.open(tmp_path / "b.store")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(StoreError, match="is not empty and not a store"):
        es.Store.open(tmp_path / "full", create=True)


def test_where_sees_the_items_and_no_other_file(store: es.Store) -> None:
    rows = store.items.where("label = 'even' AND price < 10")
    table = store.items.take(rows)
    assert table.column("id").to_pylist() == ["item-00", "item-02", "item-04", "item-06"]
    assert str(table.schema.field("price").type) == "double"
    with pytest.raises(UsageError, match=r"no_such.*Columns: row \(integer\), id \(text\), .*, price \(number\)\."):
        store.items.where("no_such = 1")
    assert len(store.remove("item-11").items.where("price = (SELECT max(price) FROM items)")) == 1
    for injected in ("1=1); SELECT (1", "1=1) UNION ALL SELECT row FROM items WHERE (1=1", " "):
        with pytest.raises(UsageError, match="--where"):
            store.items.where(injected)
    with pytest.raises(UsageError, match="Permission"):
        store.items.where("(SELECT count(*) FROM read_text('/etc/hostname')) > 0")


def test_float16_overflow_names_the_option(tmp_path: Path) -> None:
    class Large(HashEncoder):
        def encode(self, batch):  # type: ignore[no-untyped-def]
            return super().encode(batch) * 1e6

    rows = {"id": ["a"], "text": ["b"]}
    from embedstore.sources import MemorySource

    with pytest.raises(es.EmbedstoreError, match=r"--dtype float32"):
        es.embed(MemorySource(rows), tmp_path / "x.store", text=Large(8, "text", "large"))
    es.embed(MemorySource(rows), tmp_path / "x.store", text=Large(8, "text", "large"), dtype="float32")
    vectors = es.Store.open(tmp_path / "x.store").space("text").vectors()
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()


def test_float16_that_flushes_a_vector_names_the_item(tmp_path: Path) -> None:
    class Small(HashEncoder):
        def encode(self, batch):  # type: ignore[no-untyped-def]
            return super().encode(batch) * np.array([[1e-9 if b"small" in payload else 1] for payload in batch], np.float32)

    from embedstore.sources import MemorySource

    rows = {"id": ["a", "b", "c"], "text": ["x", "small", "also small"]}
    with pytest.raises(es.EmbedstoreError, match=r"of item 'b' holds nothing above .*so small that float16.*--dtype float32$"):
        es.embed(MemorySource(rows), tmp_path / "s", text=Small(8, "text", "small"))
    assert not (tmp_path / "s").exists()
    es.embed(MemorySource(rows), tmp_path / "s", text=Small(8, "text", "small"), dtype="float32")
    assert es.Store.open(tmp_path / "s").space("text").vectors().any(axis=1).all()


def test_reading_in_any_order(tmp_path: Path) -> None:
    """take, has, blocks and hash_of agree with the whole array over parts whose rows do not ascend."""
    es.Store.open(tmp_path / "p.store", create=True)
    spec = HashEncoder(4, "text").spec
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((30, 4)).astype(np.float16)
    order = [np.arange(20, 30), np.arange(0, 10), np.arange(10, 18)]
    ids = [f"i{i}" for i in range(30)]
    with es.Store.open(tmp_path / "p.store").writer() as writer:
        writer.ensure_space("text", spec, dtype="float16", provenance={})
        writer.commit(pa.table({"row": pa.array(range(30), pa.int64()), "id": ids, "text": ids}))
        for rows in order:
            writer.commit(vectors={"text": NewVectors(rows, vectors[rows], hash_strings([ids[r] for r in rows]))})
    space = es.Store.open(tmp_path / "p.store").remove(["i5", "i22"]).space("text")
    live = np.concatenate(order)
    live = live[(live != 5) & (live != 22)]
    np.testing.assert_array_equal(space.rows, live)
    np.testing.assert_array_equal(space.vectors(), vectors[live])
    np.testing.assert_array_equal(np.concatenate(list(space.blocks(3))), vectors[live])
    asked = rng.permutation(live)
    np.testing.assert_array_equal(space.take(asked), vectors[asked])
    np.testing.assert_array_equal(space.hash_of(asked), hash_strings([ids[r] for r in asked]))
    assert space.has(np.array([0, 18, 29])).tolist() == [True, False, True]
    assert (space.hash_table.lookup(hash_strings(ids)) >= 0).sum() == len(live)


def test_a_look_at_one_row_costs_no_copy_of_all(tmp_path: Path) -> None:
    """Also where rows do not ascend, as after a space was filled in two runs."""
    n, store = 20_000, es.Store.open(tmp_path / "s", create=True)
    rows = np.concatenate([np.arange(n // 2, n), np.arange(n // 2)])
    with store.writer() as writer:
        writer.ensure_space("text", HashEncoder(1, "text").spec, dtype="float32", provenance={})
        writer.commit(pa.table({"row": np.arange(n), "id": [str(row) for row in range(n)]}))
        for some in np.split(rows, 2):
            writer.commit(
                vectors={"text": NewVectors(some, some[:, None].astype(np.float32), np.zeros((n // 2, 2), np.uint64))}
            )
    space, one = es.Store.open(tmp_path / "s").spaces["text"], np.array([7])
    assert space.take(rows[::99]).ravel().tolist() == rows[::99].tolist()
    tracemalloc.start()
    assert space.has(one).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n


def test_part_reference_round_trip() -> None:
    ref = PartRef("spaces/a/part-000000.h5", 3, 10, "ab", {"vectors": 4}, 0)
    assert PartRef(**json.loads(json.dumps({**vars(ref)}))) == ref


def test_encoder_spec_round_trip() -> None:
    spec = HashEncoder(4, "text").spec
    again = es.EncoderSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert (again, again.fingerprint) == (spec, spec.fingerprint)
    assert replace(spec, name="renamed", alignment="x").fingerprint == spec.fingerprint
    changed = {"dim": 5, "prompt": "query: ", "pooling": "cls", "normalized": True, "weights": "sha256:0", "max_length": 8}
    for field, value in changed.items():
        assert replace(spec, **{field: value}).fingerprint != spec.fingerprint, field


@pytest.mark.parametrize("open_files", [256, 2])
def test_rows_picked_from_many_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_files: int) -> None:
    monkeypatch.setattr("embedstore.store.picker.OPEN_FILES", open_files)
    monkeypatch.setattr("embedstore.store.space.OPEN_FILES", open_files)
    store = es.Store.open(tmp_path / "s", create=True)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 4)).astype(np.float32)
    with store.writer() as writer:
        writer.ensure_space("text", HashEncoder(4, "text").spec, dtype="float32", provenance={})
        for lo in range(0, 50, 10):
            rows = np.arange(lo, lo + 10)
            items = pa.table({"row": rows, "id": [f"i{row}" for row in rows]})
            keys = np.zeros((10, 2), np.uint64)
            writer.commit(items, vectors={"text": NewVectors(rows, vectors[rows], keys)})
    space = es.Store.open(tmp_path / "s").spaces["text"]
    raw = space.raw
    positions = rng.integers(0, 50, 200)
    for _ in range(2):
        np.testing.assert_array_equal(raw.take(positions), vectors[positions])
    assert raw.take(positions[:0]).shape == (0, 4)
    np.testing.assert_array_equal(space.take(positions), vectors[positions])
    np.testing.assert_array_equal(np.concatenate(list(space.blocks(7))), vectors)
    np.testing.assert_array_equal(space.vectors(), vectors)
    assert (space.hash_of(positions) == 0).all()
    links = list(Path("/proc/self/fd").iterdir())  # this listing is one of them, and gone
    assert sum(str(tmp_path) in os.readlink(link) for link in links if link.is_symlink()) <= 2 * open_files
    ref = raw._space.parts[-1]
    os.truncate(tmp_path / "s" / ref.file, ref.offsets[VECTORS] + 20)
    with pytest.raises(CorruptStoreError, match="too short"):
        raw.take(np.array([49]))


@pytest.mark.parametrize("limit", [500, 2000])
def test_a_disk_too_full_for_embeddings_h5_costs_nothing_else(store: es.Store, limit: int) -> None:
    before = (store.path / "embeddings.h5").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(StoreError, match=r"embeddings\.h5 could not be renewed"):
            write_combined(store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (store.path / "embeddings.h5").read_bytes() == before
    assert not list(store.path.glob("*.tmp"))


def test_a_disk_too_full_for_the_first_commit_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    source = MemorySource({"id": [f"i{i}" for i in range(60)], "text": [f"text {i}" for i in range(60)]})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    try:
        with pytest.raises(StoreError, match="Make room"):
            es.embed(source, tmp_path / "s", text="hash:4096")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "s").exists()
    assert es.embed(source, tmp_path / "s", text="hash:4096").added == 60


@pytest.mark.parametrize("extra", [-1, 0, 1, 4096 + 5, DIRECT_BYTES + 2048])
@pytest.mark.parametrize("first", [2048, 4096, 8191])
def test_large_files_are_written_whole_however_they_are_cut(tmp_path: Path, extra: int, first: int) -> None:
    data = np.random.default_rng(0).bytes(DIRECT_BYTES + extra)
    middle = aligned_empty((len(data) - first - 300,), np.uint8)
    middle[:] = np.frombuffer(data, np.uint8)[first:-300]
    pieces = [data[:first], b"", middle.data, data[-300:]]
    with Folder.at(tmp_path) as folder:
        assert write_hashed(folder, "part", pieces) == hashlib.sha256(data).hexdigest()
    assert (tmp_path / "part").read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


def test_a_file_system_without_direct_writes_gets_the_same_bytes(tmp_path: Path) -> None:
    class Refusing(FileIO):
        refused = 0

        def write(self, data: Any) -> int:
            if fcntl.fcntl(self, fcntl.F_GETFL) & os.O_DIRECT:
                self.refused += 1
                raise OSError(errno.EINVAL, "Invalid argument")
            return super().write(memoryview(data)[:1_000_003])  # a short write

    data = np.random.default_rng(0).bytes(2 * DIRECT_BYTES + 5)
    with FileIO(tmp_path / "probe", "wb") as probe:
        possible = _set_direct(probe, True)
    with Refusing(tmp_path / "part", "wb") as file:
        _write_directly(file, [data])
        assert file.refused == possible
    assert (tmp_path / "part").read_bytes() == data


def test_large_parts_need_no_copy_on_their_way_to_the_disk(tmp_path: Path) -> None:
    vectors = aligned_empty((DIRECT_BYTES // 64, 32), np.float16)
    vectors[...] = np.random.default_rng(0).standard_normal(vectors.shape)
    rows = np.arange(len(vectors))
    ref = write_vectors(tmp_path, "part-000000.h5", vectors, rows, np.zeros((len(vectors), 2), np.uint64))
    assert ref.offsets[VECTORS] % ALIGNED == 0
    with h5py.File(tmp_path / ref.file) as h5:
        np.testing.assert_array_equal(h5[VECTORS][:], vectors)
        np.testing.assert_array_equal(h5["row"][:], rows)
    assert PartRef.of(tmp_path, ref.file, ref.rows).sha256 == ref.sha256


def test_spaces_of_one_size_are_written_around_one_frame(tmp_path: Path) -> None:
    store = es.Store.open(tmp_path / "s", create=True)
    rows = np.arange(613)
    keys = np.zeros((613, 2), np.uint64)
    before = _frame.cache_info().misses
    with store.writer() as writer:
        for name in "abcd":
            writer.ensure_space(name, HashEncoder(7, "text").spec, dtype="float32", provenance={})
        vectors = {name: NewVectors(rows, np.zeros((613, 7), np.float32), keys) for name in "abcd"}
        writer.commit(pa.table({"row": rows, "id": [f"i{row}" for row in rows]}), vectors=vectors)
    assert _frame.cache_info().misses == before + 1


def test_columns_that_repeat_have_dictionaries(tmp_path: Path) -> None:
    table = pa.table({"row": [0, 1], "id": ["a", "b"], "label": ["x", "x"], "a.b": ["y", "y"]})
    nested = table.append_column("tags", pa.array([["t", "u"], ["t"]]))
    for i, (written, without) in enumerate([(table, {"row", "id"}), (nested, set())]):
        write_table(tmp_path, f"{i}.parquet", written, "embedstore-items")
        group = pq.ParquetFile(tmp_path / f"{i}.parquet").metadata.row_group(0)
        columns = [group.column(k) for k in range(group.num_columns)]
        assert {c.path_in_schema for c in columns if "RLE_DICTIONARY" not in c.encodings} == without


def test_row_numbers_of_any_integers_and_any_slices() -> None:
    rows = np.arange(10)
    for kind in (pa.int64(), pa.int32()):
        table = pa.table({"row": pa.chunked_array([pa.array(rows[:4], kind), pa.array(rows[4:], kind)])})
        for lo, hi in ((0, 10), (2, 9), (5, 7), (3, 3)):
            np.testing.assert_array_equal(row_numbers(table.slice(lo, hi - lo)), rows[lo:hi])


def test_a_disk_too_full_for_a_large_part_is_said(tmp_path: Path) -> None:
    class Full(FileIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with Full(tmp_path / "part", "wb") as file, pytest.raises(OSError, match="No space left"):
        _write_directly(file, [bytes(DIRECT_BYTES)])


def test_threads_write_stores_of_their_own(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((3000, 8), dtype=np.float32)
    with ThreadPoolExecutor(4) as pool:
        stores = [tmp_path / str(i) for i in range(16)]
        # Parts of other sizes each need another HDF5 frame.
        made = [pool.submit(es.import_vectors, vectors[: 2000 + i], path, space="image") for i, path in enumerate(stores)]
        assert [report.result().items for report in made] == [2000 + i for i in range(16)]


def test_spaces_of_the_same_items_share_their_ids_in_embeddings_h5(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((30, 8), dtype=np.float32)
    store = es.Store.open(tmp_path / "s", create=True)
    for space, rows in (("image", 30), ("text", 30), ("audio", 20)):
        es.import_vectors(vectors[:rows], store, space=space, ids=[f"ä{i}" for i in range(rows)])
    with h5py.File(tmp_path / "s" / "embeddings.h5") as h5:
        assert h5["image/id"] == h5["text/id"] != h5["audio/id"]
        assert h5["text/id"].asstr()[:].tolist() == [f"ä{i}" for i in range(30)]
        assert h5["audio/id"].asstr()[:].tolist() == [f"ä{i}" for i in range(20)]


def test_nothing_holds_the_bytes_of_a_table_after_it_was_read() -> None:
    """A thread of pyarrow's that lets go of them while the interpreter ends would abort the process."""
    written = io.BytesIO()
    pq.write_table(pa.table({"id": [str(i) for i in range(100)], "split": ["train"] * 100}), written)

    class Held(bytes):
        """Memory of its own, counted."""

    data = Held(written.getvalue())
    before = sys.getrefcount(data)
    for _ in range(200):
        assert parquet_table(data).num_rows == 100
        assert sys.getrefcount(data) == before
