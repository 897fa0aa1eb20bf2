"""Folders of Hugging Face models: where they are, what they are known by, and what transformers loads of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedstore._core.atomic_files import sha256_file
from embedstore._core.hub import hub
from embedstore.encoders.base import EncoderRequest, not_loadable
from embedstore.encoders.trust import no_code
from embedstore.errors import EncoderError, UsageError
from embedstore.registry import require

EXTRA = "st"
"""The extra that brings transformers and the hub's client."""

_DIGESTED = (".json", ".safetensors", ".bin", ".txt", ".model")
_SKIPPED = ("onnx", "openvino", ".git", ".cache")
_NOT_FETCHED = ("onnx/*", "openvino/*", "*.h5", "*.ot")


def model_folder(request: EncoderRequest, examples: str, needs: Sequence[str] = ("config.json",)) -> Path:
    """The folder that a request names, or a copy of the hub's repository.

    Parameters
    ----------
    examples : str
        Names that could be typed, for messages.
    needs : sequence of str
        Files of which the folder has one at least; none to leave that to the caller.

    Raises
    ------
    UsageError
        No model is named, or the path is no folder.
    EncoderError
        It cannot be had from the hub, or has none of the files.
    """
    family = request.name.partition(":")[0]
    if not request.argument:
        raise UsageError(f"{family}: needs a model, such as {examples}.")
    folder = Path(request.argument).expanduser()
    if not folder.is_dir():
        if request.argument.startswith((".", "/", "~")):
            raise UsageError(f"{folder} is not a folder with a model for {family}:.")
        folder = download(request)
    if needs and not any((folder / name).is_file() for name in needs):
        raise EncoderError(f"{folder} has no {' or '.join(needs)}: not a model for {family}:.")
    return folder


def download(request: EncoderRequest) -> Path:
    """The files of a repository of the hub, from its cache where they are there.

    Raises
    ------
    EncoderError
    """
    library = require("huggingface_hub", extra=EXTRA)
    with hub() as absent:
        try:
            return Path(library.snapshot_download(request.argument, ignore_patterns=list(_NOT_FETCHED)))
        except Exception as error:
            raise not_loadable(request, error, absent) from error


def loaded(request: EncoderRequest, kind: str, folder: Path) -> Any:
    """What transformers' class `kind` makes of `folder`, without running code that lies there.

    Raises
    ------
    EncoderError
    """
    transformers = require("transformers", extra=EXTRA)
    transformers.utils.logging.disable_progress_bar()
    try:
        with no_code():
            return getattr(transformers, kind).from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise not_loadable(request, error) from error


def folder_digest(folder: Path) -> str:
    """``"sha256:…"`` over the names and bytes of a model folder's configuration, tokenizer and weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and path.suffix in _DIGESTED and not any(part in _SKIPPED for part in relative.parts):
            digest.update(f"{relative.as_posix()}|{sha256_file(path)}|".encode())
    return f"sha256:{digest.hexdigest()}"
