"""Heads on several vectors an item: attention over them, beside the mean, the same after it was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedstore as es
from embedstore._core.pieces import Pieces
from embedstore.encoders.hash import HashEncoder
from embedstore.errors import HeadError
from embedstore.sources import MemorySource
from embedstore.spec import EncoderSpec
from embedstore.training.tasks.base import POOLED

N = 200


class Numbers(HashEncoder):
    """Texts such as '1 2,3 4' become the vectors (1, 2) and (3, 4)."""

    pieces = "part"

    def __init__(self) -> None:
        super().__init__(4, "text")
        self.spec = EncoderSpec("numbers", "numbers", "numbers", "none", "text", 4)

    def encode_pieces(self, batch: Any) -> Any:
        films = [np.array([part.split() for part in payload.decode().split(",")], np.float32) for payload in batch]
        counts = np.array([len(film) for film in films])
        return np.stack([film.mean(axis=0) for film in films]), Pieces.nowhere(np.concatenate(films), counts)


def test_attention_over_pieces_finds_what_their_mean_hides(tmp_path: Path) -> None:
    """Each item has one marked piece, whose sign is the label, among others of any sign."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, N)
    given = []
    for label in labels.tolist():
        count = int(rng.integers(4, 8))
        film = np.concatenate([rng.choice([-1.0, 1.0], (count, 1)), rng.normal(0, 0.1, (count, 3))], axis=1)
        film[rng.integers(count)] = [2 * label - 1, 3, 0, 0]
        given.append(",".join(" ".join(f"{x:.3f}" for x in piece) for piece in film))
    names = [f"class {label}" for label in labels.tolist()]
    source = MemorySource({"id": [f"i{i}" for i in range(N)], "text": given, "label": names})
    es.embed(source, tmp_path / "s", text=Numbers())
    store = es.Store.open(tmp_path / "s")
    view = store.view(inputs=["text"], target="label")
    assert view.sequences["text"].shape == (N, 7, 4)
    assert (view.sequences["text"].any(axis=2).sum(axis=1) == [text.count(",") + 1 for text in given]).all()
    assert (view.inputs["text"].shape, view.present["text"].shape) == ((N, 4), (N,))

    report = es.train(store, "label", head="attention", out_of_fold=0, seeds=1, report=False)
    pooled = report.baselines[POOLED]["accuracy"]
    assert report.metrics["accuracy"].value >= 0.9
    assert pooled.value <= 0.85
    again = es.predict(tmp_path / "s", "label")
    right = again.labels == np.array(names, object)
    assert right.mean() >= 0.9
    few = es.predict(tmp_path / "s", "label", ids=["i3", "i8"])  # padded to another length
    assert np.allclose(few.probabilities, again.probabilities[[3, 8]], atol=1e-5)
    judged = es.evaluate(tmp_path / "s", "label")
    assert judged.metrics["accuracy"].value == report.metrics["accuracy"].value
    with pytest.raises(HeadError, match="takes every part of an item in text, and an ONNX file takes one vector an item"):
        es.export_head(store, "label", tmp_path / "label.onnx")
