"""Files of results: what a spreadsheet opens, and what another program reads back."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedstore._core.result_files import distinct, write_tables
from embedstore._core.words import counted
from embedstore.duplicates.report import Duplicate, DuplicateCluster, DuplicateReport
from embedstore.errors import OutputError, UsageError
from embedstore.training.predictions import Predictions

TABLE = pa.table(
    {
        "=id": ["=1+1", "+1", "-x", "@SUM(A1)", "\tx", "\rx", "a=b", "", None],
        "number": [-1.5, 5.0, 0.1, None, 1e-05, 2.0, 3.0, 4.0, 5.0],
        "short": pa.array([-0.1, 1, 2, 3, 4, 5, 6, 7, None], pa.float32()),
        "yes": [True, False, None, True, True, True, True, True, True],
    }
)


def rows_of(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_csv_does_not_run_in_a_spreadsheet(tmp_path: Path) -> None:
    write_tables(tmp_path / "x.CSV", TABLE.schema, [TABLE])
    header, *rows = rows_of(tmp_path / "x.CSV")
    assert header == ["'=id", "number", "short", "yes"]
    assert [row[0] for row in rows] == ["'=1+1", "'+1", "'-x", "'@SUM(A1)", "'\tx", "'\rx", "a=b", "", ""]
    assert [row[1] for row in rows[:5]] == ["-1.5", "5.0", "0.1", "", "1e-05"]
    assert rows[0][2] == "-0.1"
    assert [row[3] for row in rows[:3]] == ["true", "false", ""]


def test_parquet_and_json_lines_are_exact(tmp_path: Path) -> None:
    for name in ("x.parquet", "x.jsonl"):
        write_tables(tmp_path / name, TABLE.schema, [TABLE, TABLE.slice(0, 0)])
    assert pq.read_table(tmp_path / "x.parquet").equals(TABLE)
    lines = (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == TABLE.to_pylist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.jsonl", "x.parquet"]


def test_names_of_columns_stay_apart() -> None:
    assert distinct(["a", "a", "a (2)", "a", "b"]) == ["a", "a (3)", "a (2)", "a (4)", "b"]


def test_classes_of_one_text_keep_their_columns(tmp_path: Path) -> None:
    classes = np.array([1, "1", "=x"], dtype=object)
    found = Predictions(np.array(["-7"], object), classes[:1], np.array([[0.5, 0.3, 0.2]]), classes, [("@gone", "=why")])
    header, row, gone = rows_of(found.save(tmp_path / "p.csv"))
    assert header == ["id", "prediction", "probability", "p:1", "p:1 (2)", "p:=x", "unusable"]
    assert row == ["'-7", "1", "0.5", "0.5", "0.3", "0.2", ""]
    assert gone[0] == "'@gone"
    assert gone[-1] == "'=why"
    assert found.to_rows()[0]["probabilities"] == {"1": 0.5, "1 (2)": 0.3, "=x": 0.2}


def test_duplicates_for_a_spreadsheet(tmp_path: Path) -> None:
    cluster = DuplicateCluster("=a", [Duplicate("@b", 1.0, "exact"), Duplicate("c", 0.98, "near", 0.1)])
    path = DuplicateReport(tmp_path, 1, ["image"], 0.98, 3, [cluster]).save(tmp_path / "d.csv")
    assert path.read_bytes().splitlines() == [
        b"cluster,representative,id,score,kind,difference",
        b"1,'=a,'@b,1.0,exact,",
        b"1,'=a,c,0.98,near,0.1",
    ]


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("old")

    def fails() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UsageError, match=r"x\.csv cannot be written: No such file or directory\."):
        write_tables(tmp_path / "no" / "x.csv", TABLE.schema, [TABLE])
    with pytest.raises(OutputError, match=r"old\.csv cannot be written: No space left on device\. Make room"):
        write_tables(tmp_path / "old.csv", TABLE.schema, (fails() for _ in range(1)))  # type: ignore[misc]
    assert (tmp_path / "old.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"]


def test_one_and_many() -> None:
    assert [counted(n, "item") for n in (0, 1, 1234)] == ["0 items", "1 item", "1,234 items"]
    assert counted(2, "copy", "copies") == "2 copies"
