"""What sentence-transformers models are to see before a text: a prompt for items, another for queries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from embedstore.encoders.base import EncoderRequest
from embedstore.errors import UsageError

ITEMS = ("document", "passage", "corpus")
"""Names of the prompt that ``encode_document`` takes: the first one that the model knows."""

QUERIES = "query"

_NAME = re.compile(r"[\w.-]+")


def known_prompts(config: Mapping[str, Any]) -> dict[str, str]:
    """A model's prompts by name, as sentence-transformers has them once its ``config_sentence_transformers.json`` is loaded."""
    given = config.get("prompts") or {}
    return {name: text or "" for name, text in {QUERIES: "", ITEMS[0]: "", **given}.items()}


def chosen_prompts(request: EncoderRequest, known: Mapping[str, str]) -> tuple[str, str]:
    """The prompts of items and of queries: what was asked for, else what a store records, else the model's own.

    Raises
    ------
    UsageError
        The model has no prompt of the name that was asked for.
    """
    items, queries = next((known[name] for name in ITEMS if name in known), ""), known.get(QUERIES, "")
    if request.recorded is not None:
        queries = request.recorded.query_prompt
        items = request.recorded.prompt if request.recorded.modality == request.modality else items
    if request.prompt is not None:
        items = _text(request, request.prompt, known)
    if request.query_prompt is not None:
        queries = _text(request, request.query_prompt, known)
    return items, queries


def named_prompt(given: str) -> bool:
    """Whether what was given as a prompt is the name of one: one word."""
    return _NAME.fullmatch(given) is not None


def _text(request: EncoderRequest, given: str, known: Mapping[str, str]) -> str:
    """The prompt that one word names; anything else is the prompt itself."""
    if given in known and any(known.values()):
        return known[given]
    if not named_prompt(given):
        return given
    named = ", ".join(f"{name} ({text!r})" for name, text in known.items() if text) or "none"
    raise UsageError(
        f"Encoder {request.name!r} has no prompt called {given!r}; its prompts: {named}. One word is a name; a text to put "
        f"before every payload has a blank or a colon, such as '{given}: '."
    )
