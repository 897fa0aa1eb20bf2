"""The command line: exit codes, one-line errors, JSON that scripts rely on."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from helpers import run

import embedstore as es
from embedstore.sources import MemorySource

COMMANDS = (
    *("demo", "embed", "import", "info", "index", "search", "train", "evaluate", "predict", "align", "eval-search", "dedup"),
    *("verify", "remove", "repair", "compact", "encoders", "compare", "labels", "select", "export-head", "heads", "export"),
    "serve",
)


def test_help_names_every_command() -> None:
    text = run("--help").stdout
    assert all(re.search(rf"\b{command}\b", text) for command in COMMANDS)
    for command in COMMANDS:
        assert "Usage" in run(command, "--help").stdout
    assert run("-h").stdout == text
    assert run("--version").stdout == f"embedstore {es.__version__}\n"


def test_every_command_has_examples_that_can_be_typed() -> None:
    """One or two at the end of every help, on lines of their own; the parser takes each of them."""
    import shlex

    from embedstore_cli.examples import EXAMPLES
    from embedstore_cli.main import app

    group = typer.main.get_command(app)
    commands = group.commands  # type: ignore[attr-defined]
    assert EXAMPLES.keys() == commands.keys() == set(COMMANDS)
    for name, lines in EXAMPLES.items():
        assert 1 <= len(lines) <= 2
        shown = run(name, "-h").stdout
        for line in lines:
            assert f"\n    {line}\n" in shown
            program, typed, *arguments = shlex.split(line)
            assert program == "embedstore"
            commands[typed].make_context(typed, arguments)


def test_a_shell_completes_commands_and_options() -> None:
    script = "import sys; sys.argv[0] = 'embedstore'; from embedstore_cli.main import main; main()"
    for words, expected in (("embedstore tra", "train"), ("embedstore search s --grou", "--group-by")):
        typed = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_EMBEDSTORE_COMPLETE": "complete_bash"}
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, **typed})
        assert done.stdout.split() == [expected], done.stderr


def test_the_whole_way_in_json(table: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    done = run("embed", table, "--store", store, "--image", "hash:8", "--text", "wide=hash:16", "--text", "hash:4", "--json")
    document = json.loads(done.stdout)
    assert document["spaces"].keys() == {"image", "wide", "text"}
    expected = {"embedded", "unchanged", "missing", "failed", "seconds", "items_per_s", "bound_by"}
    assert expected <= document["spaces"]["image"].keys()
    document = json.loads(run("info", store, "--json").stdout)
    assert document.keys() == {"items", "columns", "spaces", "heads", "generation"}
    assert document["spaces"]["text"].keys() == {"vectors", "missing", "failed", "dim", "dtype", "fingerprint", "encoder"}
    document = json.loads(run("search", store, "--text", "text 2", "--space", "text", "-k", 2, "--json").stdout)
    assert document["results"][0]["id"] == "item-02"
    document = json.loads(run("train", store, "label", "--inputs", "image,text", "--cv", 2, "--json").stdout)
    assert document["metrics"]["accuracy"].keys() == {"value", "low", "high"}
    assert document["baselines"].keys() == {"majority", "knn", "image", "text"}
    assert Path(document["report"]).is_file()
    document = json.loads(run("evaluate", store, "label", "--seen", "--report", tmp_path / "r.html", "--json").stdout)
    assert {"head", "metrics", "baselines", "seconds", "gain", "notes"} <= document.keys()
    assert (tmp_path / "r.html").is_file()
    document = json.loads(run("predict", store, "label", "--id", "item-01", "--explain", "--json").stdout)
    assert document["predictions"][0]["id"] == "item-01"
    assert document["predictions"][0]["contributions"].keys() == {"image", "text"}
    assert "predictions written to" in run("predict", store, "label", "--out", tmp_path / "p.csv").stdout
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 13
    assert json.loads(run("verify", store, "--json").stdout)["clean"] is True
    assert "11 items are left" in run("remove", store, "item-01").stdout


def test_tables_for_people(store: es.Store) -> None:
    assert "item-04" in run("search", store.path, "--text", "text 4").stdout
    assert "12 items; columns: label (text), price (number)" in run("info", store.path).stdout
    assert "clean" in run("verify", store.path).stdout
    assert "effnet-lite0" in run("encoders").stdout
    trained = run("train", store.path, "price", "--task", "regression", "--cv", 3, "--no-report").stdout
    assert "R² [95 %]" in trained
    assert "gain in mean absolute error over" in trained
    assert "report:" not in trained


def test_words_are_a_query_and_texts_are_shown(store: es.Store) -> None:
    queries: tuple[list[str], ...] = (["text 4"], ["--text", "text 4"])
    typed, named = (run("search", store.path, *words, "-k", 3, "--json").stdout for words in queries)
    assert json.loads(typed)["results"] == json.loads(named)["results"]
    mixed = json.loads(run("search", store.path, "text 4", "--text", "text 5", "--weights", "0,1", "--json").stdout)
    assert mixed["results"][0]["id"] == "item-05"
    lines = run("search", store.path, "text 4", "-k", 2).stdout.splitlines()
    assert re.search(r"^ # +score +id +text +label +price *$", lines[1])
    assert re.search(r"^ 1 +1.000 +item-04 +text 4 +even +6.0 *$", lines[3])
    unquoted = run("search", store.path, "text", "4", "-k", 3, "--json").stdout
    assert json.loads(unquoted)["results"] == json.loads(typed)["results"]
    picture = store.path.parent / "images" / "1.png"
    assert f"{picture} is a file. Search by it: --image {picture}." in run("search", store.path, picture, code=2).stderr
    gone = run("search", store.path, "images/pic.png", code=2).stderr
    assert "images/pic.png does not exist: there is no folder" in gone
    assert "Search by its name: --text images/pic.png" in gone
    assert "leave out TEXT." in run("search", store.path, "x", "--batch", "text", code=2).stderr


def test_a_text_ends_where_the_terminal_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from embedstore_cli.render import print_table
    from rich.console import Console

    rows = [("folder/a-long-id-0123456789", "words " * 60, "label")]
    console = Console(width=70, force_terminal=True, color_system=None, highlight=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedstore_cli.render.console", lambda: console)
        print_table(["id", "text", "label"], rows, trimmed=["text"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "words" in line or "long-id" in line]
    assert len(lines) == 1
    assert "folder/a-long-id-0123456789" in lines[0]
    assert re.search(r"words \S*… +label *$", lines[0])


def test_closing_line(table: Path, tmp_path: Path) -> None:
    text = run("embed", table, "--store", tmp_path / "s", "--image", "hash").stdout
    assert re.search(r"12 items \(12 new, 0 updated\), 0 missing, 0 failed in .* items/s, bound by [\w-]+ \(busy: read", text)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["info", "nowhere"], 1, "There is no store at nowhere"),
        (["embed", "nowhere.csv", "--store", "s", "--image", "hash"], 1, "nowhere.csv does not exist"),
        (["search", "{store}", "--text", "x", "--space", "image"], 2, "cannot be compared"),
        (["search", "{store}", "--text", "x", "--where", "nope = 1"], 2, "--where 'nope = 1'"),
        (["search", "{store}", "--vector", "nope.npy"], 1, "nope.npy does not exist"),
        (["train", "{store}", "nope"], 2, "no metadata column 'nope'"),
        (["predict", "{store}"], 2, "Name a head of {store}. Heads: none yet: embedstore train makes one."),
        (["train", "{store}"], 2, "Name the target: a metadata column of {store}. Columns: label, price."),
        (["predict", "{store}", "nope"], 2, "has no head 'nope'"),
        (["search", "{store}", "--id", "nobody"], 2, "No item has the id 'nobody'"),
        (["embed", "{table}", "--store", "{store}", "--image", "hash:5"], 1, "cannot be mixed"),
        (["embed", "{table}", "--store", "{store}", "--image", "hash:5", "--image", "hash:6"], 2, "Two encoders for space"),
    ],
)
def test_errors_are_one_line(store: es.Store, table: Path, arguments: list[str], code: int, words: str) -> None:
    done = run(*(a.format(store=store.path, table=table) for a in arguments), code=code)
    assert done.stdout == ""
    assert done.stderr.startswith("embedstore: ")
    assert done.stderr.count("\n") == 1
    assert words.format(store=store.path) in done.stderr


def test_unknown_options_are_usage(store: es.Store) -> None:
    run("info", store.path, "--nope", code=2)
    run("nope", code=2)


def test_strict_is_exit_code_one(table: Path, tmp_path: Path) -> None:
    (table.parent / "images" / "2.png").unlink()
    run("embed", table, "--store", tmp_path / "s", "--image", "hash", "--strict", code=1)
    assert not (tmp_path / "s").exists()
    text = run("embed", table, "--store", tmp_path / "s", "--image", "hash").stdout
    assert "failed: item-02 (image, read)" in text
    assert "No such file" in run("info", tmp_path / "s", "--failures").stdout


def test_damage_is_exit_code_one(store: es.Store) -> None:
    part = store.path / store.manifest.items[0].file
    part.write_bytes(part.read_bytes() + b"x")
    assert "committed were" in run("verify", store.path, code=1).stdout


def test_ctrl_c_says_how_to_go_on(table: Path, tmp_path: Path) -> None:
    script = (
        "import embedstore.ingest.consume as c\n"
        "def stop(*a, **k): raise KeyboardInterrupt\n"
        "c.encode_batch = stop\n"
        "import sys; from embedstore_cli.main import main; main()"
    )
    arguments = ["embed", str(table), "--store", str(tmp_path / "s"), "--image", "hash"]
    done = run("-c", script, *arguments, code=1)
    assert done.stderr == "embedstore: interrupted; what was committed is kept. Run the same command to go on.\n"


def test_json_is_json_whatever_the_metadata(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    columns = {"id": ["a", "b"], "text": ["x", "y"], "score": [100, 1], "rank": [7, 2], "v": [math.nan, math.inf]}
    pq.write_table(pa.table(columns), path)
    run("embed", path, "--store", tmp_path / "s", "--text", "hash")
    hit = json.loads(run("search", tmp_path / "s", "--id", "b", "--json").stdout)["results"][0]
    assert (hit["rank"], hit["rank_"], hit["score_"], hit["v"]) == (1, 7, 100, None)
    assert hit["score"] <= 1


def test_arguments_that_are_no_text(store: es.Store) -> None:
    done = run("search", store.path, "--id", b"\xff".decode("utf-8", "surrogateescape"), code=2)
    assert "valid Unicode" in done.stderr
    done = run("info", "x" * 300, code=1)
    assert "File name too long" in done.stderr


HUGE = 10**12


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["-k", HUGE], 11),
        (["-k", 10**20], 11),
        (["--offset", HUGE], 0),
        (["--offset", 10**20], 0),
        (["-k", HUGE, "--where", "label = 'even'"], 6),
        (["-k", HUGE, "--group-by", "label"], 2),
        (["-k", HUGE, "--diversity", 0.5], 11),
    ],
)
def test_more_results_than_there_are(store: es.Store, arguments: list[object], shown: int) -> None:
    done = run("search", store.path, "--text", "x", *arguments, "--json")
    assert len(json.loads(done.stdout)["results"]) == shown


@pytest.mark.parametrize("k", [HUGE, 10**20])
def test_a_batch_for_more_neighbours_than_there_are(store: es.Store, tmp_path: Path, k: int) -> None:
    run("search", store.path, "--batch", "text", "--out", tmp_path / "x.CSV", "-k", k)
    assert len((tmp_path / "x.CSV").read_text().splitlines()) == 1 + 11 * 10
    run("search", store.path, "--batch", "text", "--out", tmp_path / "y.csv", "-k", 20)
    assert (tmp_path / "y.csv").read_text() == (tmp_path / "x.CSV").read_text()


def test_small_blocks_answer_as_large_ones(store: es.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    es.search_batch(store, "text", tmp_path / "large.csv")
    monkeypatch.setattr("embedstore.retrieval.batch.ANSWERS", 25)
    es.search_batch(store, "text", tmp_path / "small.csv")
    rows = [[line.split(",")[:3] for line in (tmp_path / name).read_text().splitlines()] for name in ("large.csv", "small.csv")]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("queries", "options", "words"),
    [
        ("text", {"k": 0}, "k must be at least 1. Got 0"),
        ("text", {"k": -5}, "k must be at least 1. Got -5"),
        ("text", {"recall": 7}, "recall must lie between 0 and 1. Got 7"),
        ("text", {"recall": 0}, "recall must lie between 0 and 1. Got 0"),
        ("text", {"recall": float("nan")}, "recall must lie between 0 and 1. Got nan"),
        ("", {}, "--batch is empty"),
        (np.eye(3, 16, 1) * [[1], [0], [1]], {}, "Query 1 is all zeros"),
        (np.eye(3, 16) * [[1], [1], [1e39]], {}, "Query 2 holds NaN, infinity, or numbers that float32 cannot hold"),
    ],
)
def test_batches_are_checked_like_single_searches(
    store: es.Store, tmp_path: Path, queries: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(es.errors.UsageError, match=re.escape(words)):
        es.search_batch(store, queries, tmp_path / "x.csv", **options)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("x.csv")]


def test_options_that_have_no_meaning(store: es.Store, tmp_path: Path) -> None:
    for given in (["--diversity", 0], ["--offset", 0], ["--fusion", "score"], ["--min-score", 0], ["--fingerprint", "abc"]):
        done = run("search", store.path, "--batch", "text", "--out", tmp_path / "x.csv", *given, code=2)
        assert f"leave out {given[0]}." in done.stderr
    assert (
        "--fingerprint belongs to --vector" in run("search", store.path, "--text", "x", "--fingerprint", "abc", code=2).stderr
    )


def test_where_errors_are_sentences(store: es.Store) -> None:
    for condition in ("nope = 1", "idd = 1", "label ="):
        error = run("search", store.path, "--text", "x", "--where", condition, code=2).stderr
        assert re.search(r"[.!?] Columns: row \(integer\), id \(text\), ", error), error
        assert ".." not in error


def test_groups_by_lists_and_structs(tmp_path: Path) -> None:
    rows = [{"id": f"i{i}", "text": f"text {i}", "tags": [f"t{i % 3}"], "at": {"x": i % 2}} for i in range(12)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run("embed", tmp_path / "t.jsonl", "--store", tmp_path / "s", "--text", "hash")
    for column, groups in (("tags", 3), ("at", 2)):
        done = run("search", tmp_path / "s", "--text", "x", "--group-by", column, "--json")
        found = [hit[column] for hit in json.loads(done.stdout)["results"]]
        assert len(found) == groups == len({str(value) for value in found})


def test_a_sound_is_not_compared_with_aligned_texts_and_images(tmp_path: Path) -> None:
    data = {"id": [f"i{i}" for i in range(60)], "text": [f"text {i}" for i in range(60)], "image": []}
    for i in range(60):
        (tmp_path / f"{i}.bin").write_text(f"image {i}")
        data["image"].append(str(tmp_path / f"{i}.bin"))
    es.embed(MemorySource(data), tmp_path / "s", text="hash:8", image="hash:8")
    es.align(tmp_path / "s", "text", "image")
    for space in ([], ["--space", "aligned.image"]):
        error = run("search", tmp_path / "s", "--audio", tmp_path / "0.bin", *space, code=2).stderr
        assert "A sound cannot be compared with space" in error
        assert "--space aligned" not in error


def test_an_alignment_changes_no_query_that_does_not_name_it(tmp_path: Path) -> None:
    data = {"id": [f"i{i}" for i in range(60)], "text": [f"text {i}" for i in range(60)], "image": []}
    for i in range(60):
        (tmp_path / f"{i}.bin").write_text(f"image {i}")
        data["image"].append(str(tmp_path / f"{i}.bin"))
    es.embed(MemorySource(data), tmp_path / "s", text="hash:8", image="hash:8")
    queries: list[dict[str, Any]] = [{"text": "text 1"}, {"image": tmp_path / "1.bin"}, {"id": "i1"}, {"like": ["i1", "i2"]}]
    before = [es.search(tmp_path / "s", **query) for query in queries]
    assert all(not found.aligned and found.alignment is None for found in before)
    for name in ("aligned", "other"):
        es.align(tmp_path / "s", "text", "image", name=name)
    after = [es.search(tmp_path / "s", **query) for query in queries]
    assert [(f.space, f.results) for f in after] == [(f.space, f.results) for f in before]
    assert [f.aligned for f in after[:2]] == [["aligned.image", "other.image"], ["aligned.text", "other.text"]]
    document = json.loads(run("search", tmp_path / "s", "--text", "x", "--space", "other.image", "--json").stdout)
    assert (document["space"], document["alignment"]) == ("other.image", "other")
    shown = run("search", tmp_path / "s", "--text", "x", "--space", "other.image").stdout
    assert "from space 'other.image' (alignment 'other')" in shown
    assert "--space aligned.image, --space other.image" in run("search", tmp_path / "s", "--text", "x").stdout
    refused = run("search", tmp_path / "s", "--text", "x", "--space", "image", code=2).stderr
    assert "--space aligned.image, or --space other.image" in refused.replace("--space other.image.", "--space other.image")
    assert "align the two first" not in refused
