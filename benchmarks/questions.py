"""Do a picture and a question together answer what neither of them answers alone?

``python -m benchmarks.questions [--tiny] [--heads linear,bilinear,attention,gbdt] [--cv 5] [MANIFEST]``. MANIFEST is a table
with the columns id, image, label and sublabel. Each picture is asked what kind of thing it is, whether it is of its own kind,
whether it is of another one, and which sort of its kind, in one of several wordings; the answer comes from the table. All
questions on one picture (the same bytes) are on one side of every split, and the bootstrap draws pictures.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import embedstore as es
from embedstore.encoders.hash import HashEncoder
from embedstore.evaluation.bootstrap import Bootstrap, Score
from embedstore.sources import MemorySource

LEAST = 10
"""Pictures of a kind, or of a sort of it, from which on it is asked for."""
KINDS = ("What kind of thing is it?", "What does the picture show?", "Which category does this belong to?")
WHETHER = ("Does it belong to {}?", "Is this one of the {}?", "Would you file the picture under {}?")
SORTS = ("Which sort of {} is it?", "What exactly, among {}?", "{}: but which ones?")
CANDIDATES = ("image,question", "question", "image")

Row = Mapping[str, str]
Item = dict[str, str]


def questions(rows: Sequence[Row], folder: Path, seed: int = 0) -> Iterator[Item]:
    """Items with the columns id, image, picture, about, question and answer."""
    rng = np.random.default_rng(seed)
    kinds = [kind for kind, n in Counter(row["label"] for row in rows).items() if n >= LEAST]
    sorts = {sort for sort, n in Counter((row["label"], row["sublabel"]) for row in rows).items() if n >= LEAST and sort[1]}
    several = {kind for kind in kinds if sum(kind == of for of, _ in sorts) > 1}
    for row in rows:
        kind, image = row["label"], folder / row["image"]
        picture = hashlib.sha256(image.read_bytes()).hexdigest()
        if kind not in kinds:
            continue
        other = str(rng.choice([name for name in kinds if name != kind]))
        asked = [("kind", KINDS, "", kind), ("whether", WHETHER, kind, "yes"), ("whether", WHETHER, other, "no")]
        if kind in several and (kind, row["sublabel"]) in sorts:
            asked.append(("sort", SORTS, kind, row["sublabel"]))
        for n, (about, wordings, of, answer) in enumerate(asked):
            text = str(rng.choice(wordings)).format(of)
            yield {
                "id": f"{row['id']}?{n}",
                "image": str(image.absolute()),
                "picture": picture,
                "about": about,
                "question": text,
                "answer": answer,
            }


def by_kind_of_question(store: es.Store, head: str) -> dict[str, tuple[int, list[Score]]]:
    """What is asked about → how often, and the accuracy of the head, of the question alone and of the image alone."""
    kept = es.out_of_fold(store, head)
    columns = store.items.take(kept.rows, ["about", "picture"])
    about, picture = (np.array(columns.column(name).to_pylist()) for name in ("about", "picture"))
    found = {}
    for one in [*dict.fromkeys(about.tolist()), "all"]:
        at = np.ones(len(about), bool) if one == "all" else about == one
        bootstrap = Bootstrap.of(int(at.sum()), groups=picture[at])
        said = [kept.predicted, kept.alone["question"], kept.alone["image"]]
        found[one] = int(at.sum()), [bootstrap.mean((labels == kept.target)[at].astype(float)) for labels in said]
    return found


class Colour(HashEncoder):
    """The mean colour of a picture."""

    def prepare(self, payload: bytes) -> Any:
        return np.asarray(Image.open(io.BytesIO(payload)).convert("RGB"), np.float32).mean(axis=(0, 1)) / 255

    def encode(self, batch: Sequence[Any]) -> Any:
        return np.stack(batch)


def tiny_manifest(folder: Path) -> Path:
    """Pictures of one colour each, of three kinds."""
    rng, rows = np.random.default_rng(0), []
    for i in range(60):
        colour = np.eye(3)[i % 3] * 200 + rng.integers(0, 50, 3)
        Image.new("RGB", (8, 8), tuple(colour.astype(int).tolist())).save(folder / f"{i}.png")
        rows.append({"id": str(i), "image": f"{i}.png", "label": ["reds", "greens", "blues"][i % 3], "sublabel": ""})
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "manifest.csv"


def main(arguments: list[str] | None = None) -> dict[tuple[str, str], Score]:
    """Print two tables; return the accuracy by head and inputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", nargs="?", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--heads", default="linear,bilinear,attention,gbdt")
    parser.add_argument("--cv", type=int, default=5)
    options = parser.parse_args(arguments)
    heads, cv = (["bilinear"], 2) if options.tiny else (options.heads.split(","), options.cv)
    found: dict[tuple[str, str], Score] = {}
    with tempfile.TemporaryDirectory() as folder:
        manifest = tiny_manifest(Path(folder)) if options.tiny else options.manifest
        with open(manifest, newline="", encoding="utf-8") as file:
            items = list(questions(list(csv.DictReader(file)), manifest.parent))
        image = Colour(3, "image", "colour") if options.tiny else "effnet-lite0"
        text = "hash:16" if options.tiny else "minilm"
        source = MemorySource({name: [item[name] for item in items] for name in items[0]})
        path = Path(folder) / "questions.store"
        es.embed(source, path, image=image, text={"question": text}, columns={"question": "question"})
        store = es.Store.open(path)
        print("| head | image + question | question alone | less by | image alone | less by |")
        print("|---|---|---|---|---|---|", flush=True)
        for head in heads:
            report = es.compare(store, "answer", inputs=CANDIDATES, head=head, group="picture", cv=cv, timed=0)
            told = {",".join(one.inputs): one for one in report.candidates}
            found |= {(head, name): one.metrics["accuracy"] for name, one in told.items()}
            cells = [f"{told[name].metrics['accuracy']} | {told[name].behind}" for name in CANDIDATES[1:]]
            print(f"| {head} | {told[CANDIDATES[0]].metrics['accuracy']} | {' | '.join(cells)} |", flush=True)
        best = max(heads, key=lambda head: found[head, CANDIDATES[0]].value)
        es.train(store, "answer", head=best, name="answers", group="picture", cv=cv, seeds=1, report=False)
        print(f"\n| asked about | questions | {best} on image + question | linear on question | linear on image |")
        print("|---|---|---|---|---|")
        for about, (n, scores) in by_kind_of_question(store, "answers").items():
            print(f"| {about} | {n:,} | {' | '.join(map(str, scores))} |")
    return found


if __name__ == "__main__":
    main()
