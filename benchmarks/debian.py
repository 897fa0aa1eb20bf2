"""Where do 63,000 real short texts come from? From the package list of this Debian machine, embedded with `minilm`.

    python -m benchmarks.debian debian.store          # about three minutes on two cores, once

Every package has a Section (its `label`), and many share one description: real ties, which recall has to survive.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Iterator
from pathlib import Path

import embedstore as es
from embedstore.sources import MemorySource


def packages(limit: int | None = None) -> dict[str, list[str]]:
    """Columns id, text and label of the packages that ``apt-cache dumpavail`` knows, first version each."""
    listing = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    columns: dict[str, list[str]] = {"id": [], "text": [], "label": []}
    seen: set[str] = set()
    for fields in _paragraphs(listing):
        name = fields.get("Package", "")
        if name and name not in seen and fields.get("Description"):
            seen.add(name)
            columns["id"].append(name)
            columns["text"].append(fields["Description"])
            columns["label"].append(fields.get("Section", "unknown").rpartition("/")[2])
        if len(seen) == limit:
            break
    return columns


def _paragraphs(listing: str) -> Iterator[dict[str, str]]:
    for paragraph in listing.split("\n\n"):
        lines = (line.partition(": ") for line in paragraph.splitlines() if not line.startswith(" "))
        yield {key: value.strip() for key, _, value in lines}


def debian_store(path: Path, limit: int | None = None) -> es.Store:
    """The store at `path`, embedded first where it is new."""
    if not (path / "store.json").exists():
        report = es.embed(MemorySource(packages(limit)), path, text="minilm")
        print(f"embedded {report.items:,} descriptions in {report.seconds:.0f} s")
    return es.Store.open(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--limit", type=int)
    given = parser.parse_args()
    print(debian_store(given.store, given.limit))
