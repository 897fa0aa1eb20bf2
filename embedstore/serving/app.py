"""The application: routes, error answers and guards around one store. ASGI, for uvicorn or whatever serves such."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response

from embedstore._version import __version__
from embedstore.errors import EmbedstoreError
from embedstore.serving import routes_items, routes_look, routes_page, routes_search, routes_teach
from embedstore.serving.guards import Guards
from embedstore.serving.replies import HANDLERS, of_error
from embedstore.serving.serve_options import ServeOptions
from embedstore.serving.service import Service
from embedstore.store import Store

__all__ = ["create_app"]

ROUTERS = (routes_search.router, routes_items.router, routes_teach.router, routes_look.router, routes_page.router)


def create_app(
    store: Store | str | os.PathLike[str], options: ServeOptions | None = None, *, token: str | None = None
) -> FastAPI:
    """An application that serves a store.

    Parameters
    ----------
    store : Store or path
    options : ServeOptions, optional
        Its host, port and token file are those of whoever runs the application.
    token : str, optional
        What requests have to bring as ``Authorization: Bearer``; without one only requests to this machine's own names
        are answered.

    Returns
    -------
    FastAPI
        ``state.service`` is what answers.

    Examples
    --------
    >>> app = create_app("my.store")  # doctest: +SKIP
    >>> uvicorn.run(app, host="127.0.0.1", port=8765)  # doctest: +SKIP
    """
    options = options or ServeOptions()
    service = Service(store if isinstance(store, Store) else Store.open(Path(store)), options)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="embedstore", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan, redirect_slashes=False
    )
    app.state.service = service
    for router in ROUTERS:
        app.include_router(router(service))
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)

    async def of_library(_: Request, error: Exception) -> Response:
        assert isinstance(error, EmbedstoreError)
        return of_error(error, service.session.store.path)

    app.add_exception_handler(EmbedstoreError, of_library)
    app.add_middleware(Guards, options=options, token=token, gauges=service.gauges)
    return app
