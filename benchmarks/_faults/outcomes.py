"""How a trial ends, and the table of all trials."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Protocol


class Ending(StrEnum):
    """How one trial ended. The last five are faults of embedstore."""

    HELD = "held"
    """The promise was kept: nothing lost, nothing twice, the same command finished."""
    DETECTED = "detected"
    """The damage was told in one line that names it."""
    HARMLESS = "harmless"
    """Every answer was that of the undamaged store."""
    WRONG = "wrong answer"
    TRACEBACK = "traceback"
    SIGNAL = "signal"
    HANG = "hang"
    TOUCHED = "touched outside"


FAULTS = (Ending.WRONG, Ending.TRACEBACK, Ending.SIGNAL, Ending.HANG, Ending.TOUCHED)


@dataclass(frozen=True)
class Trial:
    """One thing done to a store, and how it ended.

    Parameters
    ----------
    kind : str
        As ``--only`` takes it.
    case : str
        What was done, in words and numbers that make it unique within a run of one seed.
    ending : Ending
    detail : str
        What was seen, where it is a fault.
    """

    kind: str
    case: str
    ending: Ending
    detail: str = ""

    @property
    def fault(self) -> bool:
        return self.ending in FAULTS


class Kind(Protocol):
    """One kind of fault: `trials` goes through all of them, in an order of which every beginning is a fair sample."""

    kind: str

    def trials(self, rng: random.Random) -> Iterator[Trial]: ...

    def trial(self, case: str) -> Trial: ...


def worst(endings: list[tuple[Ending, str]]) -> tuple[Ending, str]:
    """Of several endings of one trial the one that counts, with its detail: the worst fault, else detected, held, harmless."""
    order = (
        *(Ending.TOUCHED, Ending.SIGNAL, Ending.HANG, Ending.TRACEBACK, Ending.WRONG),
        *(Ending.DETECTED, Ending.HELD, Ending.HARMLESS),
    )
    return min(endings, key=lambda found: order.index(found[0]), default=(Ending.HARMLESS, ""))


def in_turn(plans: Sequence[Iterable[str]], trial: Callable[[str], Trial]) -> Iterator[Trial]:
    """Try the first case of every plan, then every second one, and so on: whenever it is stopped, all had their share."""
    left = [iter(plan) for plan in plans]
    while left:
        for plan in tuple(left):  # none is begun before its turn: some first run their command
            if (case := next(plan, None)) is None:
                left.remove(plan)
            else:
                yield trial(case)


@dataclass
class Table:
    """Counts of all trials, and the faults among them."""

    seed: int
    counts: dict[str, Counter[Ending]] = field(default_factory=dict)
    faults: list[Trial] = field(default_factory=list)

    def add(self, trial: Trial) -> None:
        self.counts.setdefault(trial.kind, Counter())[trial.ending] += 1
        if trial.fault:
            self.faults.append(trial)

    def lines(self) -> Iterator[str]:
        """The table in Markdown."""
        yield f"| kind | tried | {' | '.join(Ending)} |"
        yield "|---" * (len(Ending) + 2) + "|"
        total: Counter[Ending] = Counter()
        for kind, counts in self.counts.items():
            total += counts
            yield _line(kind, counts)
        if len(self.counts) > 1:
            yield _line("all", total)

    def repeat(self, trial: Trial) -> str:
        """One line: what went wrong, and the command that does it again."""
        again = f'python -m benchmarks.faults --only {trial.kind} --seed {self.seed} --case "{trial.case}"'
        return f"{trial.ending}: {trial.case}: {trial.detail}\n    {again}"

    def to_dict(self) -> dict[str, Any]:
        counts = {kind: {"tried": found.total(), **{e: found[e] for e in Ending}} for kind, found in self.counts.items()}
        return {"seed": self.seed, "counts": counts, "faults": [asdict(trial) for trial in self.faults]}


def _line(kind: str, counts: Counter[Ending]) -> str:
    return f"| {kind} | {counts.total():,} | {' | '.join(f'{counts[e]:,}' for e in Ending)} |"
