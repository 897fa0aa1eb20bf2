"""`labels`: which labels are likely wrong, by what is kept with a head. Wiring of heads, stores, evaluation and reports."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedstore._core.atomic_files import write_bytes
from embedstore._core.result_files import write_table, writing
from embedstore._version import __version__
from embedstore.errors import HeadError
from embedstore.evaluation.label_errors import LabelQuality, label_quality
from embedstore.heads.held_out import OutOfFold
from embedstore.reports.data import ReportData, Section
from embedstore.reports.page import render_html
from embedstore.store import Store, View
from embedstore.training.item_cards import cards
from embedstore.training.kept import kept_with
from embedstore.training.labels_options import LabelsOptions
from embedstore.training.saved import find_head, labelled_view

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["LabelReport", "SuspectLabel", "labels"]

SHOWN = 60
"""Items with a picture on the page; the file has all."""
PAIRS = 10


@dataclass(frozen=True)
class SuspectLabel:
    """An item whose label may be wrong.

    Parameters
    ----------
    given, proposed : label
        What the store says, and the class that a head which did not see the item holds for the likeliest.
    quality : float
        Of the given label; the lower, the likelier it is wrong.
    probability : float
        Of the proposed one.
    wrong : bool
        Whether cleanlab holds the given label for wrong.
    disagree : bool
        Whether the inputs of the item, each alone, predict different classes.
    alone : mapping of input to label
        What they predict; only of inputs that the item has, and empty where the head has one input.
    """

    id: str
    given: Any
    proposed: Any
    quality: float
    probability: float
    wrong: bool
    disagree: bool
    alone: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelReport:
    """What `labels` returns.

    Parameters
    ----------
    items : int
        Labelled items that were looked at.
    estimated : int
        How many of their labels cleanlab estimates to be wrong.
    held : int
        How many it holds for wrong, by name.
    disagree : int
        How many have inputs that alone predict different classes.
    suspects : list of SuspectLabel
        The worst first.
    """

    head: str
    target: str
    items: int
    estimated: int
    held: int
    disagree: int
    method: str
    suspects: list[SuspectLabel]
    inputs: list[str]
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    report: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The document of ``embedstore labels --json``."""
        found = {name: value for name, value in vars(self).items() if name != "inputs"}
        return {**found, "suspects": [vars(one) for one in self.suspects]}

    def save(self, path: str | Path) -> Path:
        """Write one row a suspect label to a ``.csv``, ``.parquet`` or ``.jsonl`` file.

        Columns: id, given, proposed, quality, probability, wrong, disagree, and ``only:INPUT`` of each input of several.

        Raises
        ------
        UsageError
            Another ending, or no such folder.
        OutputError
            The file cannot be written.
        """
        return write_table(path, self._table())

    def _table(self) -> pa.Table:
        import pyarrow as pa

        names = ("id", "given", "proposed", "quality", "probability", "wrong", "disagree")
        columns: dict[str, Any] = {name: [getattr(one, name) for one in self.suspects] for name in names}
        columns |= {f"only:{name}": [one.alone.get(name) for one in self.suspects] for name in self.inputs}
        return pa.table(columns)


def labels(
    store: Store | str | Path,
    head: str | Path,
    *,
    target: str | None = LabelsOptions.target,
    n: int | None = LabelsOptions.n,
    disagree: bool = LabelsOptions.disagree,
    method: str = LabelsOptions.method,
    where: str | None = LabelsOptions.where,
    report: str | os.PathLike[str] | None = LabelsOptions.report,
) -> LabelReport:
    """Find labels that are likely wrong, by the out-of-fold predictions that are kept with a head (confident learning).

    Nothing is fitted, and nothing in the store is changed.

    Parameters
    ----------
    store : Store or path
    head : str or path
        A classifier: its name in `store`, or the folder of a head of another store.
    target : str, optional
        Of a head of several targets, the one whose labels are looked at.
    n : int, optional
        How many to list, the worst first; default: those that cleanlab holds for wrong.
    disagree : bool
        Whether only items are listed whose inputs, each alone, predict different classes.
    method : str
        What the items are ranked by: ``"self_confidence"``, ``"normalized_margin"`` or ``"confidence_weighted_entropy"``.
    where : str, optional
        SQL over the metadata columns, of the items to be listed.
    report : path, optional
        Where to write an HTML page with pictures.

    Raises
    ------
    HeadError
        The head keeps no out-of-fold predictions, or none of classes.
    MissingDependencyError
        Without cleanlab: the extra ``labels``.
    UsageError
    """
    options = LabelsOptions(target=target, n=n, disagree=disagree, method=method, where=where, report=report)
    started = time.perf_counter()
    home, record = find_head(store if isinstance(store, Store) else Store.open(store), head)
    target, kept = kept_with(home, record, options.target)
    if not len(kept.classes):
        raise HeadError(f"Head {record.name!r} predicts numbers of {target!r}, and wrong labels are found among classes.")
    quality = label_quality(kept.codes, kept.probabilities, method=method)
    view = labelled_view(record, home, where=where)
    view = view.of_target(target) if view.target_names else view
    current, notes = _current(kept, view, everything=where is None)
    listed = _listed(kept, quality, current, options)
    result = LabelReport(
        head=record.name,
        target=target,
        items=len(kept),
        estimated=quality.estimated,
        held=int(quality.wrong.sum()),
        disagree=int(_disagree(kept).sum()),
        method=method,
        suspects=_suspects(kept, quality, listed),
        inputs=list(kept.alone),
        seconds=round(time.perf_counter() - started, 3),
        notes=notes,
    )
    if report is None:
        return result
    html = render_html(_page(result, kept, listed, view))
    with writing(Path(report)):
        write_bytes(Path(report), html.encode())
    return replace(result, report=str(report))


def _current(kept: OutOfFold, view: View, *, everything: bool) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Which items (n,) are in `view` with the label that they had when the head was trained; and what to say of the others."""
    now = dict(zip(view.ids.tolist(), [] if view.target is None else view.target.tolist(), strict=True))
    same = [now.get(i) == label for i, label in zip(kept.ids.tolist(), kept.target.tolist(), strict=True)]
    changed = int(sum(i in now and not s for i, s in zip(kept.ids.tolist(), same, strict=True)))
    gone = int(sum(i not in now for i in kept.ids.tolist())) if everything else 0
    notes = [f"{changed:,} items have another label since the head was trained, and are left out"] if changed else []
    if gone:
        notes.append(f"{gone:,} items are gone since the head was trained, and are left out")
    return np.array(same, bool), notes


def _listed(
    kept: OutOfFold, quality: LabelQuality, current: npt.NDArray[np.bool_], options: LabelsOptions
) -> npt.NDArray[np.int64]:
    """Positions of the items to list, the worst first."""
    keep = current & (quality.wrong if options.n is None else True)
    if options.disagree:
        keep &= _disagree(kept)
    at = np.flatnonzero(keep)
    return at[np.argsort(quality.score[at], kind="stable")][: options.n]


def _disagree(kept: OutOfFold) -> npt.NDArray[np.bool_]:
    """Which items (n,) have inputs that alone predict different classes."""
    said = [{label for label in row if label is not None} for row in zip(*kept.alone.values(), strict=True)]
    return np.array([len(one) > 1 for one in said], bool) if said else np.zeros(len(kept), bool)


def _suspects(kept: OutOfFold, quality: LabelQuality, listed: npt.NDArray[np.int64]) -> list[SuspectLabel]:
    disagree = _disagree(kept)
    given, proposed = (labels[listed].tolist() for labels in (kept.target, kept.predicted))
    return [
        SuspectLabel(
            id=str(kept.ids[i]),
            given=given[at],
            proposed=proposed[at],
            quality=round(float(quality.score[i]), 6),
            probability=round(float(kept.probabilities[i].max()), 6),
            wrong=bool(quality.wrong[i]),
            disagree=bool(disagree[i]),
            alone={name: found[i] for name, found in kept.alone.items() if found[i] is not None},
        )
        for at, i in enumerate(listed.tolist())
    ]


def _page(result: LabelReport, kept: OutOfFold, listed: npt.NDArray[np.int64], view: View) -> ReportData:
    """The page: how many, which classes are taken for which, and the worst with their pictures."""
    position = {i: at for at, i in enumerate(view.ids.tolist())}
    shown = listed[:SHOWN]
    seen = view.select(np.array([position[i] for i in kept.ids[shown].tolist()], np.int64))
    pairs = Counter((str(one.given), str(one.proposed)) for one in result.suspects if one.given != one.proposed)
    rows = [(given, proposed, count) for (given, proposed), count in pairs.most_common(PAIRS)]
    facts = {
        "target": result.target,
        "labels": f"{result.items:,}",
        "estimated to be wrong": f"{result.estimated:,} ({result.estimated / max(result.items, 1):.1%})",
        "listed": f"{len(result.suspects):,}",
        "inputs that disagree": f"{result.disagree:,} items",
        "ranked by": result.method.replace("_", " "),
        "made": f"{date.today().isoformat()} by embedstore {__version__}",
    }
    table = Section(
        "Classes taken for one another",
        "Many of one pair may be one mistake of whoever labelled them, or classes that overlap.",
        ("given", "proposed", "items"),
        rows,
    )
    return ReportData(
        title=result.head,
        lead="Labels that may be wrong, by the head",
        facts=facts,
        metrics={},
        notes=result.notes,
        sections=[table] if rows else [],
        mistakes=cards(
            seen,
            view,
            labelled=kept.target[shown].tolist(),
            predicted=kept.predicted[shown].tolist(),
            probability=kept.probabilities[shown].max(axis=1).astype(np.float64),
        ),
        mistakes_title=f"The worst {len(shown)}" if len(shown) < len(listed) else "The labels",
        mistakes_note="What a head that did not see the item proposes, and what it is labelled. Not every one is wrong: look.",
    )
