"""The map and the heads in a real browser, with WebGL and with the plain canvas."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import chromium, hold_requests, looking, make_store, served, until

import embedstore as es
from benchmarks._chromium import FLAT, WEBGL

PAINTERS = {"webgl2": WEBGL, "canvas": FLAT}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> es.Store:
    return make_store(tmp_path_factory.mktemp("map"))


@pytest.fixture(scope="module")
def address(store: es.Store) -> Iterator[str]:
    with served(store) as found:
        yield found


@pytest.fixture(scope="module", params=PAINTERS)
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    with chromium(*PAINTERS[request.param]) as found:
        found.painter = request.param
        yield found


def drag(page: Any, *corners: tuple[float, float]) -> None:
    """Move the mouse, pressed, over the stage; corners are fractions of it."""
    box = page.locator(".map-stage").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def inked(page: Any) -> int:
    """Pixels of a picture of the stage that are not of its ground, which is that of its first pixel."""
    from io import BytesIO

    import numpy as np
    from PIL import Image

    pixels = np.asarray(Image.open(BytesIO(page.locator(".map-canvas").screenshot())).convert("RGB"), int)
    return int((np.abs(pixels - pixels[0, 0]).sum(axis=2) > 60).sum())


def test_the_map_is_drawn_and_a_lasso_selects(browser: Any, address: str) -> None:
    with looking(browser, f"{address}#/map") as page:
        page.locator(".map-stage[data-points='48']").wait_for()
        assert page.locator("canvas").get_attribute("data-painter") == browser.painter
        assert page.locator(".legend-item").all_inner_texts() == ["even\n16", "odd\n16", "third\n16"]
        assert 200 < inked(page) < 20_000
        page.locator(".legend-item", has_text="odd").click()
        page.keyboard.press("Tab")
        page.locator("[aria-label^=Lasso]").click()
        drag(page, (0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98), (0.02, 0.04))
        page.locator(".picked h2", has_text="32 items selected").wait_for()
        assert page.locator(".picked-classes li").all_inner_texts() == ["even\n16", "third\n16"]
        page.locator(".picked-grid .card").nth(31).wait_for()
        with page.expect_download() as taken:
            page.click("text=CSV of ids")
        assert len(Path(taken.value.path()).read_text("utf-8").splitlines()) == 33
        page.click(".picked >> text='Label'")
        page.click("text=Go on in Teach")
        page.locator(".class-count", has_text="32").wait_for()


def test_keys_move_the_map_and_select_what_is_in_view(browser: Any, address: str) -> None:
    with looking(browser, f"{address}#/map?map=%7B%22colour%22:%22error:kind%22%7D") as page:
        page.locator(".map-stage[data-points='48']").wait_for()
        page.locator(".map-stage").focus()
        for key in ("+", "+", "+", "ArrowLeft", "ArrowUp"):
            page.keyboard.press(key)
        page.click("text=Select what is in view")
        page.locator(".picked h2").wait_for()
        assert int(page.locator(".picked h2").inner_text().split()[0]) < 48
        page.locator(".map-stage").focus()
        page.keyboard.press("Escape")
        page.locator(".picked").wait_for(state="hidden")
        page.keyboard.press("0")
        page.click("text=Select what is in view")
        page.locator(".picked h2", has_text="48 items selected").wait_for()
        assert re.search(r"\d+ of \d+ wrong: [\d.]+ \[[\d.]+, [\d.]+\]", page.locator(".picked").inner_text())


def test_a_point_shows_its_item(browser: Any, address: str) -> None:
    with looking(browser, f"{address}#/map") as page:
        page.locator(".map-stage[data-points='48']").wait_for()
        found = page.evaluate(
            """async () => {
              const { Cloud, contains } = await import("/static/cloud.js");
              const { Eye } = await import("/static/view2d.js");
              const key = (await (await fetch("/v1/map?space=image")).json()).key;
              const answer = await fetch("/v1/map/points?key=" + encodeURIComponent(key));
              const places = new Float32Array(await answer.arrayBuffer());
              const cloud = new Cloud(places), stage = document.querySelector(".map-stage"), eye = new Eye();
              eye.bounds = cloud.bounds;
              eye.reset(stage.clientWidth, stage.clientHeight);
              const pixel = eye.pixel(places[14], places[15]);
              const line = [[-0.9, -0.8], [0.7, -0.5], [-0.2, 0.1], [0.9, 0.9], [-0.6, 0.7], [0.3, -0.9]];
              const brute = [...cloud.rows.keys()].filter((i) => contains(line, cloud.xy[2 * i], cloud.xy[2 * i + 1])).sort();
              const same = JSON.stringify([...cloud.inside(line)].sort()) === JSON.stringify(brute);
              return { pixel, same, nearest: cloud.rows[cloud.nearest(places[14], places[15], 0.01, () => true)] };
            }"""
        )
        assert found["same"]
        assert found["nearest"] == 7
        box = page.locator(".map-stage").bounding_box()
        page.mouse.move(box["x"] + found["pixel"][0], box["y"] + found["pixel"][1])
        page.locator(".map-tip", has_text="picture 8 of the third ones").wait_for()
        page.mouse.click(box["x"] + found["pixel"][0], box["y"] + found["pixel"][1])
        page.locator("dialog[open] .id", has_text="item-08").wait_for()


@pytest.mark.parametrize("browser", ["canvas"], indirect=True)
def test_a_selection_follows_what_changes(browser: Any, address: str) -> None:
    with looking(browser, f"{address}#/map") as page:
        page.locator(".map-stage[data-points='48']").wait_for()
        page.locator(".legend-item", has_text="odd").click()
        for _ in range(2):  # what is hidden is not picked, whatever was picked before
            page.click("text=Select what is in view")
            page.locator(".picked h2", has_text="32 items selected").wait_for()
            page.locator(".legend-item", has_text="odd").click()
            page.click("text=Select what is in view")
            page.locator(".picked h2", has_text="48 items selected").wait_for()
            page.locator(".legend-item", has_text="odd").click()
        page.locator(".picked-grid .mark-pos").first.click()
        page.locator(".picked-grid .mark-pos[aria-pressed=true]").wait_for()
        page.select_option("select[aria-label='Colour by']", "error:kind")
        page.locator(".picked p.muted", has_text="wrong").wait_for()
        page.locator(".picked-grid .card-main").first.click()  # a link that was drawn before the mark
        page.locator("#results .card-score").first.wait_for()
        assert "classes" in page.url


@pytest.mark.parametrize("browser", ["canvas"], indirect=True)
def test_a_map_that_is_gone_is_made_anew(browser: Any, address: str) -> None:
    with looking(browser, f"{address}#/map?map=%7B%22colour%22:%22none:%22%7D") as page:
        page.locator(".map-stage[data-points='48']").wait_for()
        hold_requests(page)
        page.evaluate("window.fates['/v1/map/items'] = 'gone'")
        page.click("text=Select what is in view")
        until(page, "() => window.asked.filter((path) => path === '/v1/map/points').length === 1")
        page.locator(".picked").wait_for(state="hidden")
        page.evaluate("window.fates = {}")
        page.click("text=Select what is in view")
        page.locator(".picked-grid .card").nth(47).wait_for()
        page.evaluate("window.fates['/v1/map/colour'] = 'gone'")
        page.select_option("select[aria-label='Colour by']", "column:label")
        page.locator(".map-note .notice-error").wait_for()  # also of the new map: it is not asked for again and again
        assert page.evaluate("window.asked.filter((path) => path === '/v1/map/points').length") == 2
        page.evaluate("window.fates = {}")
        page.click(".notice-error button")
        page.locator(".legend-item").nth(2).wait_for()


@pytest.mark.parametrize("browser", ["canvas"], indirect=True)
def test_a_head_is_looked_at(browser: Any, address: str, store: es.Store) -> None:
    with looking(browser, f"{address}#/head") as page:
        page.locator(".matrix").wait_for()
        assert "accuracy" in page.locator(".numbers").inner_text()
        counts = page.locator(".cell").evaluate_all("(all) => all.map((cell) => Number(cell.textContent))")
        wrong = sum(counts) - sum(counts[:: len(counts) // 3 + 1])
        until(page, "(n) => document.querySelectorAll('.heads .grid .card').length === n", wrong)
        page.locator(".cell-wrong:not(:disabled)").first.click()
        page.locator(".parts .token").wait_for()
        page.go_back()
        page.click("text=Likely label errors")
        page.locator(".heads .grid .card, .heads .notice").first.wait_for()
        if page.locator(".verdict").count():
            page.locator(".verdict button").first.click()
            with page.expect_download() as taken:
                page.click("text=Accepted labels as CSV (1)")
            assert Path(taken.value.path()).read_bytes().startswith(b"id,label,was\r\n")


@pytest.mark.parametrize("browser", ["canvas"], indirect=True)
@pytest.mark.parametrize("view", ["map", "head"])
def test_narrow_windows(browser: Any, address: str, view: str) -> None:
    with looking(browser, f"{address}#/{view}", viewport={"width": 390, "height": 844}) as page:
        page.locator(".map-stage[data-points], .matrix").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
