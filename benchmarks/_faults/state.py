"""What a store holds, as plain values that can be compared: the promise of commits, seen from outside."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

State = dict[str, Any]

NOTHING: State = {"generation": 0, "items": {}, "spaces": {}, "failed": {}, "heads": {}, "found": []}
"""Where there is no store."""
ASKED = ("item-0002", "item-0017", "item-0030")


def state_of(path: Path) -> State:
    """Items by id with their rows and metadata, vectors by space and id, failures, and what heads and indexes answer."""
    import embedstore as es

    store = es.Store.open(path)
    rows = store.items.rows
    if not len(rows):
        return NOTHING | {"generation": store.generation}
    table = store.items.take(rows)
    ids = table.column("id").to_pylist()
    if len(set(ids)) < len(ids):
        raise AssertionError("an id is given twice")
    items = {i: repr(sorted(row.items())) for i, row in zip(ids, table.to_pylist(), strict=True)}
    id_of = dict(zip(rows.tolist(), ids, strict=True))
    spaces, failed = {}, {}
    for name, space in store.spaces.items():
        digests = [hashlib.blake2b(v.tobytes(), digest_size=8).hexdigest() for v in space.vectors()]
        of_rows = space.rows.tolist()
        if len(set(of_rows)) < len(of_rows):
            raise AssertionError(f"a row of space {name} has two vectors")
        spaces[name] = {id_of[row]: digest for row, digest in zip(of_rows, digests, strict=True)}
        failed[name] = sorted(space.failures.column("id").to_pylist())
    return {
        "generation": store.generation,
        "items": items,
        "spaces": spaces,
        "failed": failed,
        "heads": {head: _head(path, head) for head in store.heads},
        "found": _found(path, [i for i in ASKED if i in items]),
    }


def _head(path: Path, head: str) -> Any:
    """What a head predicts; of an alignment what it finds."""
    import embedstore as es
    from embedstore.errors import UsageError

    try:
        rows = es.predict(path, head).to_rows()
    except UsageError:  # an alignment predicts nothing
        hits = es.search(path, id=ASKED[0], space=f"{head}.given", k=3).results
        return [[hit.id, round(hit.score, 3)] for hit in hits]
    return [[row["id"], _rounded(row["prediction"]), _rounded(row.get("probability"))] for row in rows]


def _found(path: Path, asked: list[str]) -> Any:
    import embedstore as es

    if "given" not in es.Store.open(path).spaces:
        return []
    answers = [es.search(path, id=i, space="given", k=5).results for i in asked]
    return [[[hit.id, round(hit.score, 3)] for hit in answer] for answer in answers]


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value


def same(a: State, b: State) -> str:
    """Where two states differ, leaving the number of commits aside; empty where they do not."""
    for key in a:
        if key != "generation" and a[key] != b[key]:
            return f"{key}: {_first_difference(a[key], b[key])}"
    return ""


def between(before: State, now: State, after: State) -> str:
    """What was lost or is neither old nor new in `now`, which a command left on its way from `before` to `after`."""
    if now["generation"] < before["generation"]:
        return f"generation {now['generation']} after {before['generation']} was committed"
    for key in ("items", *after["spaces"], "heads"):
        old, this, new = (s[key] if key in s else s["spaces"].get(key, {}) for s in (before, now, after))
        for i in old.keys() | new.keys() | this.keys():
            if i not in this:
                if i in old and i in new:
                    return f"{key}: {i} was lost"
            elif this[i] not in (old.get(i), new.get(i)) and (
                old or key != "heads"
            ):  # heads of a store under repair miss vectors
                return f"{key}: {i} is neither what it was nor what it becomes"
    return ""


def _first_difference(a: Any, b: Any) -> str:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            if a.get(key) != b.get(key):
                return f"{key}: {_first_difference(a.get(key), b.get(key))}"
    return f"{str(a)[:120]} ≠ {str(b)[:120]}"
