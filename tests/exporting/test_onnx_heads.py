"""Every kind of head says in ONNX what it says itself; where it would not, no file is left."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import run, telling_store

import embedstore as es
from embedstore.errors import EmbedstoreError, FingerprintError, HeadError, UsageError
from embedstore.exporting import export_head as exporting
from embedstore.exporting.onnx_check import agreement
from embedstore.exporting.onnx_graph import Graph
from embedstore.heads import ClassTexts, EnsembleHead, Head, TextSide, make_head
from embedstore.heads.balanced import BalancedHead
from embedstore.heads.io import HeadRecord
from embedstore.heads.matcher import Matcher
from embedstore.heads.onnx_head import load_onnx
from embedstore.registry import PROMPTED, heads_for
from embedstore.sources import MemorySource
from embedstore.training import predict as predicting
from embedstore.training.tasks.base import task_called

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SHORT: dict[str, Any] = {"epochs": 2, "rounds": 6}
LADDER: dict[str, Any] = {"steps": ("linear",), "folds": 2}
N = 150
OURS = {"encoding-type": '"embedstore-onnx-head"', "encoding-version": "1"}


def heads() -> Iterator[Any]:
    for task in ("classification", "regression", "multilabel", "several"):
        for kind in heads_for(task):
            more = LADDER if kind == "auto" else SHORT
            yield pytest.param(task, lambda t=task, k=kind, m=more: make_head(k, task=t, **m), id=f"{task}-{kind}")
    for kind in PROMPTED:
        yield pytest.param("classification", lambda k=kind: make_head(k, texts=texts()), id=kind)
    yield pytest.param("matching", lambda: Matcher(), id="matcher")
    yield pytest.param("matching", lambda: Matcher(neighbours=()), id="matcher-cosine")
    yield pytest.param("classification", lambda: EnsembleHead(method="stack"), id="stack")
    yield pytest.param("classification", lambda: BalancedHead("late", "logit-adjust"), id="balanced")


def texts() -> ClassTexts:
    """Texts of the three classes and of one without an item: beside images through an alignment, beside texts as they are."""
    rng = np.random.default_rng(1)
    vectors = {d: (x := rng.normal(size=(4, d))) / np.linalg.norm(x, axis=1, keepdims=True) for d in (5, 6)}
    side = {d: value.astype(np.float32) for d, value in vectors.items()}
    mean, weight = rng.normal(size=8).astype(np.float32) * 0.1, rng.normal(size=(8, 5)).astype(np.float32)
    return ClassTexts([0, 1, 2, 3], {"image": TextSide(side[5], mean=mean, weight=weight), "text": TextSide(side[6])})


@pytest.fixture(scope="module")
def data() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Inputs of three classes, some of them absent and then full of NaN, and what each task learns of them."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, N)
    inputs = {name: np.eye(3)[y] @ rng.normal(size=(3, d)) + rng.normal(size=(N, d)) for name, d in (("image", 8), ("text", 6))}
    present = {name: rng.random(N) < 0.8 for name in inputs}
    present["image"][:3] = present["text"][:3] = False
    inputs = {name: np.where(present[name][:, None], x, np.nan).astype(np.float32) for name, x in inputs.items()}
    sets = np.fromiter((["abc"[k], *("d" * (i % 2))] for i, k in enumerate(y)), object, N)
    numbers = y + rng.normal(size=N)
    some = np.where(np.arange(N) % 9, numbers, np.nan), np.where(np.arange(N) % 7, np.array(["ä", "b", "c"], object)[y], None)
    several = dict(zip(("price", "ä: b"), some, strict=True))
    one = {"classification": y, "regression": numbers, "multilabel": sets, "matching": np.array(["no", "yes"])[y % 2]}
    return inputs, present, {**one, "several": several}


def converted(head: Head, tmp_path: Path, *, int8: bool = False) -> Head:
    """The head from an ONNX file of it, as another process would load it."""
    specs = {name: es.EncoderSpec(name, "hash", "hash", "none", "image", dim) for name, dim in head.dims_.items()}
    model, _ = exporting._model(HeadRecord("h", "label", specs, head), int8, {})
    exporting.keep(model)
    (tmp_path / "h.onnx").write_bytes(model)
    return load_onnx(tmp_path / "h.onnx").head


@pytest.mark.parametrize(("task", "make"), list(heads()))
def test_every_head_says_the_same_in_onnx(task: str, make: Any, data: Any, tmp_path: Path) -> None:
    inputs, present, learned = data
    head = make().fit(inputs, learned[task], present=present)
    if task == "classification":
        head.calibration_ = 0.7
    found = converted(head, tmp_path)
    here, there = head.predict(inputs, present=present), found.predict(inputs, present=present)
    if task == "regression":
        np.testing.assert_allclose(there, here, rtol=1e-4)
        return
    if task == "several":
        assert there["ä: b"].tolist() == here["ä: b"].tolist()
        said = (np.exp(one.outputs(inputs, present=present)) for one in (found, head))
        np.testing.assert_allclose(*said, rtol=1e-4, atol=2e-5)
        return
    assert there.tolist() == here.tolist()
    assert found.classes_.tolist() == head.classes_.tolist()
    expected = head.predict_proba(inputs, present=present)
    np.testing.assert_allclose(found.predict_proba(inputs, present=present), expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["linear", "knn", "bilinear"])
def test_one_input_needs_no_mask(kind: str, data: Any, tmp_path: Path) -> None:
    inputs, present, learned = data
    there = present["text"]
    X, y = inputs["text"][there], learned["classification"][there]
    head = make_head(kind, **SHORT).fit({"text": X}, y)
    found = converted(head, tmp_path)
    np.testing.assert_allclose(found.predict_proba({"text": X}), head.predict_proba({"text": X}), atol=2e-5)
    assert [one.name for one in found._session.get_inputs()] == ["text"]  # type: ignore[attr-defined]


def test_int8_keeps_the_predictions_in_a_quarter_of_the_size(data: Any, tmp_path: Path) -> None:
    inputs, present, learned = data
    head = make_head("gated", **SHORT).fit(inputs, learned["classification"], present=present)
    plain = converted(head, tmp_path).predict_proba(inputs, present=present)
    size = (tmp_path / "h.onnx").stat().st_size
    small = converted(head, tmp_path, int8=True).predict_proba(inputs, present=present)
    assert (tmp_path / "h.onnx").stat().st_size < 0.3 * size
    np.testing.assert_allclose(small, plain, atol=0.03)


@pytest.fixture
def trained(tmp_path: Path) -> es.Store:
    columns = {
        "id": [f"i{i}" for i in range(60)],
        "text": [f"t{i}" if i % 7 else "" for i in range(60)],
        "label": [["ä b", "b"][i % 2] for i in range(60)],
        "price": [i * 1.5 for i in range(60)],
    }
    es.embed(
        MemorySource({**columns, "picture": columns["text"]}), tmp_path / "a.store", text={"text": "hash:6", "image": "hash:8"}
    )
    store = es.Store.open(tmp_path / "a.store")
    es.train(store, "label", columns=["price"], out_of_fold=0, report=False)
    return store


def test_an_exported_head_predicts_with_onnxruntime_alone(trained: es.Store, tmp_path: Path) -> None:
    model = tmp_path / "label.onnx"
    report = es.export_head(trained, "label", model)
    assert (report.agreement, report.items, report.bytes > 0) == (1.0, 60, True)
    here, there = es.predict(trained, "label"), es.predict(trained, model)
    assert there.labels.tolist() == here.labels.tolist()
    assert there.ids.tolist() == here.ids.tolist()
    np.testing.assert_allclose(there.probabilities, here.probabilities, atol=1e-6)
    script = (
        f"import sys, embedstore as es\nfound = es.predict({str(trained.path)!r}, {str(model)!r}, ids=['i1'])\n"
        "print(found.labels[0], *(name for name in ('torch', 'xgboost', 'onnx', 'faiss') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == here.labels[0]


@pytest.mark.parametrize(
    ("target", "how"),
    [
        ("label,price", {"head": "linear"}),
        ("label", {"head": "tip-adapter", "inputs": ["text"]}),
        (None, {"task": "matching", "inputs": ["image", "text"]}),
    ],
    ids=["several", "tip-adapter", "matching"],
)
def test_predictions_of_a_file_are_a_table_like_those_of_its_head(
    trained: es.Store, tmp_path: Path, target: str | None, how: dict[str, Any]
) -> None:
    es.train(trained, target, name="h", out_of_fold=0, report=False, **how)
    assert es.export_head(trained, "h", tmp_path / "h.onnx").agreement == 1.0
    heads = {"here.parquet": "h", "there.parquet": tmp_path / "h.onnx"}
    here, there = (pq.read_table(es.predict(trained, head).save(tmp_path / name)) for name, head in heads.items())
    assert there.column_names == here.column_names
    for name in here.column_names:
        one, other = here[name].to_pylist(), there[name].to_pylist()
        assert other == (pytest.approx(one, rel=1e-4, abs=1e-6) if isinstance(one[0], float) else one)
    if target is None:
        pairs = [("i1", "i2"), ("i3", "i3")]
        of_pairs = [es.predict(trained, head, pairs=pairs).probabilities for head in heads.values()]
        np.testing.assert_allclose(*of_pairs, atol=1e-6)


def test_a_file_whose_targets_contradict_its_classes_is_one_line(data: Any, tmp_path: Path) -> None:
    inputs, present, learned = data
    head: Any = make_head("linear", task="several").fit(inputs, learned["several"], present=present)
    found: Any = converted(head, tmp_path)
    assert [one.name for one in found._session.get_outputs()] == ["numbers:price", "probabilities:ä: b"]
    head.targets_ = dict.fromkeys(head.targets_, "regression")
    with pytest.raises(HeadError, match=r"metadata is damaged .*its targets are .*and have \[0, 3\] classes"):
        converted(head, tmp_path)


def test_a_target_that_nothing_was_learned_of_stays_its_constant(data: Any, tmp_path: Path) -> None:
    inputs, present, learned = data
    head: Any = make_head("weighted", task="several", **SHORT).fit(inputs, learned["several"], present=present)
    head.unlearned_ = list(head.targets_)
    found = converted(head, tmp_path).outputs(inputs, present=present)
    np.testing.assert_allclose(found, head.outputs(inputs, present=present), rtol=1e-6)
    compared = agreement(task_called("several"), head, converted(head, tmp_path), [(inputs, present)], int8=False)
    assert compared.share == 1.0


def test_items_that_few_shot_classes_tie_for_are_decided_alike(tmp_path: Path) -> None:
    """Without an input every class of the cache says the same, to the last bit in both."""
    rng = np.random.default_rng(0)
    X = {name: rng.normal(size=(48, d)).astype(np.float32) for name, d in (("image", 8), ("text", 6))}
    head = make_head("tip-adapter", texts=texts()).fit(X, np.arange(48) % 3)
    nothing = {name: np.zeros(48, bool) for name in X}
    here, there = (one.predict(X, present=nothing).tolist() for one in (head, converted(head, tmp_path)))
    assert there == here


def test_the_metadata_tells_classes_encoders_and_the_check(trained: es.Store, tmp_path: Path) -> None:
    import onnxruntime

    es.export_head(trained, "label", tmp_path / "m.onnx")
    told = onnxruntime.InferenceSession(str(tmp_path / "m.onnx")).get_modelmeta().custom_metadata_map
    said = {name: json.loads(value) for name, value in told.items()}
    assert said["classes"] == ["b", "ä b"]
    assert said["fingerprints"] == {name: trained.space(name).fingerprint for name in ("text", "image")}
    assert said["check"]["agreement"] == 1.0
    assert said["encoding-type"] == "embedstore-onnx-head"


def test_a_head_that_is_asked_block_by_block_is_checked_on_all_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention takes fewer items at once than are drawn, whether they have several vectors or not."""
    store = telling_store(tmp_path / "a.store", n=50)
    es.train(store, "label", head="attention", out_of_fold=0, seeds=1, report=False)
    monkeypatch.setattr(predicting, "BLOCK", 20 * predicting.MOST_PIECES)
    assert es.export_head(store, "label", tmp_path / "label.onnx").items == 50
    assert es.predict(store, tmp_path / "label.onnx").labels.tolist() == es.predict(store, "label").labels.tolist()


def test_vectors_of_another_encoder_are_refused(trained: es.Store, tmp_path: Path) -> None:
    es.export_head(trained, "label", tmp_path / "m.onnx")
    columns = {"id": ["a"], "text": ["t"], "price": [1.5]}
    es.embed(MemorySource(columns), tmp_path / "b.store", text={"text": "hash:6", "image": "hash:9"})
    with pytest.raises(FingerprintError, match="was trained on hash"):
        es.predict(tmp_path / "b.store", tmp_path / "m.onnx")


def test_a_file_that_disagrees_is_not_left(trained: es.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = exporting._model

    def wrong(record: HeadRecord, *rest: Any) -> Any:
        state = record.head.state()
        state.tensors["weight"] = -state.tensors["weight"]
        return real(replace(record, head=type(record.head).from_state(record.head.get_params(), state)), *rest)

    monkeypatch.setattr(exporting, "_model", wrong)
    with pytest.raises(HeadError, match=r"m\.onnx was not written: it agrees with head 'label' in .* of the predictions on 60"):
        es.export_head(trained, "label", tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
    assert es.export_head(trained, "label", tmp_path / "m.onnx", anyway=True).agreement < 0.9
    assert (tmp_path / "m.onnx").exists()


def test_a_kind_without_a_converter_is_one_line(trained: es.Store, tmp_path: Path) -> None:
    class Strange(Head):
        kind = "strange"

    head = Strange()
    head.dims_, head.classes_ = {"x": 2}, np.array(["a", "b"], object)
    with pytest.raises(HeadError, match="Heads of kind 'strange' have no ONNX form yet"):
        exporting._model(HeadRecord("h", "label", {}, head), False, {})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "cannot be read: No such file"),
        (lambda path: path.write_bytes(b""), "cannot load it"),
        (lambda path: path.write_bytes(b"no protobuf" * 9), "cannot load it"),
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
        (lambda path: path.write_bytes(foreign({})), "did not write it"),
        (lambda path: path.write_bytes(foreign({"encoding-type": "{"})), "its metadata is not JSON"),
        (
            lambda path: path.write_bytes(foreign({"encoding-type": '"embedstore-onnx-head"', "encoding-version": "9"})),
            "version 9",
        ),
        (
            lambda path: path.write_bytes(foreign({"encoding-type": '"embedstore-onnx-head"', "encoding-version": "1"})),
            "damaged",
        ),
    ],
)
def test_files_that_are_no_head_are_one_line(trained: es.Store, tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "m.onnx")
    with pytest.raises(EmbedstoreError, match=message) as caught:
        es.predict(trained, tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)


def foreign(metadata: dict[str, str]) -> bytes:
    """A model that is no head of ours, remembered so that no child process has to look at it."""
    graph = Graph()
    items = graph.items({"x": 2})
    graph.output("y", items.vectors["x"], (2,))
    model: bytes = graph.model(metadata).SerializeToString()
    exporting.keep(model)
    return model


def test_wrong_use_is_one_line(trained: es.Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"should end in \.onnx"):
        es.export_head(trained, "label", tmp_path / "m.bin")
    with pytest.raises(UsageError, match="there is no folder"):
        es.export_head(trained, "label", tmp_path / "none" / "m.onnx")
    with pytest.raises(UsageError, match="has no head 'nope'"):
        es.export_head(trained, "nope", tmp_path / "m.onnx")
    es.export_head(trained, "label", tmp_path / "m.onnx")
    for more in ({"explained": True}, {"coverage": 0.9}):
        with pytest.raises(UsageError, match="Name the head itself: 'label'"):
            es.predict(trained, tmp_path / "m.onnx", **more)  # type: ignore[arg-type]


def test_the_command(trained: es.Store, tmp_path: Path) -> None:
    model = tmp_path / "label.onnx"
    document = json.loads(run("export-head", trained.path, "label", model, "--int8", "--anyway", "--json").stdout)
    assert (document["head"], document["int8"], document["output"]) == ("label", True, "probabilities")
    assert "label.onnx" in run("export-head", trained.path, "label", code=2).stderr
    assert json.loads(run("predict", trained.path, model, "--id", "i1", "--json").stdout)["predictions"][0]["id"] == "i1"


def test_base_scores_of_every_xgboost() -> None:
    """XGBoost 3 keeps one for each class, and probabilities where the objective is logistic."""
    from embedstore.exporting.onnx_trees import base_scores

    def learner(base: str, classes: str, objective: str) -> dict[str, Any]:
        return {"learner_model_param": {"base_score": base, "num_class": classes}, "objective": {"name": objective}}

    assert base_scores(learner("[1E0,-2E0]", "2", "multi:softprob")).tolist() == [1, -2]
    assert base_scores(learner("5E-1", "3", "multi:softprob")).tolist() == [0.5, 0.5, 0.5]
    assert base_scores(learner("[7.5E-1]", "0", "binary:logistic")).tolist() == pytest.approx([np.log(3)])


def test_trees_of_one_leaf(data: Any, tmp_path: Path) -> None:
    """An item is on its way to a leaf at once where nothing is worth a split."""
    inputs, present, _ = data
    head = make_head("gbdt", task="regression", rounds=2, max_depth=1).fit(inputs, np.r_[np.zeros(N - 1), 1.0], present=present)
    np.testing.assert_allclose(
        converted(head, tmp_path).predict(inputs, present=present), head.predict(inputs, present=present), atol=1e-6
    )
