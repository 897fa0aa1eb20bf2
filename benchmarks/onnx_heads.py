"""Does every kind of head say in an ONNX file what it says itself, how large is the file, and how fast one item?

``python -m benchmarks.onnx_heads [--tiny] [--heads linear,knn] STORE``. The store has spaces ``image`` and ``text`` and columns
``label`` and, for several labels an item, ``keywords``; heads for numbers learn the length of an item's id, those for several
targets the label and that. The texts of classes are the mean vectors of their items, and every second pair that a matcher
learns is of two items. Heads are fitted on a copy of the store, exported as float32 and as int8, and compared on up to 4,096
items, with both inputs and with each.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es
from benchmarks.heads import tiny_store
from embedstore._core.unit import unit_rows
from embedstore.errors import HeadError
from embedstore.heads import ClassTexts, Head, TextSide, make_head
from embedstore.heads.balanced import BalancedHead
from embedstore.heads.io import HeadRecord, save_head
from embedstore.heads.matcher import Matcher
from embedstore.registry import PROMPTED, heads_for

INPUTS = ("image", "text")
LEAST_ITEMS = 30
SHORT = {"epochs": 2, "rounds": 4, "patience": 2}
"""How long heads are trained in the tiny mode."""


def kinds(asked: str | None) -> Iterator[tuple[str, str]]:
    """(task, kind) of every head that is installed, or of those asked for, as KIND or TASK-KIND."""
    more = {"classification": ("balanced", *PROMPTED), "matching": ("matcher",)}
    for task in ("classification", "regression", "multilabel", "several", "matching"):
        for kind in (*heads_for(task), *more.get(task, ())):
            if asked is None or {kind, f"{task}-{kind}"} & set(asked.split(",")):
                yield task, kind


def targets(view: es.View, task: str) -> Any:
    """What heads for a task learn."""
    if task == "classification":
        return view.target
    if task == "regression":
        return np.array([len(i) for i in view.ids.tolist()], float)
    if task == "several":
        return {"label": targets(view, "classification"), "length": targets(view, "regression")}
    if task == "matching":
        return np.array(["yes", "no"])[np.arange(len(view)) % 2]
    columns = view.store.items.metadata_columns()
    column = "keywords" if "keywords" in columns else "label"
    texts = view.metadata([column]).column(column).to_pylist()
    sets = [[word.strip() for word in str(text or "").split(";" if ";" in str(text) else ",")] for text in texts]
    counts: dict[str, int] = {}
    for word in (word for words in sets for word in set(words)):
        counts[word] = counts.get(word, 0) + 1
    least = min(LEAST_ITEMS, max(counts.values()) // 2)
    return np.fromiter(([w for w in words if w and counts[w] >= least] for words in sets), object, len(sets))


def made(view: es.View, task: str, kind: str, more: dict[str, int]) -> Head:
    """A head to be fitted."""
    if kind == "balanced":
        return BalancedHead("linear", "logit-adjust")
    if task == "matching":
        return Matcher()
    return make_head(kind, task=task, texts=class_texts(view) if kind in PROMPTED else None, **more)


def class_texts(view: es.View) -> ClassTexts:
    """Classes with the mean vectors of their items as texts."""
    classes = sorted(set(targets(view, "classification").tolist()))
    sides = {}
    for name, x in view.inputs.items():
        there = view.present[name]
        means = [x[there & (view.target == label)].mean(axis=0) for label in classes]
        sides[name] = TextSide(unit_rows(np.stack(means)))
    return ClassTexts(classes, sides)


def saved(store: es.Store, view: es.View, task: str, kind: str, tiny: bool) -> str:
    """The name of a fitted head."""
    head, inputs, present = made(view, task, kind, SHORT if tiny else {}), dict(view.inputs), dict(view.present)
    if task == "matching":  # the second side of every second item is another item's
        name, pairs = INPUTS[1], np.arange(len(view))
        pairs[1::2] = np.roll(pairs[1::2], 1)
        inputs[name], present[name] = inputs[name][pairs], present[name][pairs]
    head.fit(inputs, targets(view, task), present=present)
    name = f"{task}-{kind}"
    save_head(store.path / "heads" / name, HeadRecord(name, "label", view.specs, head, {"task": task}), {})
    return name


def exported(store: es.Store, name: str, folder: Path, *, int8: bool) -> es.HeadExport | None:
    """What `export_head` says; None where the predictions differ too often."""
    try:
        return es.export_head(store, name, folder / f"{name}{'-int8' if int8 else ''}.onnx", int8=int8)
    except HeadError as error:
        print(f"| {name} | {error} |", flush=True)
        return None


def size(count: int | None) -> str:
    return "–" if count is None else f"{count / 1e6:.2f}"


def row(name: str, plain: es.HeadExport | None, small: es.HeadExport | None) -> str:
    known = plain or small
    if known is None:
        return f"| {name} | – |"
    sizes = [size(known.original_bytes), *(size(one and one.bytes) for one in (plain, small))]
    times = [f"{known.original_ms:.2f}", *(f"{one.ms:.3f}" if one else "–" for one in (plain, small))]
    agree = [f"{one.agreement:.3%}" if one else "–" for one in (plain, small)]
    apart = f"{plain.difference:.0e}" if plain else "–"
    return f"| {name} | {' | '.join([*sizes, *times, *agree, apart])} |"


def main(arguments: Sequence[str] | None = None) -> dict[str, tuple[es.HeadExport | None, es.HeadExport | None]]:
    """Print a table and return both exports by head."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--heads")
    options = parser.parse_args(arguments)
    found: dict[str, tuple[es.HeadExport | None, es.HeadExport | None]] = {}
    print("| task, kind | MB: head | ONNX | int8 | p50 ms: head | ONNX | int8 | agree: ONNX | int8 | largest difference |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.tiny:
            store = tiny_store(folder)
        else:
            shutil.copytree(options.store, folder / "copy.store")
            store = es.Store.open(folder / "copy.store")
        view = store.view(inputs=[name for name in INPUTS if name in store.spaces], target="label")
        for task, kind in kinds(options.heads):
            name = saved(store, view, task, kind, options.tiny)
            found[name] = exported(store, name, folder, int8=False), exported(store, name, folder, int8=True)
            print(row(name.replace("-", ", ", 1), *found[name]), flush=True)
    return found


if __name__ == "__main__":
    main()
