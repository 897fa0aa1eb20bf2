"""``embedstore encoders``: the names that embed takes."""

from __future__ import annotations

import typer

from .options import Json


def encoders(json: Json = False) -> None:
    """List the encoders that --image, --text, --audio, --video and --message take."""
    from embedstore.encoders.names import ALIASES, LICENSES
    from embedstore.registry import ENCODERS

    from . import render

    described = {name: ENCODERS.summary(name) for name in ENCODERS} | {n: f"short for {full}" for n, full in ALIASES.items()}
    rows = [(name, text, LICENSES.get(name)) for name, text in described.items()]
    if json:
        render.print_json({"encoders": [{"name": name, "description": text, "license": own} for name, text, own in rows]})
        return
    render.print_table(["encoder", "what it is", "licence of the weights"], rows)
    typer.echo("A model's own licence, where its makers say it, is shown by embedstore info once it has embedded something.")
