"""Metadata as JSON: every value comes through, or becomes what the docs say."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from embedstore.exporting.json_values import json_rows, json_value


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (None, None),
        (True, True),
        (2**63 - 1, 2**63 - 1),
        (2**63, "9223372036854775808"),
        (0.1, 0.1),
        (float("nan"), None),
        (float("-inf"), None),
        (Decimal("1.10"), "1.10"),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        (datetime.datetime(2024, 2, 29, 1, 2, 3, 4, datetime.UTC), "2024-02-29T01:02:03.000004+00:00"),
        (datetime.time(1, 2), "01:02:00"),
        (b"\x00\xff", "AP8="),
        ({"a": [1, float("nan"), {"b": b""}]}, {"a": [1, None, {"b": ""}]}),
        ([("k", 1)], [["k", 1]]),
    ],
)
def test_values(value: Any, kept: Any) -> None:
    assert json_value(value) == kept
    json.dumps(json_value(value), allow_nan=False)


def test_rows_are_as_many_as_the_items() -> None:
    assert json_rows(pa.table({"a": [1, None], "b": ["x", "y"]})) == [{"a": 1, "b": "x"}, {"a": None, "b": "y"}]
    assert json_rows(pa.table({"a": [1, 2]}).select([])) == [{}, {}]
