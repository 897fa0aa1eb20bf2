"""The page's files: nothing from elsewhere, nothing inline, short, and colours that can be read."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

import embedstore.serving

PAGE = Path(embedstore.serving.__file__).parent / "page"
FILES = sorted(path for path in PAGE.iterdir() if path.suffix in (".js", ".css", ".html"))
AA = 4.5


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_short_and_leads_nowhere_else(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) < 400
    assert set(re.findall(r"https?://[^\s\"'`)]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setAttribute\(\"style", text
    )
    assert not re.search(r"<style|\sstyle=|<script(?![^>]*src=)|\son\w+=", text) or path.suffix != ".html"


def test_every_module_that_is_imported_is_there() -> None:
    for path in FILES:
        for name in re.findall(r"from \"\./([^\"]+)\"|import\(\"\./([^\"]+)\"\)|/static/([\w.]+)", path.read_text("utf-8")):
            assert (PAGE / next(filter(None, name))).is_file(), (path.name, name)


def colours(block: str) -> dict[str, tuple[float, ...]]:
    found = re.findall(r"--([\w-]+): #([0-9a-f]{6});", block)
    return {name: tuple(int(value[i : i + 2], 16) / 255 for i in (0, 2, 4)) for name, value in found}


def luminance(colour: tuple[float, ...]) -> float:
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(scheme: str) -> None:
    """WCAG AA: 4.5 to 1 for texts."""
    light, dark = (PAGE / "base.css").read_text("utf-8").split("@media (prefers-color-scheme: dark)")
    found = colours(light) if scheme == "light" else colours(light) | colours(dark)
    inks = ["ink", "muted", "accent", *(f"hue-{i}" for i in range(8))]
    pairs = [*product(inks, ["ground", "surface"]), ("muted", "sunk"), ("ink", "sunk"), ("on-accent", "accent")]
    pairs += [(name, f"{name}-soft") for name in ("accent", "pos", "neg", "warn")] + [("surface", "pos"), ("surface", "neg")]
    for ink, ground in pairs:
        light_one, dark_one = sorted((luminance(found[ink]), luminance(found[ground])), reverse=True)
        assert (light_one + 0.05) / (dark_one + 0.05) >= AA, (ink, ground)
