"""A model's folder has all the weights that its vectors are made with. transformers only warns, and draws others at random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedstore.encoders.trust import LOADING
from embedstore.errors import EncoderError
from embedstore.registry import require

UNUSED = ("pooler.", "masked_spec_embed", "mask_token", "predictor.", "lm_head.")
"""In names of weights that no vector is made with."""


@contextmanager
def none_missing(folder: Path, instead: str = "", *, unused: Sequence[str] = UNUSED) -> Iterator[None]:
    """Within it, what transformers loads of `folder` has no weights that are drawn at random.

    Parameters
    ----------
    instead : str
        What to do, for the message.
    unused : sequence of str
        In names of weights that may be missing.

    Raises
    ------
    EncoderError
        Some are.
    """
    found: list[str] = []
    with LOADING, _noted(found, unused):
        yield
    if found:
        more = f" and {len(found) - 1:,} more" if len(found) > 1 else ""
        raise EncoderError(
            f"{folder} lacks weights of this model ({found[0]}{more}); they would be drawn at random. {instead}".rstrip()
        )


@contextmanager
def _noted(found: list[str], unused: Sequence[str]) -> Iterator[None]:
    """Within it, the names of weights that transformers would draw at random are added to `found`, but for `unused` ones."""
    modeling: Any = require("transformers.modeling_utils")
    before = getattr(modeling, "log_state_dict_report", None)

    def note(*given: Any, **named: Any) -> None:
        info = named.get("loading_info") or given[3]
        found.extend(key for key in sorted(info.missing_keys) if not any(part in key for part in unused))
        if not found and before is not None:
            before(*given, **named)

    if before is not None:
        modeling.log_state_dict_report = note
    try:
        yield
    finally:
        if before is not None:
            modeling.log_state_dict_report = before
