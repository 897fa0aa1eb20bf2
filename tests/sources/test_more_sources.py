"""The same pictures in every format: the same vectors, ids and metadata; nothing is embedded twice; bad input says why."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import formats
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from formats import ThumbnailEncoder, make_rows
from helpers import write_csv, write_image

import embedstore as es
from embedstore.errors import DuplicateIdError, MissingDependencyError, PayloadError, SourceError, UsageError
from embedstore.ingest.report import SpaceReport
from embedstore.sources import LinesSource, MemorySource, PathListSource, Source, WebDatasetSource, open_source
from embedstore.sources.records import JsonColumns

FORMATS = ["csv", "jsonl", "stdin", "blobs", "structs", "tars", "saved"]


@pytest.fixture
def rows(tmp_path: Path) -> list[formats.Row]:
    return make_rows(tmp_path)


def dataset(kind: str, folder: Path, rows: list[formats.Row], monkeypatch: pytest.MonkeyPatch) -> str:
    if kind != "stdin":
        return str(getattr(formats, f"as_{kind}")(folder, rows))
    lines = formats.as_jsonl(folder, rows).read_bytes()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(lines)))
    monkeypatch.chdir(folder)
    return "-"


def contents(store: es.Store) -> tuple[list[str], dict[str, np.ndarray], list[dict[str, object]]]:  # type: ignore[type-arg]
    """Ids in order, the vectors of each space by their order, and the metadata."""
    items = store.items.table()
    ids = items.column("id").to_pylist()
    order = np.argsort(ids)
    spaces = {}
    for name, space in store.spaces.items():
        row = store.items.rows[order]
        spaces[name] = space.take(row[space.has(row)])
    return sorted(ids), spaces, items.select(store.items.metadata_columns()).take(pa.array(order)).to_pylist()


def embed(data: str | Source, path: Path) -> es.EmbedReport:
    return es.embed(data, path, image={"thumb": ThumbnailEncoder(), "hash": "hash:32"}, text="hash:16")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_store(
    kind: str, rows: list[formats.Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(str(formats.as_csv(tmp_path, rows)), tmp_path / "reference")
    ids, vectors, metadata = contents(es.Store.open(tmp_path / "reference"))
    assert ids == [row["id"] for row in rows]
    data = dataset(kind, tmp_path, rows, monkeypatch)
    report = embed(data, tmp_path / "s")
    assert (report.items, report.spaces["thumb"].embedded, report.spaces["text"].missing) == (40, 40, 3)
    store = es.Store.open(tmp_path / "s")
    found = contents(store)
    assert found[0] == ids
    for space, expected in vectors.items():
        np.testing.assert_array_equal(found[1][space], expected)
    assert found[2] == metadata
    assert not [name for name in store.items.column_types() if name.endswith(".bytes")]
    uris = store.items.table().column("image").to_pylist()
    assert all(Path(uri.partition("#")[0]).is_absolute() for uri in uris)
    assert all(("#" in uri) == (kind in ("blobs", "structs", "tars", "saved")) for uri in uris)
    before = (tmp_path / "s" / "store.json").read_bytes()
    if kind == "stdin":
        dataset(kind, tmp_path, rows, monkeypatch)
    again = embed(data, store.path)
    assert [s.embedded for s in again.spaces.values()] == [0, 0, 0]
    assert [s.unchanged for s in again.spaces.values()] == [40, 40, 37]
    assert (tmp_path / "s" / "store.json").read_bytes() == before


def test_folders_and_lists_give_the_same_vectors_under_their_own_ids(rows: list[formats.Row], tmp_path: Path) -> None:
    embed(str(formats.as_csv(tmp_path, rows)), tmp_path / "reference")
    reference = contents(es.Store.open(tmp_path / "reference"))[1]["thumb"]
    es.embed(formats.as_list(tmp_path, rows), tmp_path / "list", image=ThumbnailEncoder())
    ids, vectors, _ = contents(es.Store.open(tmp_path / "list"))
    assert ids == [row["image"] for row in rows]
    np.testing.assert_array_equal(vectors["image"], reference)
    embed(str(formats.as_folder(tmp_path, rows)), tmp_path / "folder")
    ids, vectors, metadata = contents(es.Store.open(tmp_path / "folder"))
    order = [[Path(i).stem for i in ids].index(row["id"]) for row in rows]
    np.testing.assert_array_equal(vectors["thumb"][order], reference)
    assert [metadata[i]["label"] for i in order] == [row["label"] for row in rows]


def error_of(function: object, *arguments: object, **options: object) -> str:
    with pytest.raises((SourceError, UsageError, MissingDependencyError)) as caught:
        function(*arguments, **options)  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_list_says_which_line_is_wrong(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "b.txt").write_text(" words \n")
    path = tmp_path / "l.lst"
    path.write_text(f"\ufeffa.png\r\n\n{tmp_path}/c.jpg\nb.txt\nhttps://example.org/d.jpg?size=3\n", encoding="utf-8")
    source = open_source(path)
    assert isinstance(source, PathListSource)
    assert (source.count(), source.modalities) == (4, ("image", "text"))
    found = pa.Table.from_batches(list(source.batches())).to_pylist()
    assert [row["id"] for row in found] == ["a.png", f"{tmp_path}/c.jpg", "b.txt", "https://example.org/d.jpg?size=3"]
    assert [row["image"] for row in found] == [str(tmp_path / "a.png"), str(tmp_path / "c.jpg"), None, found[3]["id"]]
    assert found[2]["text"] == "words"
    path.write_text("a.png\nwhat.doc\n")
    assert "l.lst: line 2 is 'what.doc'; expected the path of a file of a known type (.jpg" in error_of(open_source, path)
    path.write_text("\n \n")
    assert "names no file" in error_of(open_source, path)
    path.write_bytes("caf\xe9.png\n".encode("latin1"))
    assert "line 1 is not UTF-8" in error_of(open_source, path)
    path.write_text("a.png\na.png\n")
    with pytest.raises(DuplicateIdError, match=r"items 1 and 2 both have the id 'a\.png'"):
        es.embed(path, tmp_path / "s", image="hash")


def lines(*records: object) -> io.BytesIO:
    return io.BytesIO("".join(json.dumps(record) + "\n" for record in records).encode())


def test_standard_input_is_read_once_and_never_held(tmp_path: Path) -> None:
    read = []

    class Endless(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            i = len(read)
            if i == 20_000:
                return b""
            read.append(i)
            return json.dumps({"id": i, "text": f"t{i}", "v": i % 7}).encode() + b"\n"

    source = LinesSource(Endless())
    assert len(read) == 1000
    batches = source.batches()
    first = next(batches)
    assert (first.num_rows, len(read)) == (4096, 4096)
    assert first.schema.field("id").type == pa.string()
    assert sum(batch.num_rows for batch in batches) == 20_000 - 4096
    assert "can be read only once" in error_of(source.batches)


def test_standard_input_says_which_line_is_wrong(tmp_path: Path) -> None:
    assert "standard input is empty" in error_of(LinesSource, io.BytesIO(b"\n"))
    assert "line 2 is not JSON" in error_of(LinesSource, io.BytesIO(b'{"text": "a"}\n{"text"\n'))
    assert "line 1 is [1]; expected a JSON object" in error_of(LinesSource, io.BytesIO(b"[1]\n"))
    assert "no key called image, text, audio, video. Keys: a." in error_of(LinesSource, lines({"a": 1}))
    assert "no key 'nope'" in error_of(LinesSource, lines({"text": "a"}), {"id": "nope"})
    no_id = LinesSource(lines({"id": "a", "text": "x"}, {"text": "y"}))
    assert "line 2 has no 'id'" in error_of(lambda: list(no_id.batches()))
    twice = LinesSource(lines({"id": "a", "text": "x"}, {"id": "b", "text": "x"}, {"id": "a", "text": "y"}))
    with pytest.raises(DuplicateIdError, match="standard input: items 1 and 3 both have the id 'a'"):
        es.embed(twice, tmp_path / "s", text="hash")
    late = LinesSource(lines(*({"text": "x", "n": 1} for _ in range(1000)), {"text": "y", "n": "many"}))
    said = error_of(lambda: list(late.batches()))
    assert "line 1001: 'n' is \"many\", no integer like the values before it. Declare what the column is: --type n=text" in said


def test_types_of_metadata_are_learned_as_records_come() -> None:
    first = [
        {"i": 1, "f": 1, "b": True, "s": "x", "m": 1, "tags": ["a"], "void": None, "big": 2**70},
        {"i": None, "f": 0.5, "b": False, "s": None, "m": "one", "tags": None},
    ]
    columns = JsonColumns(first)
    kinds = {name: str(kind) for name, kind in columns.types().items()}
    text = dict.fromkeys(("s", "m", "big"), "string")
    assert kinds == {"i": "int64", "f": "double", "b": "bool", "tags": "list<item: string>", "void": "null", **text}
    late = {**first[0], "new": 1}
    columns.learn([late])
    assert columns.values(late, "here") == {
        **{"i": 1, "f": 1.0, "b": True, "s": "x", "m": "1"},
        **{"tags": ["a"], "big": str(2**70), "new": 1, "void": None},
    }
    assert "here: 'b' is 1, no boolean like" in error_of(columns.values, {"b": 1}, "here")


def test_what_a_path_is_decides_and_errors_say_what_was_expected(tmp_path: Path, rows: list[formats.Row]) -> None:
    tars = formats.as_tars(tmp_path, rows)
    (tars / "notes.txt").write_text("not a caption")
    for given in (tars, f"{tars}/data-{{000..002}}.tar", f"{tars}/data-{{000,001,002}}.tar", f"{tars}/data-*.tar"):
        source = open_source(given)
        assert isinstance(source, WebDatasetSource)
        assert sum(batch.num_rows for batch in source.batches()) == 40
    assert "data-003.tar does not exist; 3 of 4 shards do" in error_of(open_source, f"{tars}/data-{{000..003}}.tar")
    assert "x*.tar matches no file" in error_of(open_source, f"{tars}/x*.tar")
    assert "no file matches the pattern" in error_of(open_source, f"{tars}/*.parquet")
    assert "only tars and Parquet files can be named by a pattern" in error_of(open_source, f"{tars}/*.csv")
    assert "pictures.txt is a list of paths; columns can only be named for" in error_of(
        open_source, formats.as_list(tmp_path, rows), {"image": "x"}
    )
    write_image(tars / "one.png")  # a folder of pictures in which a tar lies, too
    assert type(open_source(tars)).__name__ == "FolderSource"


def test_names_on_the_hub_need_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    assert "Run: pip install 'embedstore[hf]'" in error_of(open_source, "hf:beans")


def test_datasets_are_read_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rows: list[formats.Row]) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    pytest.importorskip("datasets")
    path = formats.as_structs(tmp_path, rows)
    (tmp_path / "local").mkdir()
    path.rename(tmp_path / "local" / "train.parquet")
    source = open_source(f"hf:{tmp_path}/local:train")
    found = pa.Table.from_batches(list(source.batches()))
    assert (source.count(), source.modalities, found.column("label").to_pylist()[:2]) == (40, ("image", "text"), ["cat", "dog"])
    assert {"id", "image.bytes"} <= set(found.column_names)
    message = error_of(open_source, "hf:nobody/nothing/config:test")
    assert "hf:nobody/nothing/config:test is not in the cache, and " in message


def test_splits_and_features_of_saved_datasets(tmp_path: Path, rows: list[formats.Row]) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    formats.as_saved(tmp_path, rows[:30], "d/train")
    formats.as_saved(tmp_path, rows[30:], "d/test")
    source = open_source(tmp_path / "d")
    found = pa.Table.from_batches(list(source.batches()))
    assert source.count() == 40
    assert found.column("split").to_pylist() == ["train"] * 30 + ["test"] * 10
    unnamed = open_source(tmp_path / "d", {"text": "id"})
    ids = pa.Table.from_batches(list(unnamed.batches())).column("id").to_pylist()
    assert (ids[0], ids[29], ids[30]) == ("train/0", "train/29", "test/0")
    assert "has no column 'nope'. Columns: id, image, text" in error_of(open_source, tmp_path / "d", {"image": "nope"})
    assert "column 'n' should hold paths, bytes or both, but is int64" in error_of(open_source, tmp_path / "d", {"image": "n"})
    (tmp_path / "d" / "test" / "data-00000-of-00001.arrow").write_bytes(b"nonsense")
    assert "cannot be read as an Arrow stream" in error_of(open_source, tmp_path / "d")


def test_the_package_writes_what_is_read_here(tmp_path: Path, rows: list[formats.Row]) -> None:
    datasets = pytest.importorskip("datasets")
    table = formats.hugging_face_table(tmp_path, rows).drop_columns(["id"]).rename_columns({"image": "img"})
    features = datasets.Features(
        {
            **{"img": datasets.Image(), "text": datasets.Value("string")},
            **{"label": datasets.ClassLabel(names=formats.LABELS), "price": datasets.Value("float64")},
            "n": datasets.Value("int64"),
        }
    )
    datasets.Dataset(table.replace_schema_metadata(None).cast(features.arrow_schema)).save_to_disk(tmp_path / "saved")
    source = open_source(tmp_path / "saved")
    assert (source.count(), source.modalities) == (40, ("image", "text"))
    found = pa.Table.from_batches(list(source.batches())).to_pylist()
    assert [row["label"] for row in found] == [row["label"] for row in rows]
    assert [row["id"] for row in found] == [str(i) for i in range(40)]
    assert [row["image.bytes"] for row in found] == [formats.content(tmp_path, row) for row in rows]


@pytest.mark.parametrize("kind", ["folder", "list", "tar", "csv", "stdin"])
def test_blank_texts_are_missing_everywhere(kind: str, tmp_path: Path) -> None:
    texts = {"a": "", "b": " \n", "c": "words"}
    folder = tmp_path / "d"
    folder.mkdir()
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    (tmp_path / "l.lst").write_text("".join(f"d/{name}.txt\n" for name in texts))
    formats.write_tar(tmp_path / "t.tar", {f"{name}.txt": text.encode() for name, text in texts.items()})
    write_csv(tmp_path / "t.csv", [{"id": name, "text": text} for name, text in texts.items()])
    stdin = LinesSource(lines(*({"id": name, "text": text} for name, text in texts.items())))
    given = {"folder": folder, "list": tmp_path / "l.lst", "tar": tmp_path / "t.tar", "csv": tmp_path / "t.csv", "stdin": stdin}
    report = es.embed(given[kind], tmp_path / "s", text="hash")  # type: ignore[arg-type]
    assert (report.spaces["text"].embedded, report.spaces["text"].missing) == (1, 2)


@pytest.mark.parametrize("kind", ["folder", "list", "tar"])
def test_texts_that_are_not_utf8_fail_alone(kind: str, tmp_path: Path) -> None:
    contents = {"a": b"a boat", "b": "ein Brötchen".encode("latin1"), "c": b"a car"}
    given = {"folder": tmp_path / "d", "list": tmp_path / "l.lst", "tar": tmp_path / "t.tar"}[kind]

    def embed() -> tuple[SpaceReport, list[tuple[str, str, str]]]:
        (tmp_path / "d").mkdir(exist_ok=True)
        for name, content in contents.items():
            (tmp_path / "d" / f"{name}.txt").write_bytes(content)
        (tmp_path / "l.lst").write_text("".join(f"d/{name}.txt\n" for name in contents))
        formats.write_tar(tmp_path / "t.tar", {f"{name}.txt": content for name, content in contents.items()})
        report = es.embed(given, tmp_path / "s", text="hash")
        space = es.Store.open(tmp_path / "s").space("text")
        return report.spaces["text"], space.failures.select(["id", "stage", "reason"]).to_pylist()

    def counts(space: SpaceReport) -> tuple[int, int, int, int]:
        return space.embedded, space.unchanged, space.missing, space.failed

    space, failures = embed()
    assert counts(space) == (2, 0, 0, 1)
    assert [f["stage"] for f in failures] == ["decode"]
    assert failures[0]["id"].endswith(("b", "b.txt"))
    assert failures[0]["reason"] == "not UTF-8 text: invalid start byte at byte 6 (from 0)"
    space, again = embed()
    assert (counts(space), again) == ((0, 2, 0, 1), failures)
    contents["b"], contents["c"] = b"ein Keks", b"\xff"
    space, failures = embed()
    assert counts(space) == (1, 1, 0, 1)
    assert [f["reason"] for f in failures] == ["not UTF-8 text: invalid start byte at byte 0 (from 0)"]
    store = es.Store.open(tmp_path / "s")
    assert store.items.take(store.items.rows, ["text"])["text"].to_pylist().count(None) == 1
    assert len(store.space("text").rows) == 2


def test_texts_that_cannot_be_read_for_now_keep_their_vectors(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    write_image(folder / "a.png")
    caption = folder / "a.txt"
    caption.write_text("a boat")
    first = es.embed(folder, tmp_path / "s", image="hash", text="hash")
    assert first.spaces["text"].embedded == 1
    caption.unlink()
    caption.symlink_to("a.txt")  # a loop: it is there, but nobody can read it
    report = es.embed(folder, tmp_path / "s", image="hash", text="hash")
    assert (report.updated, report.spaces["text"].failed, report.spaces["image"].unchanged) == (0, 1, 1)
    assert report.failures == [("text", "a.png", "read", f"{caption}: Too many levels of symbolic links")]
    store = es.Store.open(tmp_path / "s")
    assert len(store.space("text").rows) == 1
    with pytest.raises(PayloadError, match=r"item 'a.png', space 'text': .*Too many levels"):
        es.embed(folder, tmp_path / "s", text="hash", strict=True)
    caption.unlink()
    caption.symlink_to("nowhere.txt")
    (tmp_path / "l.lst").write_text("d/nowhere.txt\n")
    for source in (folder, tmp_path / "l.lst"):
        report = es.embed(source, tmp_path / "new", text="hash")
        assert (report.spaces["text"].failed, report.failures[0][2]) == (1, "read")
        assert "nowhere.txt: No such file" in report.failures[0][3] or "a.txt: No such file" in report.failures[0][3]


def test_labels_of_a_tar_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    formats.write_tar(tmp_path / "t.tar", {"a.txt": b"a boat", "a.cls": b"\xff"})
    with pytest.raises(SourceError, match=r"t\.tar: sample 'a': its cls is not UTF-8 text: invalid start byte"):
        es.embed(tmp_path / "t.tar", tmp_path / "s", text="hash")


def test_splits_beside_something_else_are_refused(tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "test/dog/2.png", "extra/3.png"):
        write_image(tmp_path / name)
    message = error_of(open_source, tmp_path)
    assert (
        f"{tmp_path} holds 'test', a split with folders of its own, beside 'extra', which is no split. Move 'extra'" in message
    )
    (tmp_path / "extra" / "3.png").rename(tmp_path / "extra" / "notes.json")  # holds nothing to embed
    found = pa.Table.from_batches(list(open_source(tmp_path).batches())).to_pylist()
    assert [(row["split"], row["label"]) for row in found] == [("test", "dog"), ("train", "cat")]
    for name in ("classes/train/1.png", "classes/plane/2.png"):  # nothing below: a class that is called like a split
        write_image(tmp_path / name)
    found = pa.Table.from_batches(list(open_source(tmp_path / "classes").batches())).to_pylist()
    assert [row["label"] for row in found] == ["plane", "train"]


def ids_of(source: Source) -> list[str]:
    return [item for batch in source.batches() for item in batch.column("id").to_pylist()]


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    for name in ("real/1.png", "real/deep/2.png", "ds/cat/3.png", "real/.hidden/4.png", "astore/5.png"):
        write_image(tmp_path / name)
    (tmp_path / "astore" / "store.json").write_text("{}")
    for name, target in {"ds/dog": "real", "ds/.dog": "real", "ds/cat/more": "real/deep", "ds/store": "astore"}.items():
        (tmp_path / name).symlink_to(tmp_path / target)
    source = open_source(tmp_path / "ds")
    found = pa.Table.from_batches(list(source.batches())).to_pylist()
    assert [row["id"] for row in found] == ["cat/3.png", "cat/more/2.png", "dog/1.png", "dog/deep/2.png"]
    assert [row["label"] for row in found] == ["cat", "cat", "dog", "dog"]
    assert found[1]["image"] == f"{tmp_path}/ds/cat/more/2.png"
    assert source.count() == 4
    formats.write_tar(tmp_path / "tars" / "0.tar", {"1.txt": b"x"})
    assert isinstance(open_source(tmp_path / "tars"), WebDatasetSource)
    (tmp_path / "tars" / "pictures").symlink_to(tmp_path / "real")
    assert ids_of(open_source(tmp_path / "tars")) == ["pictures/1.png", "pictures/deep/2.png"]


def test_links_to_folders_that_they_lie_in_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ds/a/1.png", "ds/b/2.png", "else/3.png"):
        write_image(tmp_path / name)
    (tmp_path / "ds/a/self").symlink_to(".")
    (tmp_path / "ds/a/root").symlink_to("..")
    (tmp_path / "ds/a/out").symlink_to("../../else")
    (tmp_path / "else/back").symlink_to("../ds/a")
    (tmp_path / "ds/b/above").symlink_to("../..")
    expected = ["a/1.png", "a/out/3.png", "b/2.png", "b/above/else/3.png", "b/above/else/back/1.png"]
    assert ids_of(open_source(tmp_path / "ds")) == expected
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("ds")
    for given in ("ds", "./ds/", "link"):
        assert ids_of(open_source(given)) == expected


@pytest.mark.parametrize("given", ["ds", "l.lst"])
def test_reasons_name_whole_paths(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ds" / "a").mkdir(parents=True)
    for name in ("i08.txt", "i09.png"):
        (tmp_path / "ds" / "a" / name).symlink_to("nowhere")
    (tmp_path / "l.lst").write_text("ds/a/i08.txt\nds/a/i09.png\n")
    monkeypatch.chdir(tmp_path)
    report = es.embed(given, "s", text="hash", image="hash")
    reasons = sorted(reason for *_, reason in report.failures)
    assert reasons == [f"{tmp_path}/ds/a/{name}: No such file or directory" for name in ("i08.txt", "i09.png")]


def test_only_sources_with_columns_are_said_to_have_them(tmp_path: Path, rows: list[formats.Row]) -> None:
    write_image(tmp_path / "ds" / "a.png")
    (tmp_path / "l.txt").write_text("ds/a.png\n")
    memory = MemorySource({"id": ["a"], "image": ["a.png"]})
    for given in (tmp_path / "ds", tmp_path / "l.txt", tmp_path / "ds" / "a.png", memory):
        message = error_of(es.embed, given, tmp_path / "s", image="hash", text="hash")
        assert message.endswith("has no text for encoder 'hash'; it has image.")
    untold = [{"id": row["id"], "image": row["image"]} for row in rows]
    tar = formats.write_tar(tmp_path / "x.tar", {"a.png": b""})
    parquet = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_pylist(untold), parquet)
    stdin = LinesSource(lines(*untold))
    for with_columns in (write_csv(tmp_path / "t.csv", untold), parquet, tar, stdin):
        message = error_of(es.embed, with_columns, tmp_path / "s", image="hash", text="hash")
        assert message.endswith("it has image. Name the column: --text-column NAME.")


def test_a_text_that_cannot_be_read_fails_alone_whatever_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    write_image(folder / "a.png")
    name = os.fsencode(folder) + b"/\xff.txt"
    os.symlink(b"nowhere", name)
    report = es.embed(folder, tmp_path / "s", text="hash", image="hash")
    assert (report.spaces["text"].failed, report.spaces["image"].embedded) == (1, 1)
    assert "\\udcff.txt: No such file" in report.failures[0][3]
