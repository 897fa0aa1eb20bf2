"""Samples of a WebDataset shard, and what the names of their members say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from embedstore.errors import PayloadError, SourceError
from embedstore.sources.base import MODALITY_OF
from embedstore.sources.text_files import text_of

LABEL = "cls"
"""The extension of labels."""

_TEXTS = ("txt", "text", "caption")
_MEMBER = re.compile(r"^(?:\./)*((?:.*/)?[^./]+)\.([^/]+)$")
_WORDS = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z][a-z0-9_-]*)*")
_DOTS = (
    "a key ends at the first dot of a name. If these are items of their own, take the dots before the ending out of the names, "
    "or unpack the tar and embed the folder, where a name ends at its last dot"
)


@dataclass
class Sample:
    """One sample of a shard: extension → bytes, in order; None for those that were not asked for."""

    shard: str
    key: str
    members: dict[str, bytes | None] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"{self.shard}: sample {self.key!r}"


def key_and_extension(name: str) -> tuple[str, str]:
    """Of a member; both are empty for a name without a dot, or with nothing before it."""
    match = _MEMBER.match(name)
    return (match[1], match[2].lower()) if match else ("", "")


def modality_of(extension: str) -> str | None:
    """What a member with this extension is a payload of; its last part tells."""
    last = extension.rpartition(".")[2]
    return "text" if last in _TEXTS else MODALITY_OF.get(f".{last}")


def label_of(sample: Sample) -> str | None:
    """The text of the sample's `LABEL`.

    Raises
    ------
    SourceError
        It is not UTF-8.
    """
    try:
        return text_of(sample.members.get(LABEL) or b"")
    except PayloadError as error:
        raise SourceError(f"{sample.place}: its {LABEL} is {error.reason}. Save it as UTF-8, or leave it out.") from error


class Parts:
    """Tells parts of one item (``1.left.jpg``, ``1.right.jpg``) from names with dots (``Track 2.0.jpg``, ``Track 2.1.jpg``).

    Parameters
    ----------
    first : sequence of Sample
        An extension that several of these have is a part.
    """

    def __init__(self, first: Sequence[Sample]) -> None:
        counts = Counter(extension for sample in first for extension in sample.members)
        self._known = {extension for extension, count in counts.items() if count > 1 or "." not in extension}
        self._one = len(first) == 1

    def refuse_several(self, sample: Sample, modality: str, extensions: Sequence[str]) -> None:
        """A sample has several payloads of one modality and none of them is plain.

        Raises
        ------
        SourceError
            With what to do, which depends on what they are.
        """
        which = f"{sample.place} has {' and '.join(extensions)}"
        if self._are_parts(extensions):
            raise SourceError(
                f"{which}. Name one: --{modality}-column {extensions[0]} (the others are left out then). Otherwise {_DOTS}."
            )
        names = " and ".join(repr(sample.names[extension]) for extension in extensions)
        raise SourceError(f"{which}, from {names}: {_DOTS}.")

    def refuse_mixed(self, sample: Sample, extensions: Iterable[str]) -> None:
        """The payloads of a sample come from names that differ before their endings, and these are no parts.

        Raises
        ------
        SourceError
        """
        dotted = {extension.rpartition(".")[0]: extension for extension in extensions if "." in extension}
        if len(dotted) > 1 and not self._are_parts(list(dotted.values())):
            names = " and ".join(repr(sample.names[extension]) for extension in dotted.values())
            raise SourceError(f"{sample.place} is made of {names}: {_DOTS}.")

    def _are_parts(self, extensions: Sequence[str]) -> bool:
        return self._known.issuperset(extensions) or (self._one and all(map(_WORDS.fullmatch, extensions)))
