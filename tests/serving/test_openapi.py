"""The OpenAPI document describes the server, and no request that it allows, nor one near it, ends in a 5xx."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from starlette.testclient import TestClient

HERE = "http://127.0.0.1"
SECONDS = 8.0
"""For all operations together, on a quiet machine or a busy one."""
EXAMPLES = 5
"""Of each operation: so many that the document allows, and as many that it does not."""
IDS = ("item-00", "item-01", "item-05")


def sent(client: TestClient, case: Any) -> Any:
    """What the server answers to a generated request."""
    prepared = requests.Request(**case.as_transport_kwargs(base_url=HERE)).prepare()
    headers = {name: value for name, value in prepared.headers.items() if name.lower() not in ("host", "content-length")}
    return client.request(str(prepared.method), str(prepared.url), content=prepared.body, headers=headers)


def operations(client: TestClient) -> list[Any]:
    document = client.get("/openapi.json").json()
    return [found.ok() for found in schemathesis.openapi.from_dict(document).get_all_operations()]


def test_no_generated_request_ends_in_a_5xx(client: TestClient) -> None:
    found = operations(client)
    until = time.monotonic() + SECONDS
    assert len(found) >= 18
    statuses: dict[str, set[int]] = {}

    def check(case: Any) -> None:
        if time.monotonic() > until:
            return
        answer = sent(client, case)
        statuses.setdefault(case.operation.label, set()).add(answer.status_code)
        assert answer.status_code < 500, f"{case.as_curl_command()}\n{answer.text}"
        if answer.status_code >= 400 and answer.status_code != 404:
            assert answer.json().keys() == {"error", "next"}, answer.text

    modes = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
    quiet = settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    first = ("/v1/search", "/v1/teach", "/v1/facets")
    for operation in sorted(found, key=lambda one: (one.method.lower() != "get", one.path not in first)):
        for mode in modes:
            if time.monotonic() > until:
                break  # on a busy machine fewer operations are reached; the simplest, and search, come first
            with suppress(Unsatisfiable):  # an operation without parameters has no request that is wrong
                quiet(given(operation.as_strategy(generation_mode=mode))(check))()
    assert len(statuses) >= 6, statuses
    assert {400, 404, 422} & set.union(*statuses.values())


def test_requests_with_real_ids_end_in_an_answer_or_a_reason(reading: tuple[TestClient, object]) -> None:
    """Generated requests rarely name an item that is there; these do."""
    fields = st.sampled_from(["label", "price", "text", "id", "row", ""])
    values = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=4), st.lists(st.text(max_size=2)))
    ops = st.sampled_from(["=", "<", "in", "contains", "missing"])
    condition = st.fixed_dictionaries({"field": fields, "op": ops}, optional={"value": values})
    by_id = st.sampled_from(IDS).map(lambda item: {"id": item})
    by_text = st.text().map(lambda text: {"text": text})
    request = st.fixed_dictionaries(
        {},
        optional={
            "query": st.one_of(by_id, by_text),
            "positive": st.lists(st.sampled_from(IDS), max_size=2),
            "negative": st.lists(st.sampled_from(IDS), max_size=2),
            "space": st.sampled_from(["image", "text", "none"]),
            "weights": st.dictionaries(st.sampled_from(["image", "text"]), st.floats(0.1, 2), max_size=2),
            "filter": st.lists(condition, max_size=2),
            "k": st.integers(1, 1000),
            "offset": st.integers(0, 30),
            "min_score": st.floats(-1, 1),
            "diversity": st.floats(0, 1),
            "exact": st.booleans(),
            "fold": st.booleans(),
        },
    )

    @settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(request)
    def asked(body: dict[str, Any]) -> None:
        answer = reading[0].post("/v1/search", json=body)
        assert answer.status_code in (200, 400, 404, 422), f"{body}\n{answer.text}"

    asked()


def test_the_document_has_examples_and_says_what_errors_look_like(reading: tuple[TestClient, object]) -> None:
    document = reading[0].get("/openapi.json").json()
    assert document["components"]["schemas"]["SearchRequest"]["examples"][0]["query"] == {"text": "a house by the sea"}
    for path, methods in document["paths"].items():
        for told in methods.values():
            assert told["summary"], path
            if path.startswith("/v1"):
                assert told["responses"]["400"]["content"]["application/json"]["schema"]["$ref"].endswith("/Wrong")
