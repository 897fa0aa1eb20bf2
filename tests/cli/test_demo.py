"""The demo's dataset: balanced where it is split, so that a first `train` says what cross-validation says."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path

import pytest

import embedstore as es
from embedstore._core.splits import SPLITS, hashed_split
from embedstore.demo import extract
from embedstore.demo.make_clipart import CLASSES


@pytest.mark.parametrize("seed", range(3))
def test_every_class_is_in_every_split(tmp_path: Path, seed: int) -> None:
    with extract(tmp_path).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    split = hashed_split([row["id"] for row in rows], seed=seed).tolist()
    found = Counter((row["label"], part) for row, part in zip(rows, split, strict=True))
    assert all(found[label, part] >= 3 for label in CLASSES for part in SPLITS)
    assert 0.6 * len(rows) < split.count("train") < 0.8 * len(rows)


@pytest.mark.slow
@pytest.mark.offline_models
def test_a_split_and_cross_validation_agree(demo_store: Path, tmp_path: Path) -> None:
    shutil.copytree(demo_store, tmp_path / "s")
    split, folds = (
        es.train(tmp_path / "s", "label", cv=cv, replace=True, report=False).metrics["accuracy"] for cv in (None, 5)
    )
    assert split.low <= folds.value <= split.high
    assert max(split.low, folds.low) < min(split.high, folds.high)


def test_the_demo_of_sounds_is_the_same_every_time(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    from embedstore.demo.clips import CLASSES, EACH, write_sounds

    tables = [write_sounds(tmp_path / name) for name in ("a", "b")]
    assert tables[0].read_bytes() == tables[1].read_bytes()
    first, second = (sorted((tmp_path / name / "sounds").iterdir()) for name in ("a", "b"))
    assert len(first) == len(CLASSES) * EACH
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))
    es.embed(tables[0], tmp_path / "s", audio="logmel")
    assert es.train(tmp_path / "s", "label", report=False).metrics["accuracy"].value > 0.9
