"""`train`: fit a head on a view, score it honestly beside its baselines, save it. Wiring of store, tasks, heads, evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

from embedstore._core.threads import bounded
from embedstore.errors import HeadError, UsageError, next_step, reason_of
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.copies import EVERY
from embedstore.heads import AutoHead, AutoLabeller, Head
from embedstore.heads.balanced import BalancedHead, check_balance
from embedstore.heads.io import (
    PAGE,
    SPLIT,
    HeadRecord,
    out_of_fold_file,
    refuse_alignment,
    refuse_taken,
    replaced_note,
    save_head,
    split_file,
)
from embedstore.heads.matcher import Matcher
from embedstore.registry import heads_for
from embedstore.reports.page import render_html
from embedstore.store import Store, View
from embedstore.store.format import check_name
from embedstore.training.balance_changes import changes_to_dict
from embedstore.training.certainty import Certainty, measured, measured_across
from embedstore.training.class_names import texts_for_head
from embedstore.training.label_notes import group_notes, left_out_notes
from embedstore.training.report import report_data, save_plots
from embedstore.training.shots import shots_section
from embedstore.training.tasks.base import CLASSES, HEAD, Judged
from embedstore.training.train_options import TrainOptions
from embedstore.training.train_report import TrainReport
from embedstore.training.trial import Trial
from embedstore.training.tuning import check_tunable
from embedstore.training.tuning_report import tuning_to_dict
from embedstore.training.view_to_learn import view_to_learn

__all__ = ["TrainReport", "train"]

LEARNED = (
    *("chosen_", "alpha_", "lambda_", "gamma_", "k_", "temperature_", "scale_", "weights_", "votes_"),
    *("residual_ratio_", "sharpness_"),
)


@bounded()
def train(
    store: Store | str | Path | View,
    target: str | Sequence[str] | None = None,
    *,
    head: str = TrainOptions.head,
    inputs: Sequence[str] | None = TrainOptions.inputs,
    where: str | None = TrainOptions.where,
    columns: Sequence[str] | None = TrainOptions.columns,
    task: str | None = TrainOptions.task,
    weights: Sequence[float] | None = TrainOptions.weights,
    balance: str | None = TrainOptions.balance,
    tune: int | None = TrainOptions.tune,
    tune_by: str = TrainOptions.tune_by,
    separator: str | None = TrainOptions.separator,
    least_items: int = TrainOptions.least_items,
    negatives: int = TrainOptions.negatives,
    hard: float = TrainOptions.hard,
    templates: Sequence[str] | None = TrainOptions.templates,
    alignment: str | None = TrainOptions.alignment,
    shots: Sequence[int] | None = TrainOptions.shots,
    group: str | None = TrainOptions.group,
    cv: int | None = TrainOptions.cv,
    name: str | None = TrainOptions.name,
    replace: bool = TrainOptions.replace,
    seed: int = TrainOptions.seed,
    seeds: int = TrainOptions.seeds,
    out_of_fold: int = TrainOptions.out_of_fold,
    coverage: float | None = TrainOptions.coverage,
    per_class: bool = TrainOptions.per_class,
    device: str = TrainOptions.device,
    report: bool = TrainOptions.report,
    plots: str | Path | None = TrainOptions.plots,
    on_progress: Callable[[str], None] | None = None,
) -> TrainReport:
    """Train a head on cached vectors and save it under ``heads/`` of the store.

    Parameters
    ----------
    store : Store, path, or View
        A view brings its own target, inputs, groups and selection; others beside it are refused.
    target : str or sequence of str
        Metadata column with the labels; items where it is null are left out. Several columns, as a list or with commas between
        them, are several targets, each a class or a number: an item that lacks one counts for the others.
        None for a task that takes no target (matching).
    head : str
        A kind that serves the task: of `embedstore.registry.heads_for`.
    inputs : sequence of str, optional
        Spaces to use; default: all. Two for matching.
    where : str, optional
        SQL over the metadata columns.
    columns : sequence of str, optional
        Metadata columns, numeric or categorical, to be one more input, ``"metadata"``.
    task : str, optional
        ``"classification"``, ``"regression"``, or one of the entry-point group ``embedstore.tasks``; default: regression for a
        target of numbers with fractions, or with many different values, multilabel for a target of lists. ``"matching"`` says
        of two inputs whether they belong together. Regression has the heads linear, ridge, knn and gbdt; multilabel linear,
        knn, the networks, gbdt and auto; several targets (``"several"``) linear, knn, the networks and gbdt.
    weights : sequence of float, optional
        Of several targets, in their order: what each one's loss counts where they share a trunk; 1, if None.
    balance : str, optional
        How to help rare classes: ``"weights"``, ``"oversample"``, ``"undersample"``, ``"smote"``, ``"logit-adjust"``,
        ``"threshold"`` or ``"focal"``; see `embedstore.heads.BalancedHead`. The same head without it is scored beside.
    tune : int, optional
        How many settings of the head's parameters to try inside the training split (with `cv`, inside that of each fold), the
        one that it comes with first. Needs Optuna. The same call goes on with a run that was killed. The head as it comes is
        scored beside.
    tune_by : str
        How parameters are proposed: ``"tpe"`` (Tree-structured Parzen Estimator), ``"random"`` or ``"grid"`` (at random, too).
    separator : str, optional
        What stands between the labels in a target of text, such as ``";"``: each item has any number of them (multilabel). A
        target of lists needs none.
    least_items : int
        Labels of fewer items are left out, where an item has any number of labels; the items stay. A note counts them.
    negatives : int
        Of the task ``"matching"``, which has no target: how many pairs that do not belong together are drawn for each item that
        has both of two inputs.
    hard : float
        The share of them that are drawn from the items most like it, in either space; the others come from all.
    templates : sequence of str, optional
        What the texts of classes are, for the heads ``"zeroshot"``, ``"tip-adapter"`` and ``"prompted-linear"``, which begin
        with the names of the classes: ``"a photo of a {}"``; of several the mean. See `embedstore.training.class_names`.
    alignment : str, optional
        The saved alignment through which they are compared with spaces whose encoder takes no texts, where there are several.
    shots : sequence of int, optional
        Measure, too, how good the head, a plain kNN, a linear head and zero-shot are with so few items a class, over 20 draws
        of them; what is saved is fitted on all items.
    group : str, optional
        Metadata column; items with the same value stay together in the split, the folds and the bootstrap of the scores. What
        heads do inside (leave-one-out, the ladder's folds) takes items singly.
    cv : int, optional
        Score by stratified `cv`-fold cross-validation instead of one test split; the saved head is fitted on everything.
    name : str, optional
        Of the saved head; default: the target, or the targets with ``-`` between them.
    replace : bool
        Whether it may stand in the place of a head that has the name already.
    seed : int
        Of the hashed split, the folds and the bootstrap.
    seeds : int
        How often a head that depends on its seed is fitted, to show how much that matters.
    out_of_fold : int
        In how many folds the items that the head is fitted on are predicted by heads that did not see them: these predictions
        are kept with the head. It takes that many fits, in which nothing is chosen again; with `cv` its folds serve and cost
        nothing more. 0: none are kept. Probabilities get the temperature that these predictions ask for, where it surely helps.
    coverage : float, optional
        Measure, on items that nothing was fitted or calibrated on, how often the sets of classes, or the intervals, that
        `predict` gives with this coverage hold the truth.
    per_class : bool
        Whether the coverage is to hold in each class.
    device : str
        Where to fit: ``"cpu"``, ``"auto"``, or a torch device.
    report : bool
        Whether to write ``report.html`` beside the head.
    plots : path, optional
        A folder for the report's figures as PNG files.

    Returns
    -------
    TrainReport

    Raises
    ------
    UsageError, HeadError
    """
    options = TrainOptions(
        head=head,
        inputs=inputs,
        where=where,
        columns=columns,
        cv=cv,
        task=task,
        weights=weights,
        balance=balance,
        tune=tune,
        tune_by=tune_by,
        separator=separator,
        least_items=least_items,
        negatives=negatives,
        hard=hard,
        templates=templates,
        alignment=alignment,
        shots=shots,
        group=group,
        name=name,
        replace=replace,
        seed=seed,
        seeds=seeds,
        out_of_fold=out_of_fold,
        coverage=coverage,
        per_class=per_class,
        device=device,
        report=report,
        plots=plots,
    )
    options = changed(options, device=device_there(device))
    started, say = time.perf_counter(), on_progress or (lambda message: None)
    view, asked, left_out = view_to_learn(store, target, options)
    made = asked.make_head(head)
    if tune is not None:
        check_tunable(head, made, heads_for(asked.heads))
    if balance is not None:
        if asked.heads != CLASSES:
            raise UsageError(f"balance is for classes; target {view.target_name!r} is for the task {asked.name}.")
        check_balance(head, balance)
    name = check_name(name or "-".join(view.target_names or (str(view.target_name),)), "head")
    folder = view.store.path / "heads" / name
    refuse_alignment(folder)
    if not replace:
        refuse_taken(folder)
    named = texts_for_head(view, asked, options)
    trial = Trial(asked, view, changed(options, name=name), say, texts=named.texts)
    judged = trial.holdout() if cv is None else trial.cross_validate(cv)
    curve, too_few = None, []
    if shots is not None:
        try:
            curve = trial.shots(shots, never=named.paired(view))
        except HeadError as error:  # the head itself is made
            too_few = [f"no curve over shots: {error}"]
    say("scores")
    result = _summary(view, judged, name, options, time.perf_counter() - started)
    more = [*left_out, *too_few, *named.notes(view, judged.test), *([note] if (note := replaced_note(folder)) else [])]
    result = changed(result, notes=[*result.notes, *more], shots=curve)
    return _saved(view, judged, result, folder, options, say)


def _saved(
    view: View, judged: Judged, result: TrainReport, folder: Path, options: TrainOptions, say: Callable[[str], None]
) -> TrainReport:
    """Write the head with its split and its report; what `train` returns."""
    page = None
    if options.report or options.plots is not None:
        say("report")
        learned, ladder, certainty = result.learned, result.ladder, result.certainty
        more = [] if result.shots is None else [shots_section(result.shots)]
        data = report_data(
            view, judged, result, seed=options.seed, learned=learned, ladder=ladder, certainty=certainty, more=more
        )
        page = render_html(data).encode() if options.report else None
        if options.plots is not None:
            save_plots(data, options.plots)
    if page is not None:
        result = changed(result, report=str(folder / PAGE))
    record = HeadRecord(result.head, result.target, view.specs, judged.head, result.to_dict(), view.columns)
    extra = {SPLIT: split_file(view.rows, view.ids, judged.split)}
    for part, kept in enumerate(judged.kept):
        extra[out_of_fold_file(part if view.target_names else None)] = kept.to_parquet()
    try:
        save_head(folder, record, extra, page=page, replacing=options.replace)
    except OSError as error:
        raise HeadError(f"The head could not be saved under {folder}: {reason_of(error)}.{next_step(error)}") from error
    return result


def _summary(view: View, judged: Judged, name: str, options: TrainOptions, seconds: float) -> TrainReport:
    bootstrap = judged.bootstrap(view, options.seed)
    fitted = judged.head.member_ if isinstance(judged.head, BalancedHead | Matcher) else judged.head
    return TrainReport(
        head=name,
        task=judged.task.name,
        kind=options.head,
        target=str(view.target_name),
        inputs=view.names,
        classes=0 if view.target_names else len(judged.labels.classes),
        items=judged.sizes,
        metrics=judged.metrics(bootstrap),
        baselines=judged.baselines(bootstrap),
        gain=judged.gain(bootstrap),
        evaluation=judged.evaluation,
        learned=_learned(fitted),
        seconds=round(seconds, 3),
        fit_seconds=round(judged.fit_seconds, 3),
        ladder=fitted.ladder_ if isinstance(fitted, AutoHead | AutoLabeller) else [],
        seeds=[*judged.seeds],
        copies=judged.copies.to_dict(),
        without_copies=judged.without_copies(view, options.seed),
        notes=_notes(view, judged),
        out_of_fold=_counted(judged),
        certainty=_certainty(judged, bootstrap, options),
        targets=judged.task.by_target(judged, bootstrap),
        balance=None if options.balance is None else {"how": options.balance, **changes_to_dict(judged, bootstrap)},
        tuning=tuning_to_dict(judged, bootstrap),
        separator=options.separator,
        least_items=options.least_items,
        weights=options.weights,
    )


def _certainty(judged: Judged, bootstrap: Bootstrap, options: TrainOptions) -> Certainty | None:
    if options.coverage is None:
        return None
    kept, per_class = judged.out_of_fold, options.per_class
    if kept is None:
        raise HeadError("A coverage is calibrated on out-of-fold predictions, and none are kept of these items; leave it out.")
    if options.cv is not None:
        return measured_across(kept, bootstrap, coverage=options.coverage, per_class=per_class)
    outputs, classes = judged.outputs[HEAD], judged.labels.classes
    return measured(kept, outputs, judged.truth, classes, bootstrap, coverage=options.coverage, per_class=per_class)


def _counted(judged: Judged) -> dict[str, Any]:
    if not judged.kept:
        return {}
    crossed = [kept.take(kept.crossed) for kept in judged.kept]
    fold_of = {row: fold for kept in crossed for row, fold in zip(kept.rows.tolist(), kept.fold.tolist(), strict=True)}
    seconds = round(judged.out_of_fold_seconds, 3)
    return {"items": len(fold_of), "folds": len({*fold_of.values()}), "seconds": seconds}


def device_there(name: str) -> str:
    """A torch device that is there; ``"cpu"`` is not asked of torch, which takes seconds to import."""
    if name == "cpu":
        return name
    from embedstore.encoders.runtimes.pytorch import TorchRuntime

    return str(TorchRuntime(name, "float32").device)


def _learned(head: Head) -> dict[str, Any]:
    learned = {name.rstrip("_"): getattr(head, name) for name in LEARNED if hasattr(head, name)}
    return learned if head.calibration_ == 1 else {**learned, "calibration": head.calibration_}


def _notes(view: View, judged: Judged) -> list[str]:
    notes = [*judged.notes, *(note for found in judged.tuned for note in found.notes)]
    copies = judged.copies
    if found := int(copies.near[EVERY].sum()):
        without = judged.without_copies(view, 0)
        notes.append(
            f"{found:,} of {len(copies.checked):,} test items have a near copy ({copies.rule}) in training"
            + (f"; without them {judged.task.lead} is {without}" if without else "")
        )
    if view.groups is not None and view.split_column:
        across = len({(g, s) for g, s in zip(view.groups, view.split, strict=True)}) - len(set(view.groups))
        if across:
            notes.append(f"{across} groups of {view.group_name!r} are in more than one part of the column 'split'")
    return [*notes, *group_notes(view, judged.test), *left_out_notes(view), *judged.task.notes(judged)]
