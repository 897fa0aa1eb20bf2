"""Vectors of others: every layout gives the same vectors back, they are marked as declared, and a kill loses nothing."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import killed_write, run, write_csv
from media import film

import embedstore as es
from embedstore._core.keys import hash_rows
from embedstore.encoders import ENCODERS, load_encoder
from embedstore.encoders.hash import HashEncoder
from embedstore.encoders.payloads.films import frames
from embedstore.errors import DuplicateIdError, FingerprintError, PayloadError, SourceError, UsageError
from embedstore.ingest import importer
from embedstore.ingest.pack import Packed, pack
from embedstore.sources import MemorySource
from embedstore.sources.vectors.columns import ParquetColumns
from embedstore.spec import EncoderSpec

DIM = 8
SMALL_PARTS = 1 << 14  # bytes: parts of 1,024 rows


def made(n: int = 30, dim: int = DIM, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)


def stored(path: Path, space: str = "image") -> tuple[list[str], np.ndarray[Any, Any]]:
    """Ids and vectors of a space, in the order of the rows; the store is clean."""
    store = es.Store.open(path)
    report = es.verify(store)
    assert (report.problems, report.notes) == ([], [])
    held = store.spaces[space]
    rows = np.sort(held.rows)
    return store.items.take(rows, ["id"]).column("id").to_pylist(), held.take(rows)


def agrees(path: Path, vectors: np.ndarray[Any, Any], ids: list[str] | None = None, space: str = "image") -> None:
    """The space holds these vectors, to the bit, and search finds the neighbours that they have."""
    found, held = stored(path, space)
    assert found == (ids or [str(i) for i in range(len(vectors))])
    np.testing.assert_array_equal(held, vectors.astype(held.dtype))
    unit = held.astype(np.float64) / np.linalg.norm(held.astype(np.float64), axis=1, keepdims=True)
    scores = unit @ unit[3]
    nearest = [i for i in np.argsort(-scores) if i != 3][:5]
    assert [hit.id for hit in es.search(path, id=found[3], space=space, k=5).results] == [found[i] for i in nearest]


@pytest.mark.parametrize("kind", ["<f2", "<f4", "<f8", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path: Path, kind: str, order: Any) -> None:
    vectors = made().astype(kind, order=order)
    np.save(tmp_path / "v.npy", vectors)
    report = es.import_vectors(tmp_path / "v.npy", tmp_path / "s", modality="image")
    assert (report.items, report.added, report.bytes) == (30, 30, vectors.nbytes)
    agrees(tmp_path / "s", vectors)
    assert "Ids are the numbers of the rows" in report.notes[0]


def test_float32_is_kept_where_asked(tmp_path: Path) -> None:
    es.import_vectors(made(), tmp_path / "s", space="image", dtype="float32")
    assert stored(tmp_path / "s")[1].dtype == np.float32
    agrees(tmp_path / "s", made())


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "v.npz", embeddings=made(), ids=np.arange(30) * 10, other=made(5, 3))
    es.import_vectors(tmp_path / "v.npz", tmp_path / "s", modality="image")
    agrees(tmp_path / "s", made(), [str(10 * i) for i in range(30)])


def test_ids_and_metadata_beside_an_array(tmp_path: Path) -> None:
    names = [f"n{i}" for i in range(30)]
    np.save(tmp_path / "v.npy", made())
    np.save(tmp_path / "ids.npy", np.array(names))
    (tmp_path / "ids.txt").write_text("\n".join(names) + "\n")
    table = write_csv(tmp_path / "m.csv", [{"name": name, "label": i % 3, "text": "t"} for i, name in enumerate(names)])
    for number, ids in enumerate([names, np.array(names), tmp_path / "ids.npy", str(tmp_path / "ids.txt"), "name"]):
        store = tmp_path / f"s{number}"
        es.import_vectors(tmp_path / "v.npy", store, modality="image", ids=ids, metadata=table)
        agrees(store, made(), names)
    items = es.Store.open(store).items.table()
    assert items.column_names == ["row", "id", "label", "text_"]  # 'text' is the store's own word
    assert items.column("label").to_pylist() == [i % 3 for i in range(30)]


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), DIM), pa.large_list(pa.float64()), "half"])
def test_parquet(tmp_path: Path, kind: Any) -> None:
    kind = pa.list_(pa.float16(), DIM) if kind == "half" else kind
    vectors = made().astype(np.float16)
    rows: list[Any] = list(vectors.astype(kind.value_type.to_pandas_dtype()))
    rows[4] = None
    table = pa.table({"id": pa.array(range(30)), "embedding": pa.array(rows, kind), "label": ["a", "b", "c"] * 10})
    pq.write_table(table, tmp_path / "v.parquet", row_group_size=7)
    report = es.import_vectors(tmp_path / "v.parquet", tmp_path / "s", modality="image")
    assert (report.items, report.spaces["image"].imported, report.spaces["image"].missing) == (30, 29, 1)
    assert report.notes == ["Vectors are taken from column 'embedding'."]
    keep = [i for i in range(30) if i != 4]
    agrees(tmp_path / "s", vectors[keep], [str(i) for i in keep])
    assert es.Store.open(tmp_path / "s").items.table(["label"]).column("label").to_pylist() == ["a", "b", "c"] * 10


def test_a_parquet_file_is_not_read_into_memory(tmp_path: Path) -> None:
    table = pa.table({"v": pa.FixedSizeListArray.from_arrays(pa.array(made(1 << 15, 128).reshape(-1)), 128)})
    pq.write_table(table, tmp_path / "v.parquet", row_group_size=1024, use_dictionary=False)  # 16 MB in 32 groups
    size = table.nbytes
    before = pa.total_allocated_bytes()
    for _ in ParquetColumns("v", [tmp_path / "v.parquet"]).batches(1024, ["v"]):
        assert pa.total_allocated_bytes() - before < size / 3


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize("wide", [False, True])
def test_text_tables(tmp_path: Path, suffix: str, wide: bool) -> None:
    vectors, rows = made(12, 11), []
    for i, vector in enumerate(vectors):
        numbers = [float(x) for x in vector]
        spread = {f"e{k}": numbers[k] for k in (10, *range(10))}  # e10 comes first in the file and last in the vector
        listed: Any = numbers if suffix == ".jsonl" else json.dumps(numbers)
        rows.append({"id": f"{i:03d}", "price": i / 2, **(spread if wide else {"vec": listed})})
    path = tmp_path / f"v{suffix}"
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = write_csv(tmp_path / "t", rows).read_text()
        path.write_text(lines if suffix == ".csv" else _tabs(rows))
    report = es.import_vectors(path, tmp_path / "s", modality="image", dtype="float32")
    agrees(tmp_path / "s", vectors, [f"{i:03d}" for i in range(12)])
    assert report.notes == [
        f"Vectors are taken from {'columns ' + repr('e0') + ' to ' + repr('e10') if wide else 'column ' + repr('vec')}."
    ]
    assert es.Store.open(tmp_path / "s").items.table(["price"]).column("price").to_pylist() == [i / 2 for i in range(12)]


def _tabs(rows: list[dict[str, Any]]) -> str:
    return "\n".join(["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]) + "\n"


def clip_folder(path: Path, files: int = 11) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """As clip-retrieval writes it: normalised float16, three rows a file, metadata whose columns differ from file to file."""
    images, texts = (made(3 * files, seed=s).astype(np.float16) for s in (1, 2))
    for kind, vectors in (("img_emb", images), ("text_emb", texts)):
        (path / kind).mkdir(parents=True)
        for i in range(files):
            np.save(path / kind / f"{kind}_{i}.npy", vectors[3 * i : 3 * i + 3])
    (path / "metadata").mkdir()
    for i in range(files):
        names = [f"p{row}.jpg" for row in range(3 * i, 3 * i + 3)]
        columns: dict[str, Any] = {"image_path": names, "caption": [f"about {name}" for name in names]}
        columns |= {"width": [1, 2, 3]} if i % 2 else {"width": [1.5, None, 2.0], "license": ["CC0"] * 3}
        pq.write_table(pa.table(columns), path / "metadata" / f"metadata_{i}.parquet")
    return images, texts


def test_clip_retrieval(tmp_path: Path) -> None:
    images, texts = clip_folder(tmp_path / "clip")
    report = es.import_vectors(tmp_path / "clip", tmp_path / "s", encoder="clip")
    assert {name: space.imported for name, space in report.spaces.items()} == {"image": 33, "text": 33}
    ids = [f"p{row}.jpg" for row in range(33)]
    agrees(tmp_path / "s", images, ids)
    agrees(tmp_path / "s", texts, ids, "text")
    store = es.Store.open(tmp_path / "s")
    items = store.items.table()
    assert items.column_names == ["row", "id", "caption", "width", "license"]
    assert items.column("caption").to_pylist() == [f"about {i}" for i in ids]
    assert items.column("width").to_pylist()[:6] == [1.5, None, 2.0, 1.0, 2.0, 3.0]
    image, text = store.spaces["image"].spec, store.spaces["text"].spec
    assert image.alignment == text.alignment is not None
    assert (image.family, image.model, image.declared) == ("openclip", "ViT-B-32/laion2b_s34b_b79k", True)
    assert report.to_dict()["spaces"]["image"]["fingerprint"] == image.fingerprint != text.fingerprint
    assert es.import_vectors(tmp_path / "clip", tmp_path / "t", modality="text", space="captions").spaces.keys() == {"captions"}


def test_files_of_unequal_length(tmp_path: Path) -> None:
    clip_folder(tmp_path / "clip", 3)
    np.save(tmp_path / "clip" / "text_emb" / "text_emb_1.npy", made(2))
    with pytest.raises(SourceError, match=r"img_emb_1.npy has 3 rows, but .*text_emb_1.npy has 2"):
        es.import_vectors(tmp_path / "clip", tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_autofaiss_layouts(tmp_path: Path) -> None:
    vectors = made(33)
    for folder in ("npy", "ids", "parquet"):
        (tmp_path / folder).mkdir()
    for i in range(11):
        part, keys = vectors[3 * i : 3 * i + 3], [f"k{row}" for row in range(3 * i, 3 * i + 3)]
        np.save(tmp_path / "npy" / f"emb_{i}.npy", part)
        pq.write_table(pa.table({"key": keys, "i": range(3 * i, 3 * i + 3)}), tmp_path / "ids" / f"{i:010d}.parquet")
        pq.write_table(pa.table({"key": keys, "embedding": list(part)}), tmp_path / "parquet" / f"{i}.parquet")
    ids = [f"k{row}" for row in range(33)]
    es.import_vectors(tmp_path / "npy", tmp_path / "a", modality="image", ids="key", metadata=tmp_path / "ids")
    es.import_vectors(tmp_path / "parquet", tmp_path / "b", modality="image", ids="key")
    es.import_vectors(tmp_path / "npy", tmp_path / "c", modality="image")
    agrees(tmp_path / "a", vectors, ids)
    agrees(tmp_path / "b", vectors, ids)
    agrees(tmp_path / "c", vectors)


@pytest.mark.parametrize("chunks", [None, (4, 5)])
def test_hdf5(tmp_path: Path, chunks: Any) -> None:
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_dataset("a/features", data=made(), chunks=chunks)
        file.create_dataset("a/id", data=[f"é{i}" for i in range(30)])
        file.create_dataset("b/features", data=made(seed=9), chunks=chunks)
        file.create_dataset("b/names", data=[f"n{i}" for i in range(30)])
    es.import_vectors(f"{tmp_path}/v.h5:/a/features", tmp_path / "s", modality="image")
    agrees(tmp_path / "s", made(), [f"é{i}" for i in range(30)])
    es.import_vectors(tmp_path / "v.h5", tmp_path / "t", modality="image", vector_column="b/features", ids="names")
    agrees(tmp_path / "t", made(seed=9), [f"n{i}" for i in range(30)])
    with pytest.raises(UsageError, match=r"several arrays of vectors: /a/features, /b/features. Name one: .*v.h5:/DATASET"):
        es.import_vectors(tmp_path / "v.h5", tmp_path / "u", modality="image")


def test_another_store_s_embeddings(store: es.Store, tmp_path: Path) -> None:
    es.import_vectors(f"{store.path}/embeddings.h5:/image/vectors", tmp_path / "s", modality="image")
    ids, vectors = stored(tmp_path / "s")
    np.testing.assert_array_equal(vectors, store.spaces["image"].vectors())
    assert ids == store.items.take(store.spaces["image"].rows, ["id"]).column("id").to_pylist()


def test_trainable_at_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 300)
    vectors = (3 * np.eye(3, DIM)[label] + rng.standard_normal((300, DIM))).astype(np.float32)
    es.import_vectors(vectors, tmp_path / "s", space="image", metadata={"label": [f"c{k}" for k in label]})
    report = es.train(tmp_path / "s", "label", report=False)
    assert report.metrics["accuracy"].value > 0.8
    assert len(es.predict(tmp_path / "s", "label").ids) == 300


def test_declared_and_computed_are_never_mixed(table: Path, store: es.Store, tmp_path: Path) -> None:
    ids = [f"item-{i:02d}" for i in range(12)]
    computed = store.spaces["image"].spec
    with pytest.raises(FingerprintError, match="cannot be mixed") as refused:
        es.import_vectors(made(12, 32), store.path, space="image", encoder="hash:32", ids=ids)
    declared = EncoderSpec("hash:32", "hash", "32", "declared", "image", 32, declared=True)
    assert computed.fingerprint in str(refused.value)
    assert declared.fingerprint in str(refused.value)
    assert "--space NEWNAME" in str(refused.value)
    es.import_vectors(made(12, 32), tmp_path / "s", space="image", encoder="hash:32", ids=ids)
    with pytest.raises(FingerprintError, match="declared, fingerprint") as refused:
        es.embed(table, tmp_path / "s", image="hash:32")
    assert declared.fingerprint in str(refused.value)
    with pytest.raises(FingerprintError, match="cannot be mixed"):
        es.import_vectors(made(12, 32), tmp_path / "s", space="image", encoder="hash:33", ids=ids)
    info = es.Store.open(tmp_path / "s").info()["spaces"]["image"]
    assert (info["declared"], info["encoder"], info["fingerprint"]) == (True, "hash:32", declared.fingerprint)
    assert "declared" not in store.info()["spaces"]["image"]
    assert "hash:32 (declared)" in run("info", tmp_path / "s").stdout


def test_what_is_computed_keeps_its_fingerprint() -> None:
    spec = HashEncoder(16, "text", "hash:16").spec
    assert "declared" not in spec.to_dict()
    assert spec.fingerprint == EncoderSpec.from_dict(spec.to_dict()).fingerprint


def test_queries_by_the_declared_encoder(tmp_path: Path) -> None:
    texts, encoder = [f"text {i}" for i in range(30)], HashEncoder(16, "text", "hash:16")
    vectors = encoder.encode([text.encode() for text in texts])
    es.import_vectors(vectors, tmp_path / "s", modality="text", encoder="hash:16", metadata={"label": ["a", "b"] * 15})
    found = es.search(tmp_path / "s", text="text 7", k=1)
    assert (found.results[0].id, round(found.results[0].score, 3)) == ("7", 1)
    assert found.note == "The vectors of space 'text' were imported, and are declared to be of 'hash:16', not computed here."
    found = es.search(tmp_path / "s", vector=es.QueryVector(vectors[9], encoder.spec.fingerprint), k=1)
    assert (found.results[0].id, found.note is not None) == ("9", True)
    with pytest.raises(FingerprintError, match="declared, fingerprint"):
        es.search(tmp_path / "s", vector=es.QueryVector(vectors[9], "0" * 16))
    es.train(tmp_path / "s", "label", report=False)
    new = MemorySource({"id": ["new"], "text": ["text 7"]})
    assert list(es.predict(tmp_path / "s", "label", new).ids) == ["new"]


def test_a_declared_encoder_of_another_dimension(tmp_path: Path) -> None:
    es.import_vectors(made(), tmp_path / "s", modality="text", encoder="hash:16")
    with pytest.raises(FingerprintError, match=r"8-d vectors declared to be of hash:16 .* makes 16-d ones"):
        es.search(tmp_path / "s", text="x")


@pytest.mark.parametrize("encoder", [None, "my-model-v2"])
def test_no_encoder_that_can_be_loaded(tmp_path: Path, encoder: str | None) -> None:
    report = es.import_vectors(made(), tmp_path / "s", modality="text", encoder=encoder)
    assert any("cannot load" in note for note in report.notes) == (encoder is not None)
    words = "is declared to be of 'my-model-v2'. No encoder is called" if encoder else "was imported without --encoder"
    with pytest.raises(UsageError, match=f"Space 'text' {words}.*--vector FILE.npy"):
        es.search(tmp_path / "s", text="x")
    assert es.search(tmp_path / "s", vector=made()[5], k=1).results[0].id == "5"


class TwoTowers(HashEncoder):
    """Makes image and text vectors that can be compared."""

    def __init__(self, modality: str) -> None:
        super().__init__(DIM, modality)
        self.spec = EncoderSpec("openclip:two", "openclip", "two", "none", modality, DIM, alignment="two")


@pytest.fixture
def two_towers() -> Iterator[None]:
    ENCODERS.register("openclip", lambda request: TwoTowers(request.modality))
    yield
    del ENCODERS._extra["openclip"]


@pytest.mark.usefixtures("two_towers")
def test_a_text_finds_imported_images(tmp_path: Path) -> None:
    vectors = made()
    vectors[11] = TwoTowers("text").encode([b"a house"])[0]
    es.import_vectors(vectors, tmp_path / "s", modality="image", encoder="openclip:two")
    found = es.search(tmp_path / "s", text="a house", k=2)
    assert (found.space, found.results[0].id) == ("image", "11")
    assert "declared to be of 'openclip:two'" in str(found.note)


@pytest.fixture
def sound_and_words() -> Iterator[None]:
    """A CLAP model, as far as a name tells."""

    class Towers(HashEncoder):
        def __init__(self, modality: str) -> None:
            super().__init__(DIM, modality)
            self.spec = EncoderSpec("clap:two", "clap", "two", "none", modality, DIM, alignment="two")

    kept = ENCODERS._extra.get("clap")
    ENCODERS.register("clap", lambda request: Towers(request.modality))
    yield
    del ENCODERS._extra["clap"]
    if kept is not None:
        ENCODERS._extra["clap"] = kept


@pytest.mark.usefixtures("sound_and_words")
def test_words_and_sounds_find_imported_sounds(tmp_path: Path) -> None:
    vectors = made()
    vectors[11] = HashEncoder(DIM, "text").encode([b"a dog barks"])[0]
    es.import_vectors(vectors, tmp_path / "s", modality="audio", encoder="clap:two")
    assert es.search(tmp_path / "s", text="a dog barks", k=1).results[0].id == "11"
    (tmp_path / "bark").write_bytes(b"a dog barks")
    assert es.search(tmp_path / "s", audio=tmp_path / "bark", k=1).results[0].id == "11"


def test_pictures_and_films_find_imported_films(tmp_path: Path) -> None:
    payload = film([0])
    encoder = load_encoder("frames:1:hash:16", "video")
    vectors = np.random.default_rng(0).normal(size=(9, 16)).astype(np.float32)
    vectors[5] = encoder.encode([encoder.prepare(payload)])[0]
    es.import_vectors(vectors, tmp_path / "s", modality="video", encoder="frames:1:hash:16")
    (tmp_path / "film").write_bytes(payload)
    assert es.search(tmp_path / "s", video=tmp_path / "film", k=1).results[0].id == "5"
    ((image, _),) = frames(payload, 1)
    image.save(tmp_path / "frame.bmp")
    found = es.search(tmp_path / "s", image=tmp_path / "frame.bmp", k=1)
    assert (found.results[0].id, round(found.results[0].score, 3)) == ("5", 1.0)
    with pytest.raises(UsageError, match=r"A text cannot be compared with space 'video'.*--video FILE"):
        es.search(tmp_path / "s", text="a film")
    again = es.import_vectors(vectors, tmp_path / "s", modality="video", encoder="frames:1:hash:16")
    assert (again.spaces["video"].imported, again.spaces["video"].unchanged) == (0, 9)


def test_films_share_an_alignment_with_the_images_of_two_towers(tmp_path: Path) -> None:
    for modality, encoder in (("image", "openclip:two"), ("video", "frames:4:openclip:two"), ("audio", "logmel")):
        es.import_vectors(made(), tmp_path / "s", modality=modality, encoder=encoder)
    spaces = es.Store.open(tmp_path / "s").spaces
    assert spaces["image"].spec.alignment == spaces["video"].spec.alignment == "declared:openclip:two"
    assert spaces["audio"].spec.alignment is None


def test_a_further_space_is_joined_by_id(store: es.Store) -> None:
    before = store.spaces["image"].vectors().copy()
    ids = [f"item-{i:02d}" for i in reversed(range(12))]
    report = es.import_vectors(made(12), store.path, space="mine", modality="image", ids=ids)
    assert (report.added, report.updated, report.spaces["mine"].imported) == (0, 0, 12)
    agrees(store.path, made(12)[::-1], ids[::-1], "mine")
    np.testing.assert_array_equal(es.Store.open(store.path).spaces["image"].vectors(), before)
    wrong = [*ids[:10], "x", "y"]
    with pytest.raises(UsageError, match=r"no item for 2 of the 12 ids of the array: the first is 'x' in row 10 .*--add-items"):
        es.import_vectors(made(12), store.path, space="more", modality="image", ids=wrong)
    with pytest.raises(UsageError, match=r"no item for 12 of the 12"):
        es.import_vectors(made(12), store.path, space="more", modality="image")
    report = es.import_vectors(made(12), store.path, space="more", modality="image", ids=wrong, add_items=True)
    assert (report.added, len(es.Store.open(store.path))) == (2, 14)
    with pytest.raises(UsageError, match=r"no item for 1 of the 1 ids of the array: the first is 'z'.*--add-items"):
        es.import_vectors(made(1), store.path, space="more", modality="image", ids=["z"])
    assert es.import_vectors(made(1), store.path, space="more", modality="image", ids=["z"], add_items=True).added == 1


def test_again_changes_nothing_and_changes_are_updates(store: es.Store) -> None:
    ids, vectors = [f"item-{i:02d}" for i in range(12)], made(12)
    given: dict[str, Any] = {"space": "mine", "modality": "image", "ids": ids}
    es.import_vectors(vectors, store.path, metadata={"size": list(range(12))}, **given)
    generation = es.Store.open(store.path).generation
    report = es.import_vectors(vectors.astype(np.float64), store.path, metadata={"size": list(range(12))}, **given)
    assert (report.spaces["mine"].unchanged, es.Store.open(store.path).generation) == (12, generation)
    vectors[3] += 1
    report = es.import_vectors(vectors, store.path, metadata={"size": [*range(11), 99]}, **given)
    counts = report.spaces["mine"]
    assert (report.updated, counts.imported, counts.replaced, counts.unchanged) == (2, 1, 1, 11)
    opened = es.Store.open(store.path)
    for name in ("image", "text"):  # what the updated items had in other spaces went along
        rows = opened.items.rows_of([i for i in ids if name == "image" or i != "item-03"])
        old = store.items.rows_of([i for i in ids if name == "image" or i != "item-03"])
        np.testing.assert_array_equal(opened.spaces[name].take(rows), store.spaces[name].take(old))
    rows = opened.items.rows_of(ids)
    np.testing.assert_array_equal(opened.spaces["mine"].take(rows), vectors.astype(np.float16))
    assert opened.items.take(rows, ["size"]).column("size").to_pylist() == [*range(11), 99]
    assert opened.items.take(rows, ["price"]).column("price").to_pylist() == [1.5 * i for i in range(12)]
    assert es.verify(opened).clean


def test_embedding_leaves_imported_vectors_alone(table: Path, tmp_path: Path) -> None:
    ids = [f"item-{i:02d}" for i in range(12)]
    es.import_vectors(made(12), tmp_path / "s", space="mine", modality="image", ids=ids)
    es.embed(table, tmp_path / "s", image="hash:32", text="hash:16")
    es.embed(table, tmp_path / "s")
    report = es.embed(table, tmp_path / "s", rehash=True)
    assert report.updated == 0
    opened = es.Store.open(tmp_path / "s")
    np.testing.assert_array_equal(opened.spaces["mine"].take(opened.items.rows_of(ids)), made(12).astype(np.float16))
    assert es.verify(opened).clean


def test_vectors_that_cannot_be_used(tmp_path: Path) -> None:
    vectors = made()
    vectors[3, 2], vectors[5, 0], vectors[8] = np.nan, -np.inf, 0
    np.save(tmp_path / "v.npy", vectors)
    report = es.import_vectors(tmp_path / "v.npy", tmp_path / "s", modality="image")
    counts = report.spaces["image"]
    assert (counts.imported, counts.failed, counts.zeros) == (28, 2, 1)
    failures = es.Store.open(tmp_path / "s").spaces["image"].failures.to_pylist()
    assert [(f["id"], f["stage"], f["reason"]) for f in failures] == [
        ("3", "decode", "v.npy: row 3 (from 0) holds NaN"),
        ("5", "decode", "v.npy: row 5 (from 0) holds infinity"),
    ]
    generation = es.Store.open(tmp_path / "s").generation
    assert es.import_vectors(tmp_path / "v.npy", tmp_path / "s", modality="image").spaces["image"].failed == 2
    assert es.Store.open(tmp_path / "s").generation == generation
    with pytest.raises(PayloadError, match=r"item '3': v.npy: row 3 \(from 0\) holds NaN. Nothing of this part was kept"):
        es.import_vectors(tmp_path / "v.npy", tmp_path / "t", modality="image", strict=True)
    assert not (tmp_path / "t").exists()
    np.save(tmp_path / "v.npy", made())
    assert es.import_vectors(tmp_path / "v.npy", tmp_path / "s", modality="image").spaces["image"].imported == 3
    agrees_after = es.Store.open(tmp_path / "s").spaces["image"]
    assert (len(agrees_after), agrees_after.failures.num_rows) == (30, 0)
    spoilt = made()
    spoilt[0, 0] = np.nan
    kept = es.import_vectors(spoilt, tmp_path / "s", modality="image")
    assert (kept.spaces["image"].failed, kept.spaces["image"].kept) == (1, 1)
    assert any(note.startswith("1 of the failures in space 'image' keep the vector") for note in kept.notes)


def test_a_vector_that_was_there_stays_when_its_file_breaks(tmp_path: Path) -> None:
    vectors = made()
    es.import_vectors(vectors, tmp_path / "s", space="image", metadata={"n": list(range(30))})
    broken = vectors.copy()
    broken[4] = np.nan
    report = es.import_vectors(broken, tmp_path / "s", space="image", metadata={"n": list(range(1, 31))})
    assert (report.spaces["image"].failed, report.updated) == (1, 30)
    agrees(tmp_path / "s", vectors)


def test_declared_unit_length(tmp_path: Path) -> None:
    vectors = made() / np.linalg.norm(made(), axis=1, keepdims=True)
    vectors[6] *= 1.5
    report = es.import_vectors(vectors, tmp_path / "s", space="image", normalized=True)
    assert report.failures == [("image", "6", "the array: row 6 (from 0) has length 1.5, but unit length is declared")]
    assert es.Store.open(tmp_path / "s").spaces["image"].spec.normalized


def test_float16_overflow_names_the_way_out(tmp_path: Path) -> None:
    vectors = made()
    vectors[2, 1] = -7e4
    with pytest.raises(SourceError, match=r"row 2 \(from 0\) holds 70000; float16 holds up to 65504.*--dtype float32"):
        es.import_vectors(vectors, tmp_path / "s", space="image")
    es.import_vectors(vectors, tmp_path / "s", space="image", dtype="float32")
    assert stored(tmp_path / "s")[1][2, 1] == -7e4


def cosines(left: Any, right: Any) -> Any:
    """Of each row (n,), in extended precision; 0 where one is all zeros."""
    left, right = np.asarray(left, np.longdouble), np.asarray(right, np.longdouble)
    norms = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    return (left * right).sum(axis=1) / np.where(norms > 0, norms, 1)


@pytest.mark.parametrize("given", [np.float32, np.float64])
@pytest.mark.parametrize("dim", [1, 8, 300])
def test_a_direction_that_float16_loses_is_told_exactly(given: Any, dim: int) -> None:
    rng = np.random.default_rng(dim)
    rows = (rng.normal(size=(3000, dim)) * 10.0 ** rng.uniform(-12, 3, (3000, 1))).astype(given)
    rows[:3] = 0
    rows[3:6, 1:] = 0  # one value
    out = Packed.empty(len(rows), dim, np.float16)
    with importer.ThreadPoolExecutor(2) as pool:
        pack([([rows], out)], pool, threads=2)
    expected = (cosines(rows, rows.astype(np.float16)) < 0.999) & rows.any(axis=1)
    assert 200 < expected.sum() < 2800
    np.testing.assert_array_equal(out.lost, expected)


def test_vectors_that_float16_flushes_are_refused(tmp_path: Path) -> None:
    vectors = made()
    vectors[3] *= 1e-9
    vectors[5] = 0
    with pytest.raises(SourceError, match=r"row 3 \(from 0\) holds nothing above .*e-09, so small.*--dtype float32$"):
        es.import_vectors(vectors, tmp_path / "s", space="image")
    assert not (tmp_path / "s").exists()
    report = es.import_vectors(vectors, tmp_path / "s", space="image", dtype="float32")
    assert report.spaces["image"].zeros == 1
    assert (stored(tmp_path / "s")[1] == vectors).all()
    wide = made().astype(np.float64)
    wide[4] *= 1e-60
    with pytest.raises(SourceError, match=r"row 4 .* float32 would change its direction.*Multiply the vectors by a constant"):
        es.import_vectors(wide, tmp_path / "t", space="image", dtype="float32")


def test_the_last_progress_is_of_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "PART_BYTES", SMALL_PARTS)
    seen: list[tuple[int, int | None, int]] = []
    vectors = made(5000)
    es.import_vectors(vectors, tmp_path / "s", space="image", on_progress=lambda p: seen.append((p.done, p.total, p.encoded)))
    assert seen[-1] == (5000, 5000, 5000)
    assert seen == sorted(seen)


def test_every_float16_is_rounded_as_numpy_does() -> None:
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = ((halves[:-1].astype(np.float64) + halves[1:]) / 2).astype(np.float32)
    near = [np.nextafter(middles, np.float32(to)) for to in (0, 1e9)]
    values = np.concatenate([halves, middles, *near, np.float32([1e-45, 65519.99])])
    values = np.concatenate([values, -values])
    rows = values[: len(values) // 8 * 8].reshape(-1, 8)
    out = Packed.empty(len(rows), 8, np.float16, lengths=True)
    with importer.ThreadPoolExecutor(2) as pool:
        pack([([rows[:100], rows[100:]], out)], pool, threads=2)
    np.testing.assert_array_equal(out.vectors.view(np.uint16), rows.astype(np.float16).view(np.uint16))
    np.testing.assert_array_equal(out.largest, np.abs(rows).max(axis=1))
    finite = np.isfinite(out.vectors).all(axis=1)
    assert out.lengths is not None
    expected = np.linalg.norm(out.vectors[finite].astype(np.float64), axis=1)
    np.testing.assert_allclose(out.lengths[finite], expected, rtol=1e-6, atol=1e-30)


def test_the_hash_of_rows_is_the_documented_one() -> None:
    rows = made(5, 5)
    stream = np.frombuffer(hashlib.shake_128(b"embedstore hash_rows 1").digest(72), "<u8") | np.uint64(1)
    for row, key in zip(rows, hash_rows(rows), strict=True):
        words = [int(w) for w in np.frombuffer(row.tobytes() + bytes(4), "<u8")]
        low = high = 0
        for i, word in enumerate(words):
            mixed = word * int(stream[3 * i]) % 2**64
            mixed ^= mixed >> 32
            low = (low + mixed * int(stream[3 * i + 1])) % 2**64
            high = (high + mixed * int(stream[3 * i + 2])) % 2**64
        assert [int(k) for k in key] == [low, high]


def test_the_hash_of_rows_sees_signs_and_order() -> None:
    row = made(1, 64)[0].astype(np.float16)
    rows = [row, row[::-1], np.roll(row, 4)]
    for i in range(64):
        for j in range(i):
            flipped = row.copy()
            flipped[[i, j]] *= -1
            rows.append(flipped)
    assert len(np.unique(hash_rows(np.array(rows)), axis=0)) == len(rows)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda p: np.save(p / "v.npy", np.arange(6).reshape(2, 3)), "holds int64; expected float16, float32, float64, int8"),
        (lambda p: np.save(p / "v.npy", made()[0]), r"has the shape \(8,\); expected \(n, dim\)"),
        (lambda p: np.save(p / "v.npy", made()[:0]), r"has the shape \(0, 8\)"),
        (lambda p: np.save(p / "v.npy", np.array([[{}]]), allow_pickle=True), "Python objects, which only a pickle can store"),
        (lambda p: (p / "v.npy").write_bytes(b"no array"), "is not an array as numpy.save writes it"),
        (lambda p: _cut(p / "v.npy"), r"is cut off: it has 988 bytes, its header promises 1,088"),
        (lambda p: (p / "v.npz").write_bytes(b"PK no zip"), "is damaged or no .npz file"),
        (lambda p: np.savez(p / "v.npz", a=made(), b=made()), "several arrays of vectors: a, b. Name one: --vector-c"),
        (lambda p: np.savez(p / "v.npz", a=made()[0]), r"no two-dimensional array of floats. It holds a \(float32\[8\]\)"),
        (lambda p: (p / "v.h5").write_bytes(b"no hdf5"), "cannot be read as HDF5"),
        (lambda p: (p / "v.parquet").write_bytes(b"no parquet"), "cannot be read as Parquet"),
        (lambda p: pq.write_table(pa.table({"v": [[1], [2]]}), p / "v.parquet"), "no column with lists of numbers"),
        (lambda p: pq.write_table(pa.table({"v": [[1.0], [2.0, 3.0]]}), p / "v.parquet"), r"row 1 \(from 0\) has 2 numbers"),
        (lambda p: (p / "v.csv").write_text("a,b\nx,y\n"), "neither a column of lists .* nor columns of numbers"),
        (lambda p: (p / "v.csv").write_text("e0,e2\n1,2\n"), "has columns e0 to e2, but no e1"),
        (lambda p: (p / "v.csv").write_text("v\n\"[1, x]\"\n"), "cannot be read as csv: "),
        (lambda p: (p / "v.txt").write_text("x"), "expected .npy, .npz, "),
        (lambda p: (p / "v").mkdir(), "holds no .npy and no .parquet file"),
        (lambda p: [(p / "v").mkdir(), np.save(p / "v" / "1.npy", made()), np.save(p / "v" / "2.npy", made(3, 4))],
         "2.npy holds vectors of 4 numbers, but .*1.npy of 8"),
    ],
)  # fmt: skip
def test_sources_that_cannot_be_read(tmp_path: Path, write: Any, words: str) -> None:
    write(tmp_path)
    source = next(tmp_path.iterdir())
    with pytest.raises((SourceError, UsageError), match=words) as refused:
        es.import_vectors(source, tmp_path / "s", modality="image")
    assert "\n" not in str(refused.value)
    assert source.name in str(refused.value)
    assert not (tmp_path / "s").exists()


def _cut(path: Path) -> None:
    np.save(path, made())
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"ids": ["a", "b", "a"]}, DuplicateIdError, r"rows 0 and 2 \(from 0\) both have the id 'a'"),
        ({"ids": ["a", "b"]}, SourceError, "the array has 3 rows, but ids has 2"),
        ({"ids": ["a", None, "b"]}, UsageError, "ids"),
        ({"ids": np.array([0.5, 1, 2])}, SourceError, "ids should be text or whole numbers; column 'id' is double"),
        ({"ids": "name", "metadata": {"name": ["a", None, "b"]}}, SourceError, r"row 1 \(from 0\) has no id in 'name'"),
        ({"ids": "nope", "metadata": {"name": [1, 2, 3]}}, UsageError, "neither a column nor a file. Columns: name"),
        ({"metadata": {"name": [1, 2]}}, SourceError, "the array has 3 rows, but metadata has 2"),
        ({"metadata": "nope.csv"}, SourceError, "nope.csv does not exist"),
        ({"modality": None}, UsageError, "Say what the array holds vectors of: --modality image, text, audio or video"),
        ({"modality": "smell"}, UsageError, "modality must be one of"),
        ({"dtype": "int8"}, UsageError, "dtype must be one of"),
        ({"space": "../x"}, UsageError, "cannot name a space"),
    ],
)
def test_arguments_that_cannot_be_right(tmp_path: Path, given: Mapping[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        es.import_vectors(made(3), tmp_path / "s", **{"modality": "image", **given})
    assert not (tmp_path / "s").exists()


def test_another_dimension_is_refused(tmp_path: Path) -> None:
    es.import_vectors(made(), tmp_path / "s", space="image")
    with pytest.raises(SourceError, match=r"holds vectors of 4 numbers, but space 'image' of 8. .*--space NAME"):
        es.import_vectors(made(3, 4), tmp_path / "s", space="image")


def killed_import(path: Path, arguments: dict[str, Any], at: int) -> None:
    importer.PART_BYTES = SMALL_PARTS
    killed_write(path, "import", arguments, at)


def test_a_kill_loses_at_most_the_part_in_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "PART_BYTES", SMALL_PARTS)
    vectors = made(3500)
    vectors[[5, 2500]] = np.nan
    np.save(tmp_path / "v.npy", vectors)
    pq.write_table(pa.table({"name": [f"n{i}" for i in range(3500)], "x": range(3500)}), tmp_path / "m.parquet")
    arguments = {
        "source": tmp_path / "v.npy", "modality": "image", "encoder": "clip", "metadata": tmp_path / "m.parquet", "ids": "name",
    }  # fmt: skip
    es.import_vectors(store=tmp_path / "whole", **arguments)
    expected = contents(tmp_path / "whole")
    assert len(es.Store.open(tmp_path / "whole").manifest.items) == 4
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["embedstore.ingest.import_vectors", "embedstore.retrieval.compact", "h5py", "pyarrow.parquet", "duckdb"]
    )
    for at in (2, 5, 7, 12):
        path = tmp_path / f"killed-{at}"
        process = context.Process(target=killed_import, args=(path, arguments, at))
        process.start()
        process.join()
        assert process.exitcode == -9
        committed = contents(path)
        assert committed == {file: expected[file] for file in committed}
        assert len(es.Store.open(path)) in range(0, 3500, 1024)
        es.import_vectors(store=path, **arguments)
        assert contents(path) == expected
        report = es.verify(es.Store.open(path))
        assert (report.problems, report.notes) == ([], [])


def contents(path: Path) -> dict[str, bytes]:
    if not (path / "store.json").exists():
        return {}
    files = [ref.file for ref in es.Store.open(path).manifest.refs()]
    return {file: (path / file).read_bytes() for file in files}


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("v.npy", made())
    document = json.loads(run("import", "v.npy", "s", "--modality", "image", "--encoder", "clip", "--json").stdout)
    assert document.keys() == {"items", "added", "updated", "spaces", "bytes", "seconds", "gb_per_s", "notes"}
    assert document["spaces"]["image"].keys() >= {"encoder", "fingerprint", "declared", "imported", "unchanged", "failed"}
    printed = run("import", "v.npy", "s", "--modality", "image").stdout
    assert "30 rows (0 items new, 0 updated)" in printed
    assert "note: Ids are the numbers of the rows" in printed
    assert "Say what v.npy holds" in run("import", "v.npy", "t", code=2).stderr
    changed = made()
    changed[[2, 3]] += 1
    np.save("v.npy", changed)
    assert "2 (2 replaced)" in run("import", "v.npy", "s", "--modality", "image").stdout
    counts = json.loads(run("import", "v.npy", "s", "--modality", "image", "--json").stdout)["spaces"]["image"]
    assert (counts["imported"], counts["replaced"], counts["unchanged"]) == (0, 0, 30)


def own_ids(path: Path, kind: str, ids: list[Any]) -> Path:
    """Vectors with ids in one file."""
    file = path / f"v.{kind}"
    if kind == "npz":
        np.savez(file, vectors=made(len(ids)), ids=np.array(ids))
    elif kind == "h5":
        with h5py.File(file, "w") as h5:
            h5.create_dataset("vectors", data=made(len(ids)))
            h5.create_dataset("id", data=ids)
    else:
        pq.write_table(pa.table({"id": ids, "v": list(made(len(ids)))}), file)
    return file


@pytest.mark.parametrize("kind", ["npz", "h5", "parquet"])
@pytest.mark.parametrize("text", [True, False])
def test_metadata_whose_ids_contradict_the_vectors(kind: str, text: bool, tmp_path: Path) -> None:
    ids: list[Any] = [f"a{i}" if text else i for i in range(50)]
    vectors = own_ids(tmp_path, kind, ids)
    rows = [{"id": i, "label": f"l{i}"} for i in ids]
    swapped = [*rows[:40], rows[41], rows[40], *rows[42:]]
    words = f"in row 40 .from 0. the vectors have the id '{ids[40]}', the metadata '{ids[41]}' in 'id'.*sort the metadata"
    wrong = write_csv(tmp_path / "wrong.csv", swapped)
    with pytest.raises(SourceError, match=words) as refused:
        es.import_vectors(vectors, tmp_path / "s", modality="image", metadata=wrong)
    assert "wrong.csv" in str(refused.value)
    assert not (tmp_path / "s").exists()
    es.import_vectors(vectors, tmp_path / "s", modality="image", metadata=write_csv(tmp_path / "right.csv", rows))
    items = es.Store.open(tmp_path / "s").items.table()
    assert items.column_names == ["row", "id", "label"]
    assert items.column("label").to_pylist() == [f"l{i}" for i in ids]


def test_an_array_named_as_ids_wins_over_the_metadata_and_has_to_agree(tmp_path: Path) -> None:
    names = [f"n{i}" for i in range(5)]
    np.savez(tmp_path / "v.npz", vectors=made(5), name=np.array(names))
    given: dict[str, Any] = {"modality": "image", "ids": "name"}
    with pytest.raises(SourceError, match=r"row 0 .* the id 'n0', the metadata 'n4' in 'name'"):
        es.import_vectors(tmp_path / "v.npz", tmp_path / "s", metadata={"name": names[::-1]}, **given)
    es.import_vectors(tmp_path / "v.npz", tmp_path / "s", metadata={"name": names}, **given)
    assert es.Store.open(tmp_path / "s").items.table().column_names == ["row", "id"]


@pytest.mark.parametrize("other", [list(range(5)), [0.5, 1, 2, 3, 4]])
def test_a_column_id_of_another_kind_is_metadata(other: list[Any], tmp_path: Path) -> None:
    vectors = own_ids(tmp_path, "npz", [f"a{i}" for i in range(5)])
    es.import_vectors(vectors, tmp_path / "s", modality="image", metadata={"id": other, "key": list("vwxyz")})
    items = es.Store.open(tmp_path / "s").items.table()
    assert items.column("id_").to_pylist() == other
    assert items.column("id").to_pylist() == [f"a{i}" for i in range(5)]
    given = {"id": [f"b{i}" for i in range(5)]}  # ids that the caller gives are no ids of the source
    es.import_vectors(made(5), tmp_path / "t", modality="image", ids=list("vwxyz"), metadata=given)
    assert es.Store.open(tmp_path / "t").items.table().column("id_").to_pylist() == given["id"]


def test_blank_ids_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("a\n\nc\n")
    for ids in (tmp_path / "ids.txt", ["a", " ", "c"]):
        with pytest.raises(SourceError, match=r"row 1 \(from 0\) has no id"):
            es.import_vectors(made(3), tmp_path / "s", modality="image", ids=ids)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_cell_that_is_no_vector_is_named(ending: str, tmp_path: Path) -> None:
    cells = [[float(i), 1.0] if i != 7 else "oops" for i in range(20)]
    path = tmp_path / f"v.{ending}"
    if ending == "csv":
        path.write_text(
            "id,vector\n" + "".join(f'i{i},"{json.dumps(cell)}"\n' for i, cell in enumerate(cells)).replace('""', "")
        )
    else:
        path.write_text("".join(json.dumps({"id": f"i{i}", "vector": cell}) + "\n" for i, cell in enumerate(cells)))
    with pytest.raises(SourceError, match=rf"v\.{ending}:vector: row 7 \(from 0\) is .*oops.*; expected a list of numbers"):
        es.import_vectors(path, tmp_path / "s", modality="image", encoder="mine")
