"""What happens to fusion heads when texts go missing at test time?

``python -m benchmarks.missing [--tiny] [--heads gated,attention] STORE``. The store has spaces ``image`` and ``text`` and a
column ``label``. Over the folds of `benchmarks.heads`, text is taken from 0 to 100 % of the test items: with a mask, as our
heads have it, and filled with zeros, as it is often done. Beside them heads of the same kind and linear, fitted on images
alone.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es
from benchmarks.heads import load, tiny_store
from embedstore.heads import Head, make_head
from embedstore.heads.base import Data

RATES = (0.0, 0.25, 0.5, 0.75, 1.0)
Array = np.ndarray[Any, Any]


def hits(head: Head, data: Data) -> Array:
    return np.asarray(head.predict(data.inputs, present=data.present) == data.codes, np.float64)


def without_text(data: Data, rate: float, *, zeros: bool) -> Data:
    """Text taken from a share of the items that have an image; the same items at the same rate."""
    gone = (np.random.default_rng(0).permutation(len(data)) / len(data) < rate) & data.present["image"]
    text = np.where(gone[:, None], 0, data.inputs["text"]).astype(np.float32)
    mask = data.present["text"] if zeros else data.present["text"] & ~gone
    return Data({**data.inputs, "text": text}, {**data.present, "text": mask}, data.codes)


def curves(kind: str, data: Data) -> dict[str, Array]:
    """Accuracy at every rate (5,) with masks and with zeros, and of the heads on images alone."""
    from sklearn.model_selection import StratifiedKFold

    found = {name: np.zeros(len(RATES)) for name in ("masks", "zeros", f"{kind} on images alone", "linear on images alone")}
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(data.codes, data.codes):
        fit, held_out = data.take(train), data.take(test)
        head = make_head(kind).fit(fit.inputs, fit.codes, present=fit.present)
        for i, rate in enumerate(RATES):
            found["masks"][i] += hits(head, without_text(held_out, rate, zeros=False)).sum()
            found["zeros"][i] += hits(head, without_text(held_out, rate, zeros=True)).sum()
        for alone in (kind, "linear"):
            images = fit.only(["image"])
            single = make_head(alone).fit(images.inputs, images.codes, present=images.present)
            found[f"{alone} on images alone"] += hits(single, held_out.only(["image"])).sum()
    return {name: total / len(data) for name, total in found.items()}


def main(arguments: list[str] | None = None) -> dict[str, dict[str, Array]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--heads", default="gated,attention")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        store = tiny_store(Path(folder)) if options.tiny else es.Store.open(options.store)
        data, _ = load(store)
        found = {kind: curves(kind, data) for kind in options.heads.split(",")}
    print(f"\n{len(data):,} items, text taken from\n")
    print("| head | | " + " | ".join(f"{rate:.0%}" for rate in RATES) + " |\n|---|---|" + "---|" * len(RATES))
    for kind, rows in found.items():
        for name, accuracy in rows.items():
            print(f"| {kind} | {name} | " + " | ".join(f"{a:.3f}" for a in accuracy) + " |")
    return found


if __name__ == "__main__":
    main()
