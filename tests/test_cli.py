"""The command line: exit codes, one-line errors, JSON that scripts rely on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import embedstore as es

COMMANDS = (
    *("demo", "embed", "import", "info", "index", "search", "train", "evaluate", "predict", "align", "eval-search", "dedup"),
    *("verify", "remove", "compact", "encoders"),
)


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own and check its exit code."""
    script = "from embedstore_cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_help_names_every_command() -> None:
    text = run("--help").stdout
    assert all(re.search(rf"\b{command}\b", text) for command in COMMANDS)
    for command in COMMANDS:
        assert "Usage" in run(command, "--help").stdout


def test_the_whole_way_in_json(table: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    done = run("embed", table, "--store", store, "--image", "hash:8", "--text", "wide=hash:16", "--text", "hash:4", "--json")
    document = json.loads(done.stdout)
    assert document["spaces"].keys() == {"image", "wide", "text"}
    expected = {"embedded", "unchanged", "missing", "failed", "seconds", "items_per_s", "bound_by"}
    assert expected <= document["spaces"]["image"].keys()
    document = json.loads(run("info", store, "--json").stdout)
    assert document.keys() == {"items", "spaces", "heads", "generation"}
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
    assert "12 items; columns: label, price" in run("info", store.path).stdout
    assert "clean" in run("verify", store.path).stdout
    assert "effnet-lite0" in run("encoders").stdout
    trained = run("train", store.path, "price", "--task", "regression", "--cv", 3, "--no-report").stdout
    assert "R² [95 %]" in trained
    assert "gain in mean absolute error over" in trained
    assert "report:" not in trained


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
        (["search", "{store}", "--vector", "nope.npy"], 2, "nope.npy does not exist"),
        (["train", "{store}", "nope"], 2, "no metadata column 'nope'"),
        (["predict", "{store}", "nope"], 2, "has no head 'nope'"),
        (["remove", "{store}", "nobody"], 2, "No item has the id 'nobody'"),
        (["embed", "{table}", "--store", "{store}", "--image", "hash:5"], 1, "cannot be mixed"),
        (["embed", "{table}", "--store", "{store}", "--image", "hash:5", "--image", "hash:6"], 2, "Two encoders for space"),
    ],
)
def test_errors_are_one_line(store: es.Store, table: Path, arguments: list[str], code: int, words: str) -> None:
    done = run(*(a.format(store=store.path, table=table) for a in arguments), code=code)
    assert done.stdout == ""
    assert done.stderr.startswith("embedstore: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


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
        "import embedstore.pipeline.consume as c\n"
        "def stop(*a, **k): raise KeyboardInterrupt\n"
        "c.encode_batch = stop\n"
        "import sys; from embedstore_cli.main import main; main()"
    )
    arguments = ["embed", str(table), "--store", str(tmp_path / "s"), "--image", "hash"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "embedstore: interrupted; what was committed is kept. Run the same command to go on.\n"


def test_json_is_json_whatever_the_metadata(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,text,score,rank,v\na,x,100,7,nan\nb,y,1,2,inf\n")
    run("embed", path, "--store", tmp_path / "s", "--text", "hash")
    hit = json.loads(run("search", tmp_path / "s", "--id", "b", "--json").stdout)["results"][0]
    assert (hit["rank"], hit["rank_"], hit["score_"], hit["v"]) == (1, 7, 100, None)
    assert hit["score"] <= 1


def test_arguments_that_are_no_text(store: es.Store) -> None:
    done = run("search", store.path, "--id", b"\xff".decode("utf-8", "surrogateescape"), code=2)
    assert "valid Unicode" in done.stderr
    done = run("info", "x" * 300, code=1)
    assert "File name too long" in done.stderr
