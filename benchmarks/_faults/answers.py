"""Questions to a store, and their answers as plain values: an answer is right where it is that of the undamaged store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._faults.world import DIM, name, vector_of

ASKED = name(17)
WHERE = "price < 90 and label <> 'bee'"

Question = Callable[[Path, Path], Any]
"""Of the store and the folder of the sources."""


def _search(**query: Any) -> Question:
    def asked(store: Path, _: Path) -> Any:
        import embedstore as es

        found = es.search(store, k=5, **query)
        return [[hit.id, round(hit.score, 4), sorted(hit.metadata.items())] for hit in found.results]

    return asked


def _by_vector(store: Path, _: Path) -> Any:
    import embedstore as es

    query = es.QueryVector(vector_of(23, 7)[:DIM])
    return [[hit.id, round(hit.score, 4)] for hit in es.search(store, vector=query, space="given", k=5).results]


def _predict(head: str) -> Question:
    def asked(store: Path, _: Path) -> Any:
        import embedstore as es

        return [
            [row["id"], row["prediction"], round(row.get("probability", 0.0), 4)] for row in es.predict(store, head).to_rows()
        ]

    return asked


def _evaluate(store: Path, _: Path) -> Any:
    import embedstore as es

    return {name: round(score.value, 4) for name, score in es.evaluate(store, "label").metrics.items()}


def _info(store: Path, _: Path) -> Any:
    import embedstore as es

    opened = es.Store.open(store)
    failures = {name: space.failures.select(["id", "stage", "reason"]).to_pylist() for name, space in opened.spaces.items()}
    return opened.info() | {"failures": {k: [list(row.values()) for row in rows] for k, rows in failures.items()}}


def _view(store: Path, _: Path) -> Any:
    import embedstore as es

    view = es.Store.open(store).view(inputs=["given", "image"], target="label", where=WHERE)
    arrays = [view.ids, view.target, view.split, *view.inputs.values(), *view.present.values()]
    return [hashlib.sha256(np.ascontiguousarray(a.astype("U") if a.dtype == object else a)).hexdigest() for a in arrays]


def _dedup(store: Path, _: Path) -> Any:
    import embedstore as es

    report = es.find_duplicates(store, space="text")
    return [[c.representative, [m.id for m in c.members]] for c in report.clusters]


def _train(store: Path, _: Path) -> Any:
    import embedstore as es

    report = es.train(store, "label", inputs=["given"], head="linear", name="again", replace=True, report=False)
    return {name: round(score.value, 4) for name, score in report.metrics.items()}


def _embed(store: Path, sources: Path) -> Any:
    import embedstore as es

    report = es.embed(sources / "table.csv", store, text="hash:16", image="hash:8").to_dict()
    return {name: [space["embedded"], space["unchanged"]] for name, space in report["spaces"].items()}


def _import(store: Path, sources: Path) -> Any:
    import embedstore as es

    es.import_vectors(
        sources / "more.npy", store, space="given", modality="text", metadata=sources / "more.parquet", add_items=True
    )
    opened = es.Store.open(store)
    rows, ids = opened.items.rows.tolist(), opened.items.take(opened.items.rows, ["id"]).column("id").to_pylist()
    space = opened.space("given")
    vectors = dict(
        zip(space.rows.tolist(), (hashlib.sha256(v.tobytes()).hexdigest()[:8] for v in space.vectors()), strict=True)
    )
    twice = [len(set(a)) < len(a) for a in (rows, ids, space.rows.tolist())]
    return [twice, sorted((i, row, vectors.get(row)) for i, row in zip(ids, rows, strict=True))]


READING: dict[str, Question] = {
    "search --id": _search(id=ASKED, space="given"),
    "search --recall 1": _search(id=ASKED, space="given", recall=1),
    "search --vector": _by_vector,
    "search --where": _search(id=ASKED, space="text", where=WHERE),
    "search --text": _search(text="text 5", space="text"),
    "search aligned": _search(id=ASKED, space="aligned.given"),
    "predict label": _predict("label"),
    "predict trees": _predict("trees"),
    "evaluate": _evaluate,
    "info": _info,
    "view": _view,
    "dedup": _dedup,
}
WRITING: dict[str, Question] = {"train": _train, "embed": _embed, "import": _import}
"""Asked after the others, on the same copy, in this order."""
