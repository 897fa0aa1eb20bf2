"""Tuning: trials of a head's parameters by Optuna, in a journal that a killed run goes on with.

Knows no data: what parameters are worth is told by a function. Everything that a trial depends on is in the journal or follows
from its number, so that a study in several runs is the study of one run.
"""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from embedstore._core.folders import Folder, readable
from embedstore._core.threads import idle, steady
from embedstore.errors import CorruptStoreError, EmbedstoreError, HeadError, UsageError, next_step, one_line, reason_of
from embedstore.evaluation.tuned import Tried, Tuned, best_of
from embedstore.heads import Head
from embedstore.heads.io import TUNING, changing
from embedstore.heads.params import Real, Tunable, Whole
from embedstore.registry import Registry, refuse_older, require

__all__ = ["Study", "check_tunable", "tune"]

LEAST_OPTUNA = 5
LARGEST_SEED = 2**32


@dataclass(frozen=True)
class Study:
    """What is tuned, and on what.

    Parameters
    ----------
    part : str
        The items, in a word; one head may be tuned on several parts.
    about : mapping
        All that makes scores comparable, as JSON values: a study about something else begins anew.
    head : Head
        As it comes; its `Head.tunable` are tried.
    by : str
        ``"tpe"``, ``"random"`` or ``"grid"``.
    trials : int
        The head as it comes is the first.
    seed : int
    """

    part: str
    about: Mapping[str, Any]
    head: Head
    by: str
    trials: int
    seed: int

    @property
    def defaults(self) -> dict[str, Any]:
        """The parameters of the head as it comes, as far as they are values that may be tried."""
        own = self.head.get_params()
        return {name: own[name] for name, tried in self.head.tunable.items() if tried.holds(own[name])}

    def settings(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """What the head's constructor takes where `params` are tried."""
        return {name: self.head.tunable[name].setting(value) for name, value in params.items()}

    def grid(self) -> list[dict[str, Any]]:
        """Every point of the grid, at random."""
        values = [tried.grid() for tried in self.head.tunable.values()]
        points = list(product(*values))
        order = np.random.default_rng(self.seed).permutation(len(points))
        return [dict(zip(self.head.tunable, points[i], strict=True)) for i in order[: self.trials]]


def check_tunable(kind: str, head: Head, others: Registry) -> None:
    """Raise `UsageError` where a head has nothing to tune, naming those that have; `MissingDependencyError` without Optuna.

    Parameters
    ----------
    others : Registry
        The heads that serve the same task.
    """
    if not head.tunable:
        known = ", ".join(name for name in others if others.get(name).tunable) or "none"
        raise UsageError(f"Head {kind!r} has no parameters to tune. Heads that have: {known}.")
    require("optuna", extra="tune")
    refuse_older("optuna", LEAST_OPTUNA, extra="tune")


def tune(folder: Path, study: Study, score: Callable[[Mapping[str, Any]], float], say: Callable[[str], None]) -> Tuned:
    """Make the trials of `study` that are not in the journal of the head in `folder` yet.

    Parameters
    ----------
    score : function of the constructor's arguments
        What a head with these is worth, the more the better. `HeadError`: none could be fitted.
    say : function of a message

    Raises
    ------
    HeadError
        The head as it comes cannot be fitted, no trial has a finite score, or the journal cannot be written.
    CorruptStoreError
        The journal is damaged.
    """
    optuna = require("optuna", extra="tune")
    try:
        with changing(folder) as opened, _quiet(optuna):
            journal = _Journal(opened)
            begun, note = _begun(optuna, journal, study)
            before = len(begun.get_trials(deepcopy=False))
            with steady(int(begun.user_attrs["threads"])):
                _run(optuna, begun, journal, study, score, say)
            trials = _history(begun)[: study.trials]
            best = best_of(trials)
            if best.value is None:
                raise HeadError(
                    f"Tuning on {study.part}: none of the {len(trials)} trials has a score that is a finite number. "
                    "Train without --tune, and look at the scores and notes."
                )
            settings = study.settings(best.params) if best.number else {}
            return Tuned(study.part, study.by, study.trials, trials, settings, min(before, study.trials), note)
    except OSError as error:
        raise HeadError(f"{folder / TUNING} cannot be written: {reason_of(error)}.{next_step(error)}") from error


def _run(
    optuna: Any,
    begun: Any,
    journal: _Journal,
    study: Study,
    score: Callable[[Mapping[str, Any]], float],
    say: Callable[[str], None],
) -> None:
    """Make the trials that are missing, each of them in the journal when it has ended."""
    for number in range(len(begun.get_trials(deepcopy=False)), study.trials):
        trial = _asked(optuna, begun, study, number)
        if trial is None:
            return
        values = [one.value for one in begun.get_trials(deepcopy=False) if one.value is not None]
        shown = f", best {max(values):.3f}" if values else ""
        say(f"tuning on {study.part}: trial {number + 1} of {study.trials}{shown}")
        start = time.perf_counter()
        try:
            value = score(study.settings(trial.params) if number else {})
        except HeadError:
            if not number:
                raise
            value = math.nan
        trial.set_user_attr("seconds", time.perf_counter() - start)
        if math.isfinite(value):
            begun.tell(trial, value)
        else:
            begun.tell(trial, state=optuna.trial.TrialState.FAIL)
        journal.commit()


def _asked(optuna: Any, begun: Any, study: Study, number: int) -> Any:
    """The next trial, its parameters proposed; None where a grid has no more points."""
    tried, seed = _distributions(optuna, study.head.tunable), (study.seed * 1_000_003 + number) % LARGEST_SEED
    fixed = study.defaults if number == 0 else None
    if number and study.by == "grid":
        points = study.grid()
        if number > len(points):
            return None
        fixed = points[number - 1]
    if fixed is not None:
        begun.enqueue_trial(fixed)
        return begun.ask({name: tried[name] for name in fixed})
    if study.by == "random":
        begun.sampler = optuna.samplers.RandomSampler(seed=seed)
    else:  # parameters that the first trial has not are not among those proposed together
        together = len(study.defaults) == len(tried)
        begun.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=together)
    return begun.ask(tried)


def _distributions(optuna: Any, tunable: Tunable) -> dict[str, Any]:
    made, found = optuna.distributions, {}
    for name, tried in tunable.items():
        if isinstance(tried, Whole):
            found[name] = made.IntDistribution(int(tried.low), int(tried.high), log=tried.log)
        elif isinstance(tried, Real):
            found[name] = made.FloatDistribution(tried.low, tried.high, log=tried.log)
        else:
            found[name] = made.CategoricalDistribution(tried.options)
    return found


def _begun(optuna: Any, journal: _Journal, study: Study) -> tuple[Any, str]:
    """The study in the journal, or a new one; and why another study of the same part was not gone on with."""
    about, note = json.loads(json.dumps(study.about)), ""
    try:
        storage = optuna.storages.JournalStorage(journal)
        if study.part in optuna.get_all_study_names(storage):
            found = optuna.load_study(study_name=study.part, storage=storage)
            was, trials = found.user_attrs.get("about", {}), len(_history(found))
            if was == about and _fits(found, study):
                return found, ""
            differs = [name for name in {**was, **about} if was.get(name) != about.get(name)]
            note = f"the {trials} trials of an earlier study had another {', '.join(differs)}; it began anew"
            optuna.delete_study(study_name=study.part, storage=storage)
        found = optuna.create_study(study_name=study.part, storage=storage, direction="maximize")
    except (EmbedstoreError, OSError):
        raise
    except Exception as error:  # whatever Optuna says of records that it has not written
        raise journal.damaged(one_line(repr(error), 120)) from error
    found.set_user_attr("about", about)
    found.set_user_attr("threads", idle())
    return found, note


def _fits(found: Any, study: Study) -> bool:
    """Whether every trial of a journal is one that this study could have made; raises where one has not ended."""
    for trial in found.get_trials(deepcopy=False):
        if not trial.state.is_finished() or not isinstance(trial.user_attrs["seconds"], float):
            raise ValueError(f"trial {trial.number} has not ended")
        for name, value in trial.params.items():
            if not study.head.tunable[name].holds(value):
                raise ValueError(f"trial {trial.number} has {name} {value!r}")
    return int(found.user_attrs["threads"]) > 0


def _history(begun: Any) -> list[Tried]:
    found: list[Tried] = []
    best: float | None = None
    for trial in begun.get_trials(deepcopy=False):
        if trial.value is not None:
            best = trial.value if best is None else max(best, trial.value)
        found.append(Tried(trial.number, dict(trial.params), trial.value, best, trial.user_attrs["seconds"]))
    return found


class _Journal:
    """Optuna's journal as a file of a head's folder, which is replaced when a trial has ended: it holds whole trials.

    The format is that of Optuna's own file backend. That one locks with a link, which a kill leaves behind, and appends to
    whatever a link in the file's place leads to.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        with readable(folder.path / TUNING):
            self._lines = folder.read(TUNING).splitlines() if folder.has(TUNING) else []

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The records from a number on, each a new object: Optuna keeps and changes them."""
        return (json.loads(line) for line in self._lines[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Keep records until they are committed."""
        self._lines += [json.dumps(one, separators=(",", ":")).encode() for one in logs]

    def commit(self) -> None:
        """Replace the file by all records."""
        self._folder.write(TUNING, b"".join(line + b"\n" for line in self._lines))

    def damaged(self, said: str) -> CorruptStoreError:
        """What to say of records that cannot be replayed."""
        path = self._folder.path / TUNING
        return CorruptStoreError(
            f"{path} is damaged ({said}).", f"Remove it, and tuning begins anew: rm {shlex.quote(str(path))}"
        )


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Without Optuna's line for each trial."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
