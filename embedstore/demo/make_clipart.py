"""Builds ``clipart.zip``, the demo's dataset, from a folder of Open Clip Art.

``python -m embedstore.demo.make_clipart FOLDER`` reads FOLDER/manifest.csv (columns id, image, label, title, text) and writes
the zip beside this file: `PER_CLASS` items of each of `CLASSES`, drawn at random, without repeated images or texts, JPEG of at
most `SIDE` pixels. The same input gives the same items.
"""

from __future__ import annotations

import csv
import hashlib
import io
import sys
import zipfile
from pathlib import Path

from embedstore.encoders.payloads.thumbnail import small_jpeg

CLASSES = (
    "animals", "buildings", "computer", "food", "geography", "office",
    "people", "plants", "recreation", "signs_and_symbols", "tools", "transportation",
)  # fmt: skip
PER_CLASS, SIDE, QUALITY = 51, 224, 78
TARGET = Path(__file__).with_name("clipart.zip")


def choose(folder: Path) -> list[dict[str, str]]:
    """The items of the demo, as rows of the manifest."""
    with open(folder / "manifest.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] in CLASSES and row["text"].strip()]
    seen: set[str] = set()
    chosen: dict[str, list[dict[str, str]]] = {label: [] for label in CLASSES}
    for row in sorted(rows, key=_draw):
        marks = {hashlib.sha256((folder / row["image"]).read_bytes()).hexdigest(), row["text"].strip().lower()}
        if len(chosen[row["label"]]) < PER_CLASS and not marks & seen:
            chosen[row["label"]].append(row)
            seen |= marks
    return sorted((row for rows_ in chosen.values() for row in rows_), key=lambda r: r["id"])


def build(folder: Path, target: Path = TARGET) -> int:
    """Write the zip and return the number of items."""
    rows = choose(folder)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["id", "image", "text", "label"])
    with zipfile.ZipFile(target, "w") as archive:
        for row in rows:
            name = f"images/{row['id']}.jpg"
            writer.writerow([row["id"], name, row["text"], row["label"]])
            archive.writestr(zipfile.ZipInfo(name), small_jpeg((folder / row["image"]).read_bytes(), SIDE, quality=QUALITY))
        info = zipfile.ZipInfo("manifest.csv")
        info.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(info, table.getvalue())
    return len(rows)


def _draw(row: dict[str, str]) -> bytes:
    """Sort key that draws items at random. Not by the hash that splits them: the least of that one are all test items."""
    return hashlib.sha256(row["id"].encode()).digest()


if __name__ == "__main__":
    count = build(Path(sys.argv[1]))
    sys.stdout.write(f"{TARGET}: {count} items, {TARGET.stat().st_size:,} bytes\n")
