"""`compare`: which encoder, or which inputs together, for a target? The same items, splits and head for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedstore._core.threads import bounded
from embedstore.errors import UsageError
from embedstore.evaluation.bootstrap import Bootstrap, Score
from embedstore.evaluation.metrics import scores_to_dict
from embedstore.retrieval.eval_search import eval_search
from embedstore.store import Store, View
from embedstore.training.compare_options import CompareOptions
from embedstore.training.encoding_time import encoding_ms
from embedstore.training.label_notes import group_notes
from embedstore.training.tasks.base import Scores, task_called, task_for
from embedstore.training.train import device_there
from embedstore.training.train_options import TrainOptions
from embedstore.training.trial import Trial

__all__ = ["Candidate", "CompareReport", "compare"]


@dataclass(frozen=True)
class Candidate:
    """One choice of inputs.

    Parameters
    ----------
    inputs : list of str
        Spaces.
    metrics : mapping of metric to Score
        On items that took no part in fitting or choosing anything.
    behind : Score or None
        How much less it is worth than the best one, paired by item (accuracy; for numbers, absolute error); None for the best.
    dimensions, bytes : int
        Of an item's vectors, as they are stored.
    ms : float or None
        Milliseconds to embed an item here, its spaces one after the other; None where that cannot be measured.
    fit_seconds : float
        Of one head.
    search : mapping of metric to Score, or None
        Of search in its space by `relevance`; None for more than one space.
    """

    inputs: list[str]
    metrics: Scores
    behind: Score | None
    dimensions: int
    bytes: int
    ms: float | None
    fit_seconds: float
    search: Scores | None = None

    @property
    def name(self) -> str:
        return " + ".join(self.inputs)

    def to_dict(self) -> dict[str, Any]:
        return {
            **vars(self),
            "metrics": scores_to_dict(self.metrics),
            "behind": None if self.behind is None else self.behind.to_dict(),
            "search": None if self.search is None else scores_to_dict(self.search),
        }


@dataclass(frozen=True)
class CompareReport:
    """What `compare` returns; candidates come best first."""

    target: str
    task: str
    head: str
    items: int
    evaluation: str
    candidates: list[Candidate]
    seconds: float
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The document of ``embedstore compare --json``."""
        return {**vars(self), "candidates": [candidate.to_dict() for candidate in self.candidates]}


@bounded()
def compare(
    store: Store | str | Path,
    target: str,
    *,
    inputs: Sequence[str] | None = CompareOptions.inputs,
    head: str = CompareOptions.head,
    relevance: str | None = CompareOptions.relevance,
    where: str | None = CompareOptions.where,
    task: str | None = CompareOptions.task,
    group: str | None = CompareOptions.group,
    cv: int | None = CompareOptions.cv,
    timed: int = CompareOptions.timed,
    seed: int = CompareOptions.seed,
    device: str = CompareOptions.device,
    on_progress: Callable[[str], None] | None = None,
) -> CompareReport:
    """Compare encoders, alone or together, by what a head makes of their vectors for one target.

    Every candidate is judged on the same items, which have a vector in each of the spaces, with the same split and the same
    kind of head. Nothing is saved.

    Parameters
    ----------
    store : Store or path
    target : str
        Metadata column with the labels.
    inputs : sequence of str, optional
        A candidate each: a space, or several separated by commas. Default: each space alone, and all together.
    head : str
        The kind of head that each is given.
    relevance : str, optional
        Metadata column; search in each single space is scored too, items with the same value being relevant: `eval_search`.
    where : str, optional
        SQL over the metadata columns.
    task, group, cv, seed, device :
        As `train` has them.
    timed : int
        So many items are embedded again to measure how long one takes, where the encoder and the payloads can be had.

    Returns
    -------
    CompareReport

    Raises
    ------
    UsageError, HeadError

    Examples
    --------
    >>> es.compare("shop.store", "category", inputs=["image", "text", "image,text"], cv=5)  # doctest: +SKIP
    """
    options = CompareOptions(
        inputs=inputs,
        head=head,
        relevance=relevance,
        where=where,
        task=task,
        group=group,
        cv=cv,
        timed=timed,
        seed=seed,
        device=device,
    )
    started, say = time.perf_counter(), on_progress or (lambda message: None)
    opened = store if isinstance(store, Store) else Store.open(store)
    candidates = _candidates(opened, options)
    view, notes = _shared(opened, target, candidates, options)
    asked = task_called(task) if task else task_for(view)
    if not asked.needs_target:
        raise UsageError(
            f"Inputs are compared for a target, and the task {asked.name} takes none. Train it on each pair of inputs."
        )
    asked.make_head(head)
    trial = Trial(asked, view, TrainOptions(head=head, group=group, seed=seed, device=device_there(device)), say)
    parts, evaluation = trial.parts(cv)
    outputs, seconds = [], []
    for names in candidates:
        say(" + ".join(names))
        found, taken = trial.tried(names, parts)
        outputs.append(found)
        seconds.append(taken)
    test = np.concatenate([part[-1] for part in parts])
    truth = trial.labels.truth[test]
    bootstrap = Bootstrap.of(len(test), groups=None if view.groups is None else view.groups[test], seed=seed)
    worth = [asked.worth(truth, found) for found in outputs]
    best = int(np.argmax([float(w.mean()) for w in worth]))
    ms = _times(opened, view, candidates, options, notes, say)
    searched = {name: _searched(opened, name, options) for name, *more in candidates if not more} if relevance else {}
    made = [
        Candidate(
            inputs=list(names),
            metrics=asked.scores(truth, outputs[i], bootstrap),
            behind=None if i == best else bootstrap.mean(worth[best] - worth[i]),
            dimensions=sum(opened.spaces[name].dim for name in names),
            bytes=sum(opened.spaces[name].dim * np.dtype(opened.spaces[name].dtype).itemsize for name in names),
            ms=_sum(ms[name] for name in names),
            fit_seconds=round(seconds[i], 3),
            search=searched.get(names[0]) if len(names) == 1 else None,
        )
        for i, names in enumerate(candidates)
    ]
    order = sorted(range(len(made)), key=lambda i: -float(worth[i].mean()))
    return CompareReport(
        target=target,
        task=asked.name,
        head=head,
        items=len(view),
        evaluation=evaluation,
        candidates=[made[i] for i in order],
        seconds=round(time.perf_counter() - started, 3),
        notes=[*notes, *group_notes(view, test)],
    )


def _candidates(store: Store, options: CompareOptions) -> list[list[str]]:
    """The spaces of each candidate, none twice."""
    known = ", ".join(store.spaces)
    if options.inputs is None:
        every = list(store.spaces)
        found = [[name] for name in every] + ([every] if len(every) > 1 else [])
    else:
        found = [[name.strip() for name in one.split(",") if name.strip()] for one in options.inputs]
    for names in found:
        if not names:
            raise UsageError(f"inputs holds a candidate without a space. Spaces of {store.path}: {known}.")
        for name in names:
            if name not in store.spaces:
                raise UsageError(f"{store.path} has no space {name!r}. Spaces: {known}.")
    unique = list({tuple(sorted(names)): names for names in found}.values())
    if len(unique) < 2:
        raise UsageError(f"compare needs two candidates or more: --inputs SPACE,… once each. Spaces of {store.path}: {known}.")
    return unique


def _shared(store: Store, target: str, candidates: Sequence[Sequence[str]], options: CompareOptions) -> tuple[View, list[str]]:
    """The items that have a vector in every space that is compared, and what to say of the others."""
    spaces = list(dict.fromkeys(name for names in candidates for name in names))
    view = store.view(inputs=spaces, target=target, where=options.where, group=options.group, seed=options.seed)
    whole = np.logical_and.reduce([view.present[name] for name in spaces])
    if whole.all():
        return view, []
    lacking = f"{int((~whole).sum()):,} items have no vector in one of the spaces {', '.join(spaces)} and take no part"
    if not whole.any():
        raise UsageError(f"No item of {store.path} has a vector in each of the spaces {', '.join(spaces)}. Compare fewer.")
    return view.select(whole), [lacking]


def _times(
    store: Store,
    view: View,
    candidates: Sequence[Sequence[str]],
    options: CompareOptions,
    notes: list[str],
    say: Callable[[str], None],
) -> dict[str, float | None]:
    """Space → milliseconds an item; `notes` is told of those that have none."""
    spaces = dict.fromkeys(name for names in candidates for name in names)
    if not options.timed:
        return dict.fromkeys(spaces)
    rows = view.rows[np.linspace(0, len(view) - 1, min(options.timed, len(view))).astype(np.int64)]
    found = {}
    for name in spaces:
        say(f"time of {name}")
        found[name], why = encoding_ms(store, store.space(name), rows, options.device)
        if why:
            notes.append(f"how long space {name!r} takes an item is not known: {why}")
    return found


def _searched(store: Store, name: str, options: CompareOptions) -> Scores:
    found = eval_search(store, relevance=options.relevance, source=name, target=name, where=options.where, seed=options.seed)
    return (found.deduplicated or found.figures).metrics


def _sum(values: Any) -> float | None:
    """None where one of them is."""
    known = list(values)
    return None if None in known else round(sum(known), 3)
