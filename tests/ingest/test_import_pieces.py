"""Several vectors an item go out to Parquet and come in again, to the bit; what cannot be used is told in one line."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import killed_write

import embedstore as es
from embedstore._core.keys import hash_payload
from embedstore._core.pieces import Pieces
from embedstore.encoders.hash import HashEncoder
from embedstore.errors import OutputError, PayloadError, SourceError, UsageError
from embedstore.exporting.parquet import ParquetExporter
from embedstore.ingest import importer
from embedstore.ingest.import_pieces import unit_of
from embedstore.retrieval.search_result import Piece
from embedstore.sources import MemorySource
from embedstore.spec import EncoderSpec

DIM = 6


class Shots(HashEncoder):
    """Of a text ``SEED:COUNT`` so many vectors; the even ones have a time, where `timed`."""

    pieces = "shot"

    def __init__(self, *, timed: bool = True) -> None:
        super().__init__(DIM, "text")
        self.spec = EncoderSpec("shots", "shots", "shots", "none", "text", DIM)
        self.timed = timed

    def encode(self, batch: Any) -> Any:
        return self.encode_pieces(batch)[0]

    def encode_pieces(self, batch: Any) -> Any:
        seeds, counts = np.array([payload.decode().split(":") for payload in batch], int).T
        vectors = [np.random.default_rng(seed).normal(size=(n, DIM)) for seed, n in zip(seeds, counts, strict=True)]
        numbers = np.concatenate([np.arange(n) for n in counts]).astype(float)
        places = np.stack([numbers, np.where(numbers % 4, numbers + 0.1, np.nan)], axis=1)
        places[numbers % 2 == 1] = np.nan
        pieces = Pieces(np.concatenate(vectors).astype(np.float32), counts, places if self.timed else places * np.nan)
        return pieces.means(), pieces


def shots(path: Path, n: int, **given: Any) -> es.Store:
    texts = [None if i == 7 else f"{i}:{1 + i % 5}" for i in range(n)]
    columns = {"id": [f"i{i}" for i in range(n)], "text": texts, "n": range(n), "text.pieces": ["mine"] * n}
    es.embed(MemorySource(columns), path, text=Shots(**given))
    return es.Store.open(path)


def table_of(vectors: list[Any], **columns: Any) -> pa.Table:
    return pa.table({"id": [f"i{i}" for i in range(len(vectors))], "film.pieces": vectors, **columns})


def imported(path: Path, store: Path, table: pa.Table, **given: Any) -> es.ImportReport:
    pq.write_table(table, path)
    return es.import_vectors(path, store, **{"modality": "video", **given})


def pieces_of(path: Path, space: str) -> dict[str, tuple[Any, ...]]:
    """Id → vectors and places, of a store that is clean."""
    store = es.Store.open(path)
    report = es.verify(store)
    assert (report.problems, report.notes) == ([], [])
    rows = np.sort(store.spaces[space].rows)
    ids = store.items.take(rows, ["id"]).column("id").to_pylist()
    several = store.spaces[space].pieces_of(rows)
    taken = [several.take([i]) for i in range(len(rows))]
    return {
        name: (one.vectors.tobytes(), one.places.tobytes(), one.vectors.dtype) for name, one in zip(ids, taken, strict=True)
    }


@pytest.mark.parametrize("timed", [True, False])
def test_what_is_exported_is_imported_to_the_bit(tmp_path: Path, timed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ParquetExporter, "slice_bytes", 4000)
    monkeypatch.setattr(importer, "PART_BYTES", 4000)
    store = shots(tmp_path / "s", 40, timed=timed)
    report = es.export(store, to="parquet", out=tmp_path / "out")
    assert (report.notes, report.check.sampled) == (["1 items have no vector in space 'text' and stay without one"], 40)
    files = sorted((tmp_path / "out").glob("*.parquet"))
    assert len(files) > 1  # slices are sized by what pieces take
    schema = pq.read_schema(files[0])
    assert schema.field("text.pieces").type == pa.list_(pa.list_(pa.float16(), DIM))
    assert ("text.places" in schema.names) == timed
    assert not timed or schema.field("text.places").type == pa.list_(pa.list_(pa.float64(), 2))
    assert pq.read_table(files[0]).column("text.pieces (2)").to_pylist()[0] == "mine"  # the store's own column
    assert es.export(store, to="parquet", out=tmp_path / "out").changes.written == 0

    report = es.import_vectors(tmp_path / "out", tmp_path / "again", modality="text", encoder="colbert:x")
    counts = report.spaces["text"]
    assert (counts.imported, counts.missing, report.bytes) == (39, 1, 117 * DIM * 2)
    beside = "text.places, text_vector" if timed else "text_vector"
    assert report.notes[:2] == [
        "Vectors are taken from column 'text.pieces'.", f"Columns that go with it are no metadata: {beside}.",
    ]  # fmt: skip
    again = es.Store.open(tmp_path / "again")
    assert len(again.manifest.items) > 1
    assert again.items.metadata_columns() == ["text_", "n", "text.pieces (2)"]
    assert again.spaces["text"].unit == "token"
    assert pieces_of(tmp_path / "again", "text") == pieces_of(tmp_path / "s", "text")
    row = again.items.rows_of(["i9"])
    one = again.spaces["text"].pieces_of(row)
    assert again.spaces["text"].hash_of(row).tobytes() == hash_payload(one.vectors.tobytes() + one.places.tobytes())
    assert np.array_equal(again.spaces["text"].take(row), one.means().astype(np.float16))

    report = es.import_vectors(tmp_path / "out", tmp_path / "again", modality="text", encoder="colbert:x")
    assert (report.spaces["text"].imported, report.spaces["text"].unchanged, report.updated) == (0, 39, 0)
    assert es.Store.open(tmp_path / "again").generation == again.generation


def test_a_search_goes_over_what_was_imported(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 3, DIM)).astype(np.float32)
    places: list[Any] = [[[float(i), i + 1.0] for i in range(3)] for _ in range(20)]
    places[5] = [[1.0, 2.0], [61.0, None], [None, 3.0]]
    imported(tmp_path / "v.parquet", tmp_path / "s", table_of(vectors.tolist(), **{"film.places": places}), space="film")
    (first,) = es.search(tmp_path / "s", vector=vectors[4, 1], k=1).results
    assert (first.id, first.piece.unit, first.piece.number, first.piece.start) == ("i4", "vector", 1, 1.0)  # type: ignore[union-attr]
    shown = [es.search(tmp_path / "s", vector=vectors[5, i], k=1).to_dict()["results"][0]["piece"] for i in (1, 2)]
    assert shown == [{"unit": "vector", "number": 1, "start": 61.0}, {"unit": "vector", "number": 2, "end": 3.0}]
    assert [str(Piece(**piece)) for piece in shown] == ["1:01.0", "vector 3"]
    unit = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    scores = np.einsum("ad,ibd->iab", unit[4], unit).max(axis=2).mean(axis=1)
    expected = [f"i{i}" for i in np.argsort(-scores) if i != 4][:3]
    assert [hit.id for hit in es.search(tmp_path / "s", id="i4", k=3).results] == expected


def test_the_other_targets_hold_the_mean_and_say_so(tmp_path: Path) -> None:
    store = shots(tmp_path / "s", 20)
    report = es.export(store, to="npy", out=tmp_path / "npy")
    assert "space 'text' has several vectors an item: their mean is written here, all of them by --to parquet" in report.notes
    assert np.load(tmp_path / "npy" / "text.npy").shape == (20, DIM)


def test_the_check_reads_pieces_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = shots(tmp_path / "s", 20)
    real = ParquetExporter.table

    def table(self: Any, items: Any) -> pa.Table:
        items.pieces["text_vector"].places[3, 0] += 1
        return real(self, items)

    monkeypatch.setattr(ParquetExporter, "table", table)
    with pytest.raises(OutputError, match=r"item 'i2' has other vectors in 'text.pieces'"):
        es.export(store, to="parquet", out=tmp_path / "out")


def test_changed_pieces_and_places_replace(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(8, 2, DIM)).tolist()
    places: list[Any] = [[[0.0, 1.0], [1.0, None]]] * 8
    file, store = tmp_path / "v.parquet", tmp_path / "s"
    imported(file, store, table_of(vectors, **{"film.places": places}))
    before = pieces_of(store, "video")
    vectors[2] = vectors[2][:1]
    places = [None, *places[1:2], places[2][:1], *places[3:]]
    vectors[5][1][0] = float("nan")  # what was there stays
    report = imported(file, store, table_of(vectors, n=range(8), **{"film.places": places}))
    counts = report.spaces["video"]
    assert (counts.imported, counts.replaced, counts.unchanged, counts.failed, counts.kept) == (2, 2, 5, 1, 1)
    after = pieces_of(store, "video")
    assert {name for name in after if after[name] != before[name]} == {"i0", "i2"}
    assert (len(after["i2"][0]), np.isnan(np.frombuffer(after["i0"][1])).all()) == (2 * DIM, True)


def test_items_that_cannot_be_used(tmp_path: Path) -> None:
    one = [1.0, 0, 0, 0, 0, 0]
    long, broken = [0.0, 2, 0, 0, 0, 0], [0.0, float("nan"), 0, 0, 0, 0]
    given = [[one, [0, 1.0, 0, 0, 0, 0]], None, [], [one, long], [broken, one], [one, None]]
    report = imported(tmp_path / "v.parquet", tmp_path / "s", table_of(given), normalized=True)
    counts = report.spaces["video"]
    assert (counts.imported, counts.missing, counts.failed) == (1, 1, 4)
    assert [(name, reason.partition(": ")[2]) for _, name, reason in report.failures] == [
        ("i2", "row 2 (from 0) holds an empty list; expected one vector at least, or null for none"),
        ("i3", "row 3 (from 0) holds a vector of length 2, but unit length is declared"),
        ("i4", "row 4 (from 0) holds NaN"),
        ("i5", "row 5 (from 0) holds NaN"),
    ]
    assert report.failures[0][2].startswith("v.parquet:film.pieces: ")
    store = es.Store.open(tmp_path / "s")
    held = store.spaces["video"]
    assert np.linalg.norm(held.take(store.items.rows_of(["i0"])).astype(float)) == pytest.approx(1, abs=1e-3)
    assert len(held.failures) == 4
    with pytest.raises(PayloadError, match=r"item 'i2'.*an empty list"):
        imported(tmp_path / "v.parquet", tmp_path / "t", table_of(given), strict=True)


ONES = [[[1.0] * DIM] * 2, [[1.0] * DIM] * 3]


@pytest.mark.parametrize(
    ("vectors", "columns", "words"),
    [
        ([ONES[0], [[1.0] * DIM, [1.0] * 4]], {}, r"vector 1 of row 1 \(both from 0\) has 4 numbers; the first vector has 6"),
        (ONES, {"film.places": [[[0.0, 1.0]], None]}, r"row 0 \(from 0\) has 1 places, but 2 vectors in 'film.pieces'"),
        (ONES, {"film.places": [None, [[0.0, 1.0], [0.0], [0.0, 1.0]]]}, r"place 1 of row 1 .* has 1 numbers; expected two"),
        (ONES, {"film.places": [0.0, 1.0]}, r"column 'film.places' is double; expected, for each vector"),
        ([[], []], {}, "has no column with lists of numbers|holds no vector"),
        ([[[1e30] * DIM]], {}, r"row 0 \(from 0\) holds 1e\+30; float16 holds up to 65504"),
        ([[[1.0] * DIM, [1e-9] * DIM]], {}, r"row 0 \(from 0\) holds nothing above 1e-09"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, vectors: list[Any], columns: dict[str, Any], words: str) -> None:
    with pytest.raises(SourceError, match=words) as raised:
        imported(tmp_path / "v.parquet", tmp_path / "s", table_of(vectors, **columns))
    assert "v.parquet" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "s" / "store.json").exists()


def test_which_column_is_meant(tmp_path: Path) -> None:
    file = tmp_path / "v.parquet"
    table = table_of(ONES, **{"film_vector": [[1.0] * DIM] * 2, "x.places": [[[1.0, 2.0]]] * 2})
    with pytest.raises(UsageError, match=r"several columns of vectors: film.pieces, x.places.*--vector-column NAME"):
        imported(file, tmp_path / "s", table)
    imported(file, tmp_path / "s", table, vector_column="film_vector")
    store = es.Store.open(tmp_path / "s")
    assert (store.spaces["video"].unit, store.items.metadata_columns()) == (None, ["x.places"])
    with pytest.raises(SourceError, match=r"'video' has one vector an item, but .* several.* --space NAME"):
        imported(file, tmp_path / "s", table, vector_column="film.pieces")
    table = table.drop_columns(["x.places"])
    imported(file, tmp_path / "t", table)
    with pytest.raises(SourceError, match=r"'video' has several vectors an item, but .* one.* --space NAME"):
        imported(file, tmp_path / "t", table, vector_column="film_vector")
    table = table.append_column("other", pa.array([[1.0] * 3] * 2))
    with pytest.raises(UsageError, match=r"several columns of vectors: other, film\.pieces"):
        imported(file, tmp_path / "u", table)
    imported(file, tmp_path / "u", table.drop_columns(["film_vector"]))  # lists of lists beside plain vectors are metadata
    assert es.Store.open(tmp_path / "u").items.metadata_columns() == ["film.pieces"]


def test_the_word_for_one_of_several_is_the_encoder_s() -> None:
    def said(name: str, modality: str = "video") -> str:
        return unit_of(EncoderSpec(name, "f", "m", "declared", modality, 4, declared=True))

    names = ("frames:6:effnet-lite0+pieces", "clap:a/b+pieces", "hf-audio:a/b+pieces", "colbert:a/b", "unnamed")
    assert [said(name) for name in names] == ["frame", "window", "window", "token", "vector"]
    assert said("colbert:vidore/colpali", "image") == "patch"


def killed_import(path: Path, arguments: dict[str, Any], at: int) -> None:
    importer.PART_BYTES = 2000
    killed_write(path, "import", arguments, at)


def test_a_killed_import_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "PART_BYTES", 2000)
    vectors = [np.random.default_rng(i).normal(size=(1 + i % 3, DIM)).tolist() for i in range(90)]
    arguments = {"source": tmp_path / "v.parquet", "modality": "video"}
    imported(tmp_path / "v.parquet", tmp_path / "whole", table_of(vectors))
    expected = pieces_of(tmp_path / "whole", "video")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["embedstore.ingest.import_vectors", "embedstore.retrieval.compact", "h5py", "duckdb"])
    process = context.Process(target=killed_import, args=(tmp_path / "s", arguments, 9))
    process.start()
    process.join()
    assert process.exitcode == -9
    assert 0 < len(es.Store.open(tmp_path / "s")) < 90
    es.import_vectors(store=tmp_path / "s", **arguments)
    assert pieces_of(tmp_path / "s", "video") == expected
    again, whole = es.Store.open(tmp_path / "s"), es.Store.open(tmp_path / "whole")
    assert [(ref.file, ref.sha256) for ref in again.manifest.refs()] == [
        (ref.file, ref.sha256) for ref in whole.manifest.refs()
    ]
