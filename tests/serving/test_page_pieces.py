"""Which piece of an item is nearest, over HTTP and on its card."""

from __future__ import annotations

import re
from pathlib import Path

from browsing import chromium, looking, served
from fastapi.testclient import TestClient
from words import embedded, texts

from embedstore.serving.app import create_app


def test_a_result_says_which_of_its_pieces_is_nearest(tmp_path: Path) -> None:
    store = embedded(tmp_path / "s", texts(30))
    with TestClient(create_app(store), base_url="http://127.0.0.1") as client:
        found = client.post("/v1/search", json={"query": {"id": "i3"}, "k": 5}).json()["results"]
    assert all(set(one["piece"]) == {"unit", "number", "start", "end"} for one in found)
    with chromium() as browser, served(store) as address, looking(browser, address) as page:
        page.locator("#results .card[data-id] .card-main").first.click()
        told = page.locator("#results .card .card-piece").first
        told.wait_for()
        assert re.fullmatch(r"\d:\d\d\.0–\d:\d\d\.0", told.inner_text())
        assert told.get_attribute("title") == "The word that is nearest"
