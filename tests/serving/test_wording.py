"""Errors over HTTP name fields of requests, not options of commands."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import embedstore as es
from embedstore.serving.wording import COMMAND, FIELDS, ONLY_TYPED, in_json

PACKAGE = Path(es.__file__).parent
ANSWERING = ("retrieval/queries.py", "retrieval/searcher.py", "store/items.py", "duplicates/find.py", "training/predict.py")
"""Modules whose errors reach clients."""
OF_COMMANDS = {"pixels", "encoder", "classes", "task", "inputs"}
"""Options of other commands, or that name what was given when the store was made."""


@pytest.mark.parametrize(
    ("said", "over_http"),
    [
        (
            "Search with --image FILE, or --id ID of an item like it.",
            "Search with query.image, or query.id of an item like it.",
        ),
        ("Say which: --space NAME.", "Say which: space."),
        ("or --space title.image, or --text WORDS.", "or space title.image, or query.text."),
        ("--unlike needs at least one --like: say", "negative needs at least one positive: say"),
        (
            "--where 'a < 1': not done in 60 s." + " Ask for less" + ONLY_TYPED[0] + ".",
            "filter 'a < 1': not done in 60 s. Ask for less.",
        ),
        (
            "(embedstore align my.store --from text --to image), or --text WORDS.",
            "(embedstore align my.store --from text --to image), or query.text.",
        ),
        (
            "(embedstore embed DATASET --image clip). Search with --id ID.",
            "(embedstore embed DATASET --image clip). Search with query.id.",
        ),
        ("Train the head again, with --replace.", "Train the head again, with --replace."),
        ("No item has the id '--text of mine'.", "No item has the id '--text of mine'."),
        ("That is torch's. Use --id ID: it is yours", "That is torch's. Use query.id: it is yours"),
    ],
)
def test_options_become_fields(said: str, over_http: str) -> None:
    assert in_json(said) == over_http


@pytest.mark.parametrize("module", ANSWERING)
def test_every_option_that_an_error_names_is_a_field(module: str) -> None:
    """A new one has to be decided upon."""
    tree = ast.parse((PACKAGE / module).read_text("utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    for text in texts:
        if text.startswith(("The document of", "\n")):
            continue
        for words in ONLY_TYPED:
            text = text.replace(words, "")
        named = re.findall(r"(?<![\w-])--([a-z][a-z-]*)", re.sub(COMMAND, "", text))
        assert set(named) <= FIELDS.keys() | OF_COMMANDS | {"json", "where-timeout", "from", "to"}, text


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"query": {"text": "a"}, "space": "image"}, "query.image"),
        ({"query": {"image": "QUJD"}, "space": "text"}, "query.text"),
        ({"query": {"audio": "QUJD"}}, "query.image"),
        ({"negative": ["item-01"]}, "positive"),
    ],
)
def test_an_answer_names_fields(reading: tuple[TestClient, es.Store], request_: dict[str, Any], field: str) -> None:
    client, _ = reading
    answers = [client.post("/v1/search", json=request_), client.post("/v1/search/batch", json={"queries": [request_]})]
    assert [answer.status_code for answer in answers] == [400, 200]
    alone, among = answers[0].json(), answers[1].json()["answers"][0]
    for said in (f"{alone['error']} {alone['next']}", among["error"]):
        assert field in said
        assert "--" not in re.sub(COMMAND, "", said)


def test_a_note_names_fields(reading: tuple[TestClient, es.Store]) -> None:
    note = reading[0].post("/v1/search", json={"query": {"vector": [1.0] * 32}}).json()["note"]
    assert note.endswith("Have it checked: query.fingerprint, or an .npz written by QueryVector.save.")
