"""Teaching: a head of marked items in milliseconds, every item ranked by it, and what to mark next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedstore.errors import HeadError, UsageError, next_step, reason_of
from embedstore.evaluation.selection import graded, margin
from embedstore.heads.base import Data, log_softmax
from embedstore.heads.io import SPLIT, HeadRecord, save_head, split_file
from embedstore.heads.taught import Taught, fit_taught, usual
from embedstore.serving.session import Session
from embedstore.store.format import HEADS, check_name

__all__ = ["Lesson", "Marks", "lesson", "ranked", "save_lesson"]

Rows = npt.NDArray[np.int64]
Float = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

WANTED, UNWANTED = "+", "-"
BACKGROUND = 2000
"""Items that say what features are like."""
ORDINARY = 150
"""Of them, those that stand for what is not wanted."""
Z = 1.959964
"""Of a 95 % interval."""


@dataclass(frozen=True)
class Marks:
    """Items that somebody put into classes.

    Parameters
    ----------
    rows : (n,) int64
    codes : (n,) int64
        Positions in `classes`.
    classes : tuple of str
        Two or more, sorted; of one class alone, the other is what is unmarked.
    spaces : tuple of str
    """

    rows: Rows
    codes: Rows
    classes: tuple[str, ...]
    spaces: tuple[str, ...]

    @classmethod
    def of(cls, session: Session, given: Mapping[str, Sequence[str]], spaces: Sequence[str]) -> Marks:
        """From ids by class.

        Raises
        ------
        UsageError
            No id at all, an id twice, an unknown id, or an item that has none of the spaces.
        """
        ids = [own for members in given.values() for own in members]
        if not ids:
            raise UsageError("No item is marked. Mark one or more as wanted.")
        if len(set(ids)) < len(ids):
            twice = next(own for at, own in enumerate(ids) if own in ids[:at])
            raise UsageError(f"Item {twice!r} is marked twice. Mark it once.")
        filled = {name: members for name, members in given.items() if members}
        classes = sorted({*filled, *given} if len(given) > 1 else filled)
        classes = [name for name in classes if name in filled]
        if len(classes) == 1:
            classes = sorted({*classes, UNWANTED if classes[0] != UNWANTED else WANTED})
        codes = [classes.index(name) for name, members in filled.items() for _ in members]
        marks = cls(
            session.store.items.rows_of(ids), np.asarray(codes, np.int64), tuple(classes), tuple(session.stored(spaces))
        )
        has = np.any([session.store.spaces[name].has(marks.rows) for name in marks.spaces], axis=0)
        if not has.all():
            lacking = ids[int(np.flatnonzero(~has)[0])]
            raise UsageError(f"Item {lacking!r} has no vector in {', '.join(marks.spaces)}: its payload is missing or failed.")
        return marks


@dataclass(frozen=True)
class Lesson:
    """What was learned of marks."""

    marks: Marks
    taught: Taught

    def accuracy(self) -> dict[str, Any] | None:
        """Leave-one-out accuracy with its 95 % interval (Wilson); None where a class has fewer than two marks."""
        codes = self.marks.codes
        counts = np.bincount(codes, minlength=len(self.marks.classes))
        if (counts < 2).any():
            return None
        n, hits = len(codes), int((self.taught.left_out.argmax(axis=1) == codes).sum())
        share, spread = hits / n, Z * Z / n
        middle = (share + spread / 2) / (1 + spread)
        half = Z * np.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
        low, high = max(0.0, middle - half), min(1.0, middle + half)
        return {"value": round(share, 4), "low": round(float(low), 4), "high": round(float(high), 4), "n": n}


def lesson(session: Session, marks: Marks) -> Lesson:
    """Fit a linear head to marks."""
    inputs, present = vectors_of(session, marks.spaces, marks.rows)
    marked = Data(inputs, present, marks.codes)
    sample = session.keep(("usual", marks.spaces), lambda: _background(session, marks.spaces))
    ordinary = None
    if UNWANTED in marks.classes and len(marks.classes) == 2:
        unmarked = ~np.isin(sample.rows, marks.rows)
        few = np.flatnonzero(unmarked)[:ORDINARY]
        if len(few):
            marked_codes = np.unique(marks.codes)  # of one class alone: the unmarked stand for the other
            other = 1 - int(marked_codes[0]) if len(marked_codes) == 1 else marks.classes.index(UNWANTED)
            data = Data(sample.inputs, sample.present, np.full(len(sample.rows), other, np.int64))
            ordinary = data.take(few)
    if len(np.unique(marks.codes)) < 2 and ordinary is None:
        raise UsageError("All marks are of one class, and no other item is there to compare with. Mark another class.")
    classes = np.asarray(marks.classes, object)
    return Lesson(marks, fit_taught(marked, classes, sample.standardizer, ordinary=ordinary))


@dataclass(frozen=True)
class _Sample:
    """Items at random, and what their features are like."""

    rows: Rows
    inputs: dict[str, Float]
    present: dict[str, Mask]
    standardizer: Any


def _background(session: Session, spaces: Sequence[str]) -> _Sample:
    rng = np.random.default_rng(0)
    rows = session.rows
    drawn = rng.permutation(rows)[:BACKGROUND] if len(rows) <= 1_000_000 else rng.choice(rows, BACKGROUND, replace=False)
    inputs, present = vectors_of(session, spaces, drawn)
    return _Sample(drawn, inputs, present, usual(inputs, present))


def vectors_of(session: Session, spaces: Sequence[str], rows: Rows) -> tuple[dict[str, Float], dict[str, Mask]]:
    """Vectors (n, d) and masks (n,) of items in each of some spaces; zeros where an item has none."""
    inputs, present = {}, {}
    for name in spaces:
        space = session.store.spaces[name]
        present[name] = space.has(rows)
        inputs[name] = np.zeros((len(rows), space.dim), np.float32)
        inputs[name][present[name]] = space.take(rows[present[name]])
    return inputs, present


def probabilities(session: Session, learned: Lesson) -> npt.NDArray[np.float64]:
    """Of every item of the store and each class (n, c): one product of kept vectors with the head's weights."""
    head = learned.taught.head
    weights, bias = learned.taught.effective()
    logits = np.zeros((len(session.rows), len(head.classes_)), np.float32) + bias
    at = sum(head.dims_.values())
    for i, name in enumerate(learned.marks.spaces):
        vectors, present = session.keep(("matrix", name), partial(_matrix, session, name))
        logits += vectors @ weights[name]
        if not present.all():  # an absent input counts as the mean, and as absent
            absent = head.standardizer_.mean_[name] @ weights[name] + head.scale_ * head.weight_[at + i]
            logits[~present] += absent
    return np.exp(log_softmax(logits))


def _matrix(session: Session, name: str) -> tuple[Float, Mask]:
    """All vectors (n, d) of a space in the order of the items, zeros where there is none."""
    inputs, present = vectors_of(session, [name], session.rows)
    return inputs[name], present[name]


class Ranked(NamedTuple):
    """Items by the probability of a class, and those to mark next."""

    rows: Rows
    probability: npt.NDArray[np.float64]
    next_rows: Rows
    next_probability: npt.NDArray[np.float64]


def ranked(session: Session, learned: Lesson, *, last: int, by: str | None, where: str | None, uncertain: int) -> Ranked:
    """The first `last` matching items by the probability of a class, and unmarked ones to mark next (`selection.graded`).

    Parameters
    ----------
    by : str, optional
        The class; by default what is wanted, else the first by name.

    Raises
    ------
    UsageError
        No such class.
    """
    marks = learned.marks
    by = by or (WANTED if WANTED in marks.classes else next(name for name in marks.classes if name != UNWANTED))
    if by not in marks.classes:
        raise UsageError(f"No class is called {by!r}. Classes: {', '.join(marks.classes)}.")
    likely = probabilities(session, learned)
    rows = session.rows
    usable = session.keep(("usable", marks.spaces), partial(_usable, session, marks.spaces))
    if where is not None:
        usable = usable & np.isin(rows, session.matching(where), assume_unique=True)
    wanted = likely[:, marks.classes.index(by)]
    order = _first(np.where(usable, wanted, -1.0), min(last, int(usable.sum())))
    unmarked = np.flatnonzero(usable & ~np.isin(rows, marks.rows))
    asked = unmarked[graded(margin(likely[unmarked]), uncertain, seed=len(marks.rows))] if uncertain else unmarked[:0]
    return Ranked(rows[order], wanted[order], rows[asked], wanted[asked])


def _usable(session: Session, spaces: Sequence[str]) -> Mask:
    """Which items have a vector in any of some spaces."""
    return np.asarray(np.any([session.store.spaces[name].has(session.rows) for name in spaces], axis=0))


def _first(values: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.intp]:
    """Places of the `n` largest of `values` (m,), the largest first, equal ones in order."""
    some = np.arange(len(values)) if n >= len(values) else np.sort(np.argpartition(-values, n)[:n])
    return some[np.argsort(-values[some], kind="stable")]


def save_lesson(session: Session, learned: Lesson, name: str) -> HeadRecord:
    """Keep a taught head in the store, as `train` keeps one: `predict` takes it.

    Raises
    ------
    UsageError
        A name that no head may have, or that one has.
    HeadError
        It cannot be written.
    """
    name = check_name(name, "head")
    if name in session.store.heads:
        raise UsageError(f"{session.store.path} has a head {name!r} already. Choose another name.")
    marks = learned.marks
    specs = {space: session.store.spaces[space].spec for space in marks.spaces}
    counts = {label: int((marks.codes == code).sum()) for code, label in enumerate(marks.classes)}
    report = {"task": "classification", "taught": counts, "leave_one_out": learned.accuracy()}
    record = HeadRecord(name, name, specs, learned.taught.head, report)
    ids = np.asarray(session.store.items.lookup.values(marks.rows, ["id"])[0], object)
    split = np.full(len(ids), "train")
    folder = session.store.path / HEADS / name
    try:
        save_head(folder, record, {SPLIT: split_file(marks.rows, ids, split)}, replacing=False)
    except OSError as error:
        raise HeadError(f"The head could not be saved under {folder}: {reason_of(error)}.{next_step(error)}") from error
    return record
