"""What does tuning gain over a head's defaults, and is a study that was killed the study that was not?

``python -m benchmarks.tuning [--tiny] [--heads gated,knn] [--trials 50] [--kill 20] [--seeds 0] STORE``. The store has a column
``label``. Each head is tuned inside the training split and judged on the test split beside the same head as it comes, for each
seed of the split; intervals: over test items, 95 %, paired. With the first seed of the first head the study is made once more
in a process that is killed (SIGKILL) after some trials, and gone on with: trials, scores and the best must be the same.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import embedstore as es
from benchmarks.heads import tiny_store
from embedstore.evaluation.metrics import Score

TRAIN = (
    "import json, sys; import embedstore as es; store, head, trials, seed, name = sys.argv[1:]; "
    "tuned = dict(head=head, tune=int(trials), seed=int(seed), name=name); "
    "r = es.train(store, 'label', **tuned, replace=True, report=False, seeds=1, out_of_fold=0); "
    "print(json.dumps(r.to_dict()))"
)


def trained(store: Path, head: str, trials: int, seed: int, name: str, *, kill: int = 0) -> dict[str, Any]:
    """What `train` returns in a process of its own; with `kill` that is killed after so many trials, and run again."""
    command = [sys.executable, "-c", TRAIN, str(store), head, str(trials), str(seed), name]
    if kill:
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while finished(store / "heads" / name / "tuning.jsonl") < kill:
            if running.poll() is not None:
                raise RuntimeError(f"it ended with {running.returncode} before it was killed")
            time.sleep(0.02)
        running.kill()
        running.wait()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def finished(journal: Path) -> int:
    """Trials in a journal, which notes the seconds of each."""
    return journal.read_text().count('"user_attr":{"seconds"') if journal.exists() else 0


def same(one: dict[str, Any], other: dict[str, Any]) -> int:
    """How many trials of two studies have the same parameters and the same score, to the last bit."""
    pairs = zip(one["history"], other["history"], strict=True)
    return sum(a["params"] == b["params"] and a["value"] == b["value"] for a, b in pairs)


def main(arguments: list[str] | None = None) -> dict[str, Score]:
    """Print a table and return the gain of each head by head and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--heads", default="gated,linear,ridge,knn,kernel,gbdt")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--kill", type=int, default=20, help="after so many trials; 0: never")
    parser.add_argument("--seeds", default="0")
    options = parser.parse_args(arguments)
    trials, kill = (4, 2) if options.tiny else (options.trials, options.kill)
    gains: dict[str, Score] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = (
            tiny_store(Path(folder)).path if options.tiny else Path(shutil.copytree(options.store, Path(folder) / "s.store"))
        )
        print(f"{len(es.Store.open(store)):,} items, {trials} trials\n")
        columns = ("head", "split", "as it comes, out of fold", "best, out of fold (trial)", "accuracy on the test items")
        print(f"| {' | '.join(columns)} | gain over the head as it comes, paired | s |\n|{'---|' * 7}")
        for head in ["ridge"] if options.tiny else options.heads.split(","):
            for seed in map(int, options.seeds.split(",")):
                report = trained(store, head, trials, seed, f"{head}-{seed}")
                study = report["tuning"]
                gain = gains[f"{head} {seed}"] = Score.from_dict(study["gain"])
                print(
                    f"| {head} | {seed} | {study['default_value']:.3f} | {study['value']:.3f} ({study['best']}) "
                    f"| {Score.from_dict(report['metrics']['accuracy'])} | {gain} | {study['seconds']:.0f} |",
                    flush=True,
                )
                if kill:
                    again = trained(store, head, trials, seed, "killed", kill=kill)["tuning"]
                    equal, best = same(study, again), "same" if again["best"] == study["best"] else "another"
                    told = f"killed after {again['before']} trials, gone on with: {equal} of {trials} the same, the {best} best"
                    kill = 0
        print(f"\n{told}" if options.kill or options.tiny else "")
    return gains


if __name__ == "__main__":
    main()
