"""The report of a head: one page that is complete, safe and well formed, whatever the user's strings hold."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from embedstore.evaluation.ladder import Step
from embedstore.evaluation.metrics import Score
from embedstore.reports.data import Confusion, Mistake, ReportData, Section
from embedstore.reports.figure_labels import ems, short
from embedstore.reports.figure_style import COLOURS, MUTED, to_svg
from embedstore.reports.figures import (
    DARKEST,
    WHITE_ABOVE,
    confusion,
    figures,
    ladder,
    most_confused,
    regression,
    save_png,
)
from embedstore.reports.page import render_html

EVIL = "<script>alert('x')</script>"
NAMES = [EVIL, "日本の切手 🗾", 'a $\\frac{1}{0$ & "b" -->']
VOID = {"meta", "br", "img"}
PAGE = ("ink", "soft", "paper", "tint", "accent", "warn")
JPEG = b"\xff\xd8\xff\xe0 not really"


def score(value: float = 0.787) -> Score:
    return Score(value, value - 0.013, value + 0.013)


@pytest.fixture(scope="module")
def full() -> ReportData:
    """Every field filled, with strings that should do harm."""
    return ReportData(
        title=EVIL,
        facts={"kind": "auto", EVIL: EVIL},
        metrics={"accuracy": score(), "macro_f1": score(0.7), "auroc": Score(np.nan, np.nan, np.nan)},
        baselines={"majority": {"accuracy": score(0.1)}, EVIL: {"accuracy": score(0.74), "macro_f1": score(0.6)}},
        notes=[EVIL, "tab\tnul\x00 lone \ud800"],
        ladder=[
            Step("linear", score(), None, 0.8, True, "the start"),
            Step(EVIL, score(0.6), Score(-0.1, -0.2, 0.1), 400.0, False, EVIL),
        ],
        seeds=[0.78, 0.79],
        history=[{"train_loss": 1.0, "val_loss": 1.1, "val_accuracy": 0.4}, {"train_loss": 0.5}, {"val_loss": np.inf}],
        classes=NAMES,
        confusion=np.array([[5, 1, 0], [0, 0, 0], [2, 0, 7]]),
        per_class=[{"class": name, "support": 1234, "precision": 0.5, "recall": np.nan, "f1": 1.0} for name in NAMES],
        reliability=[(0.3, 0.25, 10), (np.nan, np.nan, 0), (0.9, 0.8, 90)],
        subsets={"image": score(0.6), EVIL: score(0.7)},
        shapley={"image": -0.1, EVIL: 0.5},
        permutation={EVIL: score(0.2)},
        missing={EVIL: [(0.0, 0.79), (1.0, 0.5)], "_hidden": [(0.0, 0.79), (1.0, 0.6)]},
        mistakes=[
            Mistake(EVIL, NAMES[0], NAMES[1], 0.9999, EVIL, JPEG, [EVIL, "日本"]),
            Mistake("b\ud800", NAMES[2], NAMES[0], np.nan),
        ],
        confusions=[
            Confusion(EVIL, NAMES[1], 1234, [Mistake(EVIL, EVIL, NAMES[1], 0.9, EVIL, JPEG, alone={EVIL: EVIL, "image": "x"})]),
            *(Confusion(NAMES[0], f"{i}", 1, [Mistake("a", NAMES[0], f"{i}", 0.5)]) for i in range(4)),
        ],
        confusions_note=EVIL,
        disagreements=[Mistake(EVIL, NAMES[0], NAMES[1], np.nan, alone={EVIL: EVIL, "日本": "b\ud800"})],
        regression=(np.linspace(0, 1, 5000), np.r_[np.nan, np.linspace(0, 1, 4999)]),
        sections=[Section(EVIL, EVIL, (EVIL, "items", "score"), [(EVIL, 1234, score(0.4)), ("b\ud800", 0, None)])],
    )


@pytest.fixture(scope="module")
def page(full: ReportData) -> str:
    return render_html(full)


def svgs_of(page: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)


class Outline(HTMLParser):
    """Tags, ids and attributes of a page; fails where an element is closed that is not open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


def test_page_is_well_formed_and_complete(page: str) -> None:
    outline = Outline(page)
    assert outline.tags.count("h1") == 1
    assert outline.tags.count("svg") == outline.values("role").count("img") == 7
    sections = re.findall(r'<section id="([\w-]+)"', page)
    order = "metrics baselines ladder learning seeds contributions confusion reliability classes task-1"
    assert sections == [*order.split(), "mistakes", "confusions", "disagreements"]
    assert page.count('class="how"') == len(sections)
    assert all(cell in page for cell in ("0.787 [0.774, 0.800]", "1,234", "Mean 0.785", "-0.100 [-0.200, 0.100]"))


def test_user_strings_are_text(page: str) -> None:
    outline = Outline(page)
    assert "script" not in outline.tags
    assert not any(name.startswith("on") for name, _ in outline.attributes)
    svgs = "".join(svgs_of(page))
    assert "&lt;script" in svgs
    assert "日本の切手 🗾" in svgs
    page.encode("utf-8")
    assert "\x00" not in page


def test_nothing_comes_from_outside(page: str) -> None:
    outline = Outline(page)
    targets = outline.values("src") + outline.values("href") + outline.values("xlink:href")
    assert targets
    assert all(target.startswith(("#", "data:")) for target in targets)
    assert "url(http" not in page
    assert "@import" not in page


def test_ids_are_unique_and_references_hold(page: str) -> None:
    outline = Outline(page)
    ids = outline.values("id")
    assert len(ids) == len(set(ids))
    links = [link[1:] for link in outline.values("xlink:href") if link.startswith("#")]
    used = {*links, *re.findall(r"url\(#([^)]*)\)", page), *outline.values("aria-labelledby")}
    assert used <= set(ids)


def test_same_data_same_bytes(full: ReportData) -> None:
    first, second = (to_svg(ladder(full.ladder)) for _ in range(2))
    assert first == second


def test_what_is_absent_is_left_out() -> None:
    page = render_html(ReportData("topic", {}, {}))
    assert set(Outline(page).tags).isdisjoint({"section", "svg", "table", "dl"})
    page = render_html(ReportData("topic", {}, {"rmse": score()}, {"a": {"rmse": score(0.9)}, "b": {"r2": score()}}))
    assert re.findall(r'<section id="(\w+)"', page) == ["metrics", "baselines"]


@pytest.mark.parametrize(
    ("metric", "values", "best", "words"),
    [("accuracy", (0.7, 0.6), "a", "better"), ("rmse", (0.9, 0.6), "b", "worse")],
)
def test_headline_stands_beside_the_best_baseline(metric: str, values: tuple[float, float], best: str, words: str) -> None:
    baselines = {name: {metric: score(value)} for name, value in zip("ab", values, strict=True)}
    page = render_html(ReportData("topic", {}, {metric: score(0.75)}, baselines))
    assert f"best baseline: {best}<" in page
    assert f"{words} than the best baseline" in page
    paired = render_html(ReportData("topic", {}, {metric: score(0.75)}, baselines, ("a", Score(0.021, -0.004, 0.046))))
    assert "gain over a, paired by item" in paired
    assert "0.021" in paired
    assert "[-0.004, 0.046]" in paired


def test_many_classes_scroll_and_only_the_most_confused_are_drawn(full: ReportData) -> None:
    n = 120
    counts = 10 * np.eye(n, dtype=np.int64)
    counts[7, 100] = counts[90, 3] = 4
    assert {7, 100, 90, 3} <= set(most_confused(counts).tolist())
    names = [f"class {i}" for i in range(n)]
    rows = [{"class": name, "support": 10} for name in names]
    page = render_html(ReportData("topic", {}, {}, classes=names, confusion=counts, per_class=rows))
    assert 'class="scroll tall"' in page
    assert "40 most confused of 120 classes" in page
    assert ">class 100<" in svgs_of(page)[0]


@pytest.mark.parametrize(("n", "numbers"), [(2, True), (21, False)])
def test_confusion_numbers_up_to_twenty_classes(n: int, numbers: bool) -> None:
    svg = to_svg(confusion(np.full((n, n), 3), [f"c-{i}" for i in range(n)]))
    assert (f">{100 / n:.0f}<" in svg) == numbers


def test_svg_is_one_element_of_text(page: str) -> None:
    for svg in svgs_of(page):
        assert ET.fromstring(svg).tag.endswith("svg")
        assert "<text" in svg
        assert "currentColor" in svg
        assert not re.search(r"<\?xml|<!DOCTYPE|<metadata|<!--", svg)


def test_figures_of_what_there_is() -> None:
    assert list(figures(ReportData("topic", {}, {}))) == []
    boosted = ReportData("topic", {}, {}, history=[{"train_loss": 1.0, "val_loss": 1.2}])
    assert [len(figure.axes) for figure in figures(boosted).values()] == [1]
    assert not figures(replace(boosted, history=[{"seconds": 1.0}], reliability=[(0.5, 0.5, 0)]))


def test_regression_draws_at_most_two_thousand_points(full: ReportData) -> None:
    assert full.regression is not None
    points = regression(*full.regression).axes[0].collections[0]
    assert len(points.get_offsets()) == 2000


def test_png(full: ReportData, tmp_path: Path) -> None:
    data = ReportData("topic", {}, {}, ladder=full.ladder, classes=full.classes, confusion=full.confusion)
    paths = save_png(data, tmp_path / "new")
    assert [path.stem for path in paths] == ["ladder", "confusion"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_the_users_matplotlib_stays_as_it_was(full: ReportData) -> None:
    import matplotlib

    with matplotlib.rc_context({"text.usetex": True, "font.size": 40}):
        before = dict(matplotlib.rcParams)
        assert "font-size: 40px" not in to_svg(ladder(full.ladder))
        assert dict(matplotlib.rcParams) == before


def test_long_names_keep_both_ends() -> None:
    assert short("breed of a very long dog, number 17").endswith("17")
    assert short("breed of a very long dog, number 17").startswith("breed")
    assert ems(short("W" * 100)) <= 12
    assert short("a\n\x00b\ud800") == "a b"
    assert short("") == "–"


def test_names_keep_whole_letters_and_turn_nothing() -> None:
    assert short("\u202eevil\u202c \u2067x") == "evil x"
    for n in range(60):
        end = short("a\u0301" * 30 + "x" * (n % 7), 4 + n / 10).split("…")[1]
        assert end
        assert not end.startswith("\u0301")


def luminance(colour: str, share: float = 0.0) -> float:
    """WCAG's relative luminance of `colour` under a cell of the heat map that shows `share`."""
    from matplotlib.colors import to_rgb

    alpha = share**0.6
    rgb = (1 - alpha) * np.array(to_rgb(colour)) + alpha * np.array(DARKEST)
    return float(np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("dark", [False, True])
def test_numbers_can_be_read_on_every_cell(page: str, dark: bool) -> None:
    """Contrast AA (4.5), on the light page and on the dark one, whatever share the cell shows."""
    paper, number = (re.findall(rf"--{name}: (#[0-9a-f]+)", page)[dark] for name in ("paper", "number"))
    for share in np.linspace(0, 1, 201):
        both = sorted([luminance(paper, share), luminance("white" if share > WHITE_ABOVE else number)])
        assert (both[1] + 0.05) / (both[0] + 0.05) >= 4.5, share


@pytest.mark.parametrize("dark", [False, True])
def test_words_and_lines_can_be_told_from_the_page(page: str, dark: bool) -> None:
    """Contrast AA: 4.5 for words, 3 for what is drawn."""

    def contrast(front: str, back: str) -> float:
        low, high = sorted([luminance(front), luminance(back)])
        return (high + 0.05) / (low + 0.05)

    colour = {name: found[dark] for name in PAGE if (found := re.findall(rf"--{name}: (#[0-9a-f]+)", page))}
    assert set(colour) == set(PAGE)
    for words, back in (
        ("ink", "paper"),
        ("ink", "tint"),
        ("ink", "warn"),
        ("soft", "paper"),
        ("soft", "tint"),
        ("accent", "paper"),
    ):
        assert contrast(colour[words], colour[back]) >= 4.5, (words, back)
    for drawn in (*COLOURS, MUTED):
        assert contrast(drawn, colour["paper"]) >= 3, drawn


def test_figures_take_the_colours_of_the_page(full: ReportData) -> None:
    assert "var(--paper, #fff)" in to_svg(ladder(full.ladder))  # hollow, on a dark page too
    assert "var(--number, #000)" in to_svg(confusion(np.array([[9, 1], [0, 2]]), ["a", "b"]))


@pytest.mark.parametrize("name", ["regression", "learning_curves", "reliability", "missing"])
def test_legends_hide_no_point(full: ReportData, name: str) -> None:
    figure = figures(full)[name]
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert all(axes.get_legend() is None for axes in figure.axes)
    assert not any(axes.bbox.overlaps(legend.get_window_extent()) for axes in figure.axes)


def test_a_png_cuts_nothing_off(tmp_path: Path) -> None:
    """Characters that no font has are boxes, wider than letters."""
    from PIL import Image

    names = ["คลาสภาษาไทย 14", "\u13a0" * 11, "plain"]
    (path,) = save_png(ReportData("topic", {}, {}, classes=names, confusion=np.eye(3, dtype=np.int64)), tmp_path)
    pixels = np.asarray(Image.open(path).convert("L"))
    assert min(edge.min() for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])) == 255


def test_names_keep_their_direction_to_themselves() -> None:
    """A name that turns the text must not turn the number after it."""
    mistake = Mistake("i\u202e", "a\u202e", "b\u202e", 0.45, None, None, ["n\u202e", "m"])
    html = render_html(ReportData("topic", {}, {}, mistakes=[mistake]))
    assert all(f"<bdi>{name}\u202e</bdi>" in html for name in "iab")
    assert "<bdi>n\u202e</bdi>, <bdi>m</bdi>" in html


def test_scores_have_the_digits_of_their_unit() -> None:
    assert str(Score(0.0346, -0.0001, 0.0694)) == "0.035 [0.000, 0.069]"
    assert str(Score(1323271.904, 1140557.008, 1528316.538)) == "1323272 [1140557, 1528317]"
    assert str(Score(0.000123456, 0.0001, 0.0002)) == "0.000123 [0.000100, 0.000200]"
    assert str(Score(0.0, 0.0, 0.0)) == "0.000 [0.000, 0.000]"
    assert str(Score(1.5e-12, 1e-12, 2e-12)) == "1.50e-12 [1.00e-12, 2.00e-12]"
    assert str(Score(0.5, np.nan, np.nan)) == "0.500 [nan, nan]"


def test_import_is_light() -> None:
    code = "import sys, embedstore.reports.page; print(any(m in sys.modules for m in ('matplotlib', 'jinja2')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "colour key", "16 bits"])
def test_thumbnails_of_transparent_pictures_look_like_their_originals(kind: str) -> None:
    """A black square on nothing is a black square on white, however the file says "nothing"."""
    from PIL import Image

    from embedstore.encoders.payloads.thumbnail import small_jpeg

    drawn = Image.new("RGBA", (60, 40), (255, 0, 0, 0))
    drawn.paste((0, 0, 0, 255), (20, 10, 40, 30))
    options = {}
    if kind == "LA":
        drawn = drawn.convert("LA")
    elif kind == "palette":
        drawn = drawn.quantize(4)
    elif kind == "colour key":
        drawn, options = drawn.convert("RGB"), {"transparency": (255, 0, 0)}
    elif kind == "16 bits":
        values = np.full((40, 60), 500, np.uint16)
        values[10:30, 20:40] = 0
        drawn, options = Image.fromarray(values), {"transparency": 500}
    file = io.BytesIO()
    drawn.save(file, "PNG", **options)
    shown = np.asarray(Image.open(io.BytesIO(small_jpeg(file.getvalue(), 200, quality=80))).convert("L"))
    assert shown[:5].min() > 245
    assert shown[15:25, 25:35].max() < 10


def test_a_thumbnail_shows_what_the_encoder_sees(tmp_path: Path) -> None:
    """Transparency on white, upright; nothing where the file is gone or is no picture."""
    from PIL import Image

    from embedstore.training.item_cards import THUMBNAIL, _thumbnail

    clear, turned = tmp_path / "clear.png", tmp_path / "turned.jpg"
    Image.new("RGBA", (40, 30), (0, 0, 0, 0)).save(clear)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 100), "red").save(turned, exif=exif)
    shown = [Image.open(io.BytesIO(_thumbnail({"image": str(path)}, THUMBNAIL)[0] or b"")) for path in (clear, turned)]
    assert np.asarray(shown[0]).min() == 255
    assert shown[1].size == (50, 200)
    clear.write_text("no picture")
    assert _thumbnail({"image": str(clear)}, THUMBNAIL)[0] is None
    assert _thumbnail({"image": str(tmp_path / "gone.png")}, THUMBNAIL)[0] is None
