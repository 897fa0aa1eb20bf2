"""Alignments trained further: the losses by hand, copies that are no negatives, kept only where it surely gains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Telling
from typer.testing import CliRunner

import embedstore as es
from embedstore.errors import HeadError, UsageError
from embedstore.heads.aligner import Aligner
from embedstore.heads.aligner_io import load_aligner
from embedstore.heads.solvers import contrastive
from embedstore.heads.solvers.contrastive import PairedFeatures
from embedstore.heads.trained_aligner import LOSSES, STEPS, train_aligner
from embedstore.retrieval.align_options import LOSSES as OPTIONS
from embedstore.retrieval.aligned_spaces import spaces_of
from embedstore.sources import MemorySource

Array = np.ndarray[Any, Any]


def related(n: int, noise: float, seed: int = 0) -> dict[str, Array]:
    """Two sides that show the same eight numbers, each in its own way."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    latent = rng.standard_normal((n, 8))
    sides = {name: latent @ fixed.standard_normal((8, d)) for name, d in (("text", 12), ("image", 16))}
    return {name: (x + noise * rng.standard_normal(x.shape)).astype(np.float32) for name, x in sides.items()}


def poor() -> Aligner:
    """One that was given a penalty and a power far too large: there is much to gain."""
    return Aligner(penalties=(1000.0,), powers=(8.0,), dims=())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedstore.heads.trained_aligner.STEPS", 40)
    monkeypatch.setattr("embedstore.heads.trained_aligner.EVERY", 20)


def test_the_losses_are_those_of_the_papers_without_copies() -> None:
    rng = np.random.default_rng(0)
    logits, bias = rng.standard_normal((5, 5)), -1.5
    copies = np.zeros((5, 5), bool)
    copies[0, 3] = copies[3, 0] = copies[2, 4] = True
    kept = np.where(copies, -np.inf, logits)

    def entropy(s: Array) -> float:
        return float((np.log(np.exp(s).sum(axis=1)) - np.diag(s)).mean())

    given = torch.from_numpy(logits), torch.tensor(bias, dtype=torch.float64), torch.from_numpy(copies)
    assert float(contrastive._loss("infonce", *given)) == pytest.approx((entropy(kept) + entropy(kept.T)) / 2)
    sign = 2 * np.eye(5) - 1
    expected = np.log1p(np.exp(-sign * (logits + bias)))[~copies].sum() / 5
    assert float(contrastive._loss("siglip", *given)) == pytest.approx(expected)


def test_what_shares_a_content_on_either_side_is_no_negative() -> None:
    codes = np.array([7, 8, 7, 9]), np.array([1, 2, 3, 2])
    found = contrastive._copies(codes, np.arange(4))
    assert [tuple(pair) for pair in np.argwhere(found)] == [(0, 2), (1, 3), (2, 0), (3, 1)]


def test_batches_take_every_pair_once_before_any_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrastive, "BATCH", 4)
    made = contrastive._batches(12, 0)
    assert sorted(np.concatenate([next(made) for _ in range(3)]).tolist()) == list(range(12))
    assert next(contrastive._batches(3, 0)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_same_seed_makes_the_same_and_one_step_goes_downhill(loss: str) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((40, 6)).astype(np.float32) for _ in range(2))
    data = PairedFeatures(x, y, (np.arange(40), np.arange(40)))
    start = rng.standard_normal((6, 3)).astype(np.float32), rng.standard_normal((6, 3)).astype(np.float32)
    first, again = (list(contrastive.contrastive(data, start, loss=loss, steps=20, every=10, seed=1)) for _ in range(2))
    assert len(first) == 2
    np.testing.assert_array_equal(first[1][0], again[1][0])

    def value(maps: tuple[Array, Array]) -> float:
        u, v = (z @ m / np.linalg.norm(z @ m, axis=1, keepdims=True) for z, m in zip((x, y), maps, strict=True))
        none = torch.zeros((40, 40), dtype=torch.bool)
        return float(contrastive._loss(loss, torch.from_numpy(20 * u @ v.T), torch.tensor(-10.0), none))

    assert value(first[1]) < value(start)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.usefixtures("quick")
def test_a_poor_start_is_surely_improved(loss: str) -> None:
    X, new = related(260, 0.5), related(200, 0.5, seed=1)
    before = poor().fit(X)
    found = train_aligner(before, X, loss=loss)
    assert found.kept
    assert found.gain.low > 0
    assert found.steps in (20, 40)
    assert found.pairs == 260
    assert found.aligner.score(new) > before.score(new) + found.gain.low / 2
    assert (before.loss_, found.aligner.loss_) == (None, loss)
    again = Aligner.from_state(found.aligner.get_params(), found.aligner.state())
    assert (again.loss_, again.steps_) == (loss, found.steps)
    np.testing.assert_array_equal(again.project("text", new["text"]), found.aligner.project("text", new["text"]))
    assert "loss" not in before.state().config, "what is saved of an alignment that is not trained stays as it was"


@pytest.mark.usefixtures("quick")
def test_where_there_is_nothing_to_gain_none_is_claimed() -> None:
    X = related(260, 2.0)
    found = train_aligner(Aligner(powers=(0.5, 1.0), dims=()).fit(X), X)
    assert not found.kept or found.gain.low > 0
    assert found.gain.value < 0.05


def test_odd_arguments() -> None:
    X = related(40, 0.1)
    with pytest.raises(HeadError, match=r"loss should be infonce or siglip\. Got 'triplet' instead"):
        train_aligner(poor().fit(X), X, loss="triplet")
    with pytest.raises(UsageError, match=r"loss must be infonce or siglip\. Got 'triplet' instead"):
        es.align("nowhere.store", loss="triplet")
    assert OPTIONS == LOSSES
    assert STEPS >= 40


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    X = related(300, 0.5)
    store = tmp_path_factory.mktemp("aligned") / "a.store"
    texts = [" ".join(f"{v:.4f}" for v in row) for row in X["text"]]
    ids = [f"i{i}" for i in range(300)]
    es.embed(MemorySource({"id": ids, "text": texts}), store, text=Telling(12, "text", "telling"))
    es.import_vectors(X["image"], store, modality="image", ids=ids, encoder=None)
    return store


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kept", [True, False])
def test_align_keeps_what_surely_finds_more_and_shows_both(path: Path, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedstore.heads.trained_aligner.TrainedAligner.kept", kept)
    plain = es.align(path, name="plain")
    report = es.align(path, name=f"t{kept}", loss="siglip")
    done = report.training
    assert done is not None
    assert plain.training is None
    assert "training" not in plain.to_dict()
    assert (done.kept, done.loss) == (kept, "siglip")
    saved = load_aligner(path / "heads" / f"t{kept}")
    assert saved.head.loss_ == ("siglip" if kept else None)
    way = "text_to_image"
    assert report.retrieval[way].scores == (done.trained if kept else done.cca)[way]
    assert done.cca[way] == plain.retrieval[way].scores
    gain = done.trained[way]["mrr"].value - done.cca[way]["mrr"].value
    assert done.gain[way].value == pytest.approx(gain)
    assert json.loads(json.dumps(report.to_dict()))["training"]["gain"][way]["value"] == done.gain[way].value
    same = load_aligner(path / "heads" / "plain").weights_digest("text") == saved.weights_digest("text")
    assert same is not kept
    assert spaces_of(es.Store.open(path))[f"t{kept}.image"].spec.model == ("siglip" if kept else "cca")


@pytest.mark.usefixtures("quick")
def test_the_command_shows_both(path: Path) -> None:
    from embedstore_cli.main import app

    shown = CliRunner().invoke(app, ["align", str(path), "--loss", "infonce", "--name", "shown"])
    assert shown.exit_code == 0, shown.output
    assert "trained (infonce)" in shown.stdout
    assert "gain in MRR, paired" in shown.stdout
    assert "pairs held out" in shown.stdout
