"""Vectors that are cut (Matryoshka): who may, what is left, and what it costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_prompts import TEXTS, model, ours, theirs

import embedstore as es
from embedstore.encoders import load_encoder
from embedstore.encoders.base import EncoderRequest, stands_for
from embedstore.encoders.cards import Card
from embedstore.encoders.cut import Sample, cut, neighbours_kept, shortened
from embedstore.encoders.hash import HashEncoder
from embedstore.encoders.names import EncoderName
from embedstore.encoders.runtimes.base import agreement
from embedstore.errors import FingerprintError, UsageError
from embedstore.sources import MemorySource


def test_names_are_taken_apart() -> None:
    parse = EncoderName.parse
    assert parse("timm:vit_base.x@token@256") == EncoderName("timm:vit_base.x", "token", 256)
    assert parse("timm:a@token+avg") == EncoderName("timm:a", "token+avg")
    assert parse("st:a/b@64+windows") == EncoderName("st:a/b", None, 64, True)
    assert parse("timm:hf-hub:a/b@main") == EncoderName("timm:hf-hub:a/b@main")
    assert parse("minilm+windows") == EncoderName("minilm", windows=True)
    assert parse("") == EncoderName("")
    assert (parse("clip@128").family, parse("clip@128").model) == ("openclip", "ViT-B-32/laion2b_s34b_b79k")
    assert EncoderName.spelled_out("clip@128") == "openclip:ViT-B-32/laion2b_s34b_b79k@128"


@pytest.mark.parametrize(
    ("text", "declared"),
    [
        ("# A model", None),
        ("---\ntags:\n- loss:MatryoshkaLoss\n---\nno word", ()),
        ('---\nlicense: mit\n---\n"matryoshka_dims": [\n 768,\n 256\n]', (768, 256)),
        ("Supports Matryoshka Representation Learning (MRL).", ()),
        ("---\n: [\n---\nplain", None),
    ],
)
def test_cards_say_who_may_be_cut(tmp_path: Path, text: str, declared: Any) -> None:
    (tmp_path / "README.md").write_text(text)
    assert Card.read(tmp_path).matryoshka == declared
    assert Card.read(tmp_path / "nowhere").license is None


def test_what_is_lost_is_counted_by_score() -> None:
    rng = np.random.default_rng(0)
    useful = rng.normal(size=(300, 8)).astype(np.float32)
    noise = rng.normal(size=(300, 8)).astype(np.float32)
    nothing_lost = np.concatenate([useful, np.zeros_like(noise)], axis=1)
    assert neighbours_kept(nothing_lost, 8).mean() == 1
    assert neighbours_kept(np.repeat(nothing_lost[:30], 10, axis=0), 8).mean() == 1, "copies tie"
    assert 0.02 < neighbours_kept(np.concatenate([noise, useful], axis=1), 8).mean() < 0.5
    assert len(neighbours_kept(useful[:15], 4)) == 0
    np.testing.assert_allclose(np.linalg.norm(cut(useful, 3), axis=1), 1, atol=1e-6)


def test_a_sample_is_of_all_that_was_added() -> None:
    sample = Sample(100)
    for start in range(0, 10_000, 64):
        sample.add(np.arange(start, min(start + 64, 10_000), dtype=np.float32)[:, None])
    assert sample.vectors.shape == (100, 1)
    assert 4000 < sample.vectors.mean() < 6000
    assert len(np.unique(sample.vectors)) == 100


@pytest.mark.offline_models
def test_a_batch_is_begun_only_where_no_class_encodes_otherwise() -> None:
    class Ahead(HashEncoder):
        matryoshka = (4,)

        def start(self, batch: Any) -> Any:
            return lambda: HashEncoder.encode(self, batch)

        def encode(self, batch: Any) -> Any:
            return self.start(batch)()

    class Changed(Ahead):
        def encode(self, batch: Any) -> Any:
            return -super().encode(batch)

    request = EncoderRequest("hash", "", "text")
    cuts = [shortened(kind(8, "text"), request, 4) for kind in (Ahead, Changed)]
    assert [stands_for(made, "start", "encode") for made in cuts] == [True, False]
    np.testing.assert_array_equal(cuts[1].encode([b"a"]), -cuts[0].encode([b"a"]))


def test_vectors_are_cut_as_sentence_transformers_cuts_them(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", prompts={"query": "query: ", "document": "text: "}, truncate_dim=128)
    maker = theirs(folder)
    for name, dim in (
        (f"st:{folder}", 128),
        (f"st:{folder}@64", 64),
        (f"st:{folder}@384", 384),
        (f"st:{folder}@64+windows", 64),
    ):
        encoder: Any = load_encoder(name, "text")
        expected = maker.encode_document(TEXTS[:4], truncate_dim=dim)
        assert (encoder.spec.dim, encoder.spec.normalized) == (dim, True)
        assert agreement(ours(encoder, TEXTS[:4]), expected) > 0.99999
        assert agreement(ours(encoder.queries, TEXTS[:4]), maker.encode_query(TEXTS[:4], truncate_dim=dim)) > 0.99999
        assert encoder.truncated == 0
    assert load_encoder(f"st:{folder}", "text").spec.fingerprint == load_encoder(f"st:{folder}@128", "text").spec.fingerprint


@pytest.mark.offline_models
def test_models_that_do_not_say_so_are_cut_by_force_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"does not say that its vectors of 384 numbers may be cut to 64.*--force"):
        load_encoder("minilm@64", "text")
    with pytest.raises(UsageError, match="@400 should lie between 1 and 384"):
        load_encoder("minilm@400", "text", force=True)
    assert load_encoder("minilm@64", "text", force=True).spec.dim == 64
    assert load_encoder("minilm@384", "text").spec.fingerprint == load_encoder("minilm", "text").spec.fingerprint
    folder = model(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "matryoshka_dimensions": [256, 128]}))
    assert load_encoder(f"st:{folder}@128", "text").spec.dim == 128
    with pytest.raises(UsageError, match="trained to be cut to 128, 256 numbers, not to 100"):
        load_encoder(f"st:{folder}@100", "text")


@pytest.mark.offline_models
def test_a_store_of_short_vectors_says_what_they_cost_and_is_searched(tmp_path: Path) -> None:
    colours, things = ["red", "blue", "old", "fast", "green", "quiet"], ["car", "boat", "dog", "house", "song", "tree"]
    texts = [f"a {a} {b}" for a in colours for b in things]
    data = MemorySource({"id": [str(i) for i in range(36)], "text": texts})
    report = es.embed(data, tmp_path / "s", text="minilm@64", force=True).to_dict()["spaces"]["text"]["cut"]
    assert (report["of"], report["kept"], report["sample"]) == (384, 64, 36)
    assert 0.5 < report["recall_at_10"]["low"] <= report["recall_at_10"]["value"] <= report["recall_at_10"]["high"] <= 1
    store = es.Store.open(tmp_path / "s")
    assert store.space("text").dim == 64
    assert es.search(store, text="a red car", k=1).results[0].id == "0"
    again = es.embed(data, tmp_path / "s", force=True).spaces["text"]
    assert (again.unchanged, again.cut) == (36, {"of": 384, "kept": 64, "sample": 0, "recall_at_10": None})
    assert es.embed(data, tmp_path / "s").spaces["text"].unchanged == 36, "what the store holds was let in before"
    with pytest.raises(FingerprintError):
        es.embed(data, tmp_path / "s", text="minilm")
    assert "cut" not in es.embed(data, tmp_path / "t", text="hash:8").to_dict()["spaces"]["text"]
