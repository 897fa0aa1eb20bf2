"""A search server as most people write it: FastAPI, a FAISS index, one query a request; `benchmarks.serve` compares with it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Query(BaseModel):
    text: str | None = None
    vector: list[float] | None = None


class Search(BaseModel):
    query: Query
    k: int = 10


def main(vectors: str, items: str, model: str, port: str) -> None:
    app = FastAPI()
    metadata = json.loads(Path(items).read_text())
    index = faiss.IndexFlatIP(np.load(vectors, mmap_mode="r").shape[1])
    index.add(np.load(vectors))
    encoder: Any = None
    if model != "none":
        from sentence_transformers import SentenceTransformer

        encoder = SentenceTransformer(model, device="cpu")

    @app.get("/ready")
    def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/v1/search")
    def search(asked: Search) -> dict[str, Any]:
        query = asked.query
        if query.text is not None:
            vector = encoder.encode([query.text], normalize_embeddings=True)
        else:
            vector = np.asarray([query.vector], np.float32)
            vector /= np.linalg.norm(vector)
        scores, found = index.search(vector, asked.k)
        return {"results": [{"score": float(s), **metadata[i]} for i, s in zip(found[0], scores[0], strict=True)]}

    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
