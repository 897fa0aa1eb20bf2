"""The Hugging Face hub: where none can be reached, its cache is looked into at once, and what is missing is one clear line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from embedstore.errors import one_line
from embedstore.registry import require

TIMEOUT = 4.0
"""Seconds until a hub that does not answer counts as absent; its client alone would try for half a minute a file."""


@contextmanager
def hub() -> Iterator[str]:
    """For whatever asks the hub. Yields why there is none, or an empty text; its client then looks into its cache alone."""
    constants: Any = require("huggingface_hub.constants")
    before = constants.HF_HUB_OFFLINE
    absent = "HF_HUB_OFFLINE is set" if before else _absent(constants.ENDPOINT)
    constants.HF_HUB_OFFLINE = bool(absent)
    try:
        yield absent
    finally:
        constants.HF_HUB_OFFLINE = before


def _absent(endpoint: str) -> str:
    """Why `endpoint` cannot be reached, by the client's own session (proxies, certificates) but without its patience."""
    try:
        require("huggingface_hub").get_session().head(endpoint, timeout=TIMEOUT)
    except Exception as error:  # whichever HTTP library it uses
        return f"{endpoint} cannot be reached ({one_line(error, 80)})"
    return ""
