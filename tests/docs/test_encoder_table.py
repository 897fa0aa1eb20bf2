"""The table of docs/encoders.md has every encoder, with what is true of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from helpers import ROOT

from embedstore.encoders import load_encoder
from embedstore.encoders.names import ALIASES
from embedstore.registry import ENCODERS

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "encoders.md").read_text("utf-8").splitlines()
    if line.startswith("| `")
]


def test_every_encoder_has_a_row() -> None:
    names = {re.split("[:]", name)[0] for row in ROWS for name in re.findall(r"`([^`]+)`", row[0])}
    assert names == {*ENCODERS._entry_points, *ALIASES}
    assert all(len(row) == 7 for row in ROWS)


@pytest.mark.parametrize(("name", "modality"), [("minilm", "text"), ("logmel", "audio"), ("hash", "image")])
def test_modality_and_dimension_are_those_of_the_encoder(name: str, modality: str) -> None:
    row = next(row for row in ROWS if f"`{name}`" in row[0])
    encoder: Any = load_encoder(name, modality)
    assert str(encoder.spec.dim) == re.match(r"\d+", row[3])[0]  # type: ignore[index]
    assert modality in row[1] or row[1] == "any"
