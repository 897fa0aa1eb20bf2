"""How the figures of a report look, on a page and as PNG, whatever matplotlib's own settings are.

They have no background and four colours (Okabe and Ito's, which colour-blind people can tell apart); `to_svg` turns ink and
paper into those of the page, light or dark.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from embedstore.registry import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1f2328"
MUTED = "#8a8f98"
PAPER = "#fffffe"  # a hair from white and black, so that `to_svg` can tell them from colours that stay
NUMBER = "#000001"
ON_PAGE = {INK: "currentColor", PAPER: "var(--paper, #fff)", NUMBER: "var(--number, #000)"}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
FONT = 9.0
SMALL = 8.0
FALLBACK_FONTS = (  # for a PNG; a page leaves the choice to the browser
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Hiragino Sans", "PingFang SC", "Microsoft YaHei", "WenQuanYi Zen Hei"),
    *("Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Thai", "Nirmala UI", "Leelawadee UI"),
    *("Noto Emoji", "Segoe UI Symbol", "Arial Unicode MS"),
)


@contextmanager
def house_style() -> Iterator[None]:
    """Our settings over matplotlib's own defaults, whatever the user's matplotlibrc says; the user's are back afterwards."""
    require("matplotlib")
    from matplotlib import font_manager, style

    installed = {font.name for font in font_manager.fontManager.ttflist}
    settings: dict[str, Any] = {
        "font.family": ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)],
        "font.size": FONT,
        "text.parse_math": False,  # class names may have dollar signs
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.titlesize": FONT,
        "grid.color": MUTED,
        "grid.alpha": 0.25,
        "xtick.color": INK,
        "ytick.color": INK,
        "lines.markersize": 4,
        "legend.frameon": False,
        "figure.facecolor": "none",
        "svg.fonttype": "none",
        "svg.hashsalt": "embedstore",
    }
    with style.context(["default", settings]):
        yield


@contextmanager
def no_glyph_warnings() -> Iterator[None]:
    """Characters that matplotlib's fonts lack are drawn by the browser; in a PNG they are boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def to_svg(figure: Figure) -> str:
    """`figure` as an ``<svg>`` element for a page, the same bytes for the same figure.

    Text stays text, and no other figure on the page has its ids.
    """
    file = io.BytesIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with house_style(), no_glyph_warnings():
        figure.savefig(file, format="svg", dpi=200, metadata=metadata)
    svg = file.getvalue().decode("utf-8")
    svg = svg[svg.index("<svg") :]
    prefix = "f" + hashlib.sha256(svg.encode()).hexdigest()[:8] + "-"

    def localise(tag: re.Match[str]) -> str:
        markup = re.sub(r'(\bid="|\bhref="#|\burl\(#)', rf"\g<1>{prefix}", tag[0])
        markup = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", markup)
        return re.sub("|".join(ON_PAGE), lambda colour: ON_PAGE[colour[0]], markup)

    svg = re.sub(r"<[^<>]*>", localise, svg)
    # A style sheet inside an SVG holds for the whole page.
    return svg.replace("*{stroke-linejoin", f"#{prefix}figure_1 *{{stroke-linejoin").strip()
