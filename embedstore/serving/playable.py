"""Sounds and films of items, to be played: the file as it is, with a content type that its bytes say and its name does not."""

from __future__ import annotations

import io
import os
from typing import NamedTuple

from embedstore.errors import PayloadError
from embedstore.serving.known_files import KnownFiles
from embedstore.serving.own_files import HEARD, own_file
from embedstore.serving.session import Session

FIRST = {
    b"fLaC": "audio/flac",
    b"ID3": "audio/mpeg",
    b".snd": "audio/basic",
    b"caff": "audio/x-caf",
    b"\x1aE\xdf\xa3": "video/webm",
    b"\0\0\1\xba": "video/mpeg",
    b"\0\0\1\xb3": "video/mpeg",
}
CHUNKED = {b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo", b"AIFF": "audio/aiff", b"AIFC": "audio/aiff"}
EITHER = ("/mp4", "/webm", "/ogg")
STILLS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")
"""Brands of pictures in the container of MP4."""


class Playable(NamedTuple):
    """A file that may be sent; whoever gets it closes it."""

    file: io.FileIO
    media_type: str
    etag: str
    status: os.stat_result


class Playables:
    """Threads share it."""

    def __init__(self, files: KnownFiles) -> None:
        self._files = files

    def of(self, session: Session, item: str, modality: str | None = None) -> Playable | None:
        """The sound or film of an item; None where there is none that is still what was embedded.

        Raises
        ------
        UsageError
            No item has this id.
        """
        own = own_file(session, item, HEARD if modality is None else (modality,))
        if own is None:
            return None
        try:
            with self._files.opened(own) as known:
                kind = media_type(known.head, own.modality)
                if kind is None:
                    return None
                file = io.FileIO(os.dup(known.file.fileno()))  # which is sent whatever lies at its path by then
                return Playable(file, kind, f'"{own.digest.hex()}"', os.fstat(file.fileno()))
        except PayloadError:
            return None


def media_type(head: bytes, modality: str | None = None) -> str | None:
    """What a sound's or a film's first bytes say that it is; None where they say neither.

    Parameters
    ----------
    modality : str, optional
        What a container that holds either is taken to be: what was embedded of it.
    """
    if head[4:8] == b"ftyp":
        if head[8:12] in STILLS:
            return None
        found = "audio/mp4" if head[8:11] == b"M4A" else "video/mp4"
    elif head[:4] == b"OggS":
        found = "video/ogg" if b"theora" in head else "audio/ogg"
    elif head[:4] in (b"RIFF", b"FORM"):
        return CHUNKED.get(head[8:12])
    elif head[:1] == b"\xff" and head[1:2] and head[1] >= 0xE0:
        return "audio/aac" if head[1] & 0xF6 == 0xF0 else "audio/mpeg"
    else:
        found = next((kind for magic, kind in FIRST.items() if head.startswith(magic)), "")
    if not found:
        return None
    return f"{modality}/{found.partition('/')[2]}" if modality and found.endswith(EITHER) else found


def modality_of(head: bytes) -> str:
    """The modality of a file that is sent without a name for it: what is no sound and no film is a picture."""
    kind = media_type(head)
    return kind.partition("/")[0] if kind else "image"
