"""Every benchmark runs in its tiny mode."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import extract, store


def test_store(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(store.main(["--tiny"])) == 5
    assert "embedstore" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.offline_models
def test_extract(capsys: pytest.CaptureFixture[str]) -> None:
    ratios = extract.main(["--tiny"])
    assert ratios.keys() == {"image", "text"}
    assert all(ratio > 0 for ratio in ratios.values())
