"""Values that are made once: what they weigh together stays under the limit, and the ones asked for last stay."""

from __future__ import annotations

from embedstore.serving.once import Once


def test_values_asked_for_longest_ago_make_room() -> None:
    made: list[str] = []

    def make(value: str) -> str:
        made.append(value)
        return value

    kept: Once[str, str] = Once(5, len)
    for value in ("aa", "bb", "aa", "c", "dd", "aa", "c"):
        assert kept.get(value, lambda value=value: make(value)) == value  # type: ignore[misc]
    assert made == ["aa", "bb", "c", "dd"]
    assert kept.get("too large", lambda: make("too large")) == "too large"
    assert kept.get("aa", lambda: make("aa again")) == "aa again"
