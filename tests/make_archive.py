"""Writes tests/data/store-v1: run once when a format version is released, never again for the same version."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import embedstore as es
from embedstore.sources import MemorySource

DATA = Path(__file__).parent / "data"

if __name__ == "__main__":
    target = DATA / "store-v1"
    shutil.rmtree(target, ignore_errors=True)
    n = 24
    texts = [None if i == 7 else f"text {i}" for i in range(n)]
    columns = {
        "id": [f"ä{i}" for i in range(n)],
        "text": texts,
        "label": ["ab"[i % 2] for i in range(n)],
        "price": [i / 2 for i in range(n)],
    }
    es.embed(MemorySource(columns), target, text={"text": "hash:8", "wide": "hash:12"})
    store = es.Store.open(target).remove(["ä3"])
    es.train(store, "label", cv=3)
    store = store.refresh()
    expected = {
        "ids": store.items.table().column("id").to_pylist(),
        "vectors": {name: space.vectors().astype(float).tolist() for name, space in store.spaces.items()},
        "predictions": es.predict(store, "label").labels.tolist(),
    }
    (DATA / "store-v1.json").write_text(json.dumps(expected, ensure_ascii=False))
    (target / "store.lock").unlink(missing_ok=True)
