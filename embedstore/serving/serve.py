"""`serve`: a store as a page and an API, until it is told to stop."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from embedstore.errors import UsageError, next_step, one_line, reason_of
from embedstore.registry import require
from embedstore.serving.serve_options import ServeOptions
from embedstore.store import Store

__all__ = ["serve"]

APP = "embedstore.serving.app:create_app"
"""As ASGI servers name what makes an application."""
SHORTEST = 16
CONNECTIONS = 1000
KEEP_ALIVE = 30


def serve(
    store: Store | str | Path,
    *,
    host: str = ServeOptions.host,
    port: int = ServeOptions.port,
    token_file: str | None = ServeOptions.token_file,
    writable: bool = ServeOptions.writable,
    open: bool = ServeOptions.open,
    threads: int = ServeOptions.threads,
    max_body: int = ServeOptions.max_body,
    seconds: float = ServeOptions.seconds,
    device: str = ServeOptions.device,
    on_ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve a store's page and API over HTTP, until Ctrl-C.

    Models load once; what is committed to the store meanwhile is served without a restart, and a request that runs keeps the
    generation it began with. It listens to this machine alone, and changes nothing in the store, unless it is told otherwise.

    Parameters
    ----------
    host : str
        Address to listen on. For one that other machines reach every request has to bring a token: the first line of
        `token_file`, or one that is made up and told with the address.
    port : int
        0 takes a free one.
    token_file : str, optional
        Also for this machine's own address, where others use the machine.
    writable : bool
        Whether requests may save heads and maps in the store.
    open : bool
        Open the page in a browser.
    threads : int
        Requests that are worked on at once.
    max_body : int
        Bytes that a request may have.
    seconds : float
        That a request may take.
    device : str
        For encoding queries.
    on_ready : callable
        Is told the address, with the token in its fragment, as soon as requests are taken.

    Raises
    ------
    UsageError
        The port is taken, the address is not this machine's, or the token is too short.
    MissingDependencyError
        The extra ``serve`` is not installed.

    Examples
    --------
    >>> serve("my.store", port=0, on_ready=print)  # doctest: +SKIP
    """
    options = ServeOptions(
        host=host,
        port=port,
        token_file=token_file,
        writable=writable,
        open=open,
        threads=threads,
        max_body=max_body,
        seconds=seconds,
        device=device,
    )
    for module in ("fastapi", "uvicorn", "orjson", "python_multipart", "prometheus_client"):
        require(module, extra="serve")
    opened = store if isinstance(store, Store) else Store.open(store)
    token = _token(options)
    with _listening(options) as listener:
        _run(opened, options, token, listener, on_ready)


def _run(
    store: Store, options: ServeOptions, token: str | None, listener: socket.socket, on_ready: Callable[[str], None]
) -> None:
    uvicorn = require("uvicorn", extra="serve")
    create_app = require("uvicorn.importer", extra="serve").import_from_string(APP)
    app = create_app(store, options, token=token)
    app.state.service.session.warm()  # what is damaged is said here, in one line
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    address = _address(options.host, listener.getsockname()[1], token)
    threading.Thread(target=_tell, args=(server, address, options.open, on_ready), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


def _tell(server: Any, address: str, browse: bool, on_ready: Callable[[str], None]) -> None:
    """Say the address once requests are taken."""
    pause = threading.Event()
    while not server.started:
        if server.should_exit:
            return
        pause.wait(0.02)
    on_ready(address)
    if browse:
        webbrowser.open(address)


def _address(host: str, port: int, token: str | None) -> str:
    shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    shown = f"[{shown}]" if ":" in shown else shown
    return f"http://{shown}:{port}/" + (f"#token={quote(token, safe='')}" if token else "")


def _token(options: ServeOptions) -> str | None:
    """What requests have to bring."""
    if options.token_file is None:
        return None if options.local else secrets.token_urlsafe(24)
    try:
        line = Path(options.token_file).read_text(encoding="utf-8").split("\n", 1)[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"--token-file {options.token_file}: {reason}.") from error
    if len(line) < SHORTEST or not line.isascii() or not line.isprintable() or " " in line:
        raise UsageError(
            f"--token-file {options.token_file}: its first line should be a token of {SHORTEST} or more letters and digits. "
            f"Make one: python -c 'import secrets; print(secrets.token_urlsafe())' > {options.token_file}"
        )
    return line


def _listening(options: ServeOptions) -> socket.socket:
    """A socket at the address; taken before models are loaded, so that a wrong one is told at once."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections have it from here: no answer waits for an ACK
    try:
        listener.bind((options.host, options.port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"--host {options.host} --port {options.port}: {error.strerror or one_line(error)}.{next_step(error)} "
            "Choose another: --port 0 takes a free one."
        ) from error
    except BaseException:
        listener.close()
        raise
    return listener
