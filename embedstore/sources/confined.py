"""`Root`: the one folder that payloads may come from, for tables that somebody else made."""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

from embedstore.errors import PayloadError, UsageError


class Root:
    """A folder; paths out of it, links resolved, and URLs are no payloads.

    Raises
    ------
    UsageError
        There is no such folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        if not os.path.isdir(folder):
            raise UsageError(f"--root {os.fspath(folder)} is not a folder.")
        self.folder = os.path.realpath(folder)

    def inside(self, uri: str) -> str:
        """The file that `uri` names, links resolved.

        Raises
        ------
        PayloadError
            It is not below the folder, or not on this machine.
        """
        path = uri
        if "://" in uri:
            parts = urlsplit(uri)
            if parts.scheme.lower() != "file" or parts.netloc not in ("", "localhost"):
                raise PayloadError("read", f"{uri} is a URL, and --root {self.folder} allows files below it alone")
            path = unquote(parts.path)
        try:
            real = os.path.realpath(path)
        except (OSError, ValueError) as error:
            raise PayloadError("read", f"{uri}: {error}") from error
        if os.path.commonpath([real, self.folder]) != self.folder:
            raise PayloadError("read", f"{uri} is not below --root {self.folder}")
        return real
