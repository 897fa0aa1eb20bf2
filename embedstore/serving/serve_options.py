"""The options of `serve`, checked when they are made.

Defaults and help of the command come from here, so nothing heavy is imported.
"""

from dataclasses import dataclass

from embedstore._core.arguments import DEVICES, check_least, check_types, option
from embedstore.errors import UsageError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Addresses that only this machine reaches."""


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What `serve` is asked besides a store; its documentation says what each option means.

    Raises
    ------
    UsageError
        A value that cannot be right, whatever the store.
    """

    host: str = option("127.0.0.1", "Address to listen on; one that other machines reach needs a token.")
    port: int = option(8765, "Port to listen on; 0 takes a free one.")
    token_file: str | None = option(None, "File with the token that every request has to bring.", metavar="FILE")
    writable: bool = option(False, "Let requests save heads and maps in the store.")
    open: bool = option(False, "Open the page in a browser.")
    threads: int = option(4, "Requests that are worked on at once; others wait.")
    max_body: int = option(16_000_000, "Bytes that a request may have.", metavar="BYTES")
    seconds: float = option(30.0, "Seconds that a request may take.", flag="--timeout", metavar="SECONDS")
    device: str = option("auto", DEVICES)

    def __post_init__(self) -> None:
        check_types(self)
        check_least(self, port=0, threads=1, max_body=1000)
        if self.port > 65535:
            raise UsageError(f"port must be at most 65535. Got {self.port} instead.")
        if not self.seconds > 0:
            raise UsageError(f"timeout must be above 0. Got {self.seconds} instead.")

    @property
    def local(self) -> bool:
        """Whether only this machine reaches the server."""
        return self.host in LOOPBACK
