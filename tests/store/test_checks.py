"""Nothing is answered from a byte that is not as it was written: sums on first use, and what they cost later."""

from __future__ import annotations

import gc
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedstore as es
from embedstore._core import digests, sums
from embedstore._core.encoding import digest_of
from embedstore.errors import CorruptStoreError, StoreError
from embedstore.sources import MemorySource
from embedstore.store import part_files as part_files
from embedstore.store.combined import combined_is_current

DIM, N = 24, 9000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Vectors in two parts of several blocks, texts, metadata, tombstones and failures."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((N, DIM)).astype(np.float32)
    path = tmp_path / "a.store"
    for lo, hi in ((0, N // 2), (N // 2, N)):
        named: dict[str, Any] = {"ids": [f"i{i}" for i in range(lo, hi)], "metadata": {"n": list(range(lo, hi))}}
        es.import_vectors(vectors[lo:hi], path, space="v", modality="image", add_items=True, **named)
    gone = str(tmp_path / "gone.png")
    es.embed(MemorySource({"id": ["x", "y"], "image": [gone, gone], "n": [1, 2]}), path, image="hash:8")
    es.Store.open(path).remove(["i7"])
    aged(path)
    return path


def aged(path: Path) -> None:
    """Give every file a time in the past, as it has when a store is used on another day."""
    for file in path.rglob("*"):
        os.utime(file, (1_700_000_000, 1_700_000_000))


ROWS = np.asarray([0, 17, N // 2 + 1, N - 1])
READS: dict[str, Callable[[es.Store], Any]] = {
    "ids": lambda s: s.items.table(["id", "n"]).to_pydict(),
    "where": lambda s: s.items.where("n % 1000 = 3").tolist(),
    "rows_of": lambda s: s.items.rows_of(["i3", "x"]).tolist(),
    "columns": lambda s: str(s.items.column_types()),
    "dead": lambda s: s.dead.tolist(),
    "rows": lambda s: s.space("v").rows.tolist(),
    "hashes": lambda s: s.space("v").hashes.tolist(),
    "vectors": lambda s: s.space("v").vectors().tolist(),
    "blocks": lambda s: [block.tolist() for block in s.space("v").blocks(1000)],
    "take": lambda s: s.space("v").take(ROWS).tolist(),
    "picked": lambda s: s.space("v").raw.take(ROWS).tolist(),
    "raw blocks": lambda s: [block.tolist() for block in s.space("v").raw.blocks(700)],
    "failures": lambda s: s.space("image").failures.to_pydict(),
    "spec": lambda s: {name: space.fingerprint for name, space in s.spaces.items()},
}


def answers(path: Path) -> dict[str, Any]:
    """What each read of the store gives: its answer, or the error that names a file."""
    found: dict[str, Any] = {}
    for name, read in READS.items():
        try:
            found[name] = read(es.Store.open(path))
        except StoreError as error:
            found[name] = error
    return found


@pytest.mark.parametrize(
    "pattern", ["items/part-*", "items/tombstones-*", "spaces/v/part-*", "spaces/image/failures-*", "*/*/space.json"]
)
def test_a_flipped_byte_gives_no_answer(path: Path, pattern: str) -> None:
    """The right answer, or an error that names the file; and verify sees it."""
    right, rng = answers(path), np.random.default_rng(1)
    files, told = sorted(path.glob(pattern)), 0
    for trial in range(12):
        file = files[trial % len(files)]
        content = file.read_bytes()
        at = int(rng.integers(len(content)))
        file.write_bytes(content[:at] + bytes([content[at] ^ int(rng.integers(1, 256))]) + content[at + 1 :])
        for name, answer in answers(path).items():
            if isinstance(answer, StoreError):
                assert file.name in str(answer), (name, at)
                told += 1
            else:
                assert answer == right[name], (name, at)
        assert file.name in es.verify(path).problems[0]
        file.write_bytes(content)
        aged(path)
    assert told
    assert answers(path) == right


def test_a_damaged_part_says_what_brings_it_back(path: Path) -> None:
    part = path / es.Store.open(path).manifest.spaces["v"].parts[1].file
    part.write_bytes(part.read_bytes()[:-64] + bytes(64))
    with pytest.raises(CorruptStoreError, match=r"000001\.h5 has bytes that differ .*: embedstore repair .*e DATASET"):
        es.Store.open(path).space("v").hashes  # noqa: B018
    assert len(es.Store.open(path, check=False).space("v").hashes) == N - 1


@pytest.mark.parametrize("at", [0, 1])
def test_what_was_read_is_not_compared_again(path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """In another process as well: the memory is the user's."""
    monkeypatch.setattr(digests, "CLOCK_TICK_NS", 0)
    space = es.Store.open(path).space("v")
    list(space.blocks()) if at else space.vectors()
    es.Store.open(path).items.table()
    summed: list[int] = []
    monkeypatch.setattr(part_files, "block_sums", lambda *arguments: summed.append(1) or iter(()))
    monkeypatch.setattr(part_files, "sum_of_file", lambda *arguments: summed.append(1) or "")
    part_files_again = es.Store.open(path)
    part_files_again.space("v").vectors()
    part_files_again.items.table()
    assert not summed
    part = path / "spaces/v/part-000000.h5"
    part.touch()  # whoever wrote to it since is not trusted
    with pytest.raises(CorruptStoreError):
        es.Store.open(path).space("v").vectors()
    assert summed


def test_a_picked_vector_reads_its_block_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counted(data: memoryview, size: int) -> Any:
        sizes.append(len(data))
        return sums.block_sums(data, size)

    monkeypatch.setattr(part_files, "block_sums", counted)
    raw = es.Store.open(path).space("v").raw
    block = sums.rows_per_block(DIM * 2) * DIM * 2
    for _ in range(3):
        raw.take(ROWS)
    assert sum(sizes) <= 4 * block
    everything = np.arange(len(raw))
    np.testing.assert_array_equal(raw.take(everything), np.concatenate(list(raw.blocks())))
    read = sum(sizes)
    raw.take(everything)
    assert read == sum(sizes) == len(raw) * DIM * 2


@pytest.mark.parametrize("name", ["store.json", "spaces/v/space.json"])
def test_every_byte_of_a_document_counts(path: Path, name: str) -> None:
    """One bit of each byte: the store is the same, or it is refused with a line that names the file."""
    file = path / name
    content, right = file.read_bytes(), es.Store.open(path)
    told = 0
    for at in range(len(content)):
        file.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        try:
            store = es.Store.open(path)
            assert store.manifest == right.manifest
            assert {k: s.info for k, s in store.spaces.items()} == {k: s.info for k, s in right.spaces.items()}
        except StoreError as error:
            told += file.name in str(error)
    assert told > 0.8 * len(content)


def resealed(path: Path, **changes: Any) -> None:
    """Change keys of store.json, and its digest with them."""
    data = {**json.loads((path / "store.json").read_text()), **changes}
    (path / "store.json").write_text(json.dumps({**data, "digest": digest_of(data)}))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"next_row": 400}, "next_row is 400, but the items need 9002 rows"),
        ({"next_row": -1}, "a number is -1"),
        ({"next_row": 9002.0}, "a number is 9002.0"),
        ({"next_row": True}, "a number is True"),
        ({"generation": "3"}, "a number is '3'"),
        ({"items": {}}, "a list of files is {}"),
        ({"items": [{"file": "../../etc/passwd"}]}, r"a file is called '../../etc/passwd', expected items/part-000000.parquet"),
        ({"spaces": {"../x": {"spec_sha256": "0" * 64, "parts": [], "failures": []}}}, "cannot name a space"),
        ({"spaces": {"v": []}}, r"an object is \[\]"),
        ({"tombstones": [{"file": "items/part-000000.parquet"}]}, "expected items/tombstones-"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(path: Path, changes: dict[str, Any], reason: str) -> None:
    resealed(path, **changes)
    with pytest.raises(CorruptStoreError, match=rf"store\.json is damaged: .*{reason}"):
        es.Store.open(path)


def test_item_parts_that_overlap_are_refused(path: Path) -> None:
    items = json.loads((path / "store.json").read_text())["items"]
    resealed(path, items=[items[1], items[0], *items[2:]])
    with pytest.raises(CorruptStoreError, match="begins at row 0, the part before it may reach to row 8999"):
        es.Store.open(path)
    resealed(path, items=[items[0], items[0]])
    with pytest.raises(CorruptStoreError, match="begins at row 0"):
        es.Store.open(path)


def test_a_store_of_version_1_opens_and_is_upgraded_by_the_first_writer(path: Path) -> None:
    data = json.loads((path / "store.json").read_text())
    del data["digest"], data["epoch"]
    for ref in [
        *data["items"],
        *data["tombstones"],
        *(r for e in data["spaces"].values() for r in [*e["parts"], *e["failures"]]),
    ]:
        del ref["xxh3"]
        ref["offsets"].pop("xxh3", None)
    (path / "store.json").write_text(json.dumps({**data, "encoding-version": 1}))
    right = answers(path)
    assert not any(isinstance(answer, StoreError) for answer in right.values())
    with es.Store.open(path).writer():
        pass
    upgraded = json.loads((path / "store.json").read_text())
    assert upgraded["encoding-version"] == 2
    assert upgraded["digest"] == digest_of(upgraded)
    assert answers(path) == right
    assert es.verify(path).clean
    part = path / "spaces/v/part-000000.h5"
    part.write_bytes(part.read_bytes().replace(b"\x01", b"\x02", 1))
    with pytest.raises(CorruptStoreError, match=r"part-000000\.h5 has bytes that differ"):
        es.Store.open(path).space("v").take(ROWS)


def test_readers_go_on_with_their_generation_until_they_are_gone(path: Path) -> None:
    old = es.Store.open(path)
    old_files = {path / ref.file for ref in old.manifest.refs()}
    es.compact(path, force=True)
    assert all(file.exists() for file in old_files)
    assert es.verify(path).notes == []
    for name in READS.keys() - {"dead", "picked", "blocks", "raw blocks"}:
        assert READS[name](old) == READS[name](es.Store.open(path)), name
    with es.Store.open(path).writer():
        pass
    assert all(file.exists() for file in old_files)
    del old
    gc.collect()
    with es.Store.open(path).writer():
        pass
    assert not any(file.exists() for file in old_files)
    assert sorted(file.name for file in (path / "leases").iterdir()) == ["000001.lease"]


def test_nobody_reading_nothing_is_left(path: Path) -> None:
    gc.collect()  # stores that the fixture opened
    old_files = [path / ref.file for ref in es.Store.open(path).manifest.refs()]
    es.compact(path, force=True)
    assert not any(file.exists() for file in old_files)
    assert es.verify(path).clean


def test_a_store_that_was_copied_is_compared_anew(path: Path, tmp_path: Path) -> None:
    answers(path)
    copy = tmp_path / "b.store"
    shutil.copytree(path, copy)
    part = copy / "spaces/v/part-000000.h5"
    content = part.read_bytes()
    part.write_bytes(content[:9000] + bytes([content[9000] ^ 1]) + content[9001:])
    shutil.copystat(path / "spaces/v/part-000000.h5", part)
    with pytest.raises(CorruptStoreError, match="part-000000"):
        es.Store.open(copy).space("v").vectors()


def test_a_damaged_combined_file_is_written_anew(path: Path) -> None:
    combined = path / "embeddings.h5"
    content = combined.read_bytes()
    for at in range(0, 2000, 7):
        combined.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        combined_is_current(es.Store.open(path))
    combined.write_bytes(content[:100])
    with es.Store.open(path).writer():
        pass
    assert combined_is_current(es.Store.open(path))
