"""Filters mean the same wherever the server runs."""

from __future__ import annotations

import pyarrow as pa
import pytest

from embedstore.errors import UsageError
from embedstore.serving.filters import compiled
from embedstore.serving.models import Condition

TYPES = {"seen": pa.timestamp("us", "UTC"), "made": pa.timestamp("us")}


def sql(field: str, value: str) -> str | None:
    return compiled([Condition(field=field, op=">", value=value)], TYPES)


@pytest.mark.parametrize("value", ["2026-11-28T05:00:00", "2026-11-28T00:00:00-05:00", "2026-11-28T05:00:00Z"])
def test_times_in_utc_do_not_depend_on_the_zone_of_the_server(value: str) -> None:
    assert sql("seen", value) == """("seen" > CAST('2026-11-28T05:00:00+00:00' AS TIMESTAMPTZ))"""


@pytest.mark.parametrize("value", ["20261128T05", "2026-W48-6T05:00"])
def test_any_form_of_iso_8601_is_read(value: str) -> None:
    assert sql("made", value) == """("made" > CAST('2026-11-28T05:00:00' AS TIMESTAMP))"""


def test_times_without_a_zone_take_none() -> None:
    assert sql("made", "2026-11-28T05:00:00") == """("made" > CAST('2026-11-28T05:00:00' AS TIMESTAMP))"""
    with pytest.raises(UsageError, match="holds times without a zone"):
        sql("made", "2026-11-28T05:00:00+02:00")
