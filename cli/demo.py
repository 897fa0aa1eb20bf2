"""``embedstore demo``: the main job on real data, shown step by step."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from .options import Device

SEARCHES = ("a fast red car", "something sweet to eat", "bird")


def demo(
    store: Annotated[Path, typer.Option(readable=False, help="Where to make the demo's store.")] = Path("demo.store"),
    device: Device = "auto",
    serve: Annotated[bool, typer.Option("--serve", help="Then open the page on the demo's store.")] = False,
) -> None:
    """Embed 600 real images and texts, train heads, search: the whole thing in a minute."""
    import embedstore as es
    from embedstore.demo import extract
    from embedstore.errors import UsageError
    from embedstore.store.format import MANIFEST

    from . import render

    started = time.perf_counter()
    data = store.with_name(f"{store.stem}-data")
    if store.exists() and not (store / MANIFEST).exists():
        raise UsageError(f"{store} exists and is not a store. Choose another: embedstore demo --store NAME.store")
    table = extract(data)
    render.say(f"1. Embed 602 images and their titles ({table}) with EfficientNet-Lite0 and MiniLM:")
    with render.embedding_progress("embedding") as on_progress:
        report = es.embed(table, store, image="effnet-lite0", text="minilm", device=device, on_progress=on_progress)
    render.print_embedding(report, store)

    render.say("")
    render.say("2. Train a linear head on both, and on each alone, to tell the 12 classes:")
    with render.status("training") as say:
        training = es.train(store, "label", inputs=["image", "text"], cv=5, on_progress=say)
    render.print_training(training)

    render.say("")
    render.say("3. Search:")
    searcher = es.Searcher(es.Store.open(store), device=device)
    example = searcher.search(text=SEARCHES[0], k=1).results[0].id
    for title, query in (
        *((f'--text "{words}"', {"text": words}) for words in SEARCHES[:2]),
        (f"--id {example}", {"id": example, "space": "image"}),
    ):
        render.say(f"   {title}{' --space image' if 'id' in query else ''}")
        render.print_hits(searcher.search(**query, k=3, columns=["label", "text"]), ["label", "text"])  # type: ignore[arg-type]

    for line in (
        "",
        f"Done in {time.perf_counter() - started:.0f} s. What to type next:",
        f'  embedstore search {store} --text "a house by the sea" -k 5',
        f"  embedstore search {store} --image {data}/images/{example}.jpg --where \"label != 'transportation'\"",
        f"  embedstore predict {store} label {data}/images/{example}.jpg",
        f"  embedstore serve {store} --open",
        f"  embedstore info {store}",
        "  embedstore embed YOUR_FOLDER --store my.store --image effnet-lite0 --text minilm",
    ):
        render.say(line)
    if serve:
        render.say("")
        es.serve(store, port=0, open=True, writable=True, on_ready=lambda address: render.say(f"4. Look at it: {address}"))
