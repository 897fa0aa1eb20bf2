"""Alignment against scikit-learn and float64, planted relations, ranks that copies cannot flatter, projected spaces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Telling
from sklearn.cross_decomposition import CCA
from typer.testing import CliRunner

import embedstore as es
from embedstore._core.encoding import encoding, sealed
from embedstore.errors import CorruptStoreError, HeadError, UsageError
from embedstore.evaluation.paired import content_codes, copy_groups, rank_distinct, rank_pairs
from embedstore.heads.aligner import Aligner
from embedstore.heads.aligner_io import AlignRecord, load_aligner, save_aligner
from embedstore.retrieval.align import AlignReport, align
from embedstore.retrieval.aligned_spaces import ProjectedSpace, SearchableSpace, query_space, skipped_aligners, spaces_of
from embedstore.sources import MemorySource
from embedstore.store.verify import verify

Array = np.ndarray[Any, Any]
FAST = {"penalties": (0.1, 1.0), "powers": (0.5, 1.0), "dims": ()}


def unit(x: Array) -> Array:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def related(n: int, d1: int = 16, d2: int = 24, noise: float = 0.05, seed: int = 0) -> dict[str, Array]:
    """Two sides that show the same latent vector, each turned in its own way."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n, 8))
    turns = np.random.default_rng(99)
    sides = {name: latent @ turns.standard_normal((8, d)) for name, d in (("text", d1), ("image", d2))}
    return {name: (x + noise * rng.standard_normal(x.shape) * x.std()).astype(np.float32) for name, x in sides.items()}


def test_correlations_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    X = {"a": unit(rng.standard_normal((300, 6))), "b": rng.standard_normal((300, 5))}
    X["b"][:, :3] += 1.5 * X["a"][:, :3] * 3
    X["b"] = unit(X["b"])
    ours = Aligner(penalties=(1e-9,), powers=(1.0,), dims=()).fit(X).correlations_
    theirs = CCA(n_components=5, max_iter=5000, tol=1e-12).fit(X["a"], X["b"])
    u, v = theirs.transform(X["a"], X["b"])
    expected = [np.corrcoef(u[:, k], v[:, k])[0, 1] for k in range(5)]
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize(("d1", "d2"), [(7, 12), (12, 7), (60, 50)])
def test_correlations_equal_the_generalised_eigenproblem(d1: int, d2: int) -> None:
    """With penalties: eigenvalues of (A + aI)⁻¹ C (B + bI)⁻¹ Cᵀ; also with fewer items than dimensions."""
    X = {name: unit(x.astype(np.float64)) for name, x in related(40, d1, d2, noise=0.5).items()}
    ours = Aligner(penalties=(0.5,), powers=(1.0,), dims=()).fit(X).correlations_
    x, y = (side - side.mean(axis=0) for side in X.values())
    a, b, c = x.T @ x / 40, y.T @ y / 40, x.T @ y / 40
    left = np.linalg.solve(a + 0.5 * np.trace(a) / d1 * np.eye(d1), c)
    right = np.linalg.solve(b + 0.5 * np.trace(b) / d2 * np.eye(d2), c.T)
    expected = np.sqrt(np.maximum(np.sort(np.linalg.eigvals(left @ right).real)[::-1], 0))[: len(ours)]
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_recovers_a_planted_relation() -> None:
    X = related(400)
    aligner = Aligner().fit(X)
    rankings = aligner.rank(related(200, seed=1))
    assert rankings.keys() == {("text", "image"), ("image", "text")}
    for ranking in rankings.values():
        assert ranking.scores()["r@1"].value > 0.95
        assert ranking.chance()["r@1"] == pytest.approx(1 / 200)
    assert aligner.mrr_ > 0.95
    assert aligner.score(related(200, seed=1)) > 0.95


def test_unrelated_sides_are_no_better_than_chance() -> None:
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        X = {"text": rng.standard_normal((400, 8)), "image": rng.standard_normal((400, 9))}
        aligner = Aligner(**FAST).fit({name: x[:200] for name, x in X.items()})
        found += aligner.rank({name: x[200:] for name, x in X.items()}).values()
    mrr = np.array([ranking.mrr for ranking in found])
    assert mrr.mean() == pytest.approx(found[0].chance()["mrr"], abs=3 * mrr.std() / np.sqrt(len(mrr)))


def test_missing_modalities_are_left_out() -> None:
    X = related(300)
    rng = np.random.default_rng(1)
    present = {name: rng.random(300) > 0.2 for name in X}
    both = present["text"] & present["image"]
    holed = {name: np.where(present[name][:, None], x, np.nan) for name, x in X.items()}
    ours = Aligner(**FAST).fit(holed, present=present)
    theirs = Aligner(**FAST).fit({name: x[both] for name, x in X.items()})
    assert ours.pairs_ == both.sum()
    for name in X:
        np.testing.assert_array_equal(ours.weight_[name], theirs.weight_[name])
    assert ours.rank(holed, present=present)["text", "image"].gallery == both.sum()


def test_projections_are_unit_float32_and_do_not_depend_on_scale() -> None:
    X = related(100)
    aligner = Aligner(**FAST).fit(X)
    projected = aligner.project("text", X["text"])
    assert projected.dtype == np.float32
    assert projected.shape == (100, aligner.dim_)
    np.testing.assert_allclose(np.linalg.norm(projected, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(aligner.project("text", 7 * X["text"]), projected, atol=1e-5)
    assert aligner.project("text", np.empty((0, 16))).shape == (0, aligner.dim_)


def test_the_dimension_is_chosen() -> None:
    assert Aligner(penalties=(1.0,), powers=(1.0,), dims=(2, 8)).fit(related(300)).dim_ >= 8
    assert Aligner(penalties=(1.0,), powers=(1.0,), dims=()).fit(related(300)).dim_ == 16


def test_scikit_learn_manner() -> None:
    aligner = Aligner(folds=3)
    assert aligner.get_params()["folds"] == 3
    assert aligner.set_params(seed=4).seed == 4
    assert "folds=3" in repr(aligner)
    with pytest.raises(HeadError, match="no parameter 'k'"):
        aligner.set_params(k=1)
    X = related(60)
    assert aligner.fit(X) is aligner
    again = Aligner(folds=3, seed=4).fit(X)
    np.testing.assert_array_equal(aligner.weight_["text"], again.weight_["text"])


def brute_force(queries: Array, gallery: Array, q_codes: Array, g_codes: Array, distinct: bool) -> list[float]:
    """Ranks by sorting, one query at a time; a tie counts half."""
    pairs = set(zip(q_codes.tolist(), g_codes.tolist(), strict=True))
    q_at = np.unique(q_codes, return_index=True)[1] if distinct else np.arange(len(queries))
    g_at = np.unique(g_codes, return_index=True)[1] if distinct else np.arange(len(queries))
    ranks = []
    for q in q_at:
        scores = gallery[g_at] @ queries[q]
        partners = np.array([(int(q_codes[q]), int(g_codes[g])) in pairs for g in g_at])
        right = partners if distinct else g_codes == g_codes[q]
        best, others = scores[right].max(), scores[~right]
        tie = np.abs(others - best) <= 1e-6
        ranks.append(1 + ((others > best) & ~tie).sum() + tie.sum() / 2)
    return ranks


@pytest.mark.parametrize("distinct", [False, True])
def test_ranks_equal_brute_force(distinct: bool) -> None:
    rng = np.random.default_rng(0)
    q_codes, g_codes = rng.integers(0, 60, 90), rng.integers(0, 70, 90)
    queries = unit(rng.standard_normal((60, 4)))[q_codes]
    gallery = unit(rng.standard_normal((70, 4)))[g_codes]
    found = (rank_distinct if distinct else rank_pairs)(queries, gallery, q_codes, g_codes)
    assert found.ranks.tolist() == brute_force(queries, gallery, q_codes, g_codes, distinct)
    assert found.gallery == (len(np.unique(g_codes)) if distinct else 90)


def test_a_projection_that_tells_nothing_apart_gets_no_credit() -> None:
    same = np.ones((100, 3)) / np.sqrt(3)
    found = rank_pairs(same, same, np.arange(100), np.arange(100))
    assert found.ranks.tolist() == [1 + 99 / 2] * 100
    assert found.scores()["r@10"].value == 0


def test_chance_equals_simulation() -> None:
    rng = np.random.default_rng(0)
    codes = np.array([0] * 6 + [1] * 3 + list(range(2, 13)))
    ranks = [rank_pairs(unit(rng.standard_normal((20, 3))), unit(rng.standard_normal((20, 3))), codes, codes) for _ in range(3)]
    chance = ranks[0].chance()
    simulated = []
    for _ in range(4000):
        order = rng.permutation(20)
        simulated.append([np.flatnonzero(codes[order] == code)[0] + 1 for code in codes])
    found = np.array(simulated)
    assert chance["r@5"] == pytest.approx((found <= 5).mean(), abs=0.01)
    assert chance["mrr"] == pytest.approx((1 / found).mean(), abs=0.01)


def test_copies_stay_together() -> None:
    text, image = np.array([0, 0, *range(1, 29)]), np.array([0, 1, 1, *range(2, 29)])
    groups = copy_groups(text, image)
    assert len(set(groups[:3])) == 1  # the first two share a text, the second and third an image
    assert len(set(groups)) == 28
    few = copy_groups(np.arange(100) % 3, np.arange(100))
    assert len(set(few)) == 100  # three texts for everything: only whole copies are kept together
    assert content_codes(np.array([[1, 2], [3, 4], [1, 2]])).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ({"text": np.ones((20, 3))}, "two names"),
        ({"text": np.eye(9), "image": np.eye(9)}, "at least 10 items that have both 'text' and 'image'; 9 do"),
        ({"text": np.ones((20, 3)), "image": np.random.default_rng(0).random((20, 3))}, "'text' is the same vector"),
        ({"text": np.eye(20), "image": np.full((20, 2), np.nan)}, "'image' holds NaN or infinity in item 0"),
        ({"text": np.eye(20), "image": np.eye(19)}, "different numbers of items"),
    ],
)
def test_what_cannot_be_aligned(X: dict[str, Array], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        Aligner().fit(X)


@pytest.mark.parametrize("params", [{"penalties": (0.0,)}, {"penalties": ()}, {"powers": ()}, {"dims": (0,)}, {"folds": 1}])
def test_bad_parameters(params: dict[str, Any]) -> None:
    with pytest.raises(HeadError, match=f"{next(iter(params))} should be"):
        Aligner(**params).fit(related(50))


def test_what_cannot_be_projected() -> None:
    with pytest.raises(HeadError, match="not fitted"):
        Aligner().project("text", np.ones((1, 16)))
    aligner = Aligner(**FAST).fit(related(50))
    with pytest.raises(HeadError, match=r"no side 'sound'\. Sides: text, image"):
        aligner.project("sound", np.ones((1, 16)))
    with pytest.raises(HeadError, match=r"shape \(n, 16\). Got \(1, 3\)"):
        aligner.project("text", np.ones((1, 3)))
    with pytest.raises(HeadError, match="Vector 1 of 'text' holds NaN"):
        aligner.project("text", np.array([[1.0] * 16, [np.nan] * 16]))


def specs(dims: dict[str, int]) -> dict[str, Any]:
    return {name: Telling(d, "text", name).spec for name, d in dims.items()}


def test_save_and_load_bitwise(tmp_path: Path) -> None:
    X = related(80)
    record = AlignRecord("a", specs({"text": 16, "image": 24}), Aligner(**FAST).fit(X), {"items": {"train": 80}})
    save_aligner(tmp_path / "a", record, {"note.txt": b"hello"})
    loaded = load_aligner(tmp_path / "a")
    for name, x in X.items():
        np.testing.assert_array_equal(loaded.head.project(name, x), record.head.project(name, x))
        assert loaded.head.weight_[name].dtype == np.float32
    assert loaded.alignment == record.alignment
    assert loaded.head.state().config == record.head.state().config
    assert (loaded.name, dict(loaded.inputs), loaded.report) == ("a", record.inputs, record.report)
    np.testing.assert_array_equal(loaded.head.correlations_, record.head.correlations_)
    save_aligner(tmp_path / "a", loaded, {})
    assert sorted(p.name.split("-")[0] for p in (tmp_path / "a").iterdir()) == ["head.json", "weights"]


def test_an_aligner_is_called_as_its_folder(tmp_path: Path) -> None:
    """Its name becomes that of its spaces, and the path of their indexes."""
    record = AlignRecord("../../evil", specs({"text": 16, "image": 24}), Aligner(**FAST).fit(related(80)))
    save_aligner(tmp_path / "a", record, {})
    assert load_aligner(tmp_path / "a").name == "a"


def test_damage_is_found(tmp_path: Path) -> None:
    record = AlignRecord("a", specs({"text": 16, "image": 24}), Aligner(**FAST).fit(related(80)))
    save_aligner(tmp_path / "a", record, {})
    weights = next((tmp_path / "a").glob("weights*"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CorruptStoreError, match="differs from what was saved"):
        load_aligner(tmp_path / "a")


def test_another_head_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "label").mkdir()
    (tmp_path / "label" / "head.json").write_text(json.dumps({"kind": "linear"}))
    record = AlignRecord("label", specs({"text": 16, "image": 24}), Aligner(**FAST).fit(related(80)))
    with pytest.raises(HeadError, match="kind 'linear' and is not replaced"):
        save_aligner(tmp_path / "label", record, {})
    (tmp_path / "label" / "head.json").write_text(json.dumps(sealed({**encoding("embedstore-head"), "kind": "linear"})))
    with pytest.raises(HeadError, match="not an alignment"):
        load_aligner(tmp_path / "label")


def source(folder: Path, items: range, *, missing: int = 0) -> MemorySource:
    """Items whose image file and text hold two views of one latent vector; the last `missing` have no text."""
    X = related(300, 6, 8)
    folder.mkdir(exist_ok=True)
    words = {name: [" ".join(f"{v:.4f}" for v in row) for row in x] for name, x in X.items()}
    for i in items:
        (folder / f"{i}.img").write_text(words["image"][i])
    texts = [None if i >= items.stop - missing else words["text"][i] for i in items]
    columns = {"id": [f"i{i}" for i in items], "image": [str(folder / f"{i}.img") for i in items], "text": texts}
    return MemorySource({**columns, "part": ["even" if i % 2 == 0 else "odd" for i in items]})


def embed(folder: Path, items: range, *, missing: int = 0) -> es.Store:
    encoders = {"text": Telling(6, "text", "telling-text"), "image": Telling(8, "image", "telling-image")}
    es.embed(source(folder / "files", items, missing=missing), folder / "s.store", **encoders)  # type: ignore[arg-type]
    return es.Store.open(folder / "s.store")


@pytest.fixture
def paired(tmp_path: Path) -> es.Store:
    return embed(tmp_path, range(200), missing=10)


def test_align_a_store(paired: es.Store) -> None:
    report = align(paired)
    assert report.spaces == ["aligned.text", "aligned.image"]
    assert sum(report.items.values()) == 190
    assert report.retrieval.keys() == report.distinct.keys() == {"text_to_image", "image_to_text"}
    for found in report.retrieval.values():
        assert found.gallery == found.queries == report.items["test"]
        assert found.scores["r@1"].low > 0.8 > 10 * found.chance["r@1"]
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert document["retrieval"]["text_to_image"]["scores"]["mrr"].keys() == {"value", "low", "high"}
    assert paired.heads == ["aligned"]
    assert verify(paired).clean
    assert "10 items with image were not used" in report.notes[0]
    assert align(paired).retrieval == report.retrieval


def test_the_saved_head_never_saw_a_test_item(paired: es.Store) -> None:
    import pyarrow.parquet as pq

    report = align(paired)
    folder = paired.path / "heads" / "aligned"
    table = pq.read_table(next(folder.glob("split-*.parquet"))).to_pydict()
    fitted = [row for row, part in zip(table["row"], table["split"], strict=True) if part != "test"]
    assert len(fitted) == report.items["train"] + report.items["val"]
    X = {name: paired.space(name).take(np.array(fitted)) for name in ("text", "image")}
    again = Aligner().fit(X)
    saved = load_aligner(folder).head
    assert saved.pairs_ == len(fitted)
    for name in X:
        np.testing.assert_allclose(saved.weight_[name], again.weight_[name], rtol=1e-3, atol=1e-5)


def test_copies_stay_on_one_side_of_the_split(tmp_path: Path) -> None:
    """Sixty texts, each of four images: no text is both fitted on and tested on, and the gallery of texts has each once."""
    X = related(240, 6, 8)
    (tmp_path / "files").mkdir()
    for i, row in enumerate(X["image"]):
        (tmp_path / "files" / str(i)).write_text(" ".join(f"{v:.4f}" for v in row))
    texts = [" ".join(f"{v:.4f}" for v in X["text"][i - i % 4]) for i in range(240)]
    data = {"id": [f"i{i}" for i in range(240)], "image": [str(tmp_path / "files" / str(i)) for i in range(240)], "text": texts}
    encoders = {"text": Telling(6, "text", "t"), "image": Telling(8, "image", "i")}
    es.embed(MemorySource(data), tmp_path / "s.store", **encoders)  # type: ignore[arg-type]
    report = align(tmp_path / "s.store")
    assert report.copies["exact"] == {"text": 0, "image": 0}
    assert report.items["test"] % 4 == 0
    assert report.distinct["image_to_text"].gallery == report.items["test"] / 4
    assert report.distinct["text_to_image"].queries == report.items["test"] / 4
    assert report.retrieval["text_to_image"].gallery == report.items["test"]


def test_a_split_column_decides(tmp_path: Path) -> None:
    X = related(100, 6, 8)
    rows = {name: [" ".join(f"{v:.4f}" for v in row) for row in x] for name, x in X.items()}
    split = ["test" if i < 30 else "train" for i in range(100)]
    data = {"id": [str(i) for i in range(100)], "text": rows["text"], "split": split}
    two = {"a": Telling(6, "text", "a"), "b": Telling(6, "text", "b")}
    es.embed(MemorySource(data), tmp_path / "s.store", text=two)  # type: ignore[arg-type]
    report = align(tmp_path / "s.store", "a", "b", name="both")
    assert report.items == {"train": 70, "val": 0, "test": 30}
    assert "column split" in report.evaluation


def test_projected_space_equals_projected_vectors(paired: es.Store) -> None:
    align(paired)
    head = load_aligner(paired.path / "heads" / "aligned").head

    def check(store: es.Store) -> None:
        for side in ("text", "image"):
            base, space = store.space(side), spaces_of(store)[f"aligned.{side}"]
            expected = head.project(side, np.asarray(base.vectors()))
            assert len(space) == len(expected) == len(space.rows)
            np.testing.assert_allclose(space.vectors(), expected, atol=1e-6)
            np.testing.assert_allclose(np.concatenate(list(space.blocks(7))), expected, atol=1e-6)
            some = base.rows[::-3]
            np.testing.assert_allclose(space.take(some), expected[::-1][::3], atol=1e-6)
            np.testing.assert_array_equal(space.hashes, base.hashes)
            np.testing.assert_array_equal(space.hash_of(some), base.hash_of(some))
            assert space.has(store.items.rows).sum() == len(base)

    check(paired)
    removed = paired.remove(["i3", "i77"])
    assert len(spaces_of(removed)["aligned.image"]) == 198
    check(removed)
    added = embed(paired.path.parent, range(200, 230))
    assert len(spaces_of(added)["aligned.image"]) == 228
    check(added)


def as_searchable(space: SearchableSpace) -> SearchableSpace:
    return space


def test_projected_spaces_find_their_pairs(paired: es.Store) -> None:
    align(paired)
    spaces = spaces_of(paired)
    assert list(spaces) == ["text", "image", "aligned.text", "aligned.image"] or list(spaces)[2:] == [
        "aligned.text",
        "aligned.image",
    ]
    target = spaces["aligned.image"]
    asked = query_space(spaces, target, "text")
    assert isinstance(asked, ProjectedSpace)
    assert asked.name == "aligned.text"
    row = paired.items.rows_of(["i5"])
    query = asked.project_query(asked.base.take(row)[0])
    assert query.shape == (target.dim,)
    scores = target.vectors() @ query
    assert target.rows[scores.argmax()] == row[0]
    assert query_space(spaces, target, "image") is target
    assert query_space(spaces, spaces["image"], "text") is None
    assert query_space(spaces, target, "audio") is None


def test_spec_of_a_projected_space(paired: es.Store) -> None:
    align(paired)
    first = spaces_of(paired)
    text, image = (as_searchable(first[f"aligned.{side}"]) for side in ("text", "image"))
    assert text.spec.alignment == image.spec.alignment
    assert text.fingerprint != image.fingerprint
    assert (text.spec.modality, image.spec.modality) == ("text", "image")
    assert text.spec.normalized
    assert text.spec.dim == text.dim == text.vectors().shape[1]
    assert text.dtype == text.vectors().dtype == np.float32
    assert text.fingerprint not in {space.fingerprint for space in paired.spaces.values()}
    align(paired, where="part = 'even'")
    other = spaces_of(paired)["aligned.text"]
    assert other.fingerprint != text.fingerprint
    assert other.spec.alignment != text.spec.alignment


def test_aligners_that_do_not_fit_are_skipped(paired: es.Store, tmp_path: Path) -> None:
    align(paired)
    assert skipped_aligners(paired) == {}
    other = tmp_path / "other"
    other.mkdir()
    es.embed(source(other / "files", range(20)), other / "s.store", text=Telling(6, "text", "telling-text"))
    store = es.Store.open(other / "s.store")
    (store.path / "heads").mkdir()
    (paired.path / "heads" / "aligned").rename(store.path / "heads" / "aligned")
    assert list(spaces_of(store)) == ["text"]
    assert "does not have. Align again: embedstore align" in skipped_aligners(store)["aligned"]

    class Changed(Telling):
        def __init__(self) -> None:
            super().__init__(8, "image", "telling-image")
            from dataclasses import replace

            self.spec = replace(self.spec, weights="sha256:other")

    es.embed(source(other / "files", range(20)), store.path, image=Changed())
    reason = skipped_aligners(store.refresh())["aligned"]
    assert "was fitted on telling-image (fingerprint" in reason
    assert list(spaces_of(store.refresh())) == ["text", "image"]


def test_errors_of_align(paired: es.Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Got 'text' twice"):
        align(paired, "text", "text")
    with pytest.raises(UsageError, match=r"no space 'sound'\. Spaces:"):
        align(paired, "sound", "image")
    with pytest.raises(UsageError, match="cannot name a head"):
        align(paired, name="../x")
    with pytest.raises(UsageError, match="seed must be at least 0"):
        align(paired, seed=-1)
    with pytest.raises(HeadError, match=r"5 items of .* to fit on and"):
        align(paired, where="id in ('i1', 'i2', 'i3', 'i4', 'i5')")
    with pytest.raises(HeadError, match=r"No item of .* has both"):
        align(paired, where="id = 'i195'")
    assert paired.heads == []


def test_an_aligner_predicts_nothing(paired: es.Store) -> None:
    align(paired)
    for attempt in (es.predict, es.evaluate):
        with pytest.raises(UsageError, match="aligns text with image for search; it predicts nothing"):
            attempt(paired, "aligned")


def test_command(paired: es.Store) -> None:
    from embedstore_cli.main import app

    done = CliRunner().invoke(app, ["align", str(paired.path), "--from", "text", "--to", "image"])
    assert done.exit_code == 0, done.output
    for words in ("text → image", "image → text, without copies", "chance", "gallery", "--space aligned.image"):
        assert words in done.output
    done = CliRunner().invoke(app, ["align", str(paired.path), "--json", "--name", "other"])
    document = json.loads(done.stdout)
    assert document["spaces"] == ["other.text", "other.image"]
    assert document.keys() == AlignReport.__dataclass_fields__.keys() - {"training"}, "which is there where a loss was named"
