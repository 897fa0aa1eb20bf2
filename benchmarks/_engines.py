"""The search engines of `benchmarks.search` and `benchmarks.filtered`, each behind the same few methods.

Every engine is given the same vectors, block by block as unit float32, and builds, saves, loads and searches with its own
code. Of most, the vectors it keeps are a second copy; ours re-ranks from the file it was given.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from embedstore._core.unit import unit_rows
from embedstore.registry import require

Array = np.ndarray[Any, Any]
Effort = dict[str, Any]

BLOCK = 16384
EF = (*range(10, 25), 26, 28, 30, 32, 34, 36, 40, 44, 48, 56, 60, 64, 68, 72, 76, 80, 88, 96, 112, 128, 192, 256, 384, 512, 768)
NPROBE = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
TRAIN_PER_LIST = 64


@dataclass(frozen=True)
class Rule:
    """A filter: rows whose `column` lies in [`low`, `high`); `keep` (n,) bool says the same."""

    column: str
    low: int
    high: int
    keep: Array


@dataclass
class Data:
    """What an engine is given: a memory map (n, d) of vectors, columns of integers for filters, threads it may use."""

    vectors: Array
    columns: dict[str, Array]
    threads: int

    def blocks(self) -> Iterator[tuple[int, Array]]:
        for lo in range(0, len(self.vectors), BLOCK):
            yield lo, unit_rows(self.vectors[lo : lo + BLOCK])

    def sample(self, size: int) -> Array:
        size = min(size, len(self.vectors))
        return unit_rows(self.vectors[np.sort(np.random.default_rng(0).choice(len(self.vectors), size, replace=False))])


class Engine:
    """One way to search.

    Attributes
    ----------
    module : str
        What has to be installed.
    most : int or None
        The most vectors it is asked to take.
    filter_effort : dict or None
        The effort of a filtered search; None where it has no filter.
    """

    module: ClassVar[str] = "faiss"
    most: ClassVar[int | None] = None
    filter_effort: Effort | None = None

    def build(self, data: Data, folder: Path) -> None:
        """Build and save."""
        raise NotImplementedError

    def load(self, data: Data, folder: Path) -> None:
        raise NotImplementedError

    def ladders(self) -> list[list[Effort]]:
        """Efforts to try, each ladder in ascending order."""
        raise NotImplementedError

    def search(self, queries: Array, k: int, effort: Effort, threads: int) -> Array:
        """Positions (m, k) of the nearest; -1 where there is none."""
        raise NotImplementedError

    def prepared(self, rule: Rule, effort: Effort) -> Any:
        """What `filtered` needs of a filter; not timed."""
        raise NotImplementedError

    def filtered(self, query: Array, k: int, prepared: Any, effort: Effort) -> Array:
        """Positions (1, k) of the nearest that match, for one query (1, d)."""
        raise NotImplementedError

    @classmethod
    def import_it(cls) -> None:
        """Load its libraries; limits on threads reach only what is loaded."""
        importlib.import_module(cls.module)

    @classmethod
    def installed(cls) -> bool:
        return importlib.util.find_spec(cls.module) is not None


class Ours(Engine):
    """`VectorIndex`: the type is chosen by size and by measurement; a filter is planned."""

    def __init__(self, factory: str | None = None, device: str = "cpu") -> None:
        self.factory, self.device = factory, device
        self.filter_effort = {"recall": None}

    def build(self, data: Data, folder: Path) -> None:
        from embedstore._core.folders import Folder
        from embedstore.indexing.index_files import write_base
        from embedstore.indexing.vector_index import VectorIndex

        index = VectorIndex(threads=data.threads, factory=self.factory, device=self.device).fit(data.vectors)
        with Folder.at(folder) as opened:
            files = write_base(index.base_, opened, 1) if index.base_ is not None else {}
        (folder / "index.json").write_text(json.dumps({"report": index.report_.to_dict(), "files": files}))

    def load(self, data: Data, folder: Path) -> None:
        from embedstore.indexing.index_files import read_base
        from embedstore.indexing.recipe import Recipe
        from embedstore.indexing.report import IndexReport
        from embedstore.indexing.vector_index import VectorIndex
        from embedstore.indexing.vectors import as_vectors

        saved = json.loads((folder / "index.json").read_text())
        report, vectors = IndexReport.from_dict(saved["report"]), as_vectors(data.vectors)
        paths = {role: folder / name for role, name in saved["files"].items()}
        base = read_base(paths, Recipe.parse(report.type), vectors, report.n, resident=True) if paths else None
        self.index = VectorIndex.assembled(report, base, vectors, device=self.device).settle()

    def ladders(self) -> list[list[Effort]]:
        report = self.index.report_
        if report.exact:
            return [[{"recall": 1.0}]]
        swept = NPROBE if report.type.startswith("IVF") else EF
        settings = [level.setting for level in report.levels]
        tuned: list[Effort] = [{"recall": level.target} for level in report.levels]
        looks: list[list[Effort]] = [
            [{"effort": e, "re-ranked": c} for e in swept] for c in sorted({s.candidates for s in settings})
        ]
        for s in settings:  # a second look as tuned, with more or less effort for both
            if s.again:
                factor, doubt = s.again / s.effort, {"re-ranked": s.candidates, "doubt": round(s.doubt, 3)}
                looks.append([{"effort": e, "again": round(e * factor), **doubt} for e in swept if e >= s.effort // 2])
        return [tuned, *filter(None, looks)]

    def search(self, queries: Array, k: int, effort: Effort, threads: int) -> Array:
        from embedstore._core.unit import unit_rows
        from embedstore.indexing.base import Setting

        if "recall" in effort:
            return self.index.search(queries, k, recall=effort["recall"]).positions
        look = effort["effort"], effort["re-ranked"], effort.get("again", 0), effort.get("doubt", -1.0)
        base, setting = self.index.base_, Setting(*look)
        assert base is not None
        if len(queries) == 1 and (found := base.one(queries[0], k, setting)) is not None:
            return found[1]
        return base.search(unit_rows(queries), k, setting, threads=threads)[1]

    def prepared(self, rule: Rule, effort: Effort) -> Any:
        rule.keep.flags.writeable = False
        return rule.keep

    def filtered(self, query: Array, k: int, prepared: Any, effort: Effort) -> Array:
        return self.index.search(query, k, keep=prepared, recall=effort["recall"]).positions

    def __str__(self) -> str:
        return f"embedstore ({self.index.report_.type})"


class OursOnGpu(Ours):
    """Exact search on a GPU, or a graph that was built on one."""

    def __init__(self, factory: str) -> None:
        super().__init__(factory, "cuda")

    @classmethod
    def installed(cls) -> bool:
        import torch

        return torch.cuda.is_available()


class Faiss(Engine):
    """A stock FAISS index of inner products."""

    def make(self, data: Data) -> Any:
        raise NotImplementedError

    def parameters(self, effort: Effort, selector: Any = None) -> Any:
        raise NotImplementedError

    def build(self, data: Data, folder: Path) -> None:
        faiss = require("faiss", extra="cpu")

        faiss.omp_set_num_threads(data.threads)
        index = self.make(data)
        for _, block in data.blocks():
            index.add(block)
        faiss.write_index(index, str(folder / "index.faiss"))

    def load(self, data: Data, folder: Path) -> None:
        faiss = require("faiss", extra="cpu")

        self.index = faiss.read_index(str(folder / "index.faiss"))

    def search(self, queries: Array, k: int, effort: Effort, threads: int) -> Array:
        faiss = require("faiss", extra="cpu")

        faiss.omp_set_num_threads(threads)
        return np.asarray(self.index.search(queries, k, params=self.parameters(effort))[1])

    def prepared(self, rule: Rule, effort: Effort) -> Any:
        faiss = require("faiss", extra="cpu")

        return self.parameters(effort, faiss.IDSelectorBitmap(np.packbits(rule.keep, bitorder="little")))

    def filtered(self, query: Array, k: int, prepared: Any, effort: Effort) -> Array:
        faiss = require("faiss", extra="cpu")

        faiss.omp_set_num_threads(1)
        return np.asarray(self.index.search(query, k, params=prepared)[1])


class FaissFlat(Faiss):
    """Exact, as it comes."""

    def make(self, data: Data) -> Any:
        faiss = require("faiss", extra="cpu")

        return faiss.IndexFlatIP(data.vectors.shape[1])

    def parameters(self, effort: Effort, selector: Any = None) -> Any:
        return None

    def ladders(self) -> list[list[Effort]]:
        return [[{}]]


class FaissHnsw(Faiss):
    """HNSW32; ``efConstruction`` 40 as it comes, or more."""

    def __init__(self, construction: int, *, half: bool = False) -> None:
        self.construction = construction
        self.half = half
        self.filter_effort = {"efSearch": 128}

    def make(self, data: Data) -> Any:
        faiss = require("faiss", extra="cpu")

        name = "HNSW32_SQfp16" if self.half else "HNSW32,Flat"
        index = faiss.index_factory(data.vectors.shape[1], name, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self.construction
        if self.half:
            index.train(data.sample(50_000))
        return index

    def parameters(self, effort: Effort, selector: Any = None) -> Any:
        faiss = require("faiss", extra="cpu")

        return faiss.SearchParametersHNSW(**effort, **({} if selector is None else {"sel": selector}))

    def ladders(self) -> list[list[Effort]]:
        return [[{"efSearch": ef} for ef in EF]]


class FaissIvf(Faiss):
    """IVF,Flat with about 4√n lists, trained on 64 vectors a list as ours is."""

    def __init__(self) -> None:
        self.filter_effort = {"nprobe": 64}

    def make(self, data: Data) -> Any:
        faiss = require("faiss", extra="cpu")

        n, dim = data.vectors.shape
        lists = min(2 ** round(math.log2(4 * math.sqrt(n))), n // 40)
        index = faiss.index_factory(dim, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
        index.train(data.sample(TRAIN_PER_LIST * lists))
        return index

    def parameters(self, effort: Effort, selector: Any = None) -> Any:
        faiss = require("faiss", extra="cpu")

        nprobe = min(effort["nprobe"], self.index.nlist)
        return faiss.SearchParametersIVF(nprobe=nprobe, **({} if selector is None else {"sel": selector}))

    def ladders(self) -> list[list[Effort]]:
        return [[{"nprobe": n} for n in NPROBE if n <= self.index.nlist]]


class Hnswlib(Engine):
    """M 32, ef_construction 200, inner product."""

    module = "hnswlib"

    def build(self, data: Data, folder: Path) -> None:
        import hnswlib  # type: ignore[import-untyped,unused-ignore]

        n, dim = data.vectors.shape
        index = hnswlib.Index("ip", dim)
        index.init_index(n, M=32, ef_construction=200, random_seed=0)
        for lo, block in data.blocks():
            index.add_items(block, np.arange(lo, lo + len(block)), num_threads=data.threads)
        index.save_index(str(folder / "index.hnswlib"))

    def load(self, data: Data, folder: Path) -> None:
        import hnswlib

        self.index = hnswlib.Index("ip", data.vectors.shape[1])
        self.index.load_index(str(folder / "index.hnswlib"))

    def ladders(self) -> list[list[Effort]]:
        return [[{"ef": ef} for ef in EF]]

    def search(self, queries: Array, k: int, effort: Effort, threads: int) -> Array:
        self.index.set_ef(effort["ef"])
        return np.asarray(self.index.knn_query(queries, k, num_threads=threads)[0], np.int64)


class Usearch(Engine):
    """Connectivity 32, expansion_add 200, inner product; `dtype` of the vectors it keeps."""

    module = "usearch"

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def build(self, data: Data, folder: Path) -> None:
        from usearch.index import Index

        dim = data.vectors.shape[1]
        index = Index(ndim=dim, metric="ip", dtype=self.dtype, connectivity=32, expansion_add=200)
        for lo, block in data.blocks():
            index.add(np.arange(lo, lo + len(block)), block, threads=data.threads)
        index.save(str(folder / "index.usearch"))

    def load(self, data: Data, folder: Path) -> None:
        from usearch.index import Index

        self.index: Any = Index.restore(str(folder / "index.usearch"))

    def ladders(self) -> list[list[Effort]]:
        return [[{"expansion_search": ef} for ef in EF]]

    def search(self, queries: Array, k: int, effort: Effort, threads: int) -> Array:
        self.index.expansion_search = effort["expansion_search"]
        found = self.index.search(queries, k, threads=threads)
        keys = np.asarray(found.keys).reshape(len(queries), -1).astype(np.int64)
        counts = np.asarray(getattr(found, "counts", [keys.shape[1]])).reshape(-1, 1)
        return np.where(np.arange(keys.shape[1]) < counts, keys, -1)


class Lance(Engine):
    """A local LanceDB table: a vector index (cosine) and B-trees on the columns of integers; it has no switch for threads."""

    module = "lancedb"

    def build(self, data: Data, folder: Path) -> None:
        import lancedb
        import pyarrow as pa

        dim = data.vectors.shape[1]

        def batches() -> Iterator[Any]:
            for lo, block in data.blocks():
                columns = {name: pa.array(values[lo : lo + len(block)]) for name, values in data.columns.items()}
                vectors = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), dim)
                yield pa.record_batch({"id": pa.array(np.arange(lo, lo + len(block))), **columns, "vector": vectors})

        schema = next(batches()).schema
        table = lancedb.connect(folder / "lance").create_table("t", pa.RecordBatchReader.from_batches(schema, batches()))
        table.create_index("vector", config=self.config(dim))
        for name in data.columns:
            table.create_index(name, config=lancedb.index.BTree())

    def config(self, dim: int) -> Any:
        raise NotImplementedError

    def load(self, data: Data, folder: Path) -> None:
        import lancedb

        self.table = lancedb.connect(folder / "lance").open_table("t")

    def asked(self, queries: Array, k: int, effort: Effort) -> Any:
        query = queries[0] if len(queries) == 1 else queries
        asked: Any = self.table.search(query, vector_column_name="vector")
        asked = asked.distance_type("cosine").limit(k)
        for name, value in effort.items():
            asked = getattr(asked, name)(value)
        return asked.select(["id", "_distance"])

    def search(self, queries: Array, k: int, effort: Effort, threads: int) -> Array:
        table = self.asked(queries, k, effort).to_arrow()
        which = table["query_index"].to_numpy() if len(queries) > 1 else np.zeros(len(table), np.int64)
        return placed(which, table["id"].to_numpy(), len(queries), k)

    def prepared(self, rule: Rule, effort: Effort) -> Any:
        return f"{rule.column} >= {rule.low} AND {rule.column} < {rule.high}"

    def filtered(self, query: Array, k: int, prepared: Any, effort: Effort) -> Array:
        table = self.asked(query, k, effort).where(prepared, prefilter=True).to_arrow()
        return placed(np.zeros(len(table), np.int64), table["id"].to_numpy(), 1, k)


class LanceHnsw(Lance):
    """IVF_HNSW_SQ of one graph a million rows, as its makers advise, with m 32 and ef_construction 200."""

    def __init__(self) -> None:
        self.filter_effort = {"nprobes": 1, "ef": 128, "refine_factor": 2}

    def config(self, dim: int) -> Any:
        from lancedb.index import HnswSq

        return HnswSq(distance_type="cosine", num_partitions=1, m=32, ef_construction=200)

    def ladders(self) -> list[list[Effort]]:
        efs = (20, 40, 80, 160, 320, 640)
        return [[{"nprobes": 1, "ef": ef, "refine_factor": r} for ef in efs if ef >= 10 * r] for r in (1, 2, 4)]


class LancePq(Lance):
    """IVF_PQ with as many sub-vectors as eighths of the dimension, refined with the stored vectors."""

    def config(self, dim: int) -> Any:
        from lancedb.index import IvfPq

        return IvfPq(distance_type="cosine", num_sub_vectors=dim // 8)

    def ladders(self) -> list[list[Effort]]:
        return [[{"nprobes": n, "refine_factor": r} for n in (8, 16, 32, 64, 128, 256)] for r in (10, 30, 100)]


class Qdrant(Engine):
    """qdrant-client without a server, in memory: exact, by NumPy; meant by its makers for 20,000 points."""

    module = "qdrant_client"
    most = 200_000

    def __init__(self) -> None:
        self.filter_effort = {}

    def build(self, data: Data, folder: Path) -> None:
        self.load(data, folder)

    def load(self, data: Data, folder: Path) -> None:
        from qdrant_client import QdrantClient, models

        self.client = QdrantClient(":memory:")
        size = models.VectorParams(size=data.vectors.shape[1], distance=models.Distance.COSINE)
        self.client.create_collection("t", vectors_config=size)
        for lo, block in data.blocks():
            ids = range(lo, lo + len(block))
            payload = [{name: int(values[i]) for name, values in data.columns.items()} for i in ids]
            self.client.upload_collection("t", vectors=block, payload=payload, ids=ids, batch_size=1024)

    def ladders(self) -> list[list[Effort]]:
        return [[{}]]

    def search(self, queries: Array, k: int, effort: Effort, threads: int) -> Array:
        from qdrant_client import models

        asked = [models.QueryRequest(query=query.tolist(), limit=k, with_payload=False) for query in queries]
        answers = self.client.query_batch_points("t", requests=asked)
        return np.concatenate([identifiers(answer, k) for answer in answers])

    def prepared(self, rule: Rule, effort: Effort) -> Any:
        from qdrant_client import models

        between = models.Range(gte=rule.low, lt=rule.high)
        return models.Filter(must=[models.FieldCondition(key=rule.column, range=between)])

    def filtered(self, query: Array, k: int, prepared: Any, effort: Effort) -> Array:
        found = self.client.query_points("t", query=query[0], limit=k, query_filter=prepared, with_payload=False)
        return identifiers(found, k)


def identifiers(answer: Any, k: int) -> Array:
    ids = np.asarray([point.id for point in answer.points], np.int64)
    return placed(np.zeros(len(ids), np.int64), ids, 1, k)


def placed(which: Array, ids: Array, m: int, k: int) -> Array:
    """Answers (m, k) from pairs of query and id, -1 where there are fewer."""
    out = np.full((m, k), -1, np.int64)
    order = np.argsort(which, kind="stable")
    which, ids = which[order], ids[order]
    place = np.arange(len(which)) - np.searchsorted(which, which)
    out[which[place < k], place[place < k]] = ids[place < k]
    return out


ENGINES: dict[str, Callable[[], Engine]] = {
    "ours": Ours,
    "ours-hnsw": lambda: Ours("HNSW32"),
    "ours-ivf": lambda: Ours("IVF1024,SQ8"),
    "ours-flat-gpu": lambda: OursOnGpu("Flat"),
    "ours-cagra": lambda: OursOnGpu("HNSW32"),
    "faiss-flat": FaissFlat,
    "faiss-hnsw40": lambda: FaissHnsw(40),
    "faiss-hnsw200": lambda: FaissHnsw(200),
    "faiss-hnsw200-fp16": lambda: FaissHnsw(200, half=True),
    "faiss-ivf": FaissIvf,
    "hnswlib": Hnswlib,
    "usearch-f32": lambda: Usearch("f32"),
    "usearch-f16": lambda: Usearch("f16"),
    "lance-hnsw": LanceHnsw,
    "lance-pq": LancePq,
    "qdrant": Qdrant,
}
FORCED = ("ours-hnsw", "ours-ivf", "ours-flat-gpu", "ours-cagra")  # not of our own choice: only when asked for
