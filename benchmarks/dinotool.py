"""How fast is extraction beside dinotool, on the same folder of images and the same architecture?

    python -m benchmarks.dinotool [--tiny] [--data MANIFEST.csv] [--peer PYTHON] [--items 512]

Distinct images are copied to a folder. Then ``embedstore embed`` and ``dinotool`` (a vector an image, batches of 32) embed it
with DINOv3's ViT-S/16 at 256 × 256 and random weights, each in a process of its own, once all of it and once an eighth: items
a second are those of the difference, so that neither pays for its start. PYTHON is the interpreter of an environment with
dinotool; without it, only embedstore is measured. dinotool takes such models from a hub, or from a folder of the same name.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks._processes import EMBEDSTORE, rates, table
from embedstore.demo import extract
from embedstore.sources import TableSource

MODEL = "vit_small_patch16_dinov3"
SIZE = 256
PEER_MODEL = "facebook/dinov3-random"
WRITE_PEER = f"""
import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel
torch.manual_seed(0)
config = DINOv3ViTConfig(image_size={SIZE}, patch_size=16, hidden_size=384, num_hidden_layers=12, num_register_tokens=4)
DINOv3ViTModel(config).save_pretrained({PEER_MODEL!r})
"""


def write_weights(path: Path, model: str) -> None:
    """A checkpoint of timm with random weights, always the same."""
    import timm
    import torch

    torch.manual_seed(0)
    torch.save(timm.create_model(model, num_classes=0).state_dict(), path)


def images(manifest: Path, limit: int) -> list[Path]:
    """At most `limit` files, no two with the same bytes."""
    found: dict[bytes, Path] = {}
    for batch in TableSource(manifest).batches():
        for file in batch.column("image").to_pylist():
            if file and len(found) < limit:
                found.setdefault(Path(file).read_bytes(), Path(file))
    return list(found.values())


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Print the table; items a second by tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--data", type=Path, help="a table with a column image; default: the demo's dataset")
    parser.add_argument("--peer", metavar="PYTHON")
    parser.add_argument("--items", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    limit, model, rounds = (16, "test_vit", 1) if given.tiny else (given.items, MODEL, given.rounds)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        weights = root / "weights.pt"
        write_weights(weights, model)
        if given.peer:
            subprocess.run([given.peer, "-c", WRITE_PEER], cwd=root, check=True, capture_output=True)
        files = images(given.data or extract(root / "demo"), limit)
        datasets = {"few": files[: len(files) // 8], "all": files}
        for name, some in datasets.items():
            (root / name).mkdir()
            for number, file in enumerate(some):
                (root / name / f"{number:06d}{file.suffix}").write_bytes(file.read_bytes())

        def ours(name: str, out: Path) -> list[str]:
            options = ["embed", name, "--store", str(out), "--image", f"timm:{model}/{weights}"]
            return [sys.executable, "-c", EMBEDSTORE, *options, *(["--runtime", "torch"] if given.tiny else [])]

        def theirs(name: str, out: Path) -> list[str]:
            options = [name, "--output", str(out), "--model-name", PEER_MODEL, "--input-size", str(SIZE), str(SIZE)]
            return [given.peer, "-m", "dinotool", *options, "--batch-size", "32", "--save-features", "frame", "--no-vis"]

        tools = {"embedstore": ours, **({"dinotool": theirs} if given.peer else {})}
        sizes = {name: len(some) for name, some in datasets.items()}
        found = rates(tools, sizes, root, rounds, warm=not given.tiny)  # the first time, networks are converted
    table(f"{model}, images", found, rounds)
    return found


if __name__ == "__main__":
    main()
