"""Spaces with several vectors an item: what was encoded is read back, after updates, removals, compaction, kills and damage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers import run
from words import Words, embedded, texts, word_vector

import embedstore as es
from embedstore._core.pieces import Pieces
from embedstore.errors import CorruptStoreError, EncoderError
from embedstore.ingest.claims import SpaceState
from embedstore.sources import MemorySource
from embedstore.store.space import Space


def check(store: es.Store, given: dict[str, str]) -> Space:
    """Every item has the vectors of its words, in order, and their mean."""
    space = store.spaces["text"]
    rows = store.items.rows_of(list(given))
    found = space.pieces_of(rows)
    words = [word for text in given.values() for word in text.split()]
    assert found.counts.tolist() == [len(text.split()) for text in given.values()]
    assert np.array_equal(found.vectors, np.stack([word_vector(word) for word in words]).astype(np.float16))
    assert found.places[:, 0].tolist() == [float(i) for text in given.values() for i in range(len(text.split()))]
    means = np.stack([np.mean([word_vector(word) for word in text.split()], axis=0) for text in given.values()])
    assert np.allclose(space.take(rows), means, atol=2e-3)
    assert es.verify(store).problems == []
    return space


def test_what_was_encoded_is_read_back_through_updates_and_removals(tmp_path: Path) -> None:
    given = texts(300)
    given[7] = given[3]  # a copy, which is not encoded again
    store = embedded(tmp_path / "s", given, n=list(range(300)))
    space = check(store, {f"i{i}": text for i, text in enumerate(given)})
    assert (space.unit, len(space), len(space.raw)) == ("word", 300, sum(len(text.split()) for text in given))

    given[5:9] = texts(4, seed=9)
    embedded(tmp_path / "s", given, n=[i + i % 2 for i in range(300)])  # others, and other metadata, which carries them
    store = es.Store.open(tmp_path / "s")
    check(store, {f"i{i}": text for i, text in enumerate(given)})
    store.remove([f"i{i}" for i in range(0, 300, 3)])
    left = {f"i{i}": text for i, text in enumerate(given) if i % 3}
    check(es.Store.open(tmp_path / "s"), left)
    es.compact(tmp_path / "s")
    space = check(es.Store.open(tmp_path / "s"), left)
    assert len(space.raw) == sum(len(text.split()) for text in left.values())
    with h5py.File(tmp_path / "s" / "embeddings.h5") as h5:
        pieces = space.pieces
        assert pieces is not None
        assert np.array_equal(h5["text/pieces/vectors"][()], pieces.vectors())
        assert np.array_equal(h5["text/pieces/row"][()], pieces.rows)
        assert h5["text/pieces/place"].shape == (len(pieces), 2)


def test_a_flipped_byte_of_a_piece_is_an_error_and_repair_embeds_it_again(tmp_path: Path) -> None:
    given = {f"i{i}": text for i, text in enumerate(texts(40))}
    store = embedded(tmp_path / "s", list(given.values()))
    (ref,) = store.manifest.spaces["text"].pieces
    with open(store.path / ref.file, "r+b") as file:
        file.seek(ref.offsets["vectors"] + 11)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 8]))
    with pytest.raises(CorruptStoreError, match=r"pieces-000000\.h5 has bytes that differ"):
        es.Store.open(store.path).spaces["text"].pieces_of(store.items.rows)
    assert any("pieces-000000.h5" in problem for problem in es.verify(store).problems)
    es.repair(store.path)
    embedded(tmp_path / "s", list(given.values()))
    check(es.Store.open(tmp_path / "s"), given)


def test_an_encoder_whose_pieces_do_not_fit_is_named(tmp_path: Path) -> None:
    class Short(Words):
        def encode_pieces(self, batch: Any) -> Any:
            vectors, pieces = super().encode_pieces(batch)
            return vectors, Pieces(pieces.vectors[1:], pieces.counts, pieces.places)

    with pytest.raises(EncoderError, match=r"words returned .* Mend the encoder"):
        es.embed(MemorySource({"id": ["a"], "text": ["b c"]}), tmp_path / "s", text=Short())


def test_a_piece_that_is_not_finite_fails_its_item_alone(tmp_path: Path) -> None:
    class Broken(Words):
        def encode_pieces(self, batch: Any) -> Any:
            vectors, pieces = super().encode_pieces(batch)
            at = [payload.split().index(b"bad") for payload in batch if b"bad" in payload.split()]
            broken = np.flatnonzero([b"bad" in payload.split() for payload in batch])
            pieces.vectors[pieces.starts[broken] + at] = np.nan
            return vectors, pieces

    given = {"a": "x y", "b": "x bad y", "c": "z"}
    report = es.embed(MemorySource({"id": list(given), "text": list(given.values())}), tmp_path / "s", text=Broken())
    assert [failure[1] for failure in report.failures] == ["b"]
    check(es.Store.open(tmp_path / "s"), {"a": "x y", "c": "z"})


def test_pieces_are_found_at_every_moment_of_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are committed in one thread while another looks for the pieces of payloads that it has seen before."""
    made = SpaceState.__init__
    seen = []

    def init(self: SpaceState, *given: Any) -> None:
        class Watched(dict[int, Any]):
            def __delitem__(watched, claim: int) -> None:  # noqa: N805
                vectors, _ = watched[claim]
                super().__delitem__(claim)
                seen.append(np.array_equal(self.take_pieces(np.array([claim])).vectors, vectors))

        made(self, *given)
        self._pieces = Watched()

    monkeypatch.setattr(SpaceState, "__init__", init)
    embedded(tmp_path / "s", texts(50))
    assert len(seen) > 40
    assert all(seen)


CHILD = """
import os, sys
from embedstore._core.folders import Folder
from words import embedded, texts
publish, left = Folder.write, [int(sys.argv[2])]
def write(self, name, data):
    if name == "store.json":
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), 9)
    return publish(self, name, data)
Folder.write = write
embedded(sys.argv[1], texts(9000))
"""


def test_a_killed_run_is_gone_on_with(tmp_path: Path) -> None:
    """Killed with all files of a commit written and the manifest not: nothing of it exists, and the next run ends the same."""
    whole = embedded(tmp_path / "whole", texts(9000))
    assert len(whole.manifest.spaces["text"].pieces) > 1
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent) + os.pathsep + str(Path(__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path / "s"), "2"], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    killed = es.Store.open(tmp_path / "s")
    assert 0 < len(killed) < 9000
    assert es.verify(killed).clean
    again = embedded(tmp_path / "s", texts(9000))
    assert es.verify(again).notes == []
    for mine, theirs in zip(again.manifest.refs(), whole.manifest.refs(), strict=True):
        assert (mine.file, mine.rows, mine.sha256) == (theirs.file, theirs.rows, theirs.sha256)


def test_a_space_of_one_vector_an_item_is_written_as_it_was(tmp_path: Path) -> None:
    run("embed", *_csv(tmp_path), "--store", tmp_path / "s", "--text", "hash:8")
    store = es.Store.open(tmp_path / "s")
    space = store.spaces["text"]
    assert (space.unit, space.pieces) == (None, None)
    assert "pieces" not in (tmp_path / "s" / "store.json").read_text()
    assert '"encoding-version": 2' in (tmp_path / "s" / "spaces" / "text" / "space.json").read_text()
    one = space.pieces_of(space.rows)
    assert np.array_equal(one.vectors, space.vectors())
    assert one.counts.tolist() == [1, 1]


def _csv(folder: Path) -> list[Path]:
    (folder / "t.csv").write_text("id,text\na,b\nc,d\n")
    return [folder / "t.csv"]
