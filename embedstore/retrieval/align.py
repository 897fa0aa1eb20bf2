"""`align`: learn to compare two spaces, score it on pairs not seen, save it. Wiring of store, heads, evaluation."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.splits import hashed_split, parse_split
from embedstore._core.threads import bounded
from embedstore.errors import HeadError, next_step, reason_of
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.copies import EVERY, LEAST_JUDGED, Copies, find_copies
from embedstore.evaluation.metrics import Score, scores_to_dict
from embedstore.evaluation.paired import Codes, Ranking, content_codes, copy_groups
from embedstore.heads.aligner import MIN_PAIRS, Aligner
from embedstore.heads.aligner_io import AlignRecord, save_aligner
from embedstore.heads.io import SPLIT, replaced_note, split_file
from embedstore.heads.trained_aligner import TrainedAligner, train_aligner
from embedstore.retrieval.align_options import AlignOptions
from embedstore.retrieval.aligned_spaces import projected_name
from embedstore.store import Store, View
from embedstore.store.format import check_name

__all__ = ["AlignReport", "Retrieval", "Training", "align", "split_of_pairs"]

Rankings = dict[tuple[str, str], Ranking]

MIN_TEST = 2
MAX_TEST = 10_000
"""Test pairs that are ranked against one another at most; beyond, a sample."""


@dataclass(frozen=True)
class Retrieval:
    """How well one side finds the other.

    Parameters
    ----------
    queries, gallery : int
    scores : mapping of ``r@1``, ``r@5``, ``r@10`` and ``mrr`` to Score
    chance : mapping of the same to float
        What a random order gets in expectation.
    """

    queries: int
    gallery: int
    scores: dict[str, Score]
    chance: dict[str, float]

    @classmethod
    def of(cls, ranking: Ranking, seed: int) -> Retrieval:
        return cls(len(ranking.ranks), ranking.gallery, ranking.scores(seed=seed), ranking.chance())

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "scores": scores_to_dict(self.scores)}


@dataclass(frozen=True)
class Training:
    """What training with a contrastive loss did, beside CCA.

    Parameters
    ----------
    loss : str
    kept : bool
        Whether the trained projections are those that were saved.
    steps : int
    held_out : Score
        Gain in MRR over both directions on pairs held out, paired: it decided.
    pairs : int
        Held out, in all.
    cca, trained : mapping of direction to scores
        On the test pairs, whichever was kept.
    gain : mapping of direction to Score
        In MRR on the test pairs, of training over CCA, paired.
    """

    loss: str
    kept: bool
    steps: int
    held_out: Score
    pairs: int
    cca: dict[str, dict[str, Score]]
    trained: dict[str, dict[str, Score]]
    gain: dict[str, Score]

    @classmethod
    def of(
        cls, tried: TrainedAligner, before: Aligner, view: View, codes: Mapping[str, Codes], at: Codes, seed: int
    ) -> Training:
        """Both on the test pairs at `at`."""
        ways = [_rank(one, view, codes, at, distinct=False) for one in (before, tried.aligner)]
        cca, trained = ({f"{q}_to_{g}": r.scores(seed=seed) for (q, g), r in way.items()} for way in ways)
        gain = {
            f"{q}_to_{g}": Bootstrap.of(len(r.ranks), groups=r.groups, seed=seed).mean(1 / r.ranks - 1 / ways[0][q, g].ranks)
            for (q, g), r in ways[1].items()
        }
        return cls(str(tried.aligner.loss_), tried.kept, tried.steps, tried.gain, tried.pairs, cca, trained, gain)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        scores = {name: {way: scores_to_dict(s) for way, s in getattr(self, name).items()} for name in ("cca", "trained")}
        return {**vars(self), "held_out": self.held_out.to_dict(), **scores, "gain": scores_to_dict(self.gain)}


@dataclass(frozen=True)
class AlignReport:
    """What `align` returns.

    Parameters
    ----------
    head : str
        The name under which it is saved.
    source, target : str
    modality : str
        Of the source.
    spaces : list of str
        The two spaces that can now be searched.
    items : mapping
        Pairs fitted on (``train`` and ``val``) and tested on (``test``).
    retrieval : mapping of direction to Retrieval
        On test pairs, such as ``"text_to_image"``: every pair a query, every pair in the gallery. A copy of the right answer
        is right too.
    distinct : mapping of direction to Retrieval
        The same with copies removed: distinct queries, a gallery of distinct contents.
    learned : mapping
        The penalties, power and dimension chosen on held-out training pairs, and their MRR there.
    correlations : list of float
        The first ten, regularised.
    copies : mapping
        How many test items have an exact copy, or a near one, among those fitted on.
    evaluation : str
        What the scores were measured on.
    seconds : float
    fit_seconds : float
    training : Training, optional
        What training further did, where a loss was named.
    """

    head: str
    source: str
    target: str
    modality: str
    spaces: list[str]
    items: dict[str, int]
    retrieval: dict[str, Retrieval]
    distinct: dict[str, Retrieval]
    learned: dict[str, Any]
    correlations: list[float]
    copies: Mapping[str, Any]
    evaluation: str
    seconds: float
    fit_seconds: float
    notes: list[str] = field(default_factory=list)
    training: Training | None = None

    def to_dict(self) -> dict[str, Any]:
        """The document of ``embedstore align --json``."""
        tables = {name: {way: r.to_dict() for way, r in getattr(self, name).items()} for name in ("retrieval", "distinct")}
        training = {} if self.training is None else {"training": self.training.to_dict()}
        return {**{name: value for name, value in asdict(self).items() if name != "training"}, **tables, **training}


@bounded()
def align(
    store: Store | str | Path,
    source: str = AlignOptions.source,
    target: str = AlignOptions.target,
    *,
    name: str = AlignOptions.name,
    where: str | None = AlignOptions.where,
    loss: str | None = AlignOptions.loss,
    seed: int = AlignOptions.seed,
) -> AlignReport:
    """Learn to compare two spaces from the items that have both, and save it under ``heads/`` of the store.

    Afterwards the spaces ``NAME.SOURCE`` and ``NAME.TARGET`` can be searched, by payloads of either side.

    Parameters
    ----------
    store : Store or path
    source, target : str
        Two spaces, such as a text encoder's and an image encoder's.
    name : str
        Of the saved head.
    where : str, optional
        SQL over the metadata columns: the items to learn from.
    loss : str, optional
        ``"infonce"`` or ``"siglip"``: train the projections further, from the CCA solution. They are kept where they surely
        find more among pairs held out of training and validation items; the report has the test scores of both.
    seed : int
        Of the split, the folds and the bootstrap.

    Returns
    -------
    AlignReport

    Raises
    ------
    UsageError
        An unknown space or column, or one space twice.
    HeadError
        Too few items that have both; a space whose vectors are all the same.

    Notes
    -----
    Items are split by hashed id, or by a column ``split``; items that share a payload in either space are on one side of the
    split. Penalties are chosen on folds of the training and validation items; the saved aligner, which is the one that is
    scored, is fitted on both. Test items play no part in it.
    """
    options = AlignOptions(source=source, target=target, name=name, where=where, loss=loss, seed=seed)
    started = time.perf_counter()
    name = check_name(name, "head")
    opened = store if isinstance(store, Store) else Store.open(store)
    folder = opened.path / "heads" / name
    view = _pairs(opened, options)
    hashes = {n: space.hash_of(view.rows) for n, space in view.spaces.items()}
    codes = {n: content_codes(h) for n, h in hashes.items()}
    groups = copy_groups(*codes.values())
    split, by_column = split_of_pairs(view, groups, seed)
    test, known = np.flatnonzero(split == "test"), np.flatnonzero(split != "test")
    if len(test) < MIN_TEST or len(known) < MIN_PAIRS:
        raise HeadError(
            f"{len(view):,} items of {opened.path} have both {source!r} and {target!r}: {len(known)} to fit on and {len(test)} "
            f"to test on, where at least {MIN_PAIRS} and {MIN_TEST} are needed. Embed more items that have both."
        )
    fitting = time.perf_counter()
    aligner = Aligner(seed=seed).fit({n: x[known] for n, x in view.inputs.items()}, groups=groups[known])
    known_codes = {n: c[known] for n, c in codes.items()}
    tried = loss and train_aligner(
        aligner, {n: x[known] for n, x in view.inputs.items()}, loss=loss, groups=groups[known], codes=known_codes
    )
    fit_seconds = time.perf_counter() - fitting
    judged = test if len(test) <= MAX_TEST else np.sort(np.random.default_rng(seed).permutation(test)[:MAX_TEST])
    training = Training.of(tried, aligner, view, codes, judged, seed) if tried else None
    aligner = tried.aligner if tried and tried.kept else aligner
    copies = find_copies(view.inputs, view.present, hashes, train=known, test=judged, seed=seed)
    everything = _rank(aligner, view, codes, judged, distinct=False)
    result = AlignReport(
        head=name,
        source=source,
        target=target,
        modality=view.spaces[source].spec.modality,
        spaces=[projected_name(name, source), projected_name(name, target)],
        items={part: int((split == part).sum()) for part in ("train", "val", "test")},
        retrieval=_judged(everything, seed),
        distinct=_judged(_rank(aligner, view, codes, judged, distinct=True), seed),
        learned={"penalties": aligner.penalties_, "power": aligner.power_, "dim": aligner.dim_, "mrr": _or_none(aligner.mrr_)},
        correlations=[round(float(c), 4) for c in aligner.correlations_[:10]],
        copies=copies.to_dict(),
        evaluation=f"{len(judged):,} test pairs ({'column split' if by_column else 'hashed split'})",
        seconds=round(time.perf_counter() - started, 3),
        fit_seconds=round(fit_seconds, 3),
        notes=[
            *_notes(opened, view, everything, judged, copies, len(test), (source, target)),
            *filter(None, [replaced_note(folder)]),
        ],
        training=training,
    )
    try:
        record = AlignRecord(name, {n: view.spaces[n].spec for n in (source, target)}, aligner, result.to_dict())
        save_aligner(folder, record, {SPLIT: split_file(view.rows, view.ids, split)})
    except OSError as error:
        raise HeadError(f"The alignment could not be saved under {folder}: {reason_of(error)}.{next_step(error)}") from error
    return result


def _pairs(store: Store, options: AlignOptions) -> View:
    """The items that have a vector in both spaces."""
    source, target = options.source, options.target
    view = store.view(inputs=[source, target], where=options.where)
    both = view.present[source] & view.present[target]
    if not both.any():
        counts = ", ".join(f"{int(view.present[n].sum()):,} have {n!r}" for n in (source, target))
        raise HeadError(f"No item of {store.path} has both {source!r} and {target!r} ({counts}). Embed items that have both.")
    return view.select(both)


def split_of_pairs(view: View, groups: Codes, seed: int) -> tuple[npt.NDArray[Any], bool]:
    """Split (n,) of each pair, by a column ``split`` if there is one; a group goes where its first id would go alone."""
    ids = view.ids.astype(str)
    order = np.argsort(ids, kind="stable")
    _, first, of = np.unique(groups[order], return_index=True, return_inverse=True)
    keys = np.empty(len(ids), ids.dtype)
    keys[order] = ids[order][first[of.reshape(-1)]]
    split: npt.NDArray[Any] = hashed_split(keys, seed=seed)
    if "split" not in view.store.items.column_types():
        return split, False
    return parse_split(view.metadata(["split"]).column("split").to_pylist(), default=split), True


def _rank(aligner: Aligner, view: View, codes: Mapping[str, Codes], at: Codes, *, distinct: bool) -> Rankings:
    inputs = {name: x[at] for name, x in view.inputs.items()}
    return aligner.rank(inputs, codes={name: c[at] for name, c in codes.items()}, distinct=distinct)


def _judged(rankings: Rankings, seed: int) -> dict[str, Retrieval]:
    return {f"{query}_to_{gallery}": Retrieval.of(ranking, seed) for (query, gallery), ranking in rankings.items()}


def _notes(
    store: Store,
    view: View,
    rankings: Rankings,
    judged: Codes,
    copies: Copies,
    test: int,
    sides: tuple[str, str],
) -> list[str]:
    notes = []
    for side in sides:
        if count := int(copies.exact[side].sum()):
            notes.append(f"the {side} of {count:,} of {len(copies.checked):,} test pairs is also among those fitted on")
    if count := int(copies.near[EVERY].sum()):
        apart = ~np.isin(judged, copies.checked[copies.near[EVERY]])
        without = [
            f"{q} to {g} {(1 / r.ranks[apart]).mean():.3f}" for (q, g), r in rankings.items() if apart.sum() >= LEAST_JUDGED
        ]
        notes.append(
            f"{count:,} of {len(copies.checked):,} test pairs have a near copy ({copies.rule}) among those fitted on"
            + (f"; MRR without them: {', '.join(without)}" if without else "")
        )
    if len(judged) < test:
        notes.append(f"scores are of {len(judged):,} of {test:,} test pairs, drawn at random")
    if alone := [s for s in sides if len(store.spaces[s]) > len(view)]:
        notes += [f"{len(store.spaces[s]) - len(view):,} items with {s} were not used: no pair, or not selected" for s in alone]
    return notes


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
