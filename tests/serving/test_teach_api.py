"""Teaching, maps and heads over HTTP are what the library computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from starlette.testclient import TestClient

import embedstore as es
from embedstore.heads.base import Data
from embedstore.heads.solvers.design_matrix import Standardizer
from embedstore.heads.taught import fit_taught, usual
from embedstore.serving import maps
from embedstore.serving.app import create_app
from embedstore.serving.projections import pca, scaled, umap
from embedstore.serving.serve_options import ServeOptions

MARKS = {"+": ["item-00", "item-01", "item-02"], "-": ["item-04", "item-05"]}


def taught(client: TestClient, **request: Any) -> dict[str, Any]:
    answer = client.post("/v1/teach", json=request)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_every_item_is_ranked_by_the_marks(client: TestClient) -> None:
    found = taught(client, classes=MARKS, spaces=["image", "text"], k=12, uncertain=3)
    scores = [one["score"] for one in found["results"]]
    assert len(scores) == 12
    assert scores == sorted(scores, reverse=True)
    place = {one["id"]: one["rank"] for one in found["results"]}
    assert {place[item] for item in MARKS["+"]} == {1, 2, 3}
    assert min(place[item] for item in MARKS["-"]) > 6
    asked = [one["id"] for one in found["uncertain"]]
    assert len(asked) == 3
    assert not {*MARKS["+"], *MARKS["-"]}.intersection(asked)
    assert found["accuracy"]["n"] == 5
    assert 0 <= found["accuracy"]["low"] <= found["accuracy"]["value"] <= found["accuracy"]["high"] <= 1
    page = taught(client, classes=MARKS, spaces=["image", "text"], k=2, offset=5)
    assert [one["id"] for one in page["results"]] == [one["id"] for one in found["results"]][5:7]


def test_one_mark_is_enough_and_a_filter_holds(client: TestClient) -> None:
    filtered = [{"field": "label", "op": "=", "value": "odd"}]
    found = taught(client, classes={"+": ["item-01"], "-": []}, space="image", filter=filtered, k=12)
    assert found["results"][0]["id"] == "item-01"
    assert {one["metadata"]["label"] for one in found["results"]} == {"odd"}
    assert found["accuracy"] is None


def test_classes_have_names(client: TestClient) -> None:
    classes = {"red": ["item-00", "item-01"], "blue": ["item-02"], "green": ["item-04"]}
    found = taught(client, classes=classes, space="text", rank="blue", k=1)
    assert (found["classes"], found["results"][0]["id"]) == (["blue", "green", "red"], "item-02")
    wrong = client.post("/v1/teach", json={"classes": classes, "rank": "none"})
    assert wrong.json()["error"] == "No class is called 'none'."
    assert client.post("/v1/teach", json={"classes": {"+": ["item-03"]}, "space": "text"}).status_code == 400


def test_a_taught_head_is_kept_and_predicts_the_same(client: TestClient, store: es.Store) -> None:
    found = taught(client, classes=MARKS, spaces=["image", "text"], k=12)
    saved = client.post("/v1/teach/save", json={"name": "mine", "classes": MARKS, "spaces": ["image", "text"]})
    assert saved.json() == {"head": "mine", "classes": ["+", "-"], "inputs": ["image", "text"]}
    assert client.post("/v1/teach/save", json={"name": "mine", "classes": MARKS}).status_code == 400
    predicted = es.predict(store, "mine")
    expected = dict(zip(predicted.ids.tolist(), predicted.probabilities[:, 0].tolist(), strict=True))
    shown = {one["id"]: one["score"] for one in found["results"]}
    np.testing.assert_allclose([shown[item] for item in expected], list(expected.values()), atol=1e-5)
    told = client.post("/v1/predict", json={"head": "mine", "ids": ["item-03"], "contributions": True}).json()["predictions"]
    assert told[0]["contributions"].keys() == {"image", "text"}
    assert told[0]["contributions"]["text"] == 0  # which the item lacks
    page = client.get("/v1/heads/mine").json()
    assert (page["taught"], page["confusion"]) == ({"+": 3, "-": 2}, None)
    with_head = client.post("/v1/search", json={"query": {"id": "item-01"}, "k": 2, "head": "mine"}).json()["results"]
    assert all(one["prediction"]["class"] in "+-" for one in with_head)


def test_leave_one_out_is_what_leaving_out_gives() -> None:
    """The closed form equals a refit without each mark, by scikit-learn, at the penalty that was chosen."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((14, 6)).astype(np.float32)
    codes = (x[:, 0] + 0.5 * rng.standard_normal(14) > 0).astype(np.int64)
    background = {"x": rng.standard_normal((200, 6)).astype(np.float32)}
    standardizer = usual(background, {"x": np.ones(200, bool)})
    learned = fit_taught(Data({"x": x}, {"x": np.ones(14, bool)}, codes), np.array(["a", "b"], object), standardizer)
    features = standardizer.transform(Data({"x": x}, {"x": np.ones(14, bool)}, codes))
    penalty = learned.head.lambda_ * 14
    for left in range(14):
        rest = np.arange(14) != left
        model = RidgeClassifier(alpha=penalty).fit(features[rest], codes[rest])
        score = learned.left_out[left, 1] - learned.left_out[left, 0]
        alone = 2 * learned.head.scale_ * model.decision_function(features[left : left + 1])[0]
        np.testing.assert_allclose(score, alone, rtol=1e-3)
    weights, bias = learned.effective()
    np.testing.assert_allclose(
        x @ weights["x"] + bias - learned.head._logits(Data({"x": x}, {"x": np.ones(14, bool)}, codes)), 0, atol=1e-4
    )
    assert isinstance(standardizer, Standardizer)


def test_a_map_is_binary_columns_and_is_kept(client: TestClient, store: es.Store) -> None:
    told = client.get("/v1/map", params={"space": "text"}).json()
    assert (told["n"], told["fingerprint"]) == (11, store.space("text").fingerprint)
    points = np.frombuffer(client.get("/v1/map/points", params={"key": told["key"]}).content, "<f4").reshape(-1, 2)
    np.testing.assert_array_equal(points, pca(store.space("text").vectors()))
    rows = {"key": told["key"], "rows": [0, 3]}
    assert client.post("/v1/map/items", json=rows).json()["ids"] == ["item-00", "item-04"]  # item-03 has no text
    colour = client.get("/v1/map/colour", params={"key": told["key"], "column": "label"})
    legend = json.loads(unquote(colour.headers["x-legend"]))
    labels = [legend[code] for code in np.frombuffer(colour.content, "<u2").tolist()]
    assert labels == ["odd" if i % 2 else "even" for i in range(12) if i != 3]
    assert client.get("/v1/map/points", params={"key": "0.pca.text"}).status_code == 400
    assert es.verify(store).problems == []


def test_a_kept_map_is_of_its_vectors_and_is_read_not_run(
    store: es.Store, monkeypatch: pytest.MonkeyPatch, table: Path
) -> None:
    made = []
    monkeypatch.setattr(maps, "pca", lambda vectors: made.append(len(vectors)) or pca(vectors))
    for attempt in range(2):
        with TestClient(create_app(store, ServeOptions(writable=True)), base_url="http://127.0.0.1") as client:
            assert client.get("/v1/map", params={"space": "image"}).status_code == 200
        assert made == [12], attempt
    (path,) = (store.path / "maps").iterdir()
    assert path.name == "image.pca.safetensors"
    path.write_bytes(path.read_bytes()[:50])  # damaged: it is made again
    smaller = store.remove(["item-11"])
    with TestClient(create_app(smaller, ServeOptions(writable=True)), base_url="http://127.0.0.1") as client:
        assert client.get("/v1/map", params={"space": "image"}).json()["n"] == 11
    assert made == [12, 11]


def test_main_directions_are_those_of_the_covariance() -> None:
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 20)) * np.linspace(3, 1, 20)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    mine, theirs = pca(x.astype(np.float32)), scaled(PCA(2).fit_transform(x))
    for axis in range(2):
        assert abs(np.corrcoef(mine[:, axis], theirs[:, axis])[0, 1]) > 0.999
    assert np.abs(mine).max() == pytest.approx(1, abs=1e-6)
    assert [pca(np.zeros((n, 4), np.float32)).shape for n in (0, 1, 2)] == [(0, 2), (1, 2), (2, 2)]


def test_vectors_of_one_number_lie_on_a_line(store: es.Store) -> None:
    vectors = np.array([[3], [-2], [0.5], [1]], np.float32)
    np.testing.assert_array_equal(pca(vectors), [[1, 0], [-1, 0], [1, 0], [1, 0]])
    np.testing.assert_array_equal(pca(np.ones((5, 1), np.float32)), np.zeros((5, 2)))
    ids = [f"item-{i:02d}" for i in range(4)]
    es.import_vectors(vectors, store.path, modality="audio", ids=ids)
    with TestClient(create_app(store.path), base_url="http://127.0.0.1") as client:
        told = client.get("/v1/map", params={"space": "audio"}).json()
        points = np.frombuffer(client.get("/v1/map/points", params={"key": told["key"]}).content, "<f4").reshape(-1, 2)
    np.testing.assert_array_equal(points, pca(vectors))


def test_a_graph_of_neighbours_is_what_umap_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    class Reducer:
        def __init__(self, **parameters: Any) -> None:
            given.update(parameters)

        def fit_transform(self, x: Any) -> Any:
            return x[:, :2]

    monkeypatch.setattr("embedstore.serving.projections.require", lambda *_, **__: type("umap", (), {"UMAP": Reducer}))
    x = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    umap(x, lambda k: (np.tile(np.arange(k), (6, 1)) - 1, np.full((6, k), 0.75, np.float32)))
    positions, distances = given["precomputed_knn"]
    assert (positions[:, 0].tolist(), distances[:, 0].tolist()) == (list(range(6)), [0.0] * 6)
    assert positions[3].tolist() == [3, 3, 0, 1, 2]  # what is not there is the item itself
    assert distances[3].tolist() == [0, 0, 0.25, 0.25, 0.25]


def test_a_head_is_looked_at(client: TestClient, store: es.Store) -> None:
    es.train(store.view(inputs=["image", "text"], target="label"), head="ridge", cv=3)
    page = client.get("/v1/heads/label").json()
    confusion = np.asarray(page["confusion"])
    assert (page["classes"], page["n"], confusion.sum()) == (["even", "odd"], 12, 12)
    mistakes = client.get("/v1/heads/label/items").json()
    assert mistakes["total"] == int(confusion.sum() - np.trace(confusion))
    cell = {"truth": "even", "predicted": "odd"}
    items = client.get("/v1/heads/label/items", params=cell).json()
    assert (items["total"], len(items["results"])) == (confusion[0, 1], confusion[0, 1])
    assert all((one["truth"], one["predicted"]) == ("even", "odd") for one in items["results"])
    suspects = client.get("/v1/heads/label/label-errors", params={"k": 3}).json()
    expected = es.labels(store, "label").suspects
    assert [one["id"] for one in suspects["results"]] == [one.id for one in expected[:3]]
    drawn = client.get("/v1/map", params={"space": "image"}).json()["key"]
    for colour, names in (({"head": "label"}, {"even", "odd"}), ({"head": "label", "what": "error"}, {"right", "wrong"})):
        told = client.get("/v1/map/colour", params={"key": drawn, **colour})
        assert {*json.loads(unquote(told.headers["x-legend"]))} <= names


def test_each_of_several_targets_is_looked_at(client: TestClient, store: es.Store) -> None:
    trained = es.train(store, target=["label", "price"], inputs=["text"], head="linear", name="both", cv=3)
    (told,) = client.get("/v1/store").json()["heads"]
    assert (told["target"], told["targets"]) == ("label,price", ["label", "price"])
    first, named = client.get("/v1/heads/both").json(), client.get("/v1/heads/both", params={"target": "label"}).json()
    assert first == named
    assert (named["target"], named["targets"], named["classes"]) == ("label", ["label", "price"], ["even", "odd"])
    scores = {one["name"]: one["value"] for one in named["metrics"]}
    assert scores["accuracy"] == trained.metrics["label:accuracy"].value
    assert "price:rmse" not in scores
    confusion = np.asarray(named["confusion"])
    mistakes = client.get("/v1/heads/both/items", params={"target": "label"}).json()
    assert mistakes["total"] == int(confusion.sum() - np.trace(confusion))
    suspects = client.get("/v1/heads/both/label-errors", params={"target": "label", "k": 3}).json()
    expected = es.labels(store, "both", target="label").suspects
    assert [one["id"] for one in suspects["results"]] == [one.id for one in expected[:3]]
    numbers = client.get("/v1/heads/both", params={"target": "price"}).json()
    assert (numbers["classes"], numbers["confusion"]) == ([], None)
    assert {"rmse", "mae"} <= {one["name"] for one in numbers["metrics"]}
    drawn = {"key": client.get("/v1/map", params={"space": "image"}).json()["key"], "head": "both"}
    for what, names in (("prediction", {"even", "odd"}), ("error", {"right", "wrong"})):
        legend = client.get("/v1/map/colour", params={**drawn, "what": what, "target": "label"}).headers["x-legend"]
        assert {*json.loads(unquote(legend))} <= names
    for path in ("items", "label-errors"):
        refused = client.get(f"/v1/heads/both/{path}", params={"target": "colour"})
        assert (refused.status_code, refused.json()["error"]) == (400, "Head 'both' has no target 'colour'.")
    assert client.get("/v1/map/colour", params=drawn).status_code == 400


def test_copies_of_a_whole_space_are_told(client: TestClient) -> None:
    told = client.post("/v1/duplicates", json={"space": "image"}).json()
    assert (sorted(told["groups"][0]), told["n"]) == (["item-10", "item-11"], 1)
