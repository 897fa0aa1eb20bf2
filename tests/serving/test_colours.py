"""What the points of a map are coloured by: numbers of any kind, items that a head does not see, and colours that take long."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import embedstore as es
from embedstore.serving import routes_look
from embedstore.serving.colours import MISSING, by_column, by_head
from embedstore.serving.colours import _binned as binned
from embedstore.serving.maps import make_map
from embedstore.serving.session import Session


@pytest.mark.parametrize(
    ("numbers", "codes", "legend"),
    [
        ([], [], []),
        ([np.nan, np.inf], [MISSING, MISSING], []),
        ([5.0, np.nan, 5.0], [0, MISSING, 0], ["5"]),
        ([1.0, -np.inf, 2.0], [0, MISSING, 11], None),
    ],
)
def test_numbers_of_any_kind(numbers: list[float], codes: list[int], legend: list[str] | None) -> None:
    found = binned(np.asarray(numbers, float))
    assert found.codes.tolist() == codes
    assert legend is None or found.legend == legend


def test_an_item_that_a_head_does_not_see_has_no_class(store: es.Store) -> None:
    es.train(store.path, "label", inputs=["text"], head="linear", name="read")
    es.train(store.path, "price", inputs=["text"], head="ridge", name="cost", task="regression")
    session = Session(store.refresh())
    drawn = make_map(session, "image", "pca", keep=False)
    for head in ("read", "cost"):
        codes = by_head(session, drawn, head, "prediction").codes
        assert np.flatnonzero(codes == MISSING).tolist() == [3]  # the one without a text


def test_colours_that_take_long_are_waited_for_and_made_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    key = client.get("/v1/map", params={"space": "image"}).json()["key"]
    go, made = threading.Event(), []

    def slow(*given: Any) -> Any:
        made.append(given)
        go.wait(20)
        return by_column(*given)

    monkeypatch.setattr(routes_look, "by_column", slow)
    monkeypatch.setattr(routes_look, "PATIENCE", 0.01)
    wanted = {"key": key, "column": "label"}
    waiting = client.get("/v1/map/colour", params=wanted)
    assert (waiting.status_code, waiting.json()["state"]) == (202, "computing")
    go.set()
    monkeypatch.setattr(routes_look, "PATIENCE", 20.0)
    assert [client.get("/v1/map/colour", params=wanted).status_code for _ in range(2)] == [200, 200]
    assert len(made) == 1
