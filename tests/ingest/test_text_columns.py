"""Columns of texts with a space of their own: what is embedded, carried, embedded again and refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from embedstore_cli.main import app
from helpers import write_csv, write_image
from typer.testing import CliRunner

import embedstore as es
from embedstore._core.encoding import sealed
from embedstore.encoders.hash import HashEncoder
from embedstore.errors import CorruptStoreError, FormatVersionError, SourceError, UsageError
from embedstore.sources import MemorySource
from embedstore.store.space_info import SpaceInfo

ROWS: list[dict[str, object]] = [
    {"id": "a", "image": "a.png", "question": "what is it?", "answer": "dog"},
    {"id": "b", "image": "b.png", "question": "what is it?", "answer": "car"},
    {"id": "c", "image": "a.png", "question": "is it alive?", "answer": "yes"},
    {"id": "d", "image": "b.png", "question": "", "answer": "no"},
    {"id": "e", "image": "b.png", "question": "  ", "answer": "no"},
]
SPACES: dict[str, Any] = {"image": "hash:8", "text": {"question": "hash:16"}, "columns": {"question": "question"}}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    write_image(tmp_path / "a.png", 1)
    write_image(tmp_path / "b.png", 2)
    return write_csv(tmp_path / "qa.csv", ROWS)


def vectors(store: es.Store, space: str) -> dict[str, list[float]]:
    view = store.view(inputs=[space])
    return dict(zip(view.ids.tolist(), view.inputs[space].astype(float).tolist(), strict=True))


def expected(*texts: str, dim: int = 16) -> list[list[float]]:
    encoder = HashEncoder(dim, "text")
    found = encoder.encode([text.encode() for text in texts])
    return found.astype(np.float16).astype(float).tolist()


def test_a_column_is_embedded_once_for_each_text_and_stays_metadata(table: Path, tmp_path: Path) -> None:
    report = es.embed(table, tmp_path / "s.store", **SPACES)
    counted = report.spaces["question"]
    assert (counted.embedded, counted.distinct, counted.missing, counted.failed) == (3, 2, 2, 0)
    store = es.Store.open(tmp_path / "s.store")
    first, third = expected("what is it?", "is it alive?")
    assert vectors(store, "question") == {"a": first, "b": first, "c": third}
    assert store.items.table(["question"]).column("question").to_pylist() == [
        row["question"] or None if row["id"] == "d" else row["question"] for row in ROWS
    ]
    assert store.info()["spaces"]["question"]["column"] == "question"
    assert "column" not in store.info()["spaces"]["image"]


def test_the_same_command_again_embeds_nothing_and_knows_the_column(table: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.store"
    es.embed(table, path, **SPACES)
    for again in (SPACES, {}, {"text": {"question": "hash:16"}}):
        report = es.embed(table, path, **again)
        counted = report.spaces["question"]
        assert (counted.embedded, counted.unchanged, counted.missing) == (0, 3, 2)
    assert es.Store.open(path).generation == 1


def test_another_column_is_refused_in_a_line(table: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.store"
    es.embed(table, path, **SPACES)
    with pytest.raises(UsageError, match=r"holds the texts of column 'question', not of column 'answer'.*NEWNAME=answer"):
        es.embed(table, path, text={"question": "hash:16"}, columns={"question": "answer"})
    es.embed(table, path, text={"asked": "hash:16"}, columns={"text": "question"})
    with pytest.raises(UsageError, match="'asked' holds the texts of the dataset's text column, not of column 'answer'"):
        es.embed(table, path, text={"asked": "hash:16"}, columns={"asked": "answer"})


def test_a_changed_question_is_embedded_again_and_others_are_carried(table: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.store"
    es.embed(table, path, **SPACES)
    rows = [{**row, "question": "how many?"} if row["id"] == "a" else {**row, "answer": "x"} for row in ROWS]
    report = es.embed(write_csv(table, rows), path)
    assert report.spaces["question"].embedded == 1
    assert report.spaces["image"].embedded == 0
    first, second, third = expected("how many?", "what is it?", "is it alive?")
    assert vectors(es.Store.open(path), "question") == {"a": first, "b": second, "c": third}


def test_a_run_for_pictures_alone_lets_go_of_vectors_whose_text_changed(table: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.store"
    es.embed(table, path, **SPACES)
    rows = [{**row, "question": "how many?"} if row["id"] == "a" else row for row in ROWS]
    es.embed(write_csv(table, rows), path, image="hash:8")
    assert set(vectors(es.Store.open(path), "question")) == {"b", "c"}
    es.embed(table, path)
    assert vectors(es.Store.open(path), "question")["a"] == expected("how many?")[0]


def test_import_lets_go_of_them_too(table: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.store"
    es.embed(table, path, **SPACES)
    brought = pa.table({"id": ["a", "b"], "question": ["how many?", "what is it?"], "vector": [[1.0, 0.0], [0.0, 1.0]]})
    pq.write_table(brought, tmp_path / "v.parquet")
    es.import_vectors(tmp_path / "v.parquet", path, space="own", modality="image")
    assert set(vectors(es.Store.open(path), "question")) == {"b", "c"}


def test_a_dataset_without_the_column_adds_items_and_keeps_what_is_there(table: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.store"
    es.embed(table, path, **SPACES)
    more = write_csv(tmp_path / "more.csv", [{"id": "z", "image": "a.png"}, {"id": "a", "image": "b.png"}])
    report = es.embed(more, path)
    assert (report.added, report.spaces["question"].embedded) == (1, 0)
    assert set(vectors(es.Store.open(path), "question")) == {"a", "b", "c"}
    with pytest.raises(UsageError, match=r"more.csv has no metadata column 'question'. Columns: none"):
        es.embed(more, path, text={"question": "hash:16"})


def test_several_columns_of_a_table_without_payloads(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [{"id": "1", "title": "x", "body": "y"}, {"id": "2", "title": "007", "body": ""}])
    asked = {"text": {"title": "hash:4", "body": "hash:4"}, "columns": {"title": "title", "body": "body"}}
    es.embed(path, tmp_path / "s.store", **asked)  # type: ignore[arg-type]
    report = es.embed(path, tmp_path / "s.store")
    assert (report.spaces["title"].unchanged, report.spaces["body"].unchanged, report.spaces["body"].missing) == (2, 1, 1)
    store = es.Store.open(tmp_path / "s.store")
    assert vectors(store, "title")["2"] == expected("007", dim=4)[0]
    assert store.items.table(["title"]).column("title").to_pylist() == ["x", "007"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "frame"])
def test_other_kinds_of_tables(tmp_path: Path, kind: str) -> None:
    rows = [{"id": "1", "title": "ä x"}, {"id": "2", "title": None}]
    data: Any = pa.Table.from_pylist(rows)
    if kind == "jsonl":
        (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        data = tmp_path / "t.jsonl"
    elif kind == "parquet":
        pq.write_table(data, tmp_path / "t.parquet")
        data = tmp_path / "t.parquet"
    es.embed(data, tmp_path / "s.store", text={"title": "hash:4"}, columns={"title": "title"})
    assert vectors(es.Store.open(tmp_path / "s.store"), "title") == {"1": expected("ä x", dim=4)[0]}


def test_what_cannot_be_is_refused(table: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.store"
    with pytest.raises(UsageError, match=r"has no metadata column 'nope'. Columns: question, answer"):
        es.embed(table, path, text={"q": "hash:4"}, columns={"q": "nope"})
    with pytest.raises(UsageError, match=r"'q', which is no space of texts of this run.*--text q=ENCODER --text-column q=x"):
        es.embed(table, path, image="hash:4", columns={"q": "x"})
    with pytest.raises(UsageError, match="Column 'answer' is embedded into space 'q', so it is text, not number"):
        es.embed(table, path, text={"q": "hash:4"}, columns={"q": "answer"}, types={"answer": "number"})
    assert not path.exists()
    numbers = MemorySource({"id": ["a"], "text": ["x"], "size": [1.5]})
    es.embed(numbers, path, text="hash:4")
    with pytest.raises(UsageError, match="holds column 'size' as number; it cannot be text as well"):
        es.embed(numbers, path, text={"q": "hash:4"}, columns={"q": "size"})
    with pytest.raises(SourceError, match="no column called image"):
        es.embed(write_csv(tmp_path / "bare.csv", [{"x": 1}]), tmp_path / "new.store", text="hash:4")


def test_the_texts_themselves_by_their_column(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [{"id": "1", "caption": "x"}])
    asked = {"text": {"one": "hash:4", "two": "hash:4"}, "columns": {"text": "caption", "two": "caption"}}
    es.embed(path, tmp_path / "s.store", **asked)  # type: ignore[arg-type]
    store = es.Store.open(tmp_path / "s.store")
    assert vectors(store, "one") == vectors(store, "two")
    assert store.spaces["two"].info.column is None


class Stopping(MemorySource):
    """Ends with an error after its first 4,096 items."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        yield next(super().batches()).slice(0, 4096)
        raise SourceError("the cable was pulled")


def test_a_run_that_stopped_goes_on_in_the_same_column(tmp_path: Path) -> None:
    n = 4200
    data = {"id": [f"i{i}" for i in range(n)], "asked": [f"q{i}" for i in range(n)], "image": [None] * n}
    path, asked = tmp_path / "s.store", {"text": {"asked": "hash:4"}, "columns": {"asked": "asked"}}
    with pytest.raises(SourceError, match="cable"):
        es.embed(Stopping(data), path, **asked)  # type: ignore[arg-type]
    assert len(es.Store.open(path)) == 4096
    with pytest.raises(UsageError, match="column 'asked', not of column 'other'"):
        es.embed(MemorySource(data), path, text={"asked": "hash:4"}, columns={"asked": "other"})
    report = es.embed(MemorySource(data), path).spaces["asked"]
    assert (report.unchanged, report.embedded) == (4096, n - 4096)


def test_the_description_of_a_space_round_trips_and_says_its_version(table: Path, tmp_path: Path) -> None:
    es.embed(table, tmp_path / "s.store", **SPACES)
    for name, version in (("question", 3), ("image", 2)):  # what knows no columns reads the second alone
        info = es.Store.open(tmp_path / "s.store").spaces[name].info
        described = info.to_dict()
        assert described["encoding-version"] == version
        assert SpaceInfo.from_dict(described, "here") == info
    described = es.Store.open(tmp_path / "s.store").spaces["question"].info.to_dict()
    with pytest.raises(FormatVersionError):
        SpaceInfo.from_dict(sealed({**described, "encoding-version": 6}), "here")
    for wrong in (7, "", ["question"]):
        with pytest.raises(CorruptStoreError, match="its column cannot be"):
            SpaceInfo.from_dict(sealed({**described, "column": wrong}), "here")


def test_the_command_names_columns_by_space(table: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "s.store")
    asked = ["embed", str(table), "--store", path, "--text", "question=hash:16", "--text-column", "question=question", "--json"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["spaces"]["question"]["embedded"] == 3
    twice = CliRunner().invoke(app, [*asked, "--text-column", "question=answer"])
    assert "Two columns, 'question' and 'answer', for space 'question'" in str(twice.exception)
    odd = write_csv(tmp_path / "odd.csv", [{"id": "1", "a=b": "x"}])
    asked = ["embed", str(odd), "--store", f"{path}2", "--text", "hash:4", "--text-column", "a=b"]
    assert CliRunner().invoke(app, asked).exit_code == 0


def test_predict_embeds_the_column_that_the_head_learned_from(tmp_path: Path) -> None:
    n = 120
    data = {
        "id": [f"i{i}" for i in range(n)],
        "text": [f"thing {i % 3}" for i in range(n)],
        "question": [["what?", "alive?"][i % 2] for i in range(n)],
        "answer": [["dog", "tree", "car"][i % 3] if i % 2 == 0 else ["yes", "yes", "no"][i % 3] for i in range(n)],
    }
    path = tmp_path / "s.store"
    es.embed(MemorySource(data), path, text={"text": "hash:16", "question": "hash:16"}, columns={"question": "question"})
    es.train(path, "answer", head="gbdt", inputs=["text", "question"], report=False, cv=3)
    new = write_csv(tmp_path / "new.csv", [{"id": "1", "text": "thing 1", "question": "what?"}])
    found = es.predict(path, "answer", new)
    assert (found.labels.tolist(), found.missing) == (["tree"], [()])
    other = write_csv(tmp_path / "other.csv", [{"id": "1", "text": "thing 1", "asked": "alive?"}])
    assert es.predict(path, "answer", other, columns={"question": "asked"}).labels.tolist() == ["yes"]
    assert es.predict(path, "answer", other).missing == [("question",)]
    with pytest.raises(UsageError, match="has no input 'q' to embed from column 'asked'"):
        es.predict(path, "answer", other, columns={"q": "asked"})
