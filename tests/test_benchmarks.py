"""Every benchmark runs in its tiny mode."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import extract, heads, store


def test_store(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(store.main(["--tiny"])) == 5
    assert "embedstore" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.offline_models
def test_extract(capsys: pytest.CaptureFixture[str]) -> None:
    ratios = extract.main(["--tiny"])
    assert ratios.keys() == {"image", "text"}
    assert all(ratio > 0 for ratio in ratios.values())


def test_heads(capsys: pytest.CaptureFixture[str]) -> None:
    scores = heads.main(["--tiny", "--heads", "linear,knn"])
    assert {"linear", "knn", "linear, image alone"} <= scores.keys()
    assert "| knn |" in capsys.readouterr().out
