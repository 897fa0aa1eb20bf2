"""Sources: a folder and tables of every kind as the same stream of batches."""

from __future__ import annotations

import functools
import http.server
import io
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from helpers import write_csv, write_image

import embedstore as es
from embedstore.errors import DuplicateIdError, SourceError, UsageError
from embedstore.sources import FolderSource, MemorySource, Source, TableSource, open_source, tabular
from embedstore.sources.lines import LinesSource
from embedstore.sources.vectors.columns import TextColumns


def rows_of(source: Source) -> list[dict[str, object]]:
    return pa.Table.from_batches(list(source.batches())).to_pylist()


class SourceContract:
    """What every source keeps; subclasses make one with four items, the third without text."""

    def make(self, folder: Path) -> Source:
        raise NotImplementedError

    def test_batches_have_one_schema_and_unique_ids(self, tmp_path: Path) -> None:
        source = self.make(tmp_path)
        assert isinstance(source, Source)
        batches = list(source.batches())
        assert len({str(b.schema) for b in batches}) == 1
        table = pa.Table.from_batches(batches)
        assert table.schema.field("id").type == pa.string()
        assert table.num_rows == source.count() == 4
        assert len(set(table.column("id").to_pylist())) == 4
        assert set(source.modalities) == {"image", "text"}
        assert table.column("text").null_count == 1
        assert all(Path(p).is_absolute() for p in table.column("image").to_pylist())

    def test_a_second_pass_gives_the_same(self, tmp_path: Path) -> None:
        source = self.make(tmp_path)
        assert rows_of(source) == rows_of(source)


ROWS: list[dict[str, object]] = [
    {"id": "007", "image": "a.png", "text": 'naïve, "quoted"\nand two lines', "label": "x", "price": 1.5},
    {"id": "8", "image": "b.png", "text": "NULL is a word", "label": "y", "price": 2.0},
    {"id": "ü", "image": "sub/c.png", "text": "  ", "label": "x", "price": None},
    {"id": "1e5", "image": "d.png", "text": "日本", "label": "y", "price": -1.0},
]


def write_table(folder: Path, suffix: str) -> Path:
    path = folder / f"t{suffix}"
    if suffix in (".csv", ".tsv"):
        write_csv(path, ROWS)
        if suffix == ".tsv":
            pa.csv.write_csv(pa.Table.from_pylist(ROWS), path, pa.csv.WriteOptions(delimiter="\t"))
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
class TestTable(SourceContract):
    @pytest.fixture(autouse=True)
    def _suffix(self, suffix: str) -> None:
        self.suffix = suffix

    def make(self, folder: Path) -> Source:
        return TableSource(write_table(folder, self.suffix))

    def test_ids_stay_strings_and_metadata_keeps_its_type(self, tmp_path: Path) -> None:
        source = self.make(tmp_path)
        rows = rows_of(source)
        assert [row["id"] for row in rows] == ["007", "8", "ü", "1e5"]
        assert [row["text"] for row in rows] == [ROWS[0]["text"], "NULL is a word", None, "日本"]
        assert [row["price"] for row in rows] == [1.5, 2.0, None, -1.0]
        assert rows[2]["image"] == str(tmp_path / "sub" / "c.png")


class TestMemory(SourceContract):
    def make(self, folder: Path) -> Source:
        images = [str(folder / f"{i}.png") for i in range(4)]
        return MemorySource({"id": list("abcd"), "image": images, "text": ["a", "b", None, "d"]})


class TestFolder(SourceContract):
    def make(self, folder: Path) -> Source:
        for name in ("cat/1.png", "cat/2.JPG", "dog/3.png", "dog/ü.png"):
            write_image(folder / name)
        (folder / "cat" / "1.txt").write_text("\ufeffa cat\n", encoding="utf-8")
        (folder / "cat" / "2.txt").write_text("another")
        (folder / "dog" / "ü.txt").write_text("wau")
        (folder / "notes.docx").write_bytes(b"ignored")
        (folder / ".hidden.png").write_bytes(b"ignored")
        return FolderSource(folder)

    def test_labels_captions_and_ids(self, tmp_path: Path) -> None:
        rows = rows_of(self.make(tmp_path))
        assert [row["id"] for row in rows] == ["cat/1.png", "cat/2.JPG", "dog/3.png", "dog/ü.png"]
        assert [row["label"] for row in rows] == ["cat", "cat", "dog", "dog"]
        assert [row["text"] for row in rows] == ["a cat", "another", None, "wau"]

    def test_counting_reads_no_text(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source, read = self.make(tmp_path), []
        monkeypatch.setattr("embedstore.sources.folder.read_text", lambda path, **_: read.append(path))
        assert (source.count(), read) == (4, [])
        assert (len(rows_of(source)), len(read)) == (4, 3)

    def test_split_folders(self, tmp_path: Path) -> None:
        for name in ("train/cat/1.png", "valid/dog/2.png"):
            write_image(tmp_path / name)
        rows = rows_of(FolderSource(tmp_path))
        assert [(row["split"], row["label"]) for row in rows] == [("train", "cat"), ("valid", "dog")]

    def test_files_of_one_stem_are_one_item(self, tmp_path: Path) -> None:
        write_image(tmp_path / "a.png")
        write_image(tmp_path / "a.jpg")
        (tmp_path / "a.wav").write_bytes(b"sound")
        (tmp_path / "a.txt").write_text("caption")
        (tmp_path / "b.txt").write_text("only words")
        rows = rows_of(FolderSource(tmp_path))
        assert [row["id"] for row in rows] == ["a.jpg", "a.png", "b.txt"]
        assert [row["text"] for row in rows] == ["caption", "caption", "only words"]
        assert rows[0]["audio"] == rows[1]["audio"] == str(tmp_path / "a.wav")


def error_of(function: Callable[[], object]) -> str:
    with pytest.raises((SourceError, UsageError)) as caught:
        function()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [{"key": 1, "Text": "a", "caption": "b", "row": 5}])
    assert rows_of(TableSource(path)) == [{"id": "0", "text": "a", "key": 1, "caption": "b", "row_": 5}]
    named = TableSource(path, {"id": "key", "text": "caption"})
    assert rows_of(named) == [{"id": "1", "text": "b", "Text": "a", "row_": 5}]
    assert "no column 'nope'. Columns: key, Text, caption, row" in error_of(lambda: TableSource(path, {"id": "nope"}))


def test_without_id_the_file_names_the_item(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [{"image": "x/1.png"}, {"image": "x/2.png"}])
    assert [row["id"] for row in rows_of(TableSource(path))] == ["x/1.png", "x/2.png"]


def test_semicolons_and_single_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id;text\n1;one, two\n2;three\n")
    assert [row["text"] for row in rows_of(TableSource(tmp_path / "a.csv"))] == ["one, two", "three"]
    (tmp_path / "b.csv").write_text("text\nhello world\nagain\n")
    assert [row["text"] for row in rows_of(TableSource(tmp_path / "b.csv"))] == ["hello world", "again"]


def test_bad_tables_say_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_bytes(b"")
    assert "empty.csv is empty (0 bytes)" in error_of(lambda: TableSource(tmp_path / "empty.csv"))
    (tmp_path / "latin.csv").write_bytes("id,text\n1,café\n".encode("latin1"))
    assert "line 2 is not UTF-8 (byte 0xe9)" in error_of(lambda: rows_of(TableSource(tmp_path / "latin.csv")))
    (tmp_path / "wide.csv").write_text("id,text\n1,a\n2,b,c,d\n")
    assert "wide.csv cannot be read as csv" in error_of(lambda: rows_of(TableSource(tmp_path / "wide.csv")))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nonsense")
    assert "cannot be read as parquet" in error_of(lambda: TableSource(tmp_path / "broken.parquet"))
    (tmp_path / "broken.jsonl").write_text('{"id": 1, "text": "a"}\n{"id": 2, "te')
    assert "cannot be read as json" in error_of(lambda: rows_of(TableSource(tmp_path / "broken.jsonl")))
    path = write_csv(tmp_path / "none.csv", [{"a": 1, "b": 2}])
    assert "no column called image, text, audio, video. Columns: a, b." in error_of(lambda: TableSource(path))
    (tmp_path / "t.xlsx").write_bytes(b"x")
    assert "expected a file ending in .csv" in error_of(lambda: open_source(tmp_path / "t.xlsx"))
    (tmp_path / "nothing").mkdir()
    assert "holds no file of a known type" in error_of(lambda: open_source(tmp_path / "nothing"))


def test_missing_and_duplicate_ids_name_the_rows(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "d.csv", [{"id": i, "text": "x"} for i in ("a", "b", "", "d")])
    assert "row 3 has no id" in error_of(lambda: rows_of(TableSource(path)))
    path = write_csv(tmp_path / "e.csv", [{"id": i, "text": "x"} for i in ("a", "b", "b")])
    with pytest.raises(DuplicateIdError, match="rows 2 and 3 both have the id 'b'"):
        rows_of(TableSource(path))


def test_names_are_no_patterns(tmp_path: Path) -> None:
    for name in ("st*r.csv", "stXr.csv", "a[1].csv"):
        write_csv(tmp_path / name, [{"id": name, "text": "x"}])
    assert [row["id"] for row in rows_of(TableSource(tmp_path / "st*r.csv"))] == ["st*r.csv"]
    assert [row["id"] for row in rows_of(TableSource(tmp_path / "a[1].csv"))] == ["a[1].csv"]


def test_names_of_folders_above_are_no_values(tmp_path: Path) -> None:
    folder = tmp_path / "label=cat" / "n=1"
    folder.mkdir(parents=True)
    table = pa.table({"id": ["a"], "text": ["x"], "label": ["dog"]})
    (folder / "t.jsonl").write_text('{"id": "a", "text": "x", "label": "dog"}\n')
    pq.write_table(table, folder / "t.parquet")
    for name in ("t.jsonl", "t.parquet"):
        assert rows_of(TableSource(folder / name)) == [{"id": "a", "text": "x", "label": "dog"}]
    (folder / "parts" / "split=train").mkdir(parents=True)
    pq.write_table(table.drop_columns("label"), folder / "parts" / "split=train" / "0.parquet")
    assert rows_of(open_source(folder / "parts"))[0]["split"] == "train"
    pq.write_table(table, folder / "parts" / "split=train" / "1.parquet")
    assert open_source(f"{folder}/parts/split=*/*.parquet").count() == 2
    assert "'label=cat' above the table would fill its column 'label'" in error_of(lambda: open_source(folder / "parts"))


def test_ids_that_look_like_numbers_stay_apart(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [{"sku": s, "text": "x"} for s in ("1e3", "1000", "01000")])
    assert [row["id"] for row in rows_of(TableSource(path, {"id": "sku"}))] == ["1e3", "1000", "01000"]


def test_one_column_with_commas_and_columns_twice(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nhello, world\n")
    assert [row["text"] for row in rows_of(TableSource(tmp_path / "a.csv"))] == ["hello, world"]
    (tmp_path / "b.csv").write_text("ID,Id,text\n1,2,3\n")
    assert "two columns are called 'Id'" in error_of(lambda: TableSource(tmp_path / "b.csv"))


@pytest.mark.slow
def test_memory_does_not_grow_with_a_csv(tmp_path: Path) -> None:
    """DuckDB keeps what it has read of a text file, up to most of the machine's memory, if it is let."""
    line = "x" * 1000
    for name, lines in (("small", 20_000), ("large", 250_000)):
        with open(tmp_path / f"{name}.csv", "w", encoding="utf-8") as file:
            file.write("id,text\n")
            file.writelines(f"{i},{line}\n" for i in range(lines))
    code = (
        "import sys\nfrom embedstore.sources import open_source\n"
        "for path in sys.argv[1:]:\n"
        "    rows = sum(batch.num_rows for batch in open_source(path).batches())\n"
        "    status = open('/proc/self/status').read().split()\n"
        "    print(rows, int(status[status.index('VmHWM:') + 1]) // 1024)\n"
    )
    command = [sys.executable, "-c", code, *(str(tmp_path / f"{name}.csv") for name in ("small", "large"))]
    small, large = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert (small.split()[0], large.split()[0]) == ("20000", "250000")
    assert int(large.split()[1]) - int(small.split()[1]) < 130  # 230 MB more data


@pytest.mark.parametrize("length", [3_000_000, 5_000_000])
def test_a_csv_line_longer_than_a_buffer_is_read(tmp_path: Path, length: int) -> None:
    long = "Possible " + "x" * length
    rows = "".join(f"i{i},short,{i}\n" for i in range(1000))
    (tmp_path / "a.csv").write_text(f"id,text,n\n{rows}z,{long},7\n", encoding="utf-8")
    batch = list(TableSource(tmp_path / "a.csv").batches())[-1]
    assert (batch.column("n")[-1].as_py(), batch.column("text")[-1].as_py()) == (7, long)


def test_a_csv_with_long_lines_is_typed(tmp_path: Path) -> None:
    long = "long " * 100_000
    (tmp_path / "a.csv").write_text("id,text,n\n" + "".join(f"{i},{long},{i}\n" for i in range(50)), encoding="utf-8")
    batch = next(TableSource(tmp_path / "a.csv").batches())
    assert (batch.num_rows, str(batch.schema.field("n").type)) == (50, "int64")
    assert batch.column("text")[49].as_py() == long


def test_a_long_json_line_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabular, "LONGEST_LINE", 1 << 20)
    rows = [{"id": str(i), "text": "long " * (10 if i else 1_000_000)} for i in range(3)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    batch = next(TableSource(tmp_path / "a.jsonl").batches())
    assert [len(text) for text in batch.column("text").to_pylist()] == [5_000_000, 50, 50]


def test_types_of_a_csv_are_those_of_all_its_rows(tmp_path: Path) -> None:
    rows = "".join(f"{i},text {i},1,{i % 28 + 1:02d}/02/2024\n" for i in range(30_000))
    (tmp_path / "a.csv").write_text(f"id,text,n,day\n{rows}z,last,word,27/03/2024\n", encoding="utf-8")
    batch = list(TableSource(tmp_path / "a.csv").batches())[-1]
    assert batch.column("n").to_pylist()[-2:] == ["1", "word"]
    assert batch.column("day")[-1].as_py() == "27/03/2024"  # a CSV has no dates unless the user says so


def test_number_signs_in_a_csv_are_data(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text("id,text\n9,#hash only\n8,tail #hash\n#10,comment?\n13,\n")
    expected = [("9", "#hash only"), ("8", "tail #hash"), ("#10", "comment?"), ("13", None)]
    assert [(row["id"], row["text"]) for row in rows_of(TableSource(tmp_path / "h.csv"))] == expected
    columns = TextColumns(tmp_path / "h.csv", ["id"])  # as the import of vectors reads them
    assert columns.files[0][1] == 4
    assert pa.concat_tables(columns.blocks(9, ["id"])).to_pydict() == {"id": ["9", "8", "#10", "13"]}
    (tmp_path / "one.csv").write_text("text\n#a\n#b\nc\n")
    assert [row["text"] for row in rows_of(TableSource(tmp_path / "one.csv"))] == ["#a", "#b", "c"]


def test_no_row_of_a_csv_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,x\nid,text,label\n2,y,z\n3,y,z\n4,y,z\n")
    said = error_of(lambda: rows_of(TableSource(tmp_path / "a.csv")))
    assert "a.csv cannot be read as csv: line 3 has 3 values, but the header has 2." in said


UUID = "0AB3C9D2-1111-2222-3333-44445555666"
VERBATIM: list[list[dict[str, object]]] = [
    [{"id": UUID + c, "text": t, "day": d} for c, t, d in (("A", "3:04", "2024-01-02"), ("B", "13:04", "2024-01-03"))],
    [{"id": i, "text": f"2024-01-0{n} 10:00", "at": "2024-01-02T03:04:05Z"} for n, i in enumerate((1, 2.5, "x"), 1)],
    [{"id": i, "text": i, "m": m} for i, m in ((2**64 + 1, "x"), (2**64 + 2, 3), (2**70, None))],
    [{"id": i, "text": None if i else "2024-01-01", "n": i / 2, "b": i > 0, "void": None} for i in range(3)],
    [{"id": i, "text": "t", **{f"k{i}-{j}": j for j in range(100)}} for i in range(3)],  # more keys than DuckDB's records have
]


@pytest.mark.parametrize("rows", VERBATIM, ids=range(len(VERBATIM)))
def test_json_lines_are_read_as_they_are(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines)
    streamed = rows_of(LinesSource(io.BytesIO(lines.encode())))
    assert rows_of(TableSource(tmp_path / "a.jsonl")) == streamed
    ids = pa.concat_tables(TextColumns(tmp_path / "a.jsonl", ["id"]).blocks(9, ["id"])).column(0).to_pylist()
    assert ids == [str(row["id"]) for row in rows]


def test_types_of_json_metadata(tmp_path: Path) -> None:
    odd = "a'b \"c"
    nested = {"day": "2024-01-02", odd: [1, 2.5], "mixed": [1, "x"], "in": {"u": UUID + "A"}}
    rows = [{"id": "a", "text": "x", "n": 1, "f": 1, "o": nested, odd: "x"}, {"id": "b", "text": "y", "n": 2, "f": 0.5, odd: 3}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = rows_of(TableSource(tmp_path / "a.jsonl"))
    assert [(row["n"], row["f"], row[odd]) for row in found] == [(1, 1.0, "x"), (2, 0.5, "3")]
    assert json.loads(found[0]["o"]) == nested  # a record stays as it is written; DuckDB's would get every record's keys
    assert found[0]["o"] == rows_of(LinesSource(io.BytesIO((tmp_path / "a.jsonl").read_bytes())))[0]["o"]


def test_json_in_parquet_is_without_quotation_marks(tmp_path: Path) -> None:
    said = """'a' AS id, 't' AS text, '"x"'::JSON AS m"""
    duckdb = pytest.importorskip("duckdb")
    duckdb.connect().execute(f"COPY (SELECT {said}) TO '{tmp_path / 'a.parquet'}'")
    assert rows_of(TableSource(tmp_path / "a.parquet")) == [{"id": "a", "text": "t", "m": "x"}]


def test_bytes_in_a_parquet_are_utf8_texts(tmp_path: Path) -> None:
    """As programs write them that do not say of their strings that they are such."""
    raw = ["café".encode(), b"a\\b", b"caf\xe9", b" ", None]
    pq.write_table(pa.table({"id": [b"\xc3\xa9", b"2", b"3", b"4", b"5"], "text": raw}), tmp_path / "t.parquet")
    source = TableSource(tmp_path / "t.parquet")
    found = [(row["id"], row["text"], row["text.failed"]) for row in rows_of(source)]
    failed = {"stage": "decode", "reason": "not UTF-8 text: unexpected end of data at byte 3 (from 0)"}
    assert found[:3] == [("é", "café", None), ("2", "a\\b", None), ("3", None, failed)]
    assert found[3:] == [("4", None, None), ("5", None, None)]
    counts = es.embed(source, tmp_path / "s", text="hash:8").spaces["text"]
    assert (counts.embedded, counts.missing, counts.failed) == (2, 2, 1)
    pq.write_table(pa.table({"id": [b"1", b"\xff"], "text": ["x", "y"]}), tmp_path / "t.parquet")
    assert "row 2 has the id b'\\xff', which is not UTF-8" in error_of(lambda: rows_of(TableSource(tmp_path / "t.parquet")))


def test_lists_and_records_are_the_same_text_in_every_format(tmp_path: Path) -> None:
    rows = [{"id": ["a, b"], "text": ["a dog", 'a "cat"']}, {"id": ["a", "b"], "text": []}, {"id": ["c"], "text": None}]
    pq.write_table(table := pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    compact = (json.dumps(row, separators=(",", ":")) for row in rows)
    (tmp_path / "t.jsonl").write_text("".join(f"{line}\n" for line in compact))
    found = rows_of(TableSource(tmp_path / "t.parquet"))
    assert found == rows_of(TableSource(tmp_path / "t.jsonl")) == rows_of(open_source(table))
    assert found[0] == {"id": '["a, b"]', "text": '["a dog","a \\"cat\\""]'}
    pq.write_table(pa.table({"id": [["a"], ["a"]], "text": ["x", "y"]}), tmp_path / "t.parquet")
    assert "rows 1 and 2 both have the id" in error_of(lambda: rows_of(TableSource(tmp_path / "t.parquet")))


@pytest.mark.parametrize("kind", [pa.binary(), pa.struct([("bytes", pa.binary()), ("path", pa.string())])])
def test_a_part_of_a_parquet_may_lack_the_payloads(kind: pa.DataType, tmp_path: Path) -> None:
    payload = b"1" if kind == pa.binary() else {"bytes": b"1", "path": "1.png"}
    pq.write_table(pa.table({"id": ["a", "b"], "image": pa.array([payload, None], kind)}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"id": ["c", "d"], "text": ["x", None]}), tmp_path / "1.parquet")
    rows = rows_of(open_source(tmp_path))
    assert [(row["id"], row["image.bytes"], row["text"]) for row in rows] == [
        ("a", b"1", None), ("b", None, None), ("c", None, "x"), ("d", None, None),
    ]  # fmt: skip
    assert [row["image"] is None for row in rows] == [False, True, True, True]
    pq.write_table(pa.table({"id": ["c"], "image": pa.nulls(1)}), tmp_path / "1.parquet")
    assert [row["image.bytes"] for row in rows_of(open_source(tmp_path))] == [b"1", None, None]
    pq.write_table(pa.table({"id": ["c"], "image": ["c.png"]}), tmp_path / "1.parquet")
    if kind == pa.binary():
        words = "1.parquet: column 'image' holds string, in other files bytes. Make them alike."
        assert words in error_of(lambda: rows_of(open_source(tmp_path)))


def test_keys_that_differ_in_case_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1, "text": "x", "text_1": 5}\n')
    assert rows_of(TableSource(tmp_path / "a.jsonl")) == [{"id": "1", "text": "x", "text_1": 5}]
    (tmp_path / "b.jsonl").write_text('{"id": 1, "text": "x"}\n{"ID": 2, "text": "y"}\n')
    assert "two keys are called 'ID' (case does not count). Rename one." in error_of(lambda: TableSource(tmp_path / "b.jsonl"))


GOOD = b'{"id": "a", "text": "x"}\n'


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (GOOD + b'{"id": "b", "text": "y"\n', "line 2 is not JSON (Expecting ',' delimiter, column 24)"),
        (GOOD + b'{"id": "b", "text": "y', "line 2 is not JSON"),
        (b"hello\n" + GOOD, "line 1 is not JSON"),
        (GOOD + b"\n \n" + b'{"id" "b"}\n' + GOOD, "line 4 is not JSON"),
        (GOOD + b'{"id": "b", \n "text": "y"}\n', "line 2 is not JSON"),
        (GOOD + GOOD.strip() + b" " + GOOD, "line 2 is not JSON (Extra data"),
        (GOOD + b'\n{"id": "\\ud800", "text": "y"}\n', "line 3 holds '\\ud800', which is not valid Unicode text."),
        (GOOD + b'{"id": "caf\xe9", "text": "y"}\n', "line 2 is not JSON ('utf-8' codec can't decode byte 0xe9"),
        (GOOD + b"\n5\n", "line 3 is 5; expected a JSON object."),
        (b"{}\n", "no line has a key."),
        (GOOD + b'{"": 1}\n', "line 2 has an empty key."),
    ],
)
def test_malformed_json_names_its_line(tmp_path: Path, lines: bytes, words: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines)
    assert f"a.jsonl cannot be read as json: {words}" in error_of(lambda: rows_of(TableSource(tmp_path / "a.jsonl")))


@pytest.mark.parametrize("half", [b"\\ud800", b"\\uDC00 x", b"\xed\xa0\x80"])
def test_half_a_character_on_standard_input_names_its_line(half: bytes) -> None:
    lines = GOOD + b'{"id": "b", "text": "\\ud83d\\ude00 \xed\x95\x9c"}\n\n{"id": "c", "text": "%s"}\n' % half
    assert "line 4 holds '\\ud" in error_of(lambda: rows_of(LinesSource(io.BytesIO(lines))))
    assert len(rows_of(LinesSource(io.BytesIO(lines[: lines.index(b"\n\n") + 1])))) == 2


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_tables_at_http(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="fsspec reads http with aiohttp")
    for suffix in (".csv", ".jsonl"):
        write_table(tmp_path, suffix)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for suffix in (".csv", ".jsonl"):
            rows = rows_of(TableSource(f"http://127.0.0.1:{server.server_port}/t{suffix}"))
            assert [row["id"] for row in rows] == ["007", "8", "ü", "1e5"]
        server.shutdown()


def test_tables_on_a_filesystem_that_does_not_know_when_they_were_modified(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.get_filesystem_class("memory")

    class Timeless(memory):  # type: ignore[misc, valid-type]
        protocol = "timeless"
        store: dict[str, object] = {}  # noqa: RUF012
        pseudo_dirs = [""]  # noqa: RUF012
        modified = fsspec.AbstractFileSystem.modified

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return str(memory._strip_protocol(path.replace("timeless://", "memory://")))

    fsspec.register_implementation("timeless", Timeless, clobber=True)
    for suffix in (".csv", ".jsonl", ".parquet"):
        fsspec.filesystem("timeless").pipe(f"/t{suffix}", write_table(tmp_path, suffix).read_bytes())
        assert [row["id"] for row in rows_of(TableSource(f"timeless://t{suffix}"))] == ["007", "8", "ü", "1e5"]
