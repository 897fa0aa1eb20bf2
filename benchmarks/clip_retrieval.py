"""How fast is extraction beside clip-retrieval, on the same tars, model and machine?

    python -m benchmarks.clip_retrieval [--tiny] [--data MANIFEST.csv] [--peer PYTHON] [--items 512]

Distinct images with their texts are written to WebDataset tars, and ViT-B-32 with random weights to a file. Then
``embedstore embed`` and ``clip-retrieval inference`` (batches of 64, two reading processes, no JIT) embed both modalities in
processes of their own, once all of them and once an eighth: items a second are those of the difference, so that neither pays
for its start. PYTHON is the interpreter of an environment with clip-retrieval; without it, only embedstore is measured.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
import tempfile
from pathlib import Path

import pyarrow as pa

from benchmarks._processes import EMBEDSTORE, rates, table
from embedstore.demo import extract
from embedstore.sources import TableSource

MODEL = "ViT-B-32"
PEER = "from clip_retrieval.clip_inference.main import main; import fire; fire.Fire(main)"
SHARDS = 2  # one for each process that reads


def write_weights(path: Path, model: str) -> None:
    """A checkpoint of open_clip with random weights, always the same."""
    import open_clip
    import torch

    torch.manual_seed(0)
    torch.save(open_clip.create_model(model).state_dict(), path)


def pairs(table: Path, limit: int) -> list[tuple[bytes, str]]:
    """At most `limit` JPEGs with their texts, no image and no text twice."""
    rows = pa.Table.from_batches(list(TableSource(table).batches())).select(["image", "text"]).to_pylist()
    found: dict[bytes, str] = {}
    texts: set[str] = set()
    for row in rows:
        if row["image"] and row["text"] and len(found) < limit and row["text"] not in texts:
            payload = Path(row["image"]).read_bytes()
            if payload not in found:
                found[payload] = row["text"]
                texts.add(row["text"])
    return list(found.items())


def write_tars(root: Path, name: str, items: list[tuple[bytes, str]]) -> str:
    """`SHARDS` tars of `items`; their pattern."""
    for shard in range(SHARDS):
        with tarfile.open(root / f"{name}-{shard}.tar", "w") as tar:
            for i, (image, text) in enumerate(items[shard::SHARDS]):
                for file, data in ((f"{shard}{i:06d}.jpg", image), (f"{shard}{i:06d}.txt", text.encode())):
                    info = tarfile.TarInfo(file)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return str(root / f"{name}-{{0..{SHARDS - 1}}}.tar")


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Print the table; items a second by tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--data", type=Path, help="a table with columns image (JPEG) and text; default: the demo's dataset")
    parser.add_argument("--peer", metavar="PYTHON")
    parser.add_argument("--items", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    limit, model, rounds = (16, "ViT-S-32-alt", 1) if given.tiny else (given.items, MODEL, given.rounds)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        weights = root / "weights.pt"
        write_weights(weights, model)
        items = pairs(given.data or extract(root / "demo"), limit)
        datasets = {"few": items[: len(items) // 8], "all": items}
        patterns = {name: write_tars(root, name, some) for name, some in datasets.items()}
        encoder = f"openclip:{model}/{weights}"

        def ours(name: str, out: Path) -> list[str]:
            options = ["embed", patterns[name], "--store", str(out), "--image", encoder, "--text", encoder]
            return [sys.executable, "-c", EMBEDSTORE, *options, *(["--runtime", "torch"] if given.tiny else [])]

        def theirs(name: str, out: Path) -> list[str]:
            options = [f"--input_dataset={patterns[name]}", f"--output_folder={out}", "--input_format=webdataset"]
            options += [f"--clip_model=open_clip:{model}/{weights}", "--batch_size=64", "--use_jit=False"]
            return [given.peer, "-c", PEER, *options, f"--num_prepro_workers={SHARDS}", "--output_partition_count=1"]

        tools = {"embedstore": ours, **({"clip-retrieval": theirs} if given.peer else {})}
        sizes = {name: len(some) for name, some in datasets.items()}
        found = rates(tools, sizes, root, rounds, warm=not given.tiny)  # the first time, networks are converted
    table(f"{model}, images and texts", found, rounds)
    return found


if __name__ == "__main__":
    main()
