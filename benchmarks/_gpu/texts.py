"""P4: texts end to end, beside the network alone and the tokenizer alone."""

from __future__ import annotations

import shutil
import time
from typing import Any

import numpy as np

import embedstore as es
from benchmarks._gpu import data
from benchmarks._gpu.rates import forward_rate
from benchmarks._gpu.run import Run
from benchmarks._gpu.world import World
from embedstore.sources import MemorySource

WORDS = (6, 36)
"""Of a text: about two tokens more."""
CAPTION = (5, 20)
PREPARED = 4096


def texts(world: World, run: Run) -> None:
    sizes = world.sizes
    with run.attempt("MiniLM"):
        encoder: Any = world.minilm(world.device, "auto")
        given = data.texts(sizes.sentences, *WORDS)
        prepared = sorted(_prepared(run, "MiniLM", encoder, given), key=encoder.cost)
        pieces = encoder.stacked(prepared[len(prepared) // 2 :][: encoder.batch_size])
        run.report("MiniLM", "forward only", forward_rate(world, encoder.model, pieces[0].ids, pieces[0].mask), "/s")
        _whole(world, run, "MiniLM", encoder, given)
    name = f"{sizes.base} texts"
    with run.attempt(name):
        encoder = world.clip("text", world.device, "auto")
        given = data.texts(sizes.captions, *CAPTION)
        _prepared(run, name, encoder, given)
        tokens = np.ones((min(encoder.batch_size, sizes.batch), encoder.spec.max_length), np.int64)
        tokens[:, -1] = 49407  # the mark at a text's end, whose place is looked for
        run.report(name, "forward only", forward_rate(world, encoder.model, tokens), "/s")
        _whole(world, run, name, encoder, given)


def _prepared(run: Run, name: str, encoder: Any, given: list[str]) -> list[Any]:
    some = [text.encode() for text in given[:PREPARED]]
    encoder.prepare(some[0])
    start = time.perf_counter()
    prepared = [encoder.prepare(text) for text in some]
    run.report(name, "prepared in one thread", len(some) / (time.perf_counter() - start), "/s")
    return prepared


def _whole(world: World, run: Run, name: str, encoder: Any, given: list[str]) -> None:
    encoder.encode([encoder.prepare(given[0].encode())])
    store = world.folder / "texts"
    source = MemorySource({"id": [str(i) for i in range(len(given))], "text": given})
    try:
        report = es.embed(source, store, text=encoder)
    finally:
        shutil.rmtree(store, ignore_errors=True)
    run.check(name, "embedded", float(report.spaces["text"].embedded), "=", float(len(given)))
    run.report(name, "end to end", len(given) / report.seconds, "/s")
    run.report(name, "bound by", report.bound_by)
