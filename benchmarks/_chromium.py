"""Chromium as the page is looked at with, by benchmarks and by tests: where it is, and its switches."""

from __future__ import annotations

import shutil

QUIET = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
)
"""Without connections of its own."""
WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
"""WebGL by the processor: there need be no graphics card."""
FLAT = ("--disable-3d-apis",)
"""Without WebGL."""


def chromium() -> str | None:
    """Its path; None where it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
