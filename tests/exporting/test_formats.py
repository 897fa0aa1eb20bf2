"""What each target holds, read as its own users read it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from exports import rich_store

import embedstore as es
from embedstore.errors import OutputError, StoreLockedError, UsageError
from embedstore.exporting.arrow_tables import numbers_of
from embedstore.exporting.parquet import ParquetExporter
from embedstore.exporting.qdrant import point_of
from embedstore.registry import EXPORTERS
from embedstore.sources import MemorySource


def vectors_of(store: es.Store, space: str) -> dict[str, Any]:
    rows = store.space(space).rows
    return dict(zip(store.items.take(rows, ["id"]).column("id").to_pylist(), store.space(space).take(rows), strict=True))


def test_a_folder_of_clip_retrieval_comes_back_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through `import`, in several parts: the same ids, metadata and bits; an item without text has none there, either."""
    store = rich_store(tmp_path / "a.store")
    monkeypatch.setattr(EXPORTERS.get("clip-retrieval"), "most_items", 7)
    report = es.export(store, to="clip-retrieval", out=tmp_path / "clip")
    assert sorted(path.name for path in (tmp_path / "clip" / "img_emb").iterdir()) == [f"img_emb_{i:05d}.npy" for i in range(3)]
    assert report.spaces["text"].missing == 1
    es.import_vectors(tmp_path / "clip", tmp_path / "b.store")
    again = es.Store.open(tmp_path / "b.store")
    for space in ("image", "text"):
        mine, theirs = vectors_of(store, space), vectors_of(again, space)
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
    columns = ["id", "label", "price", "count", "day", "at", "ok", "tags", "more"]
    mine, theirs = (s.items.table(columns).sort_by("id").to_pylist() for s in (store, again))
    assert mine == theirs


def test_parquet_lies_ready_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several files, groups of rows, lists of one size, the stored float16; DuckDB searches them, LanceDB takes them."""
    import lancedb

    monkeypatch.setattr(ParquetExporter, "most_items", 1500)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4000, 8)).astype(np.float16)
    es.import_vectors(vectors, tmp_path / "a.store", modality="image", metadata={"n": np.arange(4000)})
    es.export(tmp_path / "a.store", to="parquet", out=tmp_path / "p")
    files = sorted((tmp_path / "p").glob("*.parquet"))
    assert [pq.ParquetFile(file).metadata.num_rows for file in files] == [1500, 1500, 1000]
    kind = pq.read_schema(files[0]).field("image_vector").type
    assert (kind.list_size, kind.value_type) == (8, pa.float16())
    dataset = ds.dataset(tmp_path / "p")
    assert dataset.count_rows() == 4000
    asked = "(SELECT image_vector::FLOAT[8] FROM found WHERE n = 77)"
    near = duckdb.sql(
        f"WITH found AS (SELECT * FROM '{tmp_path}/p/*.parquet') "
        f"SELECT n FROM found ORDER BY array_cosine_similarity(image_vector::FLOAT[8], {asked}) DESC LIMIT 5"
    ).fetchnumpy()["n"]
    unit = vectors.astype(np.float32) / np.linalg.norm(vectors.astype(np.float32), axis=1, keepdims=True)
    assert near.tolist() == np.argsort(-(unit @ unit[77]), kind="stable")[:5].tolist()
    table = lancedb.connect(tmp_path / "l").create_table("t", dataset.to_batches(), schema=dataset.schema)
    assert table.count_rows() == 4000


def test_arrays_go_row_by_row_with_their_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = rich_store(tmp_path / "a.store")
    monkeypatch.setattr(EXPORTERS.get("npy"), "most_items", 6)
    es.export(store, to="npy", out=tmp_path / "n", dtype="float32")
    ids = ds.dataset(sorted((tmp_path / "n" / "metadata").glob("*"))).to_table().column("id").to_pylist()
    for space in ("image", "text"):
        array, mine = np.load(tmp_path / "n" / f"{space}.npy"), vectors_of(store, space)
        assert array.dtype == np.float32
        for name, row in zip(ids, array, strict=True):
            assert np.array_equal(row, mine[name]) if name in mine else np.isnan(row).all()
    es.import_vectors(np.ones((1, 4), np.float32), store.path, modality="audio", ids=["i00"], dtype="float32")
    with pytest.raises(UsageError, match="float16 would round it"):
        es.export(store.path, to="npy", out=tmp_path / "m", dtype="float16")


def test_a_map_has_places_and_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PCA as scikit-learn has it, and the nearest rows, over the parts of the map."""
    from sklearn.decomposition import PCA

    store = rich_store(tmp_path / "a.store")
    monkeypatch.setattr(EXPORTERS.get("embedding-atlas"), "most_items", 8)
    report = es.export(store, to="embedding-atlas", out=tmp_path / "m", space="image")
    assert any("--x x --y y --neighbors neighbors" in note for note in report.notes)
    table = ds.dataset(tmp_path / "m").to_table()
    x, has = numbers_of(table.column("image_vector"), 24)
    assert has.all()
    places = PCA(2, svd_solver="full").fit_transform(x.astype(np.float64))
    for name, place in zip(("x", "y"), places.T, strict=True):
        mine = table.column(name).to_numpy()
        assert min(np.abs(mine - place).max(), np.abs(mine + place).max()) < 1e-4
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    near = np.argsort(-(unit @ unit.T), axis=1)[:, :16]
    assert [row["ids"] for row in table.column("neighbors").to_pylist()] == near.tolist()
    assert table.column("neighbors").to_pylist()[3]["distances"][0] < 1e-6


def test_points_of_qdrant_are_found_by_id(tmp_path: Path) -> None:
    from qdrant_client import QdrantClient

    store = rich_store(tmp_path / "a.store", ids=["a/b.jpg", "é", "c", "d", "e"])
    es.export(store, to="qdrant", out=tmp_path / "q", name="mine")
    client = QdrantClient(path=str(tmp_path / "q"))
    (point,) = client.retrieve("mine", [point_of("é")], with_vectors=True)
    client.close()
    assert point.payload is not None
    assert (point.payload["id"], point.payload["day"], point.payload["price"]) == ("é", "2024-02-02", None)
    assert point.payload["more"] == {"a": 1, "b": [1.5, None]}
    mine = vectors_of(store, "image")["é"].astype(np.float32)
    theirs = np.asarray(point.vector["image"])  # type: ignore[index, call-overload]
    assert np.allclose(theirs / np.linalg.norm(theirs), mine / np.linalg.norm(mine), atol=1e-3)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_full_disk_is_one_line(code: int, store: es.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the same command goes on when there is room."""

    def full(*given: Any) -> None:
        raise OSError(code, "no")

    with monkeypatch.context() as patch:
        patch.setattr(ParquetExporter, "write", full)
        with pytest.raises(
            OutputError, match=r"p cannot be written: (No space left on device|Permission denied)\. (Make|Check)"
        ):
            es.export(store, to="parquet", out=tmp_path / "p")
    assert es.export(store, to="parquet", out=tmp_path / "p").changes.written == 12


def test_a_disk_without_room_for_arrays_says_so_first(store: es.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "no")

    with monkeypatch.context() as patch:
        patch.setattr("embedstore.exporting.npy_files.os.posix_fallocate", full)
        with pytest.raises(OutputError, match=r"n cannot be written: No space left on device\. Make room"):
            es.export(store, to="npy", out=tmp_path / "n")
    assert es.export(store, to="npy", out=tmp_path / "n").check.sampled == 12


def test_two_exports_to_one_folder_wait_for_none(store: es.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def second(self: Any, *given: Any) -> None:
        with pytest.raises(StoreLockedError, match="Another process is exporting to"):
            es.export(store, to="parquet", out=tmp_path / "p")
        real(self, *given)

    real = ParquetExporter.write
    with monkeypatch.context() as patch:
        patch.setattr(ParquetExporter, "write", second)
        es.export(store, to="parquet", out=tmp_path / "p")


def test_names_that_would_collide_are_kept_apart(tmp_path: Path) -> None:
    data = {"id": ["a", "b"], "text": ["one", "two"], "text_vector": ["x", "y"], "embedstore_version": [1, 2]}
    es.embed(MemorySource(data), tmp_path / "a.store", text="hash:16")
    es.export(tmp_path / "a.store", to="parquet", out=tmp_path / "p")
    names = ds.dataset(tmp_path / "p").schema.names
    assert names == ["id", "text", "text_vector (2)", "embedstore_version", "text_vector"]


def test_a_store_without_vectors_has_nothing_to_export(tmp_path: Path) -> None:
    store = es.Store.open(tmp_path / "a.store", create=True)
    with pytest.raises(UsageError, match="has no vectors yet"):
        es.export(store, to="parquet", out=tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_milvus_by_its_address(tmp_path: Path) -> None:
    """A server: exact over the index that a new collection has, then as Milvus chooses, and from then on only so."""
    from milvus_lite.server_manager import server_manager_instance

    address = server_manager_instance.start_and_get_uri(str(tmp_path / "served.db"))
    store = rich_store(tmp_path / "a.store")
    asked: dict[str, Any] = {"to": "milvus", "out": address, "space": "image", "dtype": "float32"}
    first, again = (es.export(store, **asked) for _ in range(2))
    assert (first.changes.written, again.changes.written) == (20, 0)
    exact, default = first.check.recall["image"].exact, first.check.recall["image"].default
    assert exact is not None
    assert default is not None
    assert exact.value == 1
    assert again.check.recall["image"].exact is None
    assert "exact search was not measured: the collection has its index already" in again.notes


def test_qdrant_by_its_address(store: es.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key comes from the environment; what follows is what a folder gets. Only the connection is a folder's here."""
    import qdrant_client

    given: dict[str, Any] = {}

    def connected(**asked: Any) -> Any:
        given.update(asked)
        return real(path=str(tmp_path / "q"))

    real = qdrant_client.QdrantClient
    monkeypatch.setattr(qdrant_client, "QdrantClient", connected)
    monkeypatch.setenv("QDRANT_API_KEY", "secret")
    report = es.export(store, to="qdrant", out="https://host:6333", space="image")
    assert (given["url"], given["api_key"]) == ("https://host:6333", "secret")
    recall = report.check.recall["image"]
    assert recall.exact is not None
    assert recall.default is not None
    assert report.out == "https://host:6333: collection 'a'"
