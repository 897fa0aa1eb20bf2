"""How many rows a second go through the whole pipeline, and does memory grow with them?

    python -m benchmarks.stream [--tiny] [--rows 1000000]

A CSV of generated texts (id, text of eight words, price) goes through ``embedstore embed --text hash:64`` in a process of its
own, once with a tenth of the rows and once with all of them. The hash encoder costs next to nothing: what is measured is
reading, typing, hashing, comparing, committing. Peak memory is VmHWM of the process, interpreter and libraries included.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path

from benchmarks.memory import COMMAND, peak_of


def write_texts(path: Path, rows: int) -> None:
    rng = random.Random(0)
    words = [f"w{i}" for i in range(20_000)]
    with open(path, "w", encoding="utf-8") as file:
        file.write("id,text,price\n")
        for i in range(rows):
            file.write(f"i{i},{' '.join(rng.choices(words, k=8))},{i % 1000}\n")


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Print the table; rows a second and peak bytes of the larger run, and its memory beside that of the smaller one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args(arguments)
    rows = 5000 if given.tiny else given.rows
    print("| rows | CSV, MB | rows/s | peak memory, MB | ÷ a tenth of the rows |")
    print("|---|---|---|---|---|")
    peaks: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        for n in (rows // 10, rows):
            table = Path(folder) / f"{n}.csv"
            write_texts(table, n)
            peak, printed = peak_of(
                COMMAND, "embed", str(table), "--store", str(table.with_suffix(".store")), "--text", "hash:64", "--json"
            )
            rate = json.loads(printed)["spaces"]["text"]["items_per_s"]
            peaks.append(peak)
            times = f"{peak / peaks[0]:.2f}" if len(peaks) > 1 else ""
            print(f"| {n:,} | {table.stat().st_size / 1e6:.1f} | {rate:,.0f} | {peak / 1e6:.0f} | {times} |", flush=True)
    return {"rows/s": rate, "peak": peaks[1], "ratio": peaks[1] / peaks[0]}


if __name__ == "__main__":
    main()
