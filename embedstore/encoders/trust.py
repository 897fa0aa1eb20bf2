"""Whose model is loaded, and that none of them runs code.

What a user types is the user's own. What a store names may be somebody else's: a model that lies inside the store, or that
is found relative to wherever a command runs, is loaded only where the user names it as well.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from embedstore.encoders.names import SCHEMES, EncoderName, inner_name
from embedstore.errors import EncoderError
from embedstore.registry import require

OPTION = "--allow-model"

_IMPORTERS = ("get_class_in_module", "get_cached_module_file")
"""Functions of transformers through which every class of a model's own Python files passes."""


LOADING = threading.RLock()
"""Held while functions of transformers are replaced: of two threads that did so at once, one would put back the other's."""


def local_path(name: str) -> str | None:
    """The path in an encoder's name, as it is written there; None where a hub or a package has the model."""
    if (inner := inner_name(name)) is not None:
        return local_path(inner)
    parsed = EncoderName.parse(name)
    scheme, _, source = parsed.model.partition(":")
    if scheme in SCHEMES:
        return source if scheme == "local-dir" else None
    if parsed.family in ("openclip", "timm"):
        _, _, weights = parsed.model.partition("/")
        return weights if weights and (parsed.family == "timm" or _is_path(weights)) else None
    return parsed.model if parsed.model and _is_path(parsed.model) else None


def _is_path(text: str) -> bool:
    return text.startswith((".", "/", "~")) or os.path.exists(text)


def absolute_name(name: str) -> str:
    """`name` with its path, if it has one, made absolute: what a store records means the same wherever it is read."""
    path = local_path(name)
    plain = EncoderName.parse(name).plain
    if not path or not plain.endswith(path):
        return name
    return plain.removesuffix(path) + os.path.abspath(os.path.expanduser(path)) + name.removeprefix(plain)


def refuse_foreign(name: str, home: Path, allowed: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Refuse the encoder `name` that the store at `home` names, if it is a path that the store may have brought along.

    Parameters
    ----------
    allowed : paths
        Of models that are loaded nevertheless.

    Raises
    ------
    EncoderError
        The path is relative, or lies inside the store (links resolved), and is not among the `allowed`.
    """
    path = local_path(name)
    if path is None:
        return
    given = Path(path).expanduser()
    meant = given.resolve()
    if any(meant == Path(one).expanduser().resolve() for one in allowed):
        return
    if not given.is_absolute():
        where = "by a relative path, so that it depends on the folder you are in"
    elif meant.is_relative_to(home.resolve()):
        where = "inside its own folder"
    else:
        return
    raise EncoderError(
        f"{home} names a model {where}: {name!r}. It may be somebody else's. "
        f"If you trust it, add {OPTION} {os.path.abspath(given)}"
    )


@contextmanager
def no_code() -> Iterator[None]:
    """While a model is loaded, transformers imports none of its Python files, whatever its configuration asks for.

    ``trust_remote_code=False`` is not enough: open_clip hands a configuration's own ``tokenizer_kwargs`` on, and where it says
    nothing, transformers asks on the terminal.
    """
    if importlib.util.find_spec("transformers") is None:
        yield
        return
    dynamic: Any = require("transformers.dynamic_module_utils")
    with LOADING:
        before = {name: getattr(dynamic, name) for name in (*_IMPORTERS, "TIME_OUT_REMOTE_CODE")}
        vars(dynamic).update(dict.fromkeys(_IMPORTERS, _refuse_code), TIME_OUT_REMOTE_CODE=0)
        try:
            yield
        finally:
            vars(dynamic).update(before)


def _refuse_code(*_: Any, **__: Any) -> NoReturn:
    raise ValueError("the model brings Python code of its own, which embedstore never runs.")
