"""One or two examples for the end of every command's ``--help``."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("embedstore demo", "embedstore demo --store try/demo.store"),
    "embed": (
        "embedstore embed photos/ --store my.store --image effnet-lite0",
        "embedstore embed shop.csv --store shop.store --image effnet-lite0 --text minilm --image-column photo",
    ),
    "import": (
        "embedstore import vectors.npy my.store --modality image --encoder effnet-lite0 --metadata items.parquet",
        "embedstore import features.csv my.store --vector-column f_ --modality text",
    ),
    "info": ("embedstore info my.store", "embedstore info my.store --failures"),
    "index": ("embedstore index my.store image", "embedstore index my.store text --recall 0.99 --memory 1GB"),
    "search": (
        'embedstore search my.store "red car"',
        "embedstore search my.store --image photo.jpg -k 5 --where \"label != 'food' and price < 10\"",
    ),
    "train": (
        "embedstore train my.store label",
        "embedstore train my.store label --head auto --cv 5 --name label-auto",
    ),
    "evaluate": (
        "embedstore evaluate my.store label --report label.html",
        "embedstore evaluate new.store my.store/heads/label",
    ),
    "predict": (
        "embedstore predict my.store label new-photos/ --out labels.csv",
        'embedstore predict my.store label --where "label is null" --explain --coverage 0.9',
    ),
    "heads": (
        "embedstore heads my.store",
        "embedstore heads my.store --rename label topic",
    ),
    "export-head": (
        "embedstore export-head my.store label label.onnx",
        "embedstore export-head my.store label small.onnx --int8",
    ),
    "labels": (
        "embedstore labels my.store label --out wrong.csv --report wrong.html",
        "embedstore labels my.store label -n 50 --disagree",
    ),
    "compare": (
        "embedstore compare my.store label",
        "embedstore compare my.store label --inputs image --inputs text --inputs image,text --cv 5",
    ),
    "select": (
        "embedstore select my.store -n 200 --out next.csv",
        "embedstore select my.store -n 50 --by uncertain,diverse --head label --out next.csv",
    ),
    "align": (
        "embedstore align my.store --from text --to image",
        'embedstore search my.store "red car" --space aligned.image',
    ),
    "eval-search": (
        "embedstore eval-search my.store --relevance label --space image",
        "embedstore eval-search my.store --pairs judged.csv --space text -k 1,10",
    ),
    "dedup": ("embedstore dedup my.store --out duplicates.csv", "embedstore dedup my.store --exact --remove"),
    "export": (
        "embedstore export my.store --to parquet my-parquet",
        "embedstore export my.store --to qdrant http://localhost:6333 --space image --where \"label != 'food'\"",
    ),
    "verify": ("embedstore verify my.store",),
    "repair": ("embedstore repair my.store", "embedstore repair my.store photos/"),
    "remove": ("embedstore remove my.store photo-17.jpg photo-18.jpg",),
    "compact": ("embedstore compact my.store",),
    "serve": ("embedstore serve my.store --open", "embedstore serve my.store --host 0.0.0.0 --token-file token.txt"),
    "encoders": ("embedstore encoders",),
}


def epilog(command: str) -> str:
    """The examples of `command`, a line each (``\\b`` keeps them from being joined)."""
    lines = EXAMPLES[command]
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])
