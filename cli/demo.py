"""``embedstore demo``: the main job on real data, shown step by step."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from .options import Device

SEARCHES = ("a fast red car", "something sweet to eat", "bird")


def demo(
    store: Annotated[
        Path | None, typer.Option(readable=False, help="Where to make the demo's store, if not demo.store (sounds.store).")
    ] = None,
    sounds: Annotated[bool, typer.Option("--sounds", help="Embed 120 sounds and what is said of them instead.")] = False,
    device: Device = "auto",
    serve: Annotated[bool, typer.Option("--serve", help="Then open the page on the demo's store.")] = False,
) -> None:
    """Embed 600 real images and texts, train heads, search: the whole thing in a minute."""
    from embedstore.errors import UsageError
    from embedstore.store.format import MANIFEST

    store = store or Path("sounds.store" if sounds else "demo.store")
    if store.exists() and not (store / MANIFEST).exists():
        raise UsageError(f"{store} exists and is not a store. Choose another: embedstore demo --store NAME.store")
    if sounds:
        _sounds(store, device)
    else:
        _images(store, device)
    if serve:
        import embedstore as es

        from . import render

        render.say("")
        es.serve(store, port=0, open=True, writable=True, on_ready=lambda address: render.say(f"4. Look at it: {address}"))


def _images(store: Path, device: str) -> None:
    import embedstore as es
    from embedstore.demo import extract

    from . import render

    started = time.perf_counter()
    data = store.with_name(f"{store.stem}-data")
    table = extract(data)
    render.say(f"1. Embed 602 images and their titles ({table}) with EfficientNet-Lite0 and MiniLM:")
    _embedded(table, store, device, image="effnet-lite0")
    render.say("2. Train a linear head on both, and on each alone, to tell the 12 classes:")
    _trained(store, ["image", "text"])
    render.say("3. Search:")
    searcher = es.Searcher(es.Store.open(store), device=device)
    example = searcher.search(text=SEARCHES[0], k=1).results[0].id
    for title, query in (
        *((f'--text "{words}"', {"text": words}) for words in SEARCHES[:2]),
        (f"--id {example}", {"id": example, "space": "image"}),
    ):
        render.say(f"   {title}{' --space image' if 'id' in query else ''}")
        render.print_hits(searcher.search(**query, k=3, columns=["label", "text"]), ["label", "text"])  # type: ignore[arg-type]

    _closed(
        started,
        f'  embedstore search {store} --text "a house by the sea" -k 5',
        f"  embedstore search {store} --image {data}/images/{example}.jpg --where \"label != 'transportation'\"",
        f"  embedstore predict {store} label {data}/images/{example}.jpg",
        f"  embedstore serve {store} --open",
        f"  embedstore info {store}",
        "  embedstore embed YOUR_FOLDER --store my.store --image effnet-lite0 --text minilm",
    )


def _sounds(store: Path, device: str) -> None:
    import embedstore as es
    from embedstore.demo.clips import write_sounds

    from . import render

    started = time.perf_counter()
    data = store.with_name(f"{store.stem}-data")
    table = write_sounds(data)
    render.say(f"1. Embed 120 sounds and what is said of them ({table}) with logmel and MiniLM:")
    _embedded(table, store, device, audio="logmel")
    render.say("2. Train a linear head on the sounds alone to tell the 8 classes:")
    _trained(store, ["audio"])
    example = data / "sounds" / "bird-03.flac"
    render.say(f"3. Search by a sound: --audio {example}")
    render.print_hits(es.search(store, audio=example, k=4, columns=["label", "text"]), ["label", "text"])

    _closed(
        started,
        f'  embedstore search {store} --text "water" --space text',
        f"  embedstore predict {store} label {example}",
        f"  embedstore serve {store} --open",
        "  embedstore embed YOUR_FOLDER --store my.store --audio logmel",
    )


def _embedded(table: Path, store: Path, device: str, *, image: str | None = None, audio: str | None = None) -> None:
    """Embed texts and images, or sounds, with progress; and what came of it."""
    import embedstore as es

    from . import render

    with render.embedding_progress("embedding") as on_progress:
        report = es.embed(table, store, image=image, audio=audio, text="minilm", device=device, on_progress=on_progress)
    render.print_embedding(report, store)
    render.say("")


def _trained(store: Path, inputs: list[str]) -> None:
    """Train with progress, and how good the head is."""
    import embedstore as es

    from . import render

    with render.status("training") as say:
        training = es.train(store, "label", inputs=inputs, cv=5, replace=True, on_progress=say)
    render.print_training(training)
    render.say("")


def _closed(started: float, *commands: str) -> None:
    """How long it took, and what to type next."""
    from . import render

    render.say("")
    render.say(f"Done in {time.perf_counter() - started:.0f} s. What to type next:")
    for line in commands:
        render.say(line)
