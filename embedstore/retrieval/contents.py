"""`Contents`: a file in memory, to search by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Contents:
    """A file that is in memory already, to be searched for like one on the disk."""

    data: bytes
