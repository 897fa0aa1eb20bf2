"""Huge pages for the arrays of an index.

A graph search jumps between vectors at random, and with pages of 4 KiB nearly every jump misses the TLB; pages of 2 MiB made
searches 5–50 % faster here. Linux only; a refusal costs nothing and changes nothing.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

HUGE = 1 << 21
MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25


@cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def use_huge_pages(address: int, size: int) -> None:
    """Ask for huge pages under the `size` bytes at `address` (private memory, not a mapped file)."""
    first = -(-address // HUGE) * HUGE
    last = (address + size) // HUGE * HUGE
    if _libc() is None or last <= first:
        return
    for advice in (MADV_HUGEPAGE, MADV_COLLAPSE):
        _libc().madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), ctypes.c_int(advice))
