"""How much of the encoder's own speed does extraction keep?

``python -m benchmarks.extract [--tiny] [--data MANIFEST.csv]``. For images and for texts, in one run: items/s from files to a
committed store, beside the same encoder's forward-only rate on tensors that are already in memory. The two alternate and
the median ratio counts, because the machine's speed drifts. Every payload is distinct, so that deduplication helps nobody.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

import embedstore as es
from embedstore.demo import extract
from embedstore.encoders import load_encoder
from embedstore.sources import MemorySource, TableSource


def distinct(source: TableSource, modality: str, limit: int) -> list[str]:
    """At most `limit` payloads that differ: paths of files, or texts."""
    column: Iterable[str | None] = pa.Table.from_batches(list(source.batches())).column(modality).to_pylist()
    key: Callable[[str], Any] = (lambda p: Path(p).read_bytes()) if modality == "image" else (lambda t: t)
    seen: dict[Any, str] = {}
    for payload in column:
        if payload is not None and len(seen) < limit:
            seen.setdefault(key(payload), payload)
    return list(seen.values())


def end_to_end(encoder: Any, modality: str, payloads: list[str]) -> tuple[float, es.EmbedReport]:
    """Items/s into a new store."""
    source = MemorySource({"id": [str(i) for i in range(len(payloads))], modality: payloads})
    with tempfile.TemporaryDirectory() as folder:
        report = es.embed(source, Path(folder) / "b.store", **{modality: encoder})  # type: ignore[arg-type]
    return len(payloads) / report.seconds, report


def forward_only(encoder: Any, modality: str, payloads: list[str]) -> float:
    """Items/s of the model alone: tensors made before the clock starts, texts in order of length."""
    if modality == "image":
        prepared = [encoder.prepare(Path(p).read_bytes()) for p in payloads]
        batches = [encoder.tensor(prepared[i : i + encoder.batch_size]) for i in range(0, len(prepared), encoder.batch_size)]
        forward = lambda batch: encoder.runtime.run(lambda: encoder.model(batch))  # noqa: E731
    else:
        texts = sorted(payloads, key=len)
        batches = [encoder.features(texts[i : i + encoder.batch_size]) for i in range(0, len(texts), encoder.batch_size)]
        forward = encoder.forward
    forward(batches[0])
    start = time.perf_counter()
    for batch in batches:
        forward(batch)
    return len(payloads) / (time.perf_counter() - start)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Print the table and return the ratio by modality."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--data", type=Path, help="a table with columns image and text; default: the demo's dataset")
    options = parser.parse_args(arguments)
    limit, rounds = (48, 1) if options.tiny else (4000, 3)
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        source = TableSource(options.data or extract(Path(folder)))
        print("| encoder | items | end to end, items/s | forward only, items/s | ratio | busy |\n|---|---|---|---|---|---|")
        for modality, name in (("image", "effnet-lite0"), ("text", "minilm")):
            payloads = distinct(source, modality, limit if modality == "text" else min(limit, 1024))
            encoder = load_encoder(name, modality)
            forward_only(encoder, modality, payloads[:32])  # loads the model
            pairs = []
            for _ in range(rounds):
                ours, report = end_to_end(encoder, modality, payloads)
                pairs.append((ours, forward_only(encoder, modality, payloads)))
            ratios[modality] = statistics.median(ours / alone for ours, alone in pairs)
            ours, alone = (statistics.median(column) for column in zip(*pairs, strict=True))
            busy = ", ".join(f"{stage} {share:.0%}" for stage, share in report.shares.items())
            print(f"| {name} | {len(payloads):,} | {ours:.1f} | {alone:.1f} | {ratios[modality]:.2f} | {busy} |", flush=True)
    return ratios


if __name__ == "__main__":
    main()
