"""A value means what its owner wrote, whatever file it came in: types of columns."""

from __future__ import annotations

import csv
import datetime
import decimal
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import embedstore as es
from embedstore._core.column_types import declared, plain_type, word_of
from embedstore._core.column_values import MisfitError, fitted, plain
from embedstore._core.metadata_features import ColumnEncoder
from embedstore.errors import EmbedstoreError, HeadError, SourceError, UsageError
from embedstore.ingest.typed_batches import Typed
from embedstore.sources import LinesSource, leave_text, open_source
from embedstore.sources.base import ID, free_name
from embedstore.sources.delimited import Delimited

EXAMPLES = int(os.environ.get("EMBEDSTORE_EXAMPLES", "15"))
"""Tables drawn at random."""


def delimited(data: bytes, path: str = "t.csv") -> Delimited:
    return Delimited(path, lambda: io.BytesIO(data))


def kinds(cells: Sequence[str]) -> str:
    """The type of a column of these cells."""
    file = io.StringIO()
    csv.writer(file).writerows([["id", "v"], *([str(i), cell] for i, cell in enumerate(cells))])
    return delimited(file.getvalue().encode()).types["v"]


def info(store: Path | str) -> dict[str, str]:
    return dict(es.Store.open(store).info()["columns"])


def metadata(store: Path | str) -> list[dict[str, Any]]:
    items = es.Store.open(store).items
    return list(items.table(["id", *items.metadata_columns()]).to_pylist())


class TestColumnsOfACsv:
    @pytest.mark.parametrize(
        ("cells", "kind"),
        [
            (["12", "-3", "0", ""], "BIGINT"),
            (["-3.50", "1e-05", "7"], "DOUBLE"),
            (["9223372036854775807", "-9223372036854775808"], "BIGINT"),
            (["9223372036854775808"], "VARCHAR"),
            (["9007199254740993", "0.5"], "VARCHAR"),  # float64 would round it
            (["0.5", "9007199254740993"], "VARCHAR"),
            (["1" * 40], "VARCHAR"),
            (["1e400", "1"], "VARCHAR"),
            (["", ""], '"NULL"'),
            (["-0", "1"], "DOUBLE"),
            *(([value, "1"], "VARCHAR") for value in ("007", "+5", "0x10", "1_000", "yes", "1.", ".5", "1,5", "NaN", "inf")),
            *(([value], "VARCHAR") for value in ("true", "10-11-12", "1.2.13", "2024-01-02", "10 11 12", "12:30", "∞", "١٢")),
        ],
    )
    def test_a_column_is_text_unless_all_are_plain_numbers(self, cells: list[str], kind: str) -> None:
        assert kinds(cells) == kind

    def test_a_value_is_the_same_whatever_else_the_file_holds(self, tmp_path: Path) -> None:
        rows = [f"{i},t{i},{'ABC'[i % 3]},{('no', 'yes', 'maybe')[i % 3]}" for i in range(150)]
        (tmp_path / "train.csv").write_text("\n".join(["id,text,label,flag", *rows]))
        store = tmp_path / "s"
        es.embed(tmp_path / "train.csv", store, text="hash:8")
        es.train(store, "label", columns=["flag"], report=False)
        (tmp_path / "one.csv").write_text("id,text,flag\nq,zz,yes\n")
        (tmp_path / "two.csv").write_text("id,text,flag\nq,zz,yes\nr,zz,maybe\n")
        (tmp_path / "one.jsonl").write_text('{"id": "q", "text": "zz", "flag": "yes"}\n')
        pq.write_table(pa.table({"id": ["q"], "text": ["zz"], "flag": ["yes"]}), tmp_path / "one.parquet")
        found = [
            es.predict(store, "label", tmp_path / f"{n}").probabilities[0]
            for n in ("one.csv", "two.csv", "one.jsonl", "one.parquet")
        ]
        for other in found[1:]:
            np.testing.assert_array_equal(found[0], other)

    def test_yes_and_no_stay_words(self, tmp_path: Path) -> None:
        (tmp_path / "d.csv").write_text("id,text,label\n" + "".join(f"{i},t{i},{('no', 'yes')[i % 2]}\n" for i in range(60)))
        es.embed(tmp_path / "d.csv", tmp_path / "s", text="hash:8")
        es.train(tmp_path / "s", "label", report=False)
        assert es.predict(tmp_path / "s", "label", ids=["1"]).labels[0] in ("yes", "no")

    def test_the_user_says_what_a_column_is(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("id,text,version,day,when\n1,x,1.10,31.12.2020,2024-01-02 03:04\n")
        types = {"version": "text", "day": "date:%d.%m.%Y", "when": "datetime"}
        report = es.embed(tmp_path / "a.csv", tmp_path / "s", text="hash:8", types=types)
        assert report.types == {"version": "text", "day": "date", "when": "datetime"} == info(tmp_path / "s")
        row = metadata(tmp_path / "s")[0]
        assert row["version"] == "1.10"
        assert row["day"] == datetime.date(2020, 12, 31)
        assert row["when"] == datetime.datetime(2024, 1, 2, 3, 4)
        with pytest.raises(UsageError, match="holds column 'version' as text; it cannot be number as well"):
            es.embed(tmp_path / "a.csv", tmp_path / "s", text="hash:8", types={"version": "number"})
        with pytest.raises(UsageError, match=r"no metadata column 'versoin'\. Columns: version, day, when"):
            es.embed(tmp_path / "a.csv", tmp_path / "t", text="hash:8", types={"versoin": "text"})
        for said, message in (("words", "is no type of a column"), ("text:%d", "only date and datetime take a format")):
            with pytest.raises(UsageError, match=message):
                es.embed(tmp_path / "a.csv", tmp_path / "t", text="hash:8", types={"version": said})
        assert not (tmp_path / "t").exists()

    def test_a_known_column_keeps_its_type(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("id,text,version,price\na,x,v1,2\nb,x,1.5,3\n")
        es.embed(tmp_path / "a.csv", tmp_path / "s", text="hash:8")
        assert info(tmp_path / "s") == {"version": "text", "price": "integer"}
        (tmp_path / "b.csv").write_text("id,text,version,price\nc,x,1.10,4\n")
        es.embed(tmp_path / "b.csv", tmp_path / "s", text="hash:8")
        assert [row["version"] for row in metadata(tmp_path / "s")] == ["v1", "1.5", "1.10"]
        (tmp_path / "c.csv").write_text("id,text,version,price\nd,x,2,4\ne,x,2,cheap\n")
        with pytest.raises(
            SourceError, match=r"c\.csv: row 2: price is 'cheap', no integer, the type of the column in the store"
        ):
            es.embed(tmp_path / "c.csv", tmp_path / "s", text="hash:8")

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b'id,text\n1,a\n2,"abc\n3,y\n', r'a quote \("\) is opened in line 3 and never closed'),
            (b'id,text\n1,"a"b\n', r'line 2 has text after a closing quote \("\)'),
            (b"id,text\n1,a\n2,b,c\n", "line 3 has 3 values, but the header has 2"),
            (b'id,text\n1,"a\nb",c\n', "the row in lines 2 to 3 has 3 values"),
            (b"id,text\n1,caf\xe9\n", r"line 2 is not UTF-8 \(byte 0xe9\)"),
            ("id,text\n1,é\n".encode("utf-16-le"), "is not UTF-8 text"),
        ],
    )
    def test_what_is_wrong_and_where(self, tmp_path: Path, data: bytes, message: str) -> None:
        (tmp_path / "a.csv").write_bytes(data)
        with pytest.raises(SourceError, match=message):
            list(open_source(tmp_path / "a.csv").batches())

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b"id,text\r\n1,a\n2,b\r\n", [("1", "a"), ("2", "b")]),
            (b"id,text\n1,a\r2,b\n", [("1", "a"), ("2", "b")]),
            ("id,text\n1,é\n".encode("utf-16"), [("1", "é")]),
            (b"\xef\xbb\xbfid,text\n1,a\n", [("1", "a")]),
            (b'"a;b;c;d",id,text\n0,1,x\n', [("1", "x")]),
            (b'id,text\n1,5" disk\n2,"a\nb"\n', [("1", '5" disk'), ("2", "a\nb")]),
            (b"id,text", []),
        ],
    )
    def test_files_as_people_have_them(self, tmp_path: Path, data: bytes, expected: list[tuple[str, str]]) -> None:
        (tmp_path / "a.csv").write_bytes(data)
        rows = [row for batch in open_source(tmp_path / "a.csv").batches() for row in batch.to_pylist()]
        assert [(row["id"], row["text"]) for row in rows] == expected


class TestArrowTypes:
    @pytest.mark.parametrize(
        ("array", "kind", "values"),
        [
            (pa.array(["x", None], pa.string_view()), "string", ["x", None]),
            (pa.array(["x"], pa.large_string()), "string", ["x"]),
            (pa.array(["x", "x"]).dictionary_encode(), "string", ["x", "x"]),
            (pa.array([b"x"], pa.binary_view()), "large_binary", [b"x"]),
            (pa.array([b"xy"], pa.binary(2)), "large_binary", [b"xy"]),
            (pa.array([decimal.Decimal("19.99")]), "double", [19.99]),
            (pa.array([decimal.Decimal(7)], pa.decimal128(9, 0)), "int64", [7]),
            (pa.array([0.1], pa.float32()), "double", [0.1]),  # as it is written, not the nearest float32
            (pa.array([1], pa.uint8()), "int64", [1]),
            (pa.array([["x"]], pa.list_view(pa.string())), "list<item: string>", [["x"]]),
            (pa.array([["x"]], pa.list_(pa.string_view(), 1)), "list<item: string>", [["x"]]),
            (pa.array([{"a": "x"}], pa.struct([("a", pa.string_view())])), "struct<a: string>", [{"a": "x"}]),
            (pa.array([0], pa.timestamp("ns")), "timestamp[us]", [datetime.datetime(1970, 1, 1)]),
            (pa.array([0], pa.timestamp("s", "Europe/Berlin")), "timestamp[us, tz=UTC]", None),
            (pa.array([datetime.date(2024, 1, 2)], pa.date64()), "date32[day]", [datetime.date(2024, 1, 2)]),
        ],
    )
    def test_every_type_becomes_a_plain_one(self, array: pa.Array, kind: str, values: list[Any] | None) -> None:
        for column in (array, pa.chunked_array([array])):
            found = plain(column)
            found.validate(full=True)
            assert str(found.type) == kind == str(plain_type(array.type))
            assert values is None or found.to_pylist() == values

    def test_what_a_plain_type_cannot_hold_is_refused(self) -> None:
        with pytest.raises(MisfitError, match="9223372036854775808 is no integer"):
            plain(pa.array([1, 2**63], pa.uint64()))
        with pytest.raises(MisfitError, match="000000001' is no datetime"):
            plain(pa.array([1], pa.timestamp("ns")))
        with pytest.raises(TypeError, match=r"holds duration\[s\] values"):
            plain(pa.array([1], pa.duration("s")))

    @pytest.mark.parametrize(
        ("values", "kind", "expected"),
        [
            (["1", " 2.5 ", "", None], pa.float64(), [1.0, 2.5, None, None]),
            (["5.0", "1e3"], pa.int64(), [5, 1000]),
            (["yes", "No", "t", "0"], pa.bool_(), [True, False, True, False]),
            ([1, 0], pa.bool_(), [True, False]),
            ([True, None], pa.string(), ["true", None]),
            ([5.0, 0.1], pa.string(), ["5.0", "0.1"]),
            ([[1, 2]], pa.string(), ["[1,2]"]),
            ([datetime.datetime(2024, 1, 2)], pa.string(), ["2024-01-02 00:00:00"]),
            (['["a"]', " "], pa.list_(pa.string()), [["a"], None]),
            ([datetime.date(2024, 1, 2)], pa.timestamp("us"), [datetime.datetime(2024, 1, 2)]),
            ([None], pa.int64(), [None]),
        ],
    )
    def test_values_that_fit(self, values: list[Any], kind: pa.DataType, expected: list[Any]) -> None:
        assert fitted(pa.array(values), kind).to_pylist() == expected
        assert fitted(pa.chunked_array([pa.array(values)]), kind).to_pylist() == expected

    @pytest.mark.parametrize(
        ("values", "kind", "position"),
        [
            (["1", "007"], pa.int64(), 1),
            (["1", "+5"], pa.float64(), 1),
            (["0x10"], pa.int64(), 0),
            (["1.5"], pa.int64(), 0),
            (["9007199254740993"], pa.float64(), 0),
            (["1e400"], pa.float64(), 0),
            ([1.0, 1.5], pa.int64(), 1),
            ([2**53 + 1], pa.float64(), 0),
            ([True], pa.float64(), 0),
            ([2], pa.bool_(), 0),
            (["maybe"], pa.bool_(), 0),
            ([datetime.datetime(2024, 1, 2, 3)], pa.date32(), 0),
            (["02/01/2024"], pa.date32(), 0),
            ([b"x"], pa.string(), 0),
            ([{"a": 1, "b": 2}], pa.struct([("a", pa.int64())]), 0),  # Arrow would leave b out
        ],
    )
    def test_values_that_do_not_fit(self, values: list[Any], kind: pa.DataType, position: int) -> None:
        with pytest.raises(MisfitError) as raised:
            fitted(pa.array(values), kind)
        assert raised.value.position == position

    def test_words_for_people(self) -> None:
        named = {
            pa.string_view(): "text",
            pa.int8(): "integer",
            pa.decimal128(9, 2): "number",
            pa.list_(pa.string()): "list of text",
        }
        assert {kind: word_of(kind) for kind in named} == named


class TestTablesAsPeopleWriteThem:
    def test_views_and_decimals_through_the_store(self, tmp_path: Path) -> None:
        x = np.random.default_rng(0).normal(size=(400, 4)).astype("f4")
        columns = {
            "id": pa.array([str(i) for i in range(400)], pa.string_view()),
            "emb": pa.array(list(x), pa.list_(pa.float32())),
            "label": pa.array(["p", "q"] * 200, pa.string_view()),
            "price": pa.array([decimal.Decimal(int(v * 100)) / 100 for v in x[:, 0]], pa.decimal128(10, 2)),
        }
        pq.write_table(pa.table(columns), tmp_path / "v.parquet")
        store = tmp_path / "s"
        assert es.import_vectors(tmp_path / "v.parquet", store, modality="text").added == 400
        assert es.import_vectors(tmp_path / "v.parquet", store, modality="text").updated == 0
        assert info(store) == {"label": "text", "price": "number"}
        assert len(es.search(store, id="3", k=300).results) == 300
        assert es.train(store, "price", head="ridge", report=False).metrics["r2"].value > 0.9
        assert es.train(store, "label", columns=["price"], report=False)

    def test_items_of_an_older_store_are_read_in_plain_types(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        columns = {"label": pa.array(["p", "q"], pa.string_view()), "price": pa.array([decimal.Decimal("1.10")] * 2)}
        vectors = {"id": ["a", "b"], "emb": pa.array([[1.0, 0.0], [0.0, 1.0]], pa.list_(pa.float32()))}
        pq.write_table(pa.table(vectors | columns), tmp_path / "v.parquet")
        with monkeypatch.context() as patch:  # as it was written before types were settled
            patch.setattr(Typed, "columns", lambda self, columns, start: dict(columns))
            es.import_vectors(tmp_path / "v.parquet", tmp_path / "s", modality="text")
        assert pa.types.is_string_view(pq.read_schema(next((tmp_path / "s" / "items").iterdir())).field("label").type)
        assert metadata(tmp_path / "s")[0] == {"id": "a", "label": "p", "price": 1.1}
        assert [hit.id for hit in es.search(tmp_path / "s", id="a", k=2, where="label = 'q'").results] == ["b"]
        assert es.import_vectors(tmp_path / "v.parquet", tmp_path / "s", modality="text").updated == 0

    def test_times_with_a_zone_and_nested_values_are_the_same_again(self, tmp_path: Path) -> None:
        columns = {
            "at": pa.array([0, 1_000_000], pa.timestamp("ns", "America/New_York")),
            "time": [datetime.time(1, 2), None],
            "tags": [["p"], ["q", "r"]],
            "record": [{"k": 1}, {"k": 2}],
        }
        pq.write_table(pa.table({"id": ["a", "b"], "text": ["x", "y"], **columns}), tmp_path / "t.parquet")
        for added in (2, 0):
            report = es.embed(tmp_path / "t.parquet", tmp_path / "s", text="hash:8")
            assert (report.added, report.updated) == (added, 0)
        assert report.types == {"at": "datetime in UTC", "time": "time", "tags": "list of text", "record": "record"}

    def test_parts_in_a_folder_and_a_pattern_are_one_table(self, tmp_path: Path) -> None:
        folder = tmp_path / "parts"
        folder.mkdir()
        for part in (0, 2, 10):
            rows = {"id": [f"{part}"], "text": [f"t{part}"], **({"late": [part]} if part else {})}
            pq.write_table(pa.table(rows), folder / f"part-{part}.parquet")
        (folder / "_SUCCESS").write_bytes(b"")
        for dataset in (folder, f"{folder}/part-*.parquet"):
            rows = [row for batch in open_source(dataset).batches() for row in batch.to_pylist()]
            assert [(row["id"], row["late"]) for row in rows] == [("0", None), ("2", 2), ("10", 10)]
        (tmp_path / "hive" / "label=007").mkdir(parents=True)
        pq.write_table(pa.table({"id": ["a"], "text": ["x"]}), tmp_path / "hive" / "label=007" / "p.parquet")
        assert next(open_source(tmp_path / "hive").batches()).to_pylist() == [{"id": "a", "text": "x", "label": "007"}]

    def test_pictures_in_parts(self, tmp_path: Path) -> None:
        (tmp_path / "p").mkdir()
        for part in range(2):
            table = pa.table({"id": [str(part)], "image": pa.array([b"\x89PNG" + bytes([part])], pa.binary_view())})
            pq.write_table(table, tmp_path / "p" / f"{part}.parquet")
        rows = [row for batch in open_source(tmp_path / "p").batches() for row in batch.to_pylist()]
        assert [row["image.bytes"] for row in rows] == [b"\x89PNG\x00", b"\x89PNG\x01"]

    def test_names_that_cannot_be_kept_are_told(self, tmp_path: Path) -> None:
        assert [free_name(name) for name in ("a", " a ", "price\n(EUR)", "row", " ", "a\x00b")] == [
            "a",
            "a",
            "price (EUR)",
            "row_",
            "unnamed",
            "a b",
        ]
        (tmp_path / "a.csv").write_text('id,text,"price\n(EUR)",row\n1,x,2,3\n')
        report = es.embed(tmp_path / "a.csv", tmp_path / "s", text="hash:8")
        assert report.notes == ["Column 'price\\n(EUR)' is kept as 'price (EUR)'.", "Column 'row' is kept as 'row_'."]
        pq.write_table(pa.table({"id": ["1"], "text": ["x"], "A": [1], "a": [2]}), tmp_path / "a.parquet")
        with pytest.raises(SourceError, match="columns 'A' and 'a' differ in case only"):
            es.embed(tmp_path / "a.parquet", tmp_path / "t", text="hash:8")
        with pytest.raises(SourceError, match="columns 'PRICE' and"):
            es.embed(pa.table({"id": ["1"], "text": ["x"], "PRICE": [1], "price": [2]}), tmp_path / "t", text="hash:8")
        (tmp_path / "b.csv").write_text("id,text,Row_\n1,x,2\n")
        with pytest.raises(SourceError, match="'row_' and 'Row_' differ in case only"):
            es.embed(tmp_path / "b.csv", tmp_path / "s", text="hash:8")

    def test_columns_of_bytes_or_of_nothing_are_told(self, tmp_path: Path) -> None:
        table = pa.table({"id": ["a"], "text": ["x"], "thumb": [b"\x00"], "void": pa.nulls(1)})
        report = es.embed(table, tmp_path / "s", text="hash:8")
        assert report.notes == ["Column 'thumb' holds bytes and is left out.", "Column 'void' holds nothing and is left out."]

    def test_keys_that_come_late_are_kept(self, tmp_path: Path) -> None:
        lines = [{"id": str(i), "text": f"t{i}", **({"label": "x", "tags": ["a"]} if i >= 9000 else {})} for i in range(9100)]
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        es.embed(LinesSource(io.BytesIO(data)), tmp_path / "s", text="hash:8")
        (tmp_path / "d.jsonl").write_bytes(data)
        assert info(tmp_path / "s") == {"label": "text", "tags": "list of text"}
        report = es.embed(tmp_path / "d.jsonl", tmp_path / "s", text="hash:8")
        assert (report.added, report.updated) == (0, 0)

    def test_a_column_that_two_tables_have_is_refused(self, tmp_path: Path) -> None:
        vectors = {"id": ["a"], "emb": pa.array([[1.0, 0.0]], pa.list_(pa.float32())), "label": ["x"]}
        pq.write_table(pa.table(vectors), tmp_path / "v.parquet")
        (tmp_path / "m.csv").write_text("id,label\na,y\n")
        with pytest.raises(SourceError, match=r"v\.parquet and its metadata both have a column 'label'"):
            es.import_vectors(tmp_path / "v.parquet", tmp_path / "s", modality="text", metadata=tmp_path / "m.csv")
        assert not (tmp_path / "s").exists()

    def test_eight_bit_vectors_are_vectors(self, tmp_path: Path) -> None:
        x = np.random.default_rng(0).integers(-128, 128, (20, 8)).astype(np.int8)
        np.save(tmp_path / "v.npy", x)
        es.import_vectors(tmp_path / "v.npy", tmp_path / "s", modality="text")
        np.testing.assert_array_equal(es.Store.open(tmp_path / "s").space("text").vectors(), x)
        u = pa.array(list(x.view(np.uint8)), pa.list_(pa.uint8()))
        pq.write_table(pa.table({"id": [str(i) for i in range(20)], "emb": u}), tmp_path / "v.parquet")
        es.import_vectors(tmp_path / "v.parquet", tmp_path / "u", modality="text")
        np.testing.assert_array_equal(es.Store.open(tmp_path / "u").space("text").vectors(), x.view(np.uint8))

    def test_filters_say_the_types(self, tmp_path: Path) -> None:
        es.embed(pa.table({"id": ["a"], "text": ["x"], "label": ["Flags"]}), tmp_path / "s", text="hash:8")
        with pytest.raises(UsageError, match=r"put it in single quotes: 'Flags'\. Columns: .*label \(text\)"):
            es.search(tmp_path / "s", id="a", where="label = Flags")
        with pytest.raises(UsageError, match="Compare text with text in single quotes"):
            es.search(tmp_path / "s", id="a", where="label = 5")


def test_predictions_are_keys_of_their_probabilities(tmp_path: Path) -> None:
    for name, labels in (("bool", [True, False]), ("int", [1, 2])):
        table = pa.table({"id": [str(i) for i in range(60)], "text": [f"t{i}" for i in range(60)], "label": labels * 30})
        es.embed(table, tmp_path / name, text="hash:8")
        es.train(tmp_path / name, "label", report=False)
        row = es.predict(tmp_path / name, "label", ids=["1"]).to_rows()[0]
        assert json.dumps(row["prediction"]) in row["probabilities"]


def test_a_head_refuses_what_its_columns_cannot_be(tmp_path: Path) -> None:
    n = 80
    table = pa.table(
        {
            "id": [str(i) for i in range(n)],
            "text": [f"t{i}" for i in range(n)],
            "label": ["a", "b"] * (n // 2),
            "price": list(range(n)),
            "new": [True, False] * (n // 2),
        }
    )
    es.embed(table, tmp_path / "s", text="hash:8")
    es.train(tmp_path / "s", "label", columns=["price", "new"], report=False)
    (tmp_path / "q.csv").write_text("id,text,price,new\nq,x,cheap,true\n")
    with pytest.raises(SourceError, match="row 1: price is 'cheap', no number, the type of the column in head 'label'"):
        es.predict(tmp_path / "s", "label", tmp_path / "q.csv")
    (tmp_path / "q.csv").write_text("id,text,price,new\nq,x,7,yes\n")
    pq.write_table(pa.table({"id": ["q"], "text": ["x"], "price": [7.0], "new": [True]}), tmp_path / "q.parquet")
    one, other = (es.predict(tmp_path / "s", "label", tmp_path / f"q.{end}").probabilities for end in ("csv", "parquet"))
    np.testing.assert_array_equal(one, other)
    words = pa.table({"id": ["w"], "text": ["x"], "price": ["cheap"]})
    es.embed(words, tmp_path / "w", text="hash:8")
    encoder = ColumnEncoder.fit({"price": [1.0, 2.0]})
    with pytest.raises(HeadError, match="Item 'w': price is 'cheap', no number"):
        encoder.features(es.Store.open(tmp_path / "w").items.table(["id", "price"]))


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=8).filter(str.strip)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXTS
    | st.sampled_from(["007", "+5", "1.10", "yes", "true", "10-11-12", "0x10", "1_0", "NaN", "null", '"', "a,b", "a\r\nb"]),
    "integer": st.integers(-(2**63), 2**63 - 1),
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
    "date": st.dates(datetime.date(1, 1, 1)),
    "datetime": st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1)),
}
ARROW = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
ARROW |= {"date": pa.date32(), "datetime": pa.timestamp("us")}
NAMES = TEXTS | st.sampled_from(
    ["row", "image.size", "Label", "label", "a b", " a ", "price\n(EUR)", "select", "p:x", "text.failed"]
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.Table, dict[str, str]]:
    """A table of items with metadata of every type, and the types."""
    n = draw(st.integers(1, 5))
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    words = {
        name: draw(st.sampled_from(list(VALUES))) for name in names if name not in ("id", "image", "text", "audio", "video")
    }
    columns = {"id": [f"i{i}" for i in range(n)], "text": [f"t{i}" for i in range(n)]}
    arrays = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    for name, word in words.items():
        values = draw(st.lists(st.none() | VALUES[word], min_size=n, max_size=n))
        arrays[name] = pa.array(values, ARROW[word])
    return pa.table(arrays), words


def written(table: pa.Table, folder: Path) -> dict[str, Any]:
    """The table in every format: what to call it → dataset."""
    polars = pytest.importorskip("polars")
    rows = [
        {name: v.isoformat() if isinstance(v, datetime.date) else v for name, v in row.items()} for row in table.to_pylist()
    ]
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        with open(folder / f"t{suffix}", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerow(table.column_names)
            writer.writerows([[json.dumps(v) if isinstance(v, (bool, float)) else v for v in row.values()] for row in rows])
    pq.write_table(table, folder / "t.parquet")
    polars.from_arrow(table).write_parquet(folder / "polars.parquet")
    pq.write_table(
        table.cast(pa.schema([(f.name, pa.string_view() if f.type == pa.string() else f.type) for f in table.schema])),
        folder / "views.parquet",
    )
    files = ("t.csv", "t.tsv", "t.jsonl", "t.parquet", "polars.parquet", "views.parquet")
    return {
        **{name: folder / name for name in files},
        "standard input": LinesSource(io.BytesIO((folder / "t.jsonl").read_bytes())),
        "pandas": table.to_pandas(types_mapper=pytest.importorskip("pandas").ArrowDtype),
        "polars": polars.from_arrow(table),
        "arrow": table,
    }


def outcome(dataset: Any, types: dict[str, str]) -> tuple[list[dict[str, Any]], np.ndarray[Any, Any]] | str:
    """The items and a head's features of them, or the kind of the one clear error."""
    try:
        source = open_source(dataset)
        typed = Typed(source.name, {}, declared(types))
        leave_text(source, typed.known)
        tables = [pa.Table.from_batches([batch]) for batch in typed.batches(source.batches())]
    except EmbedstoreError as error:
        return f"{type(error).__name__} of {len(str(error).splitlines())} line"
    items = pa.concat_tables(tables, promote_options="default")
    columns = [n for n in items.column_names if n not in (ID, "text") and not pa.types.is_temporal(items.schema.field(n).type)]
    filled = [n for n in columns if any(v is not None and v == v for v in items.column(n).to_pylist())]
    encoder = ColumnEncoder.fit(items.select(filled).to_pydict())
    return items.to_pylist(), encoder.features(items) if filled else np.empty(0)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables())
@example((pa.table({"id": ["a"], "text": ["t"], "n": [2**53 + 1]}), {"n": "integer"}))
@example((pa.table({"id": ["a"], "text": ["t"], "n": [5e-324], "s": ["1e5"]}), {"n": "number", "s": "text"}))
def test_the_same_record_is_the_same_item_whatever_file_it_came_in(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[pa.Table, dict[str, str]]
) -> None:
    table, words = drawn
    folder = tmp_path_factory.mktemp("types")
    types = {free_name(name): word for name, word in words.items()}
    first: Any = None
    for name, dataset in written(table, folder).items():
        found = outcome(dataset, types)
        first = found if first is None else first
        if isinstance(first, str) or isinstance(found, str):
            assert found == first, name
            assert found.endswith("of 1 line")
            continue
        assert found[0] == first[0], name
        np.testing.assert_array_equal(found[1], first[1], name)
