"""What a run of `benchmarks.gpu` keeps, leaves out and says, and its phases on a CPU; on a card they prove more."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

import embedstore
from benchmarks import gpu
from benchmarks._gpu import data
from benchmarks._gpu.metadata import write_metadata
from benchmarks._gpu.rates import steady
from benchmarks._gpu.run import LINES, ROWS, Run, shown
from benchmarks._gpu.search import compared, reference

ROOT = Path(__file__).parent.parent
ORDER = ["E", "C1", "C2", "C3", "C4", "C6", "P2", "P1", "S1", "H1", "P3", "P4", "C5"]


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / ROWS).read_text().splitlines()]


@pytest.mark.campaign
def test_every_phase_runs_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = gpu.main(["--tiny", "--device", "cpu", "--out", str(tmp_path)])
    assert not [row for row in run.rows if row.verdict == "FAIL"]
    assert {row.phase for row in run.rows if row.verdict == "ok"} >= {"C1", "C3", "C4", "P2", "S1", "H1", "P4", "C5"}
    assert len(rows(tmp_path)) == len(run.rows)
    document = json.loads((tmp_path / "gpu.json").read_text())
    assert (document["failed"], len(document["rows"])) == (False, len(run.rows))
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) <= LINES
    assert any(line.startswith("| C1 | MiniLM |") and line.endswith("| ok |") for line in table)


@pytest.mark.slow
def test_some_phases_alone(tmp_path: Path) -> None:
    run = gpu.main(["--tiny", "--device", "cpu", "--out", str(tmp_path), "--only", "S1,E"])
    assert {row.phase for row in run.rows} == {"E", "S1", ""}
    with pytest.raises(SystemExit):
        gpu.main(["--only", "S1,S9"])


def test_phases_stand_in_order_of_what_they_are_worth() -> None:
    assert [phase.name for phase in gpu.PHASES] == ORDER
    assert sum(phase.seconds for phase in gpu.PHASES) <= gpu.SECONDS


def test_a_phase_that_raises_is_a_row_and_the_next_one_runs(tmp_path: Path) -> None:
    run = Run(tmp_path, 60)

    def broken() -> None:
        run.check("a", "b", 1.0, "≥", 0.5)
        raise ValueError("no | such\nthing")

    run.phase("A", 1, broken)
    run.phase("B", 1, lambda: run.report("c", "d", 2.0))
    found = [(row["phase"], row["verdict"]) for row in rows(tmp_path) if row["phase"]]
    assert found == [("A", "ok"), ("A", "FAIL"), ("B", "")]
    failure = next(row for row in run.rows if row.verdict == "FAIL")
    assert str(failure.value).startswith("ValueError: no / such thing (test_gpu_benchmark.py:")
    assert run.failed


def test_what_is_left_decides_whether_a_phase_runs(tmp_path: Path) -> None:
    run = Run(tmp_path, 5)
    run.phase("A", 60, lambda: pytest.fail("it would take too long"))
    run.phase("B", 1, lambda: None)
    assert [row.verdict for row in run.rows if row.phase == "A"] == ["skipped"]
    assert not run.failed


def test_a_phase_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    run = Run(tmp_path, 60, overtime=2)
    handler = signal.getsignal(signal.SIGALRM)

    def slow() -> None:
        try:
            time.sleep(20)
        except Exception:
            pytest.fail("what a phase tries swallows it")

    run.phase("A", 0.05, slow)
    run.phase("B", 1, lambda: None)
    assert [row.value for row in run.rows if row.verdict == "FAIL"] == ["ended after 0 s"]
    assert signal.getsignal(signal.SIGALRM) is handler


def test_an_interrupted_run_still_has_its_rows(tmp_path: Path) -> None:
    run = Run(tmp_path, 60)

    def stopped() -> None:
        run.report("a", "b", 1.0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.phase("A", 1, stopped)
    assert [row.value for row in run.rows if row.phase == "A"] == [1.0, "interrupted"]


@pytest.mark.parametrize(
    ("value", "op", "threshold", "verdict"),
    [(0.9999, "≥", 0.9999, "ok"), (float("nan"), "≥", 0.9, "FAIL"), (float("nan"), "≤", 0.9, "FAIL"), (True, "=", True, "ok")],
)
def test_thresholds(tmp_path: Path, value: Any, op: str, threshold: Any, verdict: str) -> None:
    run = Run(tmp_path, 60)
    run.check("a", "b", value, op, threshold)
    assert run.rows[0].verdict == verdict


def test_a_long_table_keeps_what_failed(tmp_path: Path) -> None:
    run = Run(tmp_path, 60)
    for i in range(100):
        run.report(f"line {i}", "x", 1.0)
    run.check("the last", "y", 1.0, "≥", 2.0)
    lines = run.lines()
    assert len(lines) == LINES
    assert sum("**y 1 (≥ 2)**" in line for line in lines) == 1
    assert lines[-1] == f"| | {101 - LINES + 3} more lines are in {ROWS} | | |"


def test_cosines_are_shown_as_far_as_they_differ_from_one() -> None:
    assert [shown(value) for value in (0.9998765, 0.99999999, 1.0, 12345.6, 2.345, 3e-7, float("nan"), False)] == [
        "0.9998765", "1", "1", "12,346", "2.35", "3.0e-07", "nan", "no",
    ]  # fmt: skip
    assert shown(0.9848283, share=False) == "0.98"


def test_a_rate_without_the_start_is_that_of_the_difference() -> None:
    assert steady((100, 3.0), (400, 6.0)) == 100
    assert steady((100, 3.0), (400, 2.0)) == 200


class TestData:
    def test_files_differ_and_show_the_same(self, tmp_path: Path) -> None:
        samples = data.samples(48, 8)
        assert [sample.kind for sample in samples] == [
            "4:4:4", "progressive", "grey", "CMYK", "4:4:4", "4:2:2", "4:2:0", "4:2:0",
        ]  # fmt: skip
        paths = data.write_files(tmp_path / "files", samples, 20)
        files = [Path(path).read_bytes() for path in paths]
        assert len(set(files)) == 20
        for number, file in enumerate(files[:-1]):
            with Image.open(tmp_path / "files" / f"{number:06d}.jpg") as image:
                assert image.info["comment"] == f"{number:012d}".encode()
                assert file[2:4] in (b"\xff\xe0", b"\xff\xee")  # the comment stands behind JFIF's or Adobe's segment
                whole = np.asarray(image)
            sample = samples[number % 8].payload
            at = file.index(b"\xff\xfe")
            assert file[:at] + file[at + 2 + struct.unpack(">H", file[at + 2 : at + 4])[0] :] == sample
            assert whole.shape[:2] == (48, 48)
        with pytest.raises(OSError, match="truncated"), Image.open(paths[-1]) as image:
            image.load()

    def test_texts_differ(self) -> None:
        texts = data.texts(50, 3, 6)
        assert len(set(texts)) == 50
        assert all(4 <= len(text.split()) <= 7 for text in texts)


def test_a_wrong_answer_of_exact_search_is_seen() -> None:
    rng = np.random.default_rng(0)
    stored, asked = rng.standard_normal((40, 8)).astype(np.float32), rng.standard_normal((3, 8)).astype(np.float32)
    cosines = reference(stored, asked, "cpu")
    best = np.argsort(-cosines, axis=1)[:, :5]
    scores = np.take_along_axis(cosines, best, axis=1)
    assert compared(scores, best, cosines) == (0.0, 1.0)
    for wrong in (np.argsort(-cosines, axis=1)[:, 5], best[:, 1]):  # a worse one, and one that is there already
        positions = best.copy()
        positions[:, 0] = wrong
        assert compared(scores, positions, cosines)[1] == 0.8


def test_entry_points_are_found_without_an_installation(tmp_path: Path) -> None:
    write_metadata(tmp_path)
    (found,) = distributions(path=[str(tmp_path)])
    assert (found.name, found.version) == ("embedstore", embedstore.__version__)
    names = {point.name for point in found.entry_points.select(group="embedstore.encoders")}
    assert {"openclip", "effnet-lite0", "minilm"} <= names


@pytest.mark.slow
def test_the_shell_script_runs_it(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python3").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "OUT": str(tmp_path / "out"),
        "SITE": str(tmp_path / "site"),
    }
    command = [str(ROOT / "benchmarks" / "gpu.sh"), "--tiny", "--device", "cpu", "--only", "E"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| E | machine |" in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"gpu.json", "gpu.jsonl", "gpu.md", "log"}
