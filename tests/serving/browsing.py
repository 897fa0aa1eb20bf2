"""A small store behind a real server, and Chromium to look at its page with."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import write_csv, write_image

import embedstore as es
from benchmarks._chromium import QUIET
from benchmarks._chromium import chromium as installed

HOSTILE = "<img src=x onerror=document.title='run'>"
LABELS = ("even", "odd", "third")


def make_store(folder: Path, n: int = 60) -> es.Store:
    """Pictures with texts, every fifth item a text alone; an id and a text that are HTML; a label, a price, a trained head."""
    rows: list[dict[str, object]] = []
    for i in range(n):
        picture = i % 5 != 4
        if picture:
            write_image(folder / "images" / f"{i}.png", seed=i)
        text = f"picture {i} of the {LABELS[i % 3]} ones" if i != 1 else f"a caption with <b>HTML</b> & {HOSTILE}"
        own = HOSTILE if i == 1 else f"item-{i:02d}"
        rows.append(
            {"id": own, "image": f"images/{i}.png" if picture else "", "text": text, "label": LABELS[i % 3], "price": i * 1.5}
        )
    table = write_csv(folder / "table.csv", rows)
    es.embed(table, folder / "shop.store", image="hash:32", text="hash:24")
    es.train(folder / "shop.store", "label", inputs=["image", "text"], name="kind")
    return es.Store.open(folder / "shop.store")


@contextmanager
def served(store: es.Store, **options: Any) -> Iterator[str]:
    """The address of a server in a thread of this process."""
    uvicorn = pytest.importorskip("uvicorn")
    from embedstore.serving.app import create_app
    from embedstore.serving.serve_options import ServeOptions

    config = uvicorn.Config(create_app(store, ServeOptions(**options)), host="127.0.0.1", port=0, log_level="error")
    server = uvicorn.Server(config)
    ready, startup = threading.Event(), server.startup

    async def started(**given: Any) -> None:
        await startup(**given)
        ready.set()

    server.startup = started
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert ready.wait(60)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)


@contextmanager
def chromium(*flags: str) -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested with Playwright")
    path = installed()
    if path is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=[*QUIET, *flags])
        yield browser
        browser.close()


@contextmanager
def looking(browser: Any, address: str, **context: Any) -> Iterator[Any]:
    """A page at the address; it must say no error on its console, whatever the test does."""
    said: list[str] = []
    window = browser.new_context(accept_downloads=True, **{"viewport": {"width": 1280, "height": 800}, **context})
    window.set_default_timeout(30_000)
    page = window.new_page()
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    yield page
    window.close()
    assert not said, said


def hold_requests(page: Any) -> None:
    """Let a test decide what comes of requests to a path: ``held`` waits, ``down`` fails, ``gone`` is answered 400."""
    page.evaluate(
        """() => {
          const real = window.fetch;
          window.fates = {};
          window.asked = [];
          window.fetch = (path, options = {}) => {
            const short = path.split("?")[0];
            window.asked.push(short);
            const fate = window.fates[short];
            if (fate === "down") return Promise.reject(new TypeError("down"));
            if (fate === "gone") return Promise.resolve(new Response('{"error": "It is gone."}', { status: 400 }));
            if (fate !== "held") return real(path, options);
            return new Promise((resolve, reject) => {
              window.letGo = async () => {
                const answer = await real(path, { ...options, signal: undefined });
                resolve(answer.clone());
                await answer.text();
                await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
              };
              options.signal?.addEventListener("abort", () => reject(new DOMException("left", "AbortError")));
            });
          };
        }"""
    )


def until(page: Any, condition: str, given: object = None) -> None:
    """Wait until a condition, as a function of JavaScript, is met.

    Playwright's own wait evaluates text inside the page, which the page's policy forbids.
    """
    page.evaluate(
        f"""async (given) => {{
          const met = {condition}, end = performance.now() + 30000;
          while (!met(given)) {{
            if (performance.now() > end) throw new Error("not within 30 s");
            await new Promise(requestAnimationFrame);
          }}
        }}""",
        given,
    )
