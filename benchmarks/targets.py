"""What does sharing a trunk cost, or gain? Heads for several targets beside the heads of each target alone.

``python -m benchmarks.targets STORE TARGET,TARGET [--heads linear,gated] [--cv 5] [--seeds 1] [--tiny]``. Both are fitted on
the same folds, by the same solver; each target's accuracy (of numbers: the mean absolute error) is over all items that have
it, each judged by heads that did not see its fold, the mean over seeds, which draw the folds too. The change has an interval,
paired by item; seconds are those of all folds and seeds.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

import embedstore as es
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.metrics import Score
from embedstore.heads import TargetsHead
from embedstore.heads.targets_apart import EachAlone
from embedstore.training.tasks.several_columns import SeveralTargets
from embedstore.training.train_options import TrainOptions
from embedstore.training.trial import Trial

KINDS = "linear,weighted,gated,bilinear,attention"
TINY = {"epochs": 2, "width": 8}


def values(labels: Any, outputs: Any) -> dict[str, Any]:
    """Of each target, whether an item's class is right, or how far off its number is (n,); NaN where it has none."""
    found = {}
    for k, (name, classes) in enumerate(zip(labels.truth.dtype.names, labels.classes, strict=True)):
        truth = labels.truth[name]
        said = outputs[:, k, : len(classes)].argmax(axis=1) if len(classes) else outputs[:, k, 0]
        found[name] = np.where(np.isnan(truth), np.nan, said == truth if len(classes) else np.abs(said - truth))
    return found


def crossed(head: Any, trial: Trial, view: es.View, task: SeveralTargets, cv: int) -> Any:
    """What heads like `head` say of all items (n, t, w), each by one that did not see its fold."""
    labels, out = trial.labels, None
    for fit, val, test in trial.parts(cv)[0]:
        (X, present), (v_X, v_present), (t_X, t_present) = (
            ({n: x[at] for n, x in view.inputs.items()}, {n: m[at] for n, m in view.present.items()}) for at in (fit, val, test)
        )
        head.fit(X, labels.values[fit], present=present, validation=(v_X, labels.values[val], v_present))
        found = task.outputs(head, t_X, t_present, labels)
        out = np.empty((len(view), *found.shape[1:])) if out is None else out
        out[test] = found
    return out


def main(arguments: list[str] | None = None) -> dict[tuple[str, str], Score]:
    """Print the table and return the changes by (kind of head, target)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("targets")
    parser.add_argument("--heads", default=KINDS)
    parser.add_argument("--cv", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(arguments)
    store = es.Store.open(options.store)
    view = store.view(inputs=list(store.spaces), target=options.targets)
    task, cv = SeveralTargets(), 2 if options.tiny else options.cv
    print(f"{options.targets} from {' + '.join(view.names)}: {len(view):,} items, {cv} folds, {options.seeds} seeds\n")
    print(
        "| head | target | together | alone | change, paired | s together | s alone |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    changes = {}
    for kind in options.heads.split(","):
        seconds, sums = np.zeros(2), {}
        for seed in range(options.seeds):
            trial = Trial(task, view, TrainOptions(head=kind, seed=seed), lambda message: None)
            head = task.make_head(kind, seed=seed, **(TINY if options.tiny else {}))
            assert isinstance(head, TargetsHead)
            for which, one in enumerate((head, EachAlone(head))):
                started = time.perf_counter()
                found = values(trial.labels, crossed(one, trial, view, task, cv))
                seconds[which] += time.perf_counter() - started
                for name, value in found.items():
                    sums[name, which] = sums.get((name, which), 0) + value / options.seeds
        for name in view.target_names:
            there = ~np.isnan(sums[name, 0])
            together, alone = (sums[name, which][there] for which in (0, 1))
            bootstrap = Bootstrap.of(int(there.sum()))
            changes[kind, name] = bootstrap.mean(together - alone)
            told = [str(bootstrap.mean(x)) for x in (together, alone)]
            spent = " | ".join(f"{s:.0f}" for s in seconds)
            print(f"| {kind} | {name} | {told[0]} | {told[1]} | {changes[kind, name]} | {spent} |", flush=True)
    return changes


if __name__ == "__main__":
    main()
