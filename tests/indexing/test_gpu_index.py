"""What a GPU does for an index, as far as a CPU can show it: loading, batches and memory of exact search; graphs of CAGRA."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest
import torch

from embedstore._core.unit import unit_rows
from embedstore.errors import EncoderError, UsageError
from embedstore.indexing import build, exact, gpu
from embedstore.indexing.base import Base, Setting
from embedstore.indexing.entries import Entries
from embedstore.indexing.faiss_checks import check_index
from embedstore.indexing.gpu import FlatOnGpu
from embedstore.indexing.recipe import Recipe
from embedstore.indexing.vector_index import VectorIndex
from embedstore.indexing.vectors import ArrayVectors

Array = npt.NDArray[Any]
N, DIM = 1500, 16


def points(seed: int, n: int, centres: int = 20, spread: float = 0.5) -> Array:
    rng, centre = np.random.default_rng(seed), np.random.default_rng(99).standard_normal((centres, DIM))
    return np.asarray(centre[rng.integers(0, centres, n)] + spread * rng.standard_normal((n, DIM)), np.float32)


def read_only(array: Array) -> ArrayVectors:
    """As a store's blocks are."""
    array.flags.writeable = False
    return ArrayVectors(array)


class TorchWithCuda:
    """torch whose GPU is the CPU; it remembers what was pinned."""

    def __init__(self) -> None:
        self.pinned: list[tuple[int, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def empty(self, *size: Any, device: Any = "cpu", pin_memory: bool = False, **options: Any) -> torch.Tensor:
        made = torch.empty(*size, **options)
        if pin_memory:
            self.pinned.append(tuple(made.shape))
        if device != "cpu":
            made = made.as_subclass(OnGpu)
        return made


class OnGpu(torch.Tensor):
    """Says that it is on a GPU until something is computed of it."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda:0")


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_read_only_blocks_are_loaded_without_a_word_of_torch(dtype: type, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch warns once a process of arrays that it shares and cannot write to: none may reach it."""
    from_numpy = torch.from_numpy

    def checked(array: Array) -> torch.Tensor:
        assert array.flags.writeable
        return from_numpy(array)

    faked = TorchWithCuda()
    monkeypatch.setattr(torch, "from_numpy", checked)
    monkeypatch.setattr(gpu, "require", lambda name: faked)
    monkeypatch.setattr(gpu, "BLOCK", 400)
    vectors = points(0, N).astype(dtype)
    vectors[3] = 0
    flat = FlatOnGpu(read_only(vectors), device)
    assert faked.pinned == ([(400, DIM)] if device == "cuda" else [])
    rows = flat._rows.as_subclass(torch.Tensor)
    expected = vectors if dtype == np.float16 else unit_rows(vectors)
    np.testing.assert_array_equal(rows.numpy(), expected)
    lengths = np.linalg.norm(expected.astype(np.float64), axis=1)
    wanted = np.where(lengths > 0, 1 / np.where(lengths > 0, lengths, 1), 0)
    np.testing.assert_allclose(flat._inverse.as_subclass(torch.Tensor).numpy(), wanted, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_batches_change_no_answer(dtype: type, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = points(0, N).astype(dtype), unit_rows(points(1, 30))
    monkeypatch.setattr(gpu, "SCORES", at_once * N * (2 if dtype == np.float16 else 1))
    sizes: list[int] = []
    products = FlatOnGpu._products
    monkeypatch.setattr(FlatOnGpu, "_products", lambda self, q, rows: sizes.append(len(q)) or products(self, q, rows))
    scores, positions = FlatOnGpu(read_only(vectors), "cpu").search(queries, 10)
    truth = queries.astype(np.float64) @ unit_rows(vectors, np.float64).T
    np.testing.assert_allclose(scores, -np.sort(-truth, axis=1)[:, :10], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(truth, positions, 1), scores, atol=1e-6)
    assert max(sizes) == min(at_once, 30)
    assert sum(sizes) == 30


def test_float16_vectors_are_multiplied_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    mm = FlatOnGpu._mm
    monkeypatch.setattr(FlatOnGpu, "_mm", lambda self, a, b: sizes.append(len(a)) or mm(self, a, b))
    FlatOnGpu(read_only(points(0, N).astype(np.float16)), "cpu").search(unit_rows(points(1, 30)), 10)
    assert sizes == [60]


class Memory:
    """A device that has room for the products of so many queries."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        self.tried: list[int] = []
        self.held: list[Any] = []
        products = FlatOnGpu._products

        def limited(flat: FlatOnGpu, queries: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            gc.collect()
            assert all(held() is None for held in self.held), "what failed is still in memory"
            self.tried.append(len(queries))
            if len(queries) > most:
                taken = torch.zeros(8)
                self.held += [weakref.ref(taken), weakref.ref(queries)]
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return products(flat, queries, rows)

        monkeypatch.setattr(FlatOnGpu, "_products", limited)


def test_less_is_held_at_once_where_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = read_only(points(0, N)), unit_rows(points(1, 30))
    expected = FlatOnGpu(vectors, "cpu").search(queries, 10)
    memory, flat = Memory(monkeypatch, most=4), FlatOnGpu(vectors, "cpu")
    scores, positions = flat.search(queries, 10)
    np.testing.assert_allclose(scores, expected[0], atol=1e-6)
    np.testing.assert_array_equal(positions, expected[1])
    assert memory.tried == [30, 15, 7] + [3] * 10
    memory.tried.clear()
    flat.search(queries[:5], 10)
    assert memory.tried == [3, 2]  # it is known by now


def test_a_query_that_does_not_fit_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    Memory(monkeypatch, most=0)
    with pytest.raises(UsageError, match=r"A query of 1,500 vectors needs more memory than cpu has left\. Use --device cpu\."):
        FlatOnGpu(read_only(points(0, N)), "cpu").search(unit_rows(points(1, 3)), 10)


FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


@pytest.mark.parametrize("full", FULL, ids=["memory", "cublas"])
def test_a_subset_is_copied_in_pieces_where_memory_runs_out(full: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries, subset = read_only(points(0, N)), unit_rows(points(1, 5)), np.arange(0, N, 3)
    expected = FlatOnGpu(vectors, "cpu").search(queries, 10, subset)
    tried: list[int] = []
    copied = FlatOnGpu._copied

    def limited(flat: FlatOnGpu, chosen: Array) -> Any:
        tried.append(len(chosen))
        if len(chosen) > 200:
            raise full
        return copied(flat, chosen)

    monkeypatch.setattr(FlatOnGpu, "_copied", limited)
    flat = FlatOnGpu(vectors, "cpu")
    scores, positions = flat.search(queries, 10, subset)
    np.testing.assert_allclose(scores, expected[0], atol=1e-6)
    np.testing.assert_array_equal(positions, expected[1])
    assert tried == [500, 250, 125, 125, 125, 125]
    tried.clear()
    flat.search(queries, 10, subset[:130])
    assert tried == [125, 5]  # fewer than are asked for, too


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("at_once", [1, 7, 500])
def test_pieces_of_a_subset_change_no_answer(dtype: type, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries, subset = points(0, N).astype(dtype), unit_rows(points(1, 5)), np.arange(0, N, 3)
    monkeypatch.setattr(gpu, "PICKED", at_once * DIM)
    scores, positions = FlatOnGpu(read_only(vectors), "cpu").search(queries, 10, subset)
    truth = queries.astype(np.float64) @ unit_rows(vectors[subset], np.float64).T
    np.testing.assert_allclose(scores, -np.sort(-truth, axis=1)[:, :10], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(truth, np.searchsorted(subset, positions), 1), scores, atol=1e-6)
    assert (scores.dtype, positions.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("full", FULL, ids=["memory", "cublas"])
def test_a_vector_that_does_not_fit_is_one_line(full: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(flat: FlatOnGpu, chosen: Array) -> Any:
        raise full

    monkeypatch.setattr(FlatOnGpu, "_copied", refused)
    flat = FlatOnGpu(read_only(points(0, N)), "cpu")
    with pytest.raises(UsageError, match=r"^Looking at a part of the vectors needs more memory than cpu has left\. Use"):
        flat.search(unit_rows(points(1, 3)), 10, np.arange(90))


def test_fewer_queries_are_asked_where_cublas_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    products = FlatOnGpu._products

    def limited(flat: FlatOnGpu, queries: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        tried.append(len(queries))
        if len(queries) > 2:
            raise FULL[1]
        return products(flat, queries, rows)

    monkeypatch.setattr(FlatOnGpu, "_products", limited)
    FlatOnGpu(read_only(points(0, N)), "cpu").search(unit_rows(points(1, 4)), 10)
    assert tried == [4, 2, 2]


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered"), EncoderError, "^cpu failed .CUDA error: an ill"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), RuntimeError, "^mat1"),
    ],
    ids=["device", "ours"],
)
def test_what_is_no_want_of_memory_is_not_tried_again(
    fault: Exception, kind: type, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: Any) -> Any:
        raise fault

    monkeypatch.setattr(FlatOnGpu, "_products", fails)
    with pytest.raises(kind, match=said):
        FlatOnGpu(read_only(points(0, N)), "cpu").search(unit_rows(points(1, 4)), 10)


class Config:
    """Of `Cagra`; FAISS's has more."""

    device = graph_degree = intermediate_graph_degree = 0


class Cagra:
    """FAISS's ``GpuIndexCagra`` without a GPU: nearest neighbours by brute force, copied as its ``copyTo`` does."""

    made: list[Config]

    def __init__(self, resources: Any, dim: int, metric: int, config: Config) -> None:
        assert metric == faiss.METRIC_L2
        self.dim, self.config = dim, config
        self.made.append(config)

    def train(self, unit: Array) -> None:
        near = unit @ unit.T
        np.fill_diagonal(near, -np.inf)
        self.unit, self.graph = unit, np.argsort(-near, axis=1)[:, : self.config.graph_degree].astype(np.int32)

    def copyTo(self, index: Any) -> None:  # noqa: N802
        assert index.base_level_only
        links, storage = self.config.graph_degree // 2, faiss.IndexFlatL2(self.dim)
        storage.add(self.unit)
        storage.this.disown()
        index.d, index.ntotal, index.is_trained, index.metric_type = self.dim, len(self.unit), True, faiss.METRIC_L2
        index.storage, index.own_fields, index.keep_max_size_level0 = storage, True, True
        graph = index.hnsw
        graph.reset()
        graph.assign_probas.clear()
        graph.cum_nneighbor_per_level.clear()
        graph.set_default_probas(links, 1 / np.log(links))
        graph.prepare_level_tab(len(self.unit), False)
        neighbours = faiss.vector_to_array(graph.neighbors)
        begin = faiss.vector_to_array(graph.offsets)[:-1].astype(np.int64)
        neighbours[begin[:, None] + np.arange(2 * links)] = self.graph
        faiss.copy_array_to_vector(neighbours, graph.neighbors)


@pytest.fixture
def cagra(monkeypatch: pytest.MonkeyPatch) -> type[Cagra]:
    Cagra.made = []
    monkeypatch.setattr(faiss, "GpuIndexCagra", Cagra, raising=False)
    monkeypatch.setattr(faiss, "GpuIndexCagraConfig", Config, raising=False)
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: None, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    return Cagra


def test_a_graph_of_cagra_can_be_kept_and_is_whole_elsewhere(cagra: type[Cagra], tmp_path: Path) -> None:
    """Another machine looks at every link of a file before it is used."""
    index = gpu.cagra_graph(unit_rows(points(0, N)), 8, "cuda:1")
    (config,) = cagra.made
    assert (config.device, config.graph_degree, config.intermediate_graph_degree) == (1, 16, 32)
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    check_index(tmp_path / "index.faiss")
    read = faiss.read_index(str(tmp_path / "index.faiss"))
    assert (read.ntotal, read.base_level_only) == (N, True)


@pytest.mark.usefixtures("cagra")
def test_walks_through_a_graph_of_cagra_begin_at_entries() -> None:
    """And not where FAISS draws: answers do not hang on how often it does, and are the same from call to call."""
    clustered = points(0, 3000, centres=300, spread=0.005)
    vectors, every, recipe = ArrayVectors(clustered), np.ones(3000, bool), Recipe.parse("HNSW4,Flat")
    index, recipe, entries = build.build(recipe, vectors, every, threads=1, seed=0, device="cuda", say=lambda text: None)
    queries = unit_rows(points(1, 200, centres=300, spread=0.005))
    wanted = -np.sort(-(queries @ unit_rows(clustered).T), axis=1)[:, 4]

    def asked(starts: int, entries: Entries | None) -> tuple[Array, float]:
        index.num_base_level_search_entrypoints = starts
        base = Base(index, recipe, np.arange(3000), vectors, entries)
        scores, positions = base.search(queries, 5, Setting(10, 10))
        return positions, float((scores[:, -1] >= wanted - 1e-5).mean())

    assert entries is not None
    (first, recall), (second, _) = asked(1, entries), asked(32, entries)
    np.testing.assert_array_equal(first, second)
    (few, _), (more, of_more) = asked(1, None), asked(32, None)
    assert (few != more).any()
    assert recall > of_more


@pytest.mark.usefixtures("cagra")
def test_an_index_that_a_gpu_built_answers_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tuned with its entries, renumbered, and searched beside what it does not hold."""
    monkeypatch.setattr(exact, "FlatOnGpu", lambda vectors, device: FlatOnGpu(vectors, "cpu"))
    vectors, queries = points(0, N), points(1, 50)
    index = VectorIndex(factory="HNSW16", device="cuda", threads=1).fit(vectors)
    assert index.base_ is not None
    assert index.base_.entries is not None
    answer = index.search(queries, 10)
    np.testing.assert_array_equal(answer.positions, index.search(queries, 10).positions)
    cosines = unit_rows(queries) @ unit_rows(vectors).T
    np.testing.assert_allclose(answer.scores, np.take_along_axis(cosines, answer.positions, 1), atol=1e-5)
    assert (answer.scores[:, -1] >= -np.sort(-cosines, axis=1)[:, 9] - 1e-5).mean() >= 0.9
