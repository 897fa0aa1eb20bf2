"""Search over HTTP says what search in Python says, and tells how it was found."""

from __future__ import annotations

import base64
import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

import embedstore as es
from embedstore.retrieval.search_options import SearchOptions
from embedstore.retrieval.together import answer_all, joins
from embedstore.serving.app import create_app

Served = tuple[TestClient, es.Store]


def search(client: TestClient, **request: Any) -> dict[str, Any]:
    answer = client.post("/v1/search", json=request)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def ids(answer: dict[str, Any]) -> list[str]:
    return [result["id"] for result in answer["results"]]


def test_the_store_says_what_may_be_asked(client: TestClient, store: es.Store) -> None:
    told = client.get("/v1/store").json()
    assert (told["n_items"], told["generation"], told["writable"]) == (12, store.generation, True)
    assert {s["name"]: (s["modality"], s["dim"], s["accepts"], s["n"], s["index"]) for s in told["spaces"]} == {
        "image": ("image", 32, ["image"], 12, None),
        "text": ("text", 16, ["text"], 11, None),
    }
    assert {s["name"]: s["fingerprint"] for s in told["spaces"]} == {n: s.fingerprint for n, s in store.spaces.items()}
    assert told["columns"] == [{"name": "label", "type": "text"}, {"name": "price", "type": "number"}]


@pytest.mark.parametrize(
    ("request_", "query"),
    [
        ({"query": {"text": "text 7"}}, {"text": "text 7"}),
        ({"query": {"id": "item-04"}, "space": "image"}, {"id": "item-04", "space": "image"}),
        ({"query": {"id": "item-04"}, "offset": 2}, {"id": "item-04", "offset": 2}),
        (
            {"positive": ["item-01", "item-02"], "negative": ["item-05"]},
            {"like": ["item-01", "item-02"], "unlike": ["item-05"]},
        ),
        ({"query": {"text": "text 1"}, "min_score": 0.1}, {"text": "text 1", "min_score": 0.1}),
        ({"query": {"text": "other"}, "diversity": 0.4}, {"text": "other", "diversity": 0.4}),
        (
            {"query": {"id": "item-04"}, "weights": {"image": 1.0, "text": 0.5}},
            {"id": "item-04", "spaces": {"image": 1.0, "text": 0.5}},
        ),
        (
            {"query": {"text": "text 1"}, "filter": [{"field": "label", "op": "=", "value": "even"}]},
            {"text": "text 1", "where": "label = 'even'"},
        ),
        ({"query": {"text": "text 8"}, "negative": ["item-05"]}, {"text": "text 8", "unlike": ["item-05"]}),
    ],
)
def test_it_answers_as_python_does(reading: Served, request_: dict[str, Any], query: dict[str, Any]) -> None:
    client, store = reading
    answer, expected = search(client, k=4, **request_), es.search(store, k=4, **query)
    assert ids(answer) == [hit.id for hit in expected.results]
    np.testing.assert_allclose([r["score"] for r in answer["results"]], [hit.score for hit in expected.results], atol=2e-6)
    assert [r["rank"] for r in answer["results"]] == [hit.rank for hit in expected.results]
    assert answer["space"] == expected.space
    assert answer["fingerprint"] == " + ".join(store.space(name).fingerprint for name in expected.space.split(" + "))
    assert answer["index"]["exact"] is True
    assert answer["index"]["recall"] == 1.0
    assert answer["took_ms"].keys() == {"encode", "search", "rerank", "fetch", "total"}


def test_a_vector_and_its_fingerprint_are_compared(reading: Served) -> None:
    client, store = reading
    space = store.space("image")
    vector = space.vectors()[3].astype(float).tolist()
    assert ids(search(client, query={"vector": vector, "fingerprint": space.fingerprint}, k=1)) == ["item-03"]
    wrong = client.post("/v1/search", json={"query": {"vector": vector, "fingerprint": "of-another"}})
    assert wrong.status_code == 400
    assert space.fingerprint in wrong.json()["error"]


def test_an_image_is_found_by_its_file(client: TestClient, picture: bytes) -> None:
    uploaded = client.post(
        "/v1/search/upload", files={"file": ("a.png", picture)}, data={"request": '{"k": 1, "space": "image"}'}
    )
    assert ids(uploaded.json()) == ["item-02"]
    assert ids(search(client, query={"image": base64.b64encode(picture).decode()}, space="image", k=1)) == ["item-02"]


def test_without_a_query_items_come_in_the_order_of_the_store(reading: Served) -> None:
    client = reading[0]
    answer = search(client, k=2, offset=1, filter=[{"field": "price", "op": ">=", "value": 9}])
    assert (ids(answer), answer["total"]) == (["item-07", "item-08"], 6)
    first = answer["results"][0]
    assert (first["score"], first["kind"], first["text"], first["metadata"]) == (
        *(None, "image", "text 7"),
        {"label": "odd", "price": 10.5},
    )


def test_near_copies_are_folded(client: TestClient, store: es.Store) -> None:
    """Items 10 and 11 have one picture."""
    plain = search(client, query={"id": "item-10"}, space="image", k=3)
    assert ids(plain)[0] == "item-11"
    folded = search(client, query={"text": "text 4"}, k=12, fold=True)
    assert len(folded["results"]) == 11
    vector = store.space("image").vectors()[10].astype(float).tolist()
    answer = search(client, query={"vector": vector}, space="image", k=2, fold=True)
    assert sorted([ids(answer)[0], *answer["results"][0]["folded"]]) == ["item-10", "item-11"]
    assert not {"item-10", "item-11"}.intersection(ids(answer)[1:])
    (hit,) = es.search(store, vector=np.asarray(vector), space="image", k=1, fold=0.98).results
    assert sorted([hit.id, *hit.folded]) == ["item-10", "item-11"]
    said = client.post("/v1/search", json={"query": {"text": "text 4"}, "k": 500, "offset": 2501, "fold": True})
    assert said.status_code == 422
    assert "near copies are folded among the first 3,000 results; got offset + k = 3,001" in said.text
    assert client.post("/v1/search", json={"query": {"text": "text 4"}, "k": 500, "offset": 2501}).status_code == 200


def test_many_are_answered_as_one_by_one(reading: Served) -> None:
    client = reading[0]
    queries = [{"query": {"text": f"text {i}"}, "k": 3} for i in range(5)] + [{"query": {"id": "none"}}, {"k": 2}]
    answers = client.post("/v1/search/batch", json={"queries": queries}).json()["answers"]
    assert [ids(answer) for answer in answers[:5]] == [ids(search(client, **query)) for query in queries[:5]]
    assert answers[5]["error"].startswith("No item has the id 'none'.")
    assert ids(answers[6]) == ["item-00", "item-01"]


def test_what_is_asked_together_is_answered_as_if_alone(store: es.Store) -> None:
    """Texts are encoded in one batch and plain questions searched at once; one that is wrong spoils no other."""
    searcher = es.Searcher(store)
    vector = store.space("image").vectors()[5].astype(np.float32)
    asked: list[dict[str, Any]] = [{"text": f"text {i}", "k": 1 + i % 3} for i in range(6)]
    asked += [
        {"id": "item-03", "space": "image"},
        {"vector": vector, "min_score": 0.2},
        {"text": "text 2", "where": "price < 6"},
    ]
    asked += [{"text": ""}, {"id": "none"}, {"text": "text 1", "where": "no_column = 1"}, {"text": "text 1", "diversity": 0.7}]
    asked += [{"text": "text 9", "offset": 3, "columns": ["label"]}, {"like": ["item-01"]}]
    answers = answer_all(searcher, [SearchOptions(**one) for one in asked])
    for one, answer in zip(asked, answers, strict=True):
        if isinstance(answer, es.EmbedstoreError):
            with pytest.raises(type(answer)) as alone:
                searcher.search(**one)
            assert str(alone.value) == str(answer)
        else:
            alone_ = searcher.search(**one)
            assert [(h.id, h.rank, h.metadata) for h in answer.results] == [(h.id, h.rank, h.metadata) for h in alone_.results]
            np.testing.assert_allclose([h.score for h in answer.results], [h.score for h in alone_.results], atol=2e-6)
            assert (answer.index, answer.space) == (alone_.index, alone_.space)
    assert [joins(SearchOptions(**one)) for one in asked[-3:]] == [False, True, False]


def test_items_and_their_pictures(client: TestClient, table: Path) -> None:
    item = client.get("/v1/item", params={"id": "item-02"}).json()
    assert item["payloads"] == {"image": {"kind": "image", "text": None}, "text": {"kind": "text", "text": "text 2"}}
    picture = client.get("/v1/thumbnail", params={"id": "item-02", "size": 64})
    assert (picture.status_code, picture.headers["content-type"], picture.content[:3]) == (200, "image/jpeg", b"\xff\xd8\xff")
    known = {"if-none-match": picture.headers["etag"]}
    assert client.get("/v1/thumbnail", params={"id": "item-02", "size": 64}, headers=known).status_code == 304
    (table.parent / "images" / "4.png").write_bytes(b"changed since it was embedded")
    (table.parent / "images" / "5.png").unlink()
    for gone in ("item-04", "item-05"):
        assert client.get("/v1/thumbnail", params={"id": gone}).status_code == 404
    assert client.get("/v1/thumbnail", params={"id": "none"}).status_code == 404


def test_no_request_makes_the_server_fetch_a_picture(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedstore.serving.own_files.is_url", lambda path: True)
    monkeypatch.setattr("embedstore.serving.known_files.readable", lambda path: pytest.fail(f"{path} was read"))
    assert client.get("/v1/thumbnail", params={"id": "item-06"}).status_code == 404


def test_values_are_counted_among_what_matches(reading: Served) -> None:
    client = reading[0]
    found = client.post("/v1/facets", json={}).json()["facets"]
    assert found[0] == {
        "column": "label",
        "values": [{"value": "even", "count": 6}, {"value": "odd", "count": 6}],
        "missing": 0,
        "other": 0,
    }
    few = {"filter": [{"field": "price", "op": "<", "value": 4.5}], "columns": ["label"], "limit": 1}
    assert client.post("/v1/facets", json=few).json()["facets"] == [
        {"column": "label", "values": [{"value": "even", "count": 2}], "missing": 0, "other": 1}
    ]
    assert client.post("/v1/facets", json=few).json()["n"] == 3
    assert client.post("/v1/facets", json={"columns": ["none"]}).status_code == 400


def test_of_many_numbers_the_ends_are_told(tmp_path: Path) -> None:
    """NaN and infinity are no ends; a column that is named has its values as well."""
    ids = [f"i{i}" for i in range(253)]
    sizes, weights = [*range(-50, 200), None, None, None], [*(i / 4 for i in range(250)), np.inf, np.nan, None]
    es.embed(pa.table({"id": ids, "text": ids, "size": sizes, "weight": weights}), tmp_path / "n.store", text="hash:8")
    with TestClient(create_app(tmp_path / "n.store"), base_url="http://127.0.0.1") as client:

        def facets(**asked: object) -> dict[str, dict[str, Any]]:
            found = client.post("/v1/facets", json=asked).json()["facets"]
            return {one["column"]: one for one in found}

        size = {"column": "size", "values": [], "missing": 3, "other": 250, "min": -50, "max": 199}
        assert facets() == {"size": size, "weight": facets()["weight"]}
        assert (facets()["weight"]["min"], facets()["weight"]["max"]) == (0, 62.25)
        among = facets(filter=[{"field": "size", "op": "<", "value": -40}])
        assert (among["size"]["max"], among["weight"]["max"]) == (-41, 2.25)
        none = facets(filter=[{"field": "size", "op": ">", "value": 1000}])
        assert (none["size"]["min"], none["weight"]["max"]) == (None, None)
        named = facets(columns=["size"], limit=2)["size"]
        assert (len(named["values"]), named["other"], named["min"]) == (2, 248, -50)


def test_of_many_dates_the_ends_are_told_and_filter(tmp_path: Path) -> None:
    """Dates and times of a zone or none; of few dates the values are told as well."""
    day = datetime.datetime(2026, 1, 1, 12)
    times = [day + datetime.timedelta(days=i) for i in range(250)]
    columns: dict[str, Any] = {"id": [f"i{i}" for i in range(250)], "text": [f"t{i}" for i in range(250)]}
    columns |= {"day": [time.date() for time in times], "at": times, "month": [time.date().replace(day=1) for time in times]}
    columns["utc"] = pa.array(times, pa.timestamp("us", "UTC"))
    es.embed(pa.table(columns), tmp_path / "d.store", text="hash:8")
    with TestClient(create_app(tmp_path / "d.store"), base_url="http://127.0.0.1") as client:
        found = {one["column"]: one for one in client.post("/v1/facets", json={"limit": 5}).json()["facets"]}
        ends = {name: (len(one["values"]), one["other"], one["min"], one["max"]) for name, one in found.items()}
        assert ends == {
            "day": (0, 250, "2026-01-01", "2026-09-07"),
            "at": (0, 250, "2026-01-01T12:00:00", "2026-09-07T12:00:00"),
            "month": (5, 250 - 5 * 31, "2026-01-01", "2026-09-01"),
            "utc": (0, 250, "2026-01-01T12:00:00+00:00", "2026-09-07T12:00:00+00:00"),
        }
        for name in ("day", "at", "utc"):  # what is told can be asked for, and so can a day
            to = "2026-01-03" if name == "day" else "2026-01-03T23:59:59.999999"
            both = [{"field": name, "op": op, "value": value} for op, value in ((">=", ends[name][2]), ("<=", to))]
            assert client.post("/v1/search", json={"filter": both}).json()["total"] == 3


@pytest.mark.parametrize(
    ("condition", "where"),
    [
        ({"field": "price", "op": "!=", "value": 3}, "price is distinct from 3"),
        ({"field": "price", "op": "in", "value": [0, 1.5]}, "price in (0, 1.5)"),
        ({"field": "label", "op": "contains", "value": "EV"}, "label like '%ev%'"),
        ({"field": "text", "op": "missing"}, "text is null"),
        ({"field": "text", "op": "missing", "value": False}, "text is not null"),
        ({"field": "id", "op": ">", "value": "item-08"}, "id > 'item-08'"),
        ({"field": "label", "op": "=", "value": 'it\'s "odd" -- ; DROP'}, "false"),
        ({"field": "label", "op": "contains", "value": "%"}, "false"),
    ],
)
def test_a_filter_is_the_sql_that_it_says(reading: Served, condition: dict[str, Any], where: str) -> None:
    client, store = reading
    answer = search(client, filter=[condition], k=12)
    rows = store.where(where)
    assert ids(answer) == store.items.take(rows, ["id"]).column("id").to_pylist()


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ({"field": "none", "op": "=", "value": 1}, "No column is called 'none'."),
        ({"field": "row", "op": "=", "value": 1}, "No column is called 'row'."),
        ({"field": "price", "op": "<", "value": "1 OR 1=1"}, "'price' holds numbers."),
        ({"field": "price", "op": "=", "value": True}, "'price' holds numbers."),
        ({"field": "price", "op": "contains", "value": "1"}, "'price' holds number: contains is for texts and lists."),
        ({"field": "label", "op": "=", "value": 3}, "'label' holds text."),
        ({"field": "label", "op": "=", "value": "a\0b"}, "'label': a text with a NUL character is in no column."),
        ({"field": "label", "op": "in", "value": []}, "'label' in: value should be a list of one or more."),
        ({"field": "label", "op": "missing", "value": "no"}, "'label' missing: value should be true or false."),
    ],
)
def test_a_filter_that_cannot_be_right_says_why(reading: Served, condition: dict[str, Any], said: str) -> None:
    answer = reading[0].post("/v1/search", json={"filter": [condition]})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(said)
