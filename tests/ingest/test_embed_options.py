"""One place says what an option is called, defaults to and means: the dataclass, for Python and the command alike."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest
import typer
from embedstore_cli.main import app

import embedstore as es
from embedstore._core.arguments import TIMEOUT
from embedstore.errors import UsageError
from embedstore.ingest.embed_options import EmbedOptions

OWN = {"dataset", "store", "on_progress"}
SPELLED = {"columns": "id_column", "types": "type", "allow_models": "allow_model"}
"""Options of Python that the command takes in another form."""


def options_of(command: str) -> dict[str, Any]:
    group = typer.main.get_command(app)
    return {param.name: param for param in group.commands[command].params}  # type: ignore[attr-defined]


def test_python_has_the_options_with_their_defaults() -> None:
    taken = {name: p for name, p in inspect.signature(es.embed).parameters.items() if name not in OWN}
    assert sorted(taken) == sorted(field.name for field in fields(EmbedOptions))
    assert {name: p.default for name, p in taken.items()} == {f.name: f.default for f in fields(EmbedOptions)}


def test_the_command_has_the_options_with_their_defaults_and_help() -> None:
    typed = options_of("embed")
    assert {SPELLED.get(field.name, field.name) for field in fields(EmbedOptions)} < typed.keys()
    helped = [field for field in fields(EmbedOptions) if "help" in field.metadata]
    assert len(helped) == 15
    for field in helped:
        option = typed[field.name]
        assert option.help == field.metadata["help"]
        assert option.default == field.default
        assert option.opts == [f"--{field.name.replace('_', '-')}"]
        assert option.is_flag == (field.type is bool)
        assert not option.secondary_opts


def test_they_are_checked_when_they_are_made() -> None:
    with pytest.raises(UsageError, match=r"timeout must be above 0 seconds\. Got nan instead\."):
        EmbedOptions(timeout=float("nan"))
    with pytest.raises(UsageError, match=r"workers must be at least 1\. Got 0 instead\."):
        EmbedOptions(workers=0)
    with pytest.raises(UsageError, match=r"max_pixels must be at least 1\. Got -1 instead\."):
        EmbedOptions(max_pixels=-1)
    with pytest.raises(UsageError, match=r"image takes the name of an encoder, or an Encoder\. Got 3 instead\."):
        EmbedOptions(image=3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"Two encoders are given for a space called 'text'\. Name one: NAME=ENCODER\."):
        EmbedOptions(image={"text": "hash"}, text="hash")
    with pytest.raises(UsageError, match=r"--root .*nowhere is not a folder\."):
        _ = EmbedOptions(root="nowhere").confined


def test_they_stay_as_they_are(tmp_path: Path) -> None:
    options = EmbedOptions(image={"a": "hash:1", "b": "hash:2"}, text="hash", root=tmp_path)
    assert options.encoders == {"a": ("image", "hash:1"), "b": ("image", "hash:2"), "text": ("text", "hash")}
    assert options.confined is options.confined is not None
    assert EmbedOptions(workers=3).threads == 3
    assert (EmbedOptions().threads >= 1, EmbedOptions().timeout, EmbedOptions().confined) == (True, TIMEOUT, None)
    with pytest.raises(FrozenInstanceError):
        options.strict = True  # type: ignore[misc]
