"""Sounds and films on the page: seen, played, dropped as a question."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import chromium, looking, served, until
from test_media import data  # noqa: F401

import embedstore as es

FIRST = "(id) => document.querySelector('#results .card[data-id]')?.dataset.id === id"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def address(data: Path) -> Iterator[str]:  # noqa: F811
    with served(es.Store.open(data / "a.store")) as found:
        yield found


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with looking(browser, address) as found:
        found.locator("#results .card[data-id]").first.wait_for()
        yield found


def drop(page: Any, file: Path, kind: str, how: str) -> None:
    """Drop a file on the page, or paste it."""
    page.evaluate(
        """([data, name, type, how]) => {
          const moved = new DataTransfer();
          moved.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, { type }));
          const given = { bubbles: true, cancelable: true };
          const event = how === "drop" ? new DragEvent("drop", { ...given, dataTransfer: moved })
            : new ClipboardEvent("paste", { ...given, clipboardData: moved });
          document.querySelector(".box").dispatchEvent(event);
        }""",
        [base64.b64encode(file.read_bytes()).decode(), file.name, kind, how],
    )


def test_a_sound_is_seen_and_played_from_its_card(page: Any) -> None:
    card = page.locator('#results .card[data-id="sound-0"]')
    assert card.locator(".card-main img").get_attribute("alt") == "Waveform of the sound: tone 0"
    until(page, "() => document.querySelector('.card[data-id=\"sound-0\"] img').naturalWidth > 0")
    sound = card.locator("audio")
    assert sound.evaluate("(one) => [one.controls, one.preload, one.readyState]") == [True, "none", 0]
    card.locator(".card-main").focus()
    page.keyboard.press("p")
    until(page, "() => document.querySelector('.card[data-id=\"sound-0\"] audio').currentTime > 0")
    other = page.locator('#results .card[data-id="both"]')  # a picture that sounds: both
    assert other.locator(".card-main img").get_attribute("alt") == "a picture that sounds"
    assert other.locator("audio").count() == 1
    assert page.locator('#results .card[data-id="words"]').locator("audio, img").count() == 0


def test_a_film_is_played_in_the_dialog(page: Any) -> None:
    page.locator('#results .card[data-id="film-1"] .card-play').click()
    page.locator("dialog[open] video[poster]").wait_for()
    until(page, "() => document.querySelector('dialog video').currentTime > 0")
    assert page.locator("dialog[open] .dialog-told .id").inner_text() == "film-1"
    page.keyboard.press("Escape")
    until(page, "() => !document.querySelector('dialog video')")


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_sound_and_a_film_are_questions(page: Any, data: Path, how: str) -> None:  # noqa: F811
    drop(page, data / "2.wav", "audio/wav", how)
    until(page, FIRST, "sound-2")
    assert "2.wav" in page.locator(".box").inner_text()
    drop(page, data / "1.webm", "", how)  # a type that the browser does not know: the server looks at the bytes
    until(page, FIRST, "film-1")


def test_the_box_says_what_may_be_dropped(page: Any) -> None:
    assert page.locator("#words").get_attribute("placeholder") == "Describe it, or drop a picture, sound or film"
    assert page.locator("input[type=file]").get_attribute("accept") == "image/*,audio/*,video/*"


def test_with_a_token_a_sound_is_fetched_when_it_is_played(browser: Any, address: str) -> None:
    with looking(browser, f"{address}#token=a-long-enough-token") as window:
        card = window.locator('#results .card[data-id="sound-0"]')
        sent: list[str | None] = []
        window.on("request", lambda one: sent.append(one.headers.get("authorization")) if "/v1/media" in one.url else None)
        card.locator(".player-start").click()
        card.locator("audio[src^='blob:']").wait_for()
        assert sent == ["Bearer a-long-enough-token"]


def test_what_is_asked_for_next_can_be_heard(browser: Any, address: str) -> None:
    marks = '[["%2B",["sound-0"]],["-",["sound-2"]]]'
    with looking(browser, f"{address}#/teach?space=audio&classes={marks}") as window:
        start = window.locator(".next .card .card-play").first
        start.click()
        until(window, "() => document.querySelector('.next audio')?.currentTime > 0")
