"""`VectorIndex` on arrays: as right as it says, whatever is filtered out, added later or repeated."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import warnings
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest
import torch

from embedstore._core.unit import unit_rows
from embedstore.errors import UsageError
from embedstore.indexing import tune
from embedstore.indexing.answering import Planner
from embedstore.indexing.base import Base, Setting
from embedstore.indexing.measure import SAME, QuerySet, interval
from embedstore.indexing.recipe import Recipe, choose, n_lists, parse_bytes, parse_seconds
from embedstore.indexing.report import IndexReport
from embedstore.indexing.vector_index import VectorIndex
from embedstore.indexing.vectors import as_vectors
from embedstore.retrieval.fusion import first_of_each

Array = npt.NDArray[Any]

N, DIM = 1500, 16
TARGET = 0.9
GRAPHS = ("HNSW32", "HNSW16,Flat", "HNSW16,SQfp16", "HNSW32,RaBitQ2")
FACTORIES = (*GRAPHS, "IVF16,SQ8", "IVF16,RaBitQ", "IVF16,RaBitQ4", "IVF16,Flat", "Flat")
COARSE = ("HNSW16,Flat", "HNSW16,SQfp16", "IVF16,SQ8", "IVF16,RaBitQ", "IVF16,Flat")
SHARES = (0.001, 0.01, 0.1, 0.3, 0.5, 0.9, 0.99, 0.999)


def points(seed: int, n: int) -> Array:
    """Clustered vectors; those of every seed come from one distribution."""
    rng, centres = np.random.default_rng(seed), np.random.default_rng(99).standard_normal((20, DIM))
    return np.asarray(centres[rng.integers(0, 20, n)] + 0.5 * rng.standard_normal((n, DIM)), np.float32)


def cosines(queries: Array, vectors: Array) -> Array:
    """In float64; zero where a vector is."""
    q, v = np.asarray(queries, np.float64), np.asarray(vectors, np.float64)
    q, v = (x / np.where(np.abs(x).max(1, keepdims=True) > 0, np.abs(x).max(1, keepdims=True), 1) for x in (q, v))
    lengths = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(v, axis=1)
    return np.asarray(q @ v.T / np.where(lengths > 0, lengths, 1))


def recall(found: Array, exact: Array) -> float:
    """By score: an answer as good as the exact k-th is right. Both (m, k), descending."""
    return float(np.mean(found >= exact[:, -1:] - 1e-5))


def best(scores: Array, k: int) -> Array:
    return -np.sort(-scores, axis=1)[:, :k]


@pytest.fixture(scope="module")
def made() -> dict[str, VectorIndex]:
    return {f: VectorIndex(recall=TARGET, factory=f, threads=1).fit(points(0, N)) for f in FACTORIES}


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("k", [1, 10, 40])
def test_recall_and_scores_against_float64(made: dict[str, VectorIndex], factory: str, k: int) -> None:
    queries = points(1, 200)
    answer = made[factory].search(queries, k)
    expected = cosines(queries, points(0, N))
    assert answer.positions.dtype == np.int64
    assert (answer.positions >= 0).all()
    assert all(len(set(row)) == k for row in answer.positions.tolist())
    np.testing.assert_allclose(answer.scores, np.take_along_axis(expected, answer.positions, 1), atol=1e-4)
    assert (np.diff(answer.scores, axis=1) <= 1e-6).all()
    exact = recall(answer.scores, best(expected, k))
    assert exact >= (1.0 if factory == "Flat" else TARGET)
    assert (answer.recall is None) == (factory == "Flat")


def test_what_the_report_says_is_so(made: dict[str, VectorIndex]) -> None:
    queries = points(2, 400)
    expected = best(cosines(queries, points(0, N)), 10)
    for factory in COARSE:
        report = made[factory].report_
        assert IndexReport.from_dict(report.to_dict()) == report
        assert (report.type, report.n, report.exact) == (factory, N, False)
        for level in report.levels:
            assert level.lowest.low >= level.target
            answer = made[factory].search(queries, 10, recall=level.target)
            assert answer.recall == level.lowest
            assert level.lowest.low - 0.01 <= recall(answer.scores, expected)


@pytest.mark.parametrize("factory", COARSE)
@pytest.mark.parametrize("planned", ["by cost", "never exact"])
def test_filters(made: dict[str, VectorIndex], factory: str, planned: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """min(k, matching) results, only matching ones, near enough to all the best."""
    if planned == "never exact":
        monkeypatch.setattr(Planner, "_exact_is_faster", lambda self, known, share: False)
    index, vectors, queries = made[factory], points(0, N), points(3, 40)
    expected = cosines(queries, vectors)
    order = np.argsort(-cosines(queries[:1], vectors)[0])
    random = np.random.default_rng(0).permutation(N)
    for share in SHARES:
        count = max(1, round(share * N))
        for kept in (random[:count], order[:count], order[-count:]):  # at random, near the query, far from it
            keep = np.zeros(N, bool)
            keep[kept] = True
            answer = index.search(queries, 10, keep=keep)
            found = min(10, count)
            assert ((answer.positions >= 0).sum(axis=1) == found).all()
            assert keep[answer.positions[:, :found]].all()
            assert (answer.positions[:, found:] == -1).all()
            assert np.isneginf(answer.scores[:, found:]).all()
            mine = np.take_along_axis(expected, answer.positions[:, :found], 1)
            np.testing.assert_allclose(answer.scores[:, :found], mine, atol=1e-4)
            assert recall(answer.scores[:, :found], best(expected[:, keep], found)) >= (TARGET if answer.recall else 1)


def test_queries_beside_what_a_filter_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of whole clusters, some of which a filter keeps, and queries from the others: the recall told is what it is."""
    monkeypatch.setattr(Planner, "_exact_is_faster", lambda self, known, share: False)
    rng = np.random.default_rng(7)
    centres = rng.standard_normal((40, 32))
    of = rng.integers(0, 40, 10_000)
    vectors = np.asarray(centres[of] + 0.5 * rng.standard_normal((10_000, 32)), np.float32)
    index = VectorIndex(recall=0.95, factory="IVF128,SQ8", threads=1).fit(vectors)
    for kept in (10, 16, 28):
        keep = of < kept
        elsewhere = np.asarray(centres[rng.integers(kept, 40, 100)] + 0.5 * rng.standard_normal((100, 32)), np.float32)
        for queries in (elsewhere, vectors[keep][:100] + np.float32(0.1)):
            answer = index.search(queries, 10, keep=keep)
            exact = best(cosines(queries, vectors)[:, keep], 10)
            assert recall(answer.scores, exact) >= (answer.recall.low if answer.recall else 1) - 0.01
        assert answer.recall is not None


def test_a_filter_that_keeps_nothing(made: dict[str, VectorIndex]) -> None:
    for index in made.values():
        answer = index.search(points(1, 3), 5, keep=np.zeros(N, bool))
        assert (answer.positions == -1).all()
        assert np.isneginf(answer.scores).all()


@pytest.mark.parametrize("factory", FACTORIES)
def test_more_than_there_are(factory: str) -> None:
    vectors, queries = points(0, 60), points(1, 5)
    index = VectorIndex(recall=0.5, factory=factory.replace("16,", "4,"), threads=1).fit(vectors)
    answer = index.search(queries, 100)
    np.testing.assert_allclose(answer.scores[:, :60], best(cosines(queries, vectors), 60), atol=1e-4)
    assert (np.sort(answer.positions[:, :60], axis=1) == np.arange(60)).all()
    assert (answer.positions[:, 60:] == -1).all()


@pytest.mark.parametrize(("n", "at"), [(0, 10), (1, 1), (2, 1), (5, 1), (19, 1), (20, 1), (20, 10), (25, 10), (41, 1)])
@pytest.mark.parametrize("factory", ["HNSW8,Flat", "IVF4,RaBitQ", None])
def test_very_few_vectors(n: int, at: int, factory: str | None) -> None:
    index = VectorIndex(factory=factory, at=at, threads=1).fit(points(0, n))
    answer = index.search(points(1, 2), at)
    assert ((answer.positions >= 0).sum(axis=1) == min(n, at)).all()
    if index.report_.exact:
        assert "vectors are searched exactly" in index.report_.why


@pytest.mark.parametrize("factory", ["HNSW16,SQfp16", "HNSW16,Flat", "IVF16,SQ8", "IVF16,Flat", "Flat"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_zeros_and_norms_of_any_size(factory: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    powers = rng.choice([-30, -20, -3, 0, 3, 18, 37], (N, 1)).astype(np.float64)
    vectors = (points(0, N).astype(np.float64) / 20 * 10.0**powers).astype(dtype)
    vectors[[0, 7, 700]] = 0
    queries = points(1, 100) * np.float32(1e-3)
    index = VectorIndex(recall=TARGET, factory=factory, threads=1).fit(vectors)
    expected = cosines(queries, vectors)
    with np.errstate(all="raise", under="ignore"):
        answer = index.search(queries, 10)
    np.testing.assert_allclose(answer.scores, np.take_along_axis(expected, answer.positions, 1), atol=1e-4)
    assert recall(answer.scores, best(expected, 10)) >= TARGET
    everything = index.search(queries[:3], N)
    assert (np.sort(everything.positions, axis=1) == np.arange(N)).all()
    np.testing.assert_allclose(index.search(np.zeros((1, DIM)), 10).scores, 0, atol=1e-6)


def test_numbers_that_float32_cannot_hold_have_a_direction() -> None:
    wide = np.array([[3e300, 4e300], [3e-300, -4e-300], [0, 0]])
    np.testing.assert_allclose(unit_rows(wide), [[0.6, 0.8], [0.6, -0.8], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize("factory", COARSE)
def test_vectors_that_came_later_and_vectors_that_went(made: dict[str, VectorIndex], factory: str) -> None:
    old = made[factory]
    vectors = np.concatenate([points(0, N), points(5, 200)])
    index = VectorIndex.assembled(old.report_, old.base_, as_vectors(vectors))
    queries = np.concatenate([points(5, 200)[:50], points(6, 50)])
    expected = cosines(queries, vectors)
    answer = index.search(queries, 10)
    assert "+ 200 exact" in answer.plan
    assert (answer.positions[:50, 0] == np.arange(N, N + 50)).all()  # themselves, which only the delta knows
    np.testing.assert_allclose(answer.scores, np.take_along_axis(expected, answer.positions, 1), atol=1e-4)
    assert recall(answer.scores, best(expected, 10)) >= TARGET
    live = np.random.default_rng(0).random(len(vectors)) < 0.999  # a few were removed: still the index
    answer = index.search(queries, 10, keep=live)
    assert live[answer.positions].all()
    assert recall(answer.scores, best(expected[:, live], 10)) >= TARGET
    only_new = np.arange(len(vectors)) >= N + 195
    answer = index.search(queries, 10, keep=only_new)
    assert (np.sort(answer.positions[:, :5], axis=1) == np.arange(N + 195, N + 200)).all()
    assert (answer.positions[:, 5:] == -1).all()


@pytest.mark.parametrize("factory", ["HNSW16,SQfp16", "HNSW16,Flat", "IVF16,SQ8", "IVF16,RaBitQ"])
def test_repeated_vectors_do_not_lower_recall(factory: str) -> None:
    """Every vector ten times: which of the copies is found is all the same."""
    vectors = np.repeat(points(0, 150), 10, axis=0)
    index = VectorIndex(recall=TARGET, factory=factory, threads=1).fit(vectors)
    assert index.report_.level().lowest.value >= TARGET
    queries = vectors[::10]
    answer = index.search(queries, 10)
    assert recall(answer.scores, best(cosines(queries, vectors), 10)) >= TARGET
    assert all(len(set(row)) == 10 for row in answer.positions.tolist())


@pytest.mark.parametrize("factory", ["HNSW32", "HNSW16,SQfp16", "IVF16,SQ8"])
@pytest.mark.parametrize(("kinds", "copies"), [(1, 200), (2, 100), (10, 20), (2, 10), (1, 20), (4, 5), (30, 100), (1000, 2)])
def test_hardly_anything_but_copies(factory: str, kinds: int, copies: int) -> None:
    vectors = np.concatenate([np.repeat(points(0, kinds), copies, axis=0), points(2, 1)])
    index = VectorIndex(recall=TARGET, factory=factory, threads=1).fit(vectors)
    queries = np.concatenate([points(0, kinds)[:50], points(1, 20)])
    k = min(copies, 50)
    answer = index.search(queries, k)
    found = recall(answer.scores, best(cosines(queries, vectors), k))
    assert found >= (0.8 if factory.startswith("HNSW") else 0.7)
    if index.report_.exact:
        assert found == 1
        assert "leave nothing to measure recall on" in index.report_.why or "exact" in index.report_.why


@pytest.mark.parametrize("factory", ["HNSW32,SQfp16", "HNSW32,Flat"])
@pytest.mark.parametrize("dim", [24, 96])
def test_copies_in_the_middle_of_a_cluster_are_all_found(factory: str, dim: int) -> None:
    rng = np.random.default_rng(0)
    centre = rng.standard_normal((1, dim))
    vectors = np.concatenate([np.repeat(centre, 200, axis=0), centre + 0.6 * rng.standard_normal((2500, dim))])
    vectors = rng.permutation(vectors).astype(np.float32)
    base = VectorIndex(recall=TARGET, factory=factory, threads=1).fit(vectors).base_
    assert base is not None
    scores, _ = base.search(unit_rows(centre), 100, Setting(2048, 100))
    assert (scores > 1 - 1e-5).mean() >= 0.9


def test_measured_recall_holds_for_new_queries_among_repeated_vectors() -> None:
    vectors = np.repeat(points(0, 150), 10, axis=0)
    index = VectorIndex(recall=0.95, factory="HNSW16,Flat", threads=1).fit(vectors)
    queries = points(1, 400)
    answer = index.search(queries, 10)
    assert answer.recall is not None
    assert recall(answer.scores, best(cosines(queries, vectors), 10)) >= answer.recall.low


@pytest.mark.parametrize("factory", ["HNSW16,Flat", "HNSW16,SQfp16", "HNSW16,RaBitQ2"])
def test_walks_begin_at_vectors_of_the_index(factory: str) -> None:
    """What held-out vectors did to the labels included: every entry is the stored vector that it says it is."""
    vectors = np.concatenate([points(0, N), np.zeros((1, DIM), np.float32)])[::-1]
    base = VectorIndex(recall=TARGET, factory=factory, threads=1).fit(np.ascontiguousarray(vectors)).base_
    assert base is not None
    assert base.entries is not None
    assert 40 < len(base.entries) <= 64
    queries = unit_rows(points(1, 300))
    for some in (queries, queries[:1], queries[:0]):
        labels, distances = base.entries.nearest(some)
        begin = unit_rows(vectors[base.labels[labels]])
        np.testing.assert_allclose(distances, ((some - begin) ** 2).sum(axis=1), atol=1e-4)
    assert len(np.unique(base.entries.nearest(queries)[0])) > 30
    assert (base.labels[base.entries.nearest(queries)[0]] > 0).all()  # the zeros at position 0 are no vector of the index


def test_walks_that_begin_at_entries_find_what_those_through_the_layers_find() -> None:
    vectors, queries = points(0, 6000), unit_rows(points(1, 300))
    index = VectorIndex(recall=TARGET, factory="HNSW16,Flat", threads=1).fit(vectors)
    base = index.base_
    assert base is not None
    layered = Base(base.index, base.recipe, base.labels, base.vectors)
    expected, effort = best(cosines(queries, vectors), 10), Setting(16, 10)
    found, taken = [], []
    for each in (base, layered):
        faiss.cvar.hnsw_stats.reset()
        scores, _ = each.search(queries, 10, effort)
        found.append(recall(scores, expected))
        taken.append(faiss.cvar.hnsw_stats.ndis)
        one = [each.one(query, 10, effort) for query in queries]
        np.testing.assert_allclose(np.concatenate([answer[0] for answer in one if answer]), scores, atol=1e-6)
    assert found[0] >= found[1] - 0.005
    assert taken[0] < 1.25 * taken[1]  # a gain it is among more vectors


@pytest.mark.parametrize("factory", COARSE)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_second_look_is_a_harder_search_for_those_in_doubt(made: dict[str, VectorIndex], factory: str, threads: int) -> None:
    base, queries = made[factory].base_, unit_rows(points(1, 300))
    assert base is not None
    candidates = 20 if base.recipe.reranked else 10
    efforts = (1, 8) if base.recipe.kind == "ivf" else (10, 60)
    little, much = (Setting(effort, candidates) for effort in efforts)
    first, second = base.search(queries, 10, little), base.search(queries, 10, much)
    doubt = float(np.median(first[0][:, 0]))
    both = Setting(little.effort, candidates, much.effort, doubt)
    doubted = first[0][:, :1] < doubt
    scores, positions = base.search(queries, 10, both, threads=threads)
    np.testing.assert_allclose(scores, np.where(doubted, second[0], first[0]), atol=1e-6)
    assert (positions == np.where(doubted, second[1], first[1])).all()
    for query, expected in zip(queries[:50], scores, strict=False):
        if (alone := base.one(3 * query, 10, both)) is not None:
            np.testing.assert_allclose(alone[0][0], expected, atol=1e-5)
    assert both.scaled(2) == Setting(2 * little.effort, 2 * candidates, 2 * much.effort, doubt)


def test_who_fails_stops_the_others(made: dict[str, VectorIndex], monkeypatch: pytest.MonkeyPatch) -> None:
    base, asked = made["HNSW16,Flat"].base_, []
    assert base is not None
    both = threading.Barrier(2)

    def failing(self: Base, unit: Array, *_: Any) -> Any:
        asked.append(len(unit))
        both.wait(10)
        raise OSError("the disk is gone")

    monkeypatch.setattr(Base, "_part", failing)
    with pytest.raises(OSError, match="the disk is gone"):
        base.search(unit_rows(points(1, 6400)), 10, Setting(16, 10), threads=2)
    assert len(asked) == 2  # of fifty


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_of_a_process_that_searched_can_search(made: dict[str, VectorIndex]) -> None:
    base, queries = made["HNSW16,Flat"].base_, unit_rows(points(1, 20))
    assert base is not None
    base.search(queries, 10, Setting(16, 10), threads=2)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=base.search, args=(queries, 10, Setting(16, 10)), kwargs={"threads": 2})
    child.start()
    child.join(20)
    child.kill()
    assert child.exitcode == 0


def test_one_query_takes_the_effort_of_a_batch() -> None:
    index = VectorIndex(recall=0.9, factory="IVF64,Flat", threads=1).fit(points(0, N))
    base, queries = index.base_, unit_rows(points(1, 50))
    assert base is not None
    together = base.search(queries, 10, Setting(1, 10))[0]
    for query, scores in zip(queries, together, strict=True):
        if (found := base.one(query, 10, Setting(1, 10))) is not None:
            np.testing.assert_allclose(found[0][0], scores, atol=1e-6)


@pytest.mark.parametrize("factory", ["HNSW16,Flat", "IVF16,SQ8"])
def test_numbers_of_numpy_and_no_queries_at_all(made: dict[str, VectorIndex], factory: str) -> None:
    queries = points(1, 1)
    found = made[factory].search(queries, np.int64(7))  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.positions, made[factory].search(queries, 7).positions)
    assert made[factory].search(queries[:0], 7).positions.shape == (0, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made[factory].search(queries.astype(np.float64) * 1e300, 7).positions.shape == (1, 7)


def test_one_query_cannot_tune_and_confirm() -> None:
    with pytest.raises(UsageError, match="'mine' should be 2 or more"):
        VectorIndex(factory="HNSW16,Flat", threads=1).fit(points(0, N), {"mine": points(1, 1)})


class Hard:
    """Stands for a graph in which some queries take more effort than others, and time is effort."""

    recipe = Recipe("hnsw", 32, "Flat")
    clock = 0.0

    def __init__(self, best_of_hard: float) -> None:
        self.best_of_hard = best_of_hard

    def __len__(self) -> int:
        return 100_000

    def one(self, query: Array, k: int, setting: Setting) -> None:
        return None

    def search(self, unit: Array, k: int, setting: Setting, *, threads: int = 1) -> tuple[Array, Array]:
        hard = unit[:, 0] > 0
        score = np.where(hard, self.best_of_hard, 0.9)
        effort = np.where((score < setting.doubt) & (setting.again > 0), setting.again, setting.effort)
        self.clock += float(setting.effort * len(unit) + setting.again * (effort == setting.again).sum())
        right = effort >= np.where(hard, 200, 12)
        scores = np.repeat(np.where(right, score, score - 0.1)[:, None], k, axis=1)
        scores[:, 0] = score
        return scores, np.zeros((len(unit), k), np.int64)


@pytest.mark.parametrize("best_of_hard", [0.3, 0.9])
def test_the_tuner_finds_second_looks_where_scores_tell_who_needs_them(
    monkeypatch: pytest.MonkeyPatch, best_of_hard: float
) -> None:
    base: Any = Hard(best_of_hard)
    monkeypatch.setattr(tune.time, "perf_counter", lambda: base.clock)
    hard = np.random.default_rng(0).random(1600) < 0.08
    kth = np.where(hard, best_of_hard, 0.9).astype(np.float32)
    queries = QuerySet(np.where(hard, 1, -1)[:, None].astype(np.float32), kth)
    (level,) = tune.Tuner(base, {"held out": queries}, 10).levels([0.99])
    assert level.recall["held out"].low > 0.99
    assert level.setting.effort >= (12 if best_of_hard < 0.9 else 200)
    if best_of_hard < 0.9:
        assert level.setting.effort < 130
        assert level.setting.again >= 200
        assert 0.2 < level.setting.doubt <= 0.9
    else:
        assert not level.setting.again


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_exact_search_on_a_device_of_torch(dtype: type) -> None:
    """On the CPU, which torch knows as cpu:0 as well; a GPU differs in one call."""
    vectors = (points(0, N) * 10.0 ** np.random.default_rng(0).integers(-2, 3, (N, 1))).astype(dtype)
    vectors[[0, 700]] = 0
    queries = np.concatenate([points(1, 99), np.zeros((1, DIM))])
    index = VectorIndex(factory="Flat", device="cpu:0").fit(vectors)
    expected = cosines(queries, vectors)
    for keep in (None, np.arange(N) % 3 == 0, np.arange(N) < 4, np.zeros(N, bool)):
        answer = index.search(queries, 10, keep=keep)
        among = expected if keep is None else np.where(keep, expected, -np.inf)
        found = (among > -np.inf).sum(axis=1).clip(max=10)
        assert ((answer.positions >= 0).sum(axis=1) == found).all()
        wanted = best(among, 10)
        np.testing.assert_allclose(answer.scores[wanted > -np.inf], wanted[wanted > -np.inf], atol=1e-6)
        there = answer.positions >= 0
        np.testing.assert_allclose(answer.scores[there], np.take_along_axis(expected, answer.positions, 1)[there], atol=1e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there() -> None:
    index = VectorIndex(factory="Flat", device="cuda").fit(points(0, N))
    with pytest.raises(UsageError, match="1,500 vectors of 16 cannot be kept on 'cuda': "):
        index.search(points(1, 2), 10)


def test_only_what_is_wanted_is_in_the_base() -> None:
    vectors = points(0, N)
    wanted = np.arange(N) % 3 > 0
    index = VectorIndex(recall=TARGET, factory="IVF16,SQ8", threads=1).fit(vectors, wanted=wanted)
    assert index.base_ is not None
    np.testing.assert_array_equal(np.sort(index.base_.labels), np.flatnonzero(wanted))
    assert index.report_.n == wanted.sum()
    answer = index.search(vectors[::3], 1)  # the others are searched exactly beside it
    np.testing.assert_allclose(answer.scores, 1, atol=1e-5)


@pytest.mark.parametrize(("m", "mean", "concentration"), [(200, 0.9, 3), (400, 0.95, 3), (800, 0.95, 1), (800, 0.98, 3)])
def test_the_interval_covers_the_truth(m: int, mean: float, concentration: float) -> None:
    """Wilson's interval with answers that go together by query: of 95 intervals in 100 the truth is inside."""
    rng, covered = np.random.default_rng(0), []
    for _ in range(1500):
        shares = rng.beta(mean * concentration, (1 - mean) * concentration, m)
        score = interval(rng.binomial(10, shares) / 10, 10)
        assert 0 <= score.low <= score.value <= score.high <= 1
        covered.append(score.low <= mean <= score.high)
    assert 0.93 <= np.mean(covered) <= 0.975


def test_intervals_at_the_ends() -> None:
    assert interval(np.ones(100), 10).high == 1
    assert 0.95 < interval(np.ones(100), 10).low < 1
    assert interval(np.zeros(100), 10).low == 0
    none = interval(np.empty(0), 10)
    assert (none.low, none.high) == (0, 1)


def test_tuning_and_reporting_see_different_queries(made: dict[str, VectorIndex], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Array] = []
    real = Base.search

    def search(self: Base, unit: Array, *arguments: Any, **named: Any) -> Any:
        seen.append(unit)
        return real(self, unit, *arguments, **named)

    monkeypatch.setattr(Base, "search", search)
    index = VectorIndex(recall=TARGET, factory="IVF16,SQ8", threads=1).fit(points(0, N))
    halves = {unit.tobytes() for unit in seen if len(unit) == 75}
    assert len(halves) == 2  # of 150 held out
    one, other = (np.frombuffer(half, np.float32).reshape(75, DIM) for half in halves)
    assert cosines(one, other).max() < 1 - 1e-6
    assert index.base_ is not None
    assert len(index.base_) == N  # in the end, what was held out is in the index, too


def test_real_queries_are_measured_apart() -> None:
    far = points(4, 300)[:, ::-1].copy()
    index = VectorIndex(recall=0.8, factory="IVF16,SQ8", threads=1).fit(points(0, N), {"far": far})
    level = index.report_.level()
    assert level.recall.keys() == {"held out", "far"}
    assert all(score.low >= 0.8 for score in level.recall.values())
    answer = index.search(points(8, 300)[:, ::-1], 10)
    exact = best(cosines(points(8, 300)[:, ::-1], points(0, N)), 10)
    assert recall(answer.scores, exact) >= 0.8
    with pytest.raises(UsageError, match=r"Queries 'far' should have shape \(m, 16\)"):
        VectorIndex(factory="IVF16,SQ8").fit(points(0, N), {"far": far[:, :3]})
    with pytest.raises(UsageError, match="Queries 'far' hold NaN"):
        VectorIndex(factory="IVF16,SQ8").fit(points(0, N), {"far": np.full((3, DIM), np.nan)})


def test_a_recall_that_cannot_be_proven_is_noted() -> None:
    index = VectorIndex(recall=0.999, factory="IVF16,SQ8", threads=1).fit(points(0, 300))
    assert not index.report_.exact
    (note,) = index.report_.notes
    assert "recall 0.999 is not proven" in note
    assert "15 queries" in note
    answer = index.search(points(1, 20), 10)
    assert answer.recall is not None
    assert answer.recall.low < 0.999  # what was measured, not what was asked for
    assert recall(answer.scores, best(cosines(points(1, 20), points(0, 300)), 10)) > 0.99


def test_too_slow_is_noted() -> None:
    index = VectorIndex(recall=0.8, factory="IVF16,SQ8", latency="0.001us", threads=1).fit(points(0, N))
    assert any("at the 95th percentile, not 1e-06 ms" in note for note in index.report_.notes)


def test_recall_of_one_is_exact(made: dict[str, VectorIndex]) -> None:
    queries = points(1, 20)
    for index in made.values():
        answer = index.search(queries, 10, recall=1)
        assert answer.recall is None
        np.testing.assert_allclose(answer.scores, best(cosines(queries, points(0, N)), 10), atol=1e-5)


@pytest.mark.parametrize("factory", ["HNSW16,SQfp16", "IVF16,RaBitQ"])
def test_one_seed_gives_one_index(factory: str) -> None:
    import faiss

    one, other, third = (
        VectorIndex(recall=TARGET, factory=factory, threads=1, seed=seed).fit(points(0, N)).base_ for seed in (0, 0, 1)
    )
    assert one is not None and other is not None and third is not None  # noqa: PT018
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(faiss.serialize_index(one.index), faiss.serialize_index(other.index))
    assert not np.array_equal(faiss.serialize_index(one.index), faiss.serialize_index(third.index))


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_no_answer(made: dict[str, VectorIndex], threads: int) -> None:
    for factory in COARSE:
        index = made[factory]
        assert index.base_ is not None
        setting = index.report_.level().setting
        scores, positions = index.base_.search(unit_rows(points(1, 300)), 10, setting, threads=threads)
        alone = [index.base_.search(unit_rows(q[None]), 10, setting) for q in points(1, 300)[:20]]
        np.testing.assert_allclose(scores[:20], np.concatenate([s for s, _ in alone]), atol=1e-6)
        assert positions.shape == (300, 10)


@pytest.mark.parametrize(
    ("given", "bytes_"),
    [("4GB", 4 * 10**9), ("4 gb", 4 * 10**9), ("512MiB", 512 << 20), ("1.5K", 1500), ("7", 7), (7, 7), (None, None)],
)
def test_memory_strings(given: Any, bytes_: int | None) -> None:
    assert parse_bytes(given) == bytes_


@pytest.mark.parametrize(("given", "seconds"), [("5ms", 0.005), ("0.2s", 0.2), ("80 us", 8e-5), (3, 3), (None, None)])
def test_latency_strings(given: Any, seconds: float | None) -> None:
    assert parse_seconds(given) == pytest.approx(seconds)


def test_memory_chooses_and_names_the_least() -> None:
    assert choose(50_000, 512).kind == "exact"
    assert str(choose(1_000_000, 512)) == "HNSW32,SQfp16"
    needed = [str(choose(1_000_000, 512, parse_bytes(memory))) for memory in ("9GB", "1GB")]
    assert needed == sorted(set(needed), key=needed.index)  # less memory, another kind
    assert choose(20_000_000, 512).kind == "ivf"
    with pytest.raises(UsageError, match=r"the smallest needs [\d,]+\. Give it --memory [\d.]+GB") as error:
        choose(1_000_000, 512, parse_bytes("10MB"))
    least = str(error.value).partition("--memory ")[2].partition(",")[0]
    assert choose(1_000_000, 512, parse_bytes(least)).kind != "exact"
    with pytest.raises(UsageError, match=r"HNSW16,Flat of 1,500 vectors of 16 numbers needs .* --memory 0\.4GB"):
        VectorIndex(factory="HNSW16,Flat", memory="1MB").fit(points(0, N))
    assert n_lists(0) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"recall": 0}, "recall must lie between 0 and 1"),
        ({"recall": 1.0}, "recall must lie between 0 and 1"),
        ({"recall": 1.5}, "Got 1.5"),
        ({"at": 0}, "at must be at least 1"),
        ({"factory": "PQ8"}, "'PQ8' is no index that can be built here. Take one like Flat, HNSW32"),
        ({"factory": "IVF16,PQ8"}, "IVF1024,RaBitQ"),
        ({"factory": "HNSW2"}, "between 4 and 128"),
        ({"factory": "HNSW32,SQ8"}, "Take SQfp16 or RaBitQ2"),
        ({"factory": "IVF0"}, "at least one list"),
        ({"factory": ""}, None),
        ({"memory": "lots"}, "memory should be a size such as 4GB"),
        ({"memory": "lots", "factory": "IVF16"}, "memory should be a size such as 4GB"),
        ({"memory": "-1GB"}, "Got '-1GB'"),
        ({"latency": "soon"}, "latency should be a time such as 5ms"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], words: str | None) -> None:
    if words is None:  # no factory: chosen by size
        assert VectorIndex(**options).fit(points(0, 30)).report_.exact
        return
    with pytest.raises(UsageError) as error:
        VectorIndex(**options).fit(points(0, N))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("factory", ["IVF16,SQ8", "HNSW16,SQfp16", "Flat"])
def test_what_is_no_vector(made: dict[str, VectorIndex], factory: str) -> None:
    broken = points(0, N)
    broken[1234, 5] = np.nan
    with pytest.raises(UsageError, match="vector at position 1234 holds NaN or infinity"):
        VectorIndex(factory=factory).fit(broken)
    index = made.get(factory) or made["Flat"]
    with pytest.raises(UsageError, match=r"Queries should be numbers of shape \(m, 16\)\. Got float64\(2, 5\)"):
        index.search(np.ones((2, 5)))
    with pytest.raises(UsageError, match="query at position 1 holds NaN"):
        index.search(np.array([[1.0] * DIM, [np.inf] * DIM]))
    with pytest.raises(UsageError, match="k must be at least 1"):
        index.search(np.ones((1, DIM)), 0)
    with pytest.raises(UsageError, match=r"keep should have shape \(1500,\)"):
        index.search(np.ones((1, DIM)), keep=np.ones(3, bool))
    with pytest.raises(UsageError, match=r"shape \(n, dim\)"):
        VectorIndex().fit(np.ones(3))


def test_recipes_round_trip() -> None:
    for factory in (*FACTORIES, "HNSW32,Flat", "IVF4096,SQfp16"):
        recipe = Recipe.parse(factory)
        assert Recipe(**recipe.to_dict()) == recipe
        assert recipe.bytes(1000, 64) >= 0
    assert Recipe.parse("HNSW32_SQfp16") == Recipe.parse(" HNSW32, SQfp16 ")
    assert SAME < 1e-5


def test_es_index_is_the_function_whatever_was_imported_before() -> None:
    """The folder folder of the indexes must not take its name."""
    script = "import embedstore as es; es.VectorIndex, es.search"
    script += "; assert es.index.__module__ == 'embedstore.retrieval.index', es.index"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_one_query_is_answered_as_in_a_batch() -> None:
    index = VectorIndex(recall=TARGET, factory="HNSW16", threads=1).fit(points(0, N))
    queries = points(1, 30)
    together = index.search(queries, 10)
    for dtype in (np.float32, np.float64, np.float16):
        for i, query in enumerate(queries.astype(dtype)):
            alone = index.search(3 * query, 10)
            np.testing.assert_allclose(alone.scores[0], together.scores[i], atol=1e-5 if dtype != np.float16 else 1e-2)
            if dtype != np.float16:
                np.testing.assert_array_equal(alone.positions[0], together.positions[i])
    assert index.search(queries[0], N + 5).positions.shape == (1, N)
    zero = np.zeros((1, queries.shape[1]), np.float32)
    np.testing.assert_array_equal(index.search(zero, 3).scores, index.search(np.repeat(zero, 2, 0), 3).scores[:1])
    with pytest.raises(UsageError, match="position 0 holds NaN"):
        index.search(np.full_like(zero, np.nan), 3)
    with pytest.raises(UsageError, match="k must be at least 1"):
        index.search(queries[:1], 0)


@pytest.mark.parametrize("factory", ["HNSW16,Flat", "HNSW16,SQfp16", "IVF16,SQ8", "Flat"])
@pytest.mark.parametrize("k", [N + 1, 10**12, 10**20])
def test_no_more_columns_than_vectors(made: dict[str, VectorIndex], factory: str, k: int) -> None:
    index = made.get(factory) or made["Flat"]
    keep = np.arange(N) % 3 == 0
    for mask, there in ((None, N), (keep, int(keep.sum()))):
        answer = index.search(points(1, 2), k, keep=mask)
        assert answer.scores.shape == answer.positions.shape == (2, N)
        assert (answer.positions[:, there:] == -1).all()
        assert all(len(set(row)) == there for row in answer.positions[:, :there].tolist())
    assert VectorIndex().fit(points(0, 0)).search(points(1, 2), k).positions.shape == (2, 0)


def test_groups_of_values_without_a_hash() -> None:
    values = [["a"], {"x": 1}, ["a"], None, ["a", "b"], {"x": 1}, None, ["a"], "['a']"]
    assert first_of_each(values, 1).tolist() == [0, 1, 3, 4, 8]
    assert first_of_each(values, 2).tolist() == [0, 1, 2, 3, 4, 5, 6, 8]
    assert first_of_each([], 1).tolist() == []
