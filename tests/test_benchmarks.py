"""Every benchmark runs in its tiny mode."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import align, dedup, extract, heads, logistic, missing, ridge, store


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


def test_logistic() -> None:
    found = logistic.main(["--tiny"])
    assert found[0]["gap"] < 1e-4
    assert found[0]["agree"] > 0.99


def test_ridge() -> None:
    found = ridge.main(["--tiny"])
    assert found["error"] < 1e-4
    assert found["peak"] < 1.5


def test_missing() -> None:
    curves = missing.main(["--tiny", "--heads", "gated"])
    assert curves["gated"].keys() == {"masks", "zeros", "gated on images alone", "linear on images alone"}


def test_dedup(capsys: pytest.CaptureFixture[str]) -> None:
    table = dedup.main(["--tiny"])
    assert table["content hash"]["exact"] == 1
    assert table["cosine ≥ 0.98"]["exact"] == 1
    assert table["dHash, ≤ 8 bits"]["resized"] > 0.5
    assert "| content hash | 1.000 |" in capsys.readouterr().out


def test_align() -> None:
    found = align.main(["--tiny"])
    assert found.keys() == {"alignment", "ridge"}
    assert found["alignment"][0].gallery == 24
