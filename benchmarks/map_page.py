"""Does the page's map keep up with a million points, with WebGL and without?

``python -m benchmarks.map_page [--points 1000000] [--seconds 4] [--tiny]``. Chromium opens the page's own files; the columns of
the map (15 clusters in the plane, float32 places and uint16 classes) are made here and handed to it in place of a server's.
Measured in the page: milliseconds from the moment the columns are there until all points are drawn, pictures a second while a
hand drags the map, and milliseconds from the end of a lasso of 200 corners until what is in it is highlighted and counted.
Beside the time on the wall stands that of the page's own thread on a processor, which other work on the machine does not
lengthen. Needs Playwright and Chromium.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

import embedstore.serving
from benchmarks._chromium import FLAT, QUIET, WEBGL, chromium

PAGE = Path(embedstore.serving.__file__).parent / "page"
WAYS = {"WebGL (swiftshader)": WEBGL, "canvas": FLAT}
CLASSES = [f"class {i}" for i in range(15)]
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

STAGE = """
  const stage = document.querySelector(".map-stage"), canvas = stage.querySelector("canvas");
  const box = stage.getBoundingClientRect();
  stage.setPointerCapture = () => {};
  const send = (type, x, y, shiftKey = false) => {
    const at = { clientX: box.x + x * box.width, clientY: box.y + y * box.height };
    stage.dispatchEvent(new PointerEvent(type, { pointerId: 1, bubbles: true, shiftKey, ...at }));
  };
"""

DRAG = f"""async (seconds) => {{ {STAGE}
  const before = Number(canvas.dataset.frames ?? 0), start = performance.now();
  let x = 0.5, step = 0.004;
  send("pointerdown", x, 0.3);
  for (let n = 0; performance.now() - start < 1000 * seconds; n += 1) {{
    await new Promise(requestAnimationFrame);
    x += step;
    if (Math.abs(x - 0.5) > 0.15) step = -step;
    send("pointermove", x, 0.3 + 0.005 * (n % 5));
  }}
  send("pointerup", x, 0.3);
  return (Number(canvas.dataset.frames) - before) / ((performance.now() - start) / 1000);
}}"""

LASSO = f"""(line) => {{ {STAGE}
  send("pointerdown", ...line[0], true);
  for (const place of line) send("pointermove", ...place, true);
  send("pointerup", ...line.at(-1), true);
}}"""


def columns(n: int) -> tuple[bytes, bytes]:
    """Places and classes of n points, as a server sends them."""
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, len(CLASSES), n)
    middle = rng.uniform(-0.8, 0.8, (len(CLASSES), 2))
    places = np.clip(middle[cluster] + rng.normal(0, 0.07, (n, 2)), -1, 1)
    return places.astype("<f4").tobytes(), cluster.astype("<u2").tobytes()


class Answers:
    """What a server of a store of n items would say to the page; for `page.route`."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.places, self.classes = columns(n)

    def __call__(self, route: Any) -> None:
        path = urlsplit(route.request.url).path
        if path == "/v1/map/points":
            route.fulfill(body=self.places, content_type="application/octet-stream")
        elif path == "/v1/map/colour":
            headers = {"X-Legend": quote(json.dumps(CLASSES)), "Content-Type": "application/octet-stream"}
            route.fulfill(body=self.classes, headers=headers)
        elif path.startswith("/v1/"):
            found = self.document(path, route.request.post_data_json if route.request.method == "POST" else {})
            route.fulfill(json=found) if found is not None else route.fulfill(status=404, json={"error": "none", "next": ""})
        else:
            file = PAGE / ("index.html" if path == "/" else Path(path).name)
            route.fulfill(path=file, content_type=KINDS[file.suffix])

    def document(self, path: str, asked: dict[str, Any]) -> dict[str, Any] | None:
        if path == "/v1/store":
            space = {"name": "text", "modality": "text", "encoder": "none", "n": self.n}
            return {"name": "map", "n_items": self.n, "spaces": [space], "columns": [{"name": "label"}], "heads": []}
        if path == "/v1/map":
            return {"n": self.n, "key": "map"}
        if path == "/v1/map/items":
            ids = [f"item {row}" for row in asked["rows"]]
            return {"ids": ids, "items": [{"id": own, "kind": "text", "text": own, "metadata": {}} for own in ids]}
        return None


def lasso() -> list[tuple[float, float]]:
    """A line of 200 corners around about half of the stage, in fractions of it."""
    turns = np.linspace(0, 2 * math.pi, 200)
    reach = 0.33 + 0.06 * np.sin(9 * turns)
    return [(0.5 + r * math.cos(t), 0.5 + r * math.sin(t)) for r, t in zip(reach.tolist(), turns.tolist(), strict=True)]


class Clock:
    """Milliseconds that the page's thread was on a processor."""

    def __init__(self, page: Any) -> None:
        self.devtools = page.context.new_cdp_session(page)
        self.devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

    def read(self) -> float:
        metrics = {one["name"]: one["value"] for one in self.devtools.send("Performance.getMetrics")["metrics"]}
        return 1000 * float(metrics["TaskDuration"])


def measured(browser: Any, answers: Answers, seconds: float) -> dict[str, Any]:
    """The figures of one way to draw."""
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    page.route("**/*", answers)
    clock = Clock(page)
    page.goto("http://page.invalid/#/map")
    page.locator(".map-stage[data-points]").wait_for(timeout=120_000)
    opened = clock.read()
    rate = page.evaluate(DRAG, seconds)
    page.wait_for_timeout(500)
    before = clock.read()
    page.evaluate(LASSO, lasso())
    held = clock.read() - before
    page.locator(".picked h2").wait_for()
    took = {
        one["name"]: one["duration"] for one in page.evaluate("performance.getEntriesByType('measure').map((m) => m.toJSON())")
    }
    found = {
        "painter": page.locator(".map-stage canvas").get_attribute("data-painter"),
        "drawn ms": took["map-drawn"],
        "opened, thread ms": opened,
        "pictures/s": rate,
        "lasso ms": took["lasso"],
        "lasso, thread ms": held,
        "selected": page.locator(".picked h2").inner_text(),
    }
    page.close()
    return found


def main(arguments: list[str] | None = None) -> dict[str, dict[str, Any]]:
    """Print the table and return the figures by way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(arguments)
    if options.tiny:
        options.points, options.seconds = 3000, 0.3
    from playwright.sync_api import sync_playwright

    answers, found = Answers(options.points), {}
    with sync_playwright() as driver:
        for way, flags in WAYS.items():
            browser = driver.chromium.launch(executable_path=chromium(), args=[*QUIET, *flags])
            found[way] = measured(browser, answers, options.seconds)
            browser.close()
    print(f"{options.points:,} points\n")
    names = list(next(iter(found.values())))
    print("| Chromium with | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    for way, told in found.items():
        print(f"| {way} | " + " | ".join(f"{v:.0f}" if isinstance(v, float) else str(v) for v in told.values()) + " |")
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
