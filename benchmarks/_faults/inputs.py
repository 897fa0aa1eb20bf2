"""Kind ``inputs``: tables, arrays and archives with some bytes changed, embedded or imported into a new store."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks._faults.crafted import mutated
from benchmarks._faults.hostile import MEMORY, command_here, judged, told
from benchmarks._faults.outcomes import Ending, Trial, in_turn, worst
from benchmarks._faults.processes import LIMIT, Worker
from benchmarks._faults.strange import picture
from benchmarks._faults.world import World

MUTATED = 200
"""Mutations of every file."""
ROWS = 40


class Inputs:
    """Trials of one world."""

    kind = "inputs"

    def __init__(self, world: World) -> None:
        self._world = world
        self._folder = world.root / "inputs"

    def trials(self, rng: random.Random) -> Iterator[Trial]:
        """`MUTATED` mutations of every kind of file, in turn."""
        self._make()
        plans = [[f"{path.name} {rng.randrange(1 << 30)}" for _ in range(MUTATED)] for path in sorted(self._folder.iterdir())]
        with self._worker() as worker:
            yield from in_turn(plans, lambda case: self._trial(case, worker))

    def trial(self, case: str) -> Trial:
        """One mutation; `case` is the file and the seed of what is done to it: ``table.parquet 17``."""
        self._make()
        with self._worker() as worker:
            return self._trial(case, worker)

    def _worker(self) -> Worker:
        return Worker(self._world.root / f"worker-{os.getpid()}", lives=100, memory=MEMORY)

    def _make(self) -> None:
        if not self._folder.exists():
            write_inputs(self._folder)

    def _trial(self, case: str, worker: Worker) -> Trial:
        name, seed = case.split()
        folder = self._world.folder()
        source, store = folder / name, folder / "a.store"
        source.write_bytes(mutated((self._folder / name).read_bytes(), random.Random(int(seed))))
        before = picture(folder / "precious")
        where = f"{source}:/vectors" if name.endswith(".h5") else str(source)
        arguments = ["import", where, str(store), "--modality", "text"]
        if not name.startswith("vectors"):
            arguments = ["embed", str(source), "--store", str(store), "--text", "hash:16", "--image", "hash:8"]
        ended = told(worker.ask(command_here, folder, arguments, folder / "run", limit=LIMIT))
        found = [judged(arguments[0], ended)]
        if (store / "store.json").exists():
            found.append(judged("verify", told(worker.ask(command_here, folder, ["verify", str(store)], folder / "run"))))
            if found[-1][0] == Ending.DETECTED:
                found.append((Ending.WRONG, "verify finds damage in a store that was just made"))
        if picture(folder / "precious") != before:
            found.append((Ending.TOUCHED, "the precious folder"))
        self._world.drop(folder)
        return Trial(self.kind, case, *worst(found))


def write_inputs(folder: Path) -> None:
    """One small file of every kind: those that begin with ``vectors`` are imported, the others embedded."""
    import h5py
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    rows = [{"id": f"i{i}", "text": f"text {i}", "label": "ab"[i % 2], "price": i / 4} for i in range(ROWS)]
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        with open(folder / f"table{suffix}", "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    (folder / "table.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), folder / "table.parquet")
    vectors = np.random.default_rng(0).standard_normal((ROWS, 8), np.float32)
    ids = np.array([row["id"] for row in rows])
    np.save(folder / "vectors.npy", vectors)
    np.savez(folder / "vectors.npz", vectors=vectors, ids=ids)
    pq.write_table(pa.table({"id": ids.tolist(), "vector": vectors.tolist()}), folder / "vectors.parquet")
    with h5py.File(folder / "vectors.h5", "w") as h5:
        h5["vectors"] = vectors
    _write_tars(folder)


def _write_tars(folder: Path) -> None:
    for suffix, mode in ((".tar", "w"), (".tar.gz", "w:gz")):
        with tarfile.open(folder / f"shard{suffix}", mode) as tar:
            for i in range(ROWS // 4):
                for ending, text in (("txt", f"text {i}"), ("json", f'{{"price": {i}}}'), ("jpg", f"no picture {i}")):
                    member = tarfile.TarInfo(f"{i:04d}.{ending}")
                    member.size = len(text)
                    tar.addfile(member, io.BytesIO(text.encode()))
