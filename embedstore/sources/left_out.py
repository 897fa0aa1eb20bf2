"""What a source leaves out, counted by kind and told in sentences, so that nothing leaves in silence."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from embedstore.sources.base import UNDECODED

STORE = "store.json"
"""A folder that holds such a file is a store of embedstore: its own files are no dataset."""
_SHOWN = 12
"""Endings that are counted one by one; the rest is added up."""


class LeftOut:
    """Counts of files that become no item, and an example of each kind."""

    def __init__(self) -> None:
        self._undecoded: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()
        self._others: dict[str, tuple[int, str]] = {}

    def file(self, name: str) -> None:
        """A file whose ending is not read: a picture without a decoder, or of another kind."""
        ending = os.path.splitext(name)[1].lower()
        (self._undecoded if ending in UNDECODED else self._unknown)[ending or "without an ending"] += 1

    def other(self, why: str, name: str) -> None:
        """Something that was left out for the reason `why`, a noun phrase with its plural in brackets: ``hidden file(s)``."""
        count, example = self._others.get(why, (0, name))
        self._others[why] = count + 1, example

    def others(self, why: str, paths: Iterable[str]) -> None:
        """Several of them, called by their base names."""
        for path in paths:
            self.other(why, shown(os.path.basename(path)))

    def store(self, name: str) -> None:
        """A store that lies in the dataset."""
        self.other("store(s) of embedstore", name)

    def notes(self) -> list[str]:
        """Sentences; none where nothing was left out."""
        found = []
        if self._undecoded:
            found.append(f"left out: {_listed(self._undecoded)} (no decoder); convert them to JPEG or PNG.")
        if self._unknown:
            found.append(f"left out: {_listed(self._unknown)} (not of a known type).")
        for why, (count, example) in self._others.items():
            found.append(f"left out: {count:,} {_numbered(why, count)} (such as {example!r}).")
        return found


def files_below(folder: Path, left_out: LeftOut) -> Iterator[Path]:
    """Every file below `folder`, links to folders aside; stores are counted in `left_out` and not looked into."""
    for root, folders, files in os.walk(folder):
        if STORE in files:
            left_out.store(shown(os.path.relpath(root, folder)))
            folders.clear()
        else:
            yield from (Path(root, file) for file in files)


def shown(path: str) -> str:
    """A file name as UTF-8 text; bytes that are not UTF-8 are shown as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _listed(counts: Counter[str]) -> str:
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    told = [f"{count:,} {ending}" for ending, count in ordered[:_SHOWN]]
    if rest := sum(count for _, count in ordered[_SHOWN:]):
        told.append(f"{rest:,} of other endings")
    return ", ".join(told)


def _numbered(words: str, count: int) -> str:
    """``file(s)`` as ``file`` or ``files``."""
    return words.replace("(s)", "" if count == 1 else "s")
