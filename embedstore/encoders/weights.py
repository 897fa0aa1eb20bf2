"""Weights of torch modules: read from files without executing code, filled in, and what they are known by."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from embedstore.errors import EncoderError, one_line

if TYPE_CHECKING:
    import torch


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """State dict from a local ``.safetensors``, ``.pt``, ``.pth`` or ``.bin`` file; never executes code.

    Raises
    ------
    EncoderError
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise EncoderError(f"Weights {path} cannot be read: {error}".splitlines()[0]) from error
    for key in ("state_dict", "model"):
        state = state[key] if isinstance(state.get(key), dict) else state
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def fill(model: torch.nn.Module, path: Path, name: str) -> None:
    """Load a model's weights from a file, which may hold others besides.

    Raises
    ------
    EncoderError
        The file cannot be read, lacks some of them, or has them in another shape.
    """
    weights = load_weights(path)
    try:
        missing = model.load_state_dict(weights, strict=False).missing_keys
    except RuntimeError as error:
        raise EncoderError(f"Weights {path} do not fit {name}: {one_line(str(error).partition(':')[2], 200)}") from error
    if missing:
        raise EncoderError(f"Weights {path} do not fit {name}: they lack {missing[0]!r}.")


def state_digest(model: torch.nn.Module) -> str:
    """``"sha256:…"`` over names, dtypes, shapes and bytes of a model's state, whatever file it came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{array.dtype}|{tuple(array.shape)}|".encode())
        digest.update(array.reshape(-1).view(_bytes_dtype()).numpy().tobytes() if array.numel() else b"")
    return f"sha256:{digest.hexdigest()}"


def _bytes_dtype() -> torch.dtype:
    import torch

    return torch.uint8
