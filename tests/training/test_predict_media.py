"""Heads on sounds and films: trained on a store, asked about files, folders and bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from media import film, sound, track, wave

import embedstore as es
from embedstore.errors import UsageError
from embedstore.sources import MemorySource


def low_or_high(number: int) -> float:
    return 300.0 + 10 * number if number % 2 else 2000.0 + 10 * number


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 24 sounds and films in two classes, and a head on both."""
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("media")
    numbers = range(24)
    data = MemorySource(
        {
            "id": [f"i{n}" for n in numbers],
            "audio": [sound(wave(0.3, hertz=low_or_high(n))) for n in numbers],
            "video": [film([0], first=2 if n % 2 else 20) for n in numbers],
            "label": ["low" if n % 2 else "high" for n in numbers],
        }
    )
    es.embed(data, folder / "s", audio="logmel", video="frames:1:hash:16")
    es.train(folder / "s", "label", inputs=["audio", "video"], head="ridge", report=False, name="both")
    es.train(folder / "s", "label", inputs=["audio"], head="ridge", report=False, name="heard")
    return folder / "s"


def test_files_folders_and_bytes_are_predicted(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "low.flac").write_bytes(sound(wave(0.4, hertz=333), kind="FLAC"))
    (tmp_path / "high.m4a").write_bytes(track(wave(3, 44_100, hertz=2222), "ipod"))
    (tmp_path / "film.mp4").write_bytes(film([0], first=2))
    assert es.predict(trained, "both", tmp_path / "low.flac").labels.tolist() == ["low"]
    assert es.predict(trained, "both", tmp_path / "film.mp4").labels.tolist() == ["low"]
    folder = es.predict(trained, "both", tmp_path)
    assert dict(zip(folder.ids, folder.labels, strict=True)) == {"low.flac": "low", "high.m4a": "high", "film.mp4": "low"}
    stored = es.predict(trained, "both", ids=["i2", "i3"])
    assert stored.labels.tolist() == ["high", "low"]
    given = MemorySource({"id": ["a", "b"], "audio": [sound(wave(0.3, hertz=2100)), b"no sound"]})
    found = es.predict(trained, "heard", given)
    assert (found.labels.tolist(), [item for item, _ in found.unusable]) == (["high"], ["b"])


def test_what_a_head_does_not_take_is_refused(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(film([0]))
    with pytest.raises(UsageError, match=r"has video; head 'heard' needs audio"):
        es.predict(trained, "heard", tmp_path / "film.mp4")


def test_the_sound_track_of_a_film_is_a_sound(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "talk.mp4").write_bytes(track(wave(3, 44_100, hertz=320), "mp4", film=True))
    (tmp_path / "t.csv").write_text("id,audio\na,talk.mp4\n", encoding="utf-8")
    assert es.predict(trained, "heard", tmp_path / "t.csv").labels.tolist() == ["low"]
    assert np.isfinite(es.search(trained, audio=tmp_path / "talk.mp4", k=1).results[0].score)
