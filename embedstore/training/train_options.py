"""The options of `train`, checked when they are made.

Defaults and help of the command come from here, so nothing heavy is imported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedstore._core.arguments import check_coverage, check_least, check_types, option
from embedstore._core.balances import BALANCES
from embedstore.errors import UsageError

TUNERS = ("tpe", "random", "grid")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What `train` is asked besides a store and a target; its documentation says what each option means.

    Raises
    ------
    UsageError
        A value that cannot be right, whatever the store.
    """

    head: str = option("linear", "One of the heads below.", metavar="KIND")
    inputs: Sequence[str] | None = option(None, "Spaces to use, separated by commas; default all.", str | None)
    where: str | None = None
    columns: Sequence[str] | None = option(None, "Metadata columns to use as one more input.", str | None)
    cv: int | None = option(None, "Score by K-fold cross-validation.")
    task: str | None = option(None, "One of the tasks below; default by the target.", metavar="NAME")
    weights: Sequence[float] | None = option(
        None, "Of several targets, what each one's loss counts.", str | None, metavar="N,…"
    )
    balance: str | None = option(None, f"Help rare classes: {', '.join(BALANCES)}.", metavar="HOW")
    tune: int | None = option(None, "Try N settings of the head's parameters inside the training split.", metavar="N")
    tune_by: str = option("tpe", f"How parameters are proposed: {', '.join(TUNERS)}.", metavar="HOW")
    separator: str | None = option(None, "What stands between the labels in a target of text.", metavar="TEXT")
    least_items: int = option(1, "Of several labels an item, leave out those of fewer items.")
    negatives: int = option(4, "Of matching: pairs that do not belong together, for each item.", metavar="N")
    hard: float = option(0.5, "The share of them that come from the items most like it.", metavar="SHARE")
    templates: Sequence[str] | None = option(
        None,
        "Text of a class, such as 'a photo of a {}', for heads that begin with names; may be repeated.",
        list[str] | None,
        flag="--template",
        metavar="TEXT",
    )
    alignment: str | None = option(
        None, "Saved alignment that compares images with names, if there are several.", metavar="NAME"
    )
    shots: Sequence[int] | None = option(
        None, "Also measure with so few items a class, such as 0,1,2,4,8,16; 0: zero-shot.", str | None, metavar="K,K,…"
    )
    group: str | None = option(None, "Column; items with one value stay together in splits.")
    name: str | None = option(None, "Name of the saved head; default the target.")
    replace: bool = option(False, "Train over the head of that name, where there is one.")
    seed: int = option(0, "Of splits, folds and bootstrap.")
    seeds: int = option(5, "How often a head that depends on its seed is fitted.")
    out_of_fold: int = option(5, "Folds of the out-of-fold predictions kept with the head; 0: none.", metavar="K")
    coverage: float | None = option(
        None, "Measure sets or intervals that hold the truth so often, for the report.", metavar="SHARE"
    )
    per_class: bool = option(False, "The coverage is to hold in each class.")
    device: str = option("cpu", "cpu, auto, cuda or cuda:N.")
    report: bool = True
    plots: str | Path | None = option(None, "Folder for the report's figures as PNG files.", Path | None)

    def __post_init__(self) -> None:
        check_types(self)
        check_coverage(self.coverage, self.per_class)
        check_least(self, seed=0, seeds=1, out_of_fold=0, least_items=1, negatives=1, tune=2)
        if not 0 <= self.hard <= 1:
            raise UsageError(f"hard must be a share between 0 and 1. Got {self.hard} instead.")
        if self.out_of_fold == 1:
            raise UsageError("out_of_fold must be 0 or at least 2. Got 1 instead.")
        if self.coverage is not None and not self.out_of_fold:
            raise UsageError("coverage is calibrated on out-of-fold predictions; leave out_of_fold above 0.")
        if self.balance is not None and self.balance not in BALANCES:
            raise UsageError(f"balance must be one of {', '.join(BALANCES)}. Got {self.balance!r} instead.")
        if self.weights is not None and not all(0 < weight < float("inf") for weight in self.weights):
            raise UsageError(f"weights must be above 0 and finite. Got {list(self.weights)} instead.")
        if self.tune_by not in TUNERS:
            raise UsageError(f"tune_by must be one of {', '.join(TUNERS)}. Got {self.tune_by!r} instead.")
        if self.tune is None and self.tune_by != "tpe":
            raise UsageError(f"tune_by {self.tune_by!r} says how trials are proposed; say how many: tune=50 (--tune 50).")
        if self.tune is not None and self.balance is not None:
            raise UsageError("tune and balance are not made together; leave out one of them.")
        if self.shots is not None and (not len(self.shots) or min(self.shots) < 0):
            raise UsageError(f"shots must be whole numbers of 0 or more, such as 1,2,4. Got {list(self.shots)} instead.")
        if self.shots is not None and self.tune is not None:
            raise UsageError("tune finds parameters on items that shots would judge; leave out one of them.")
        if self.separator is not None and not self.separator.strip():
            raise UsageError(f"separator must be text that is not blank, such as ';'. Got {self.separator!r} instead.")
