"""Does building an index stay within the memory it is given?

    python -m benchmarks.memory [--tiny] [--vectors 1000000] [--memory 1GB] [--cache FOLDER]

A store of generated clustered vectors (384-d, float16) is written once. Then ``embedstore index --memory`` runs in a process of
its own; its peak resident memory (VmHWM) is compared with the budget plus what the interpreter with FAISS takes by itself.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es
from benchmarks._clustered import clustered
from embedstore.encoders.hash import HashEncoder
from embedstore.indexing.recipe import parse_bytes
from embedstore.store.writer import NewVectors

DIM = 384
PEAK = "print(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1], file=sys.stderr)"
ALONE = f"import sys, faiss, numpy, pyarrow, embedstore.retrieval.index; {PEAK}"
COMMAND = f"import sys\nfrom embedstore_cli.main import main\ntry: main()\nfinally: {PEAK}"


def generated_store(path: Path, n: int) -> es.Store:
    """A store of `n` generated vectors."""
    import pyarrow as pa

    store = es.Store.open(path, create=True)
    spec = HashEncoder(DIM, "text", "generated").spec
    with store.writer() as writer:
        writer.ensure_space("text", spec, dtype="float16", provenance={})
        writer.publish_spaces()
        for block in clustered(n, DIM):
            rows = np.arange(writer.next_row, writer.next_row + len(block), dtype=np.int64)
            ids = [f"g{row}" for row in rows]
            items = pa.table({"row": rows, "id": ids, "text": ids})
            hashes = np.stack([rows, rows], axis=1).astype(np.uint64)
            writer.commit(items, vectors={"text": NewVectors(rows, block, hashes)})
    return store.refresh()


def peak_of(code: str, *arguments: str) -> tuple[int, str]:
    """Peak resident bytes of a Python process, and what it printed."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return 1024 * int(done.stderr.splitlines()[-1]), done.stdout


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--memory", default="1GB")
    parser.add_argument("--factory")
    parser.add_argument("--cache", type=Path)
    given = parser.parse_args(arguments)
    n = 3000 if given.tiny else given.vectors
    factory = "IVF16,SQ8" if given.tiny else given.factory
    with tempfile.TemporaryDirectory() as temporary:
        path = (given.cache or Path(temporary)) / f"generated-{n}.store"
        store = es.Store.open(path) if path.exists() else generated_store(path, n)
        options = ["--memory", given.memory, "--json", *(["--factory", factory] if factory else [])]
        peak, printed = peak_of(COMMAND, "index", str(store.path), "text", *options)
    alone, _ = peak_of(ALONE)
    report = json.loads(printed)
    used = next((level for level in report["levels"] if level["target"] >= report["target"]), None)
    recall = used["recall"]["held out"] if used else {"value": 1.0, "low": 1.0}
    budget = parse_bytes(given.memory) or 0
    print(f"{n:,} × {DIM} float16, --memory {given.memory}\n")
    print("| index | peak, MB | interpreter alone, MB | budget + interpreter, MB | recall@10 (low) | built + tuned, s |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {report['type']} | {peak / 1e6:,.0f} | {alone / 1e6:,.0f} | {(budget + alone) / 1e6:,.0f} "
        f"| {recall['value']:.3f} ({recall['low']:.3f}) | {report['build_seconds']:.0f} + {report['tune_seconds']:.0f} |"
    )
    return {"peak": peak, "alone": alone, "budget": budget, "recall": recall["low"], "type": report["type"]}


if __name__ == "__main__":
    main()
