"""What a model's makers say of it in its folder: the licence of the weights, and whether vectors may be cut.

Licences stand in the front matter of the model card (``README.md``). That a model was trained to be cut (Matryoshka) is said
in ``config.json`` (``matryoshka_dimensions``, ``is_matryoshka``), in ``config_sentence_transformers.json``
(``truncate_dim``), by a tag of the card, by the training arguments that sentence-transformers writes into it, or in its words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedstore._core.hub import hub
from embedstore.errors import EncoderError, one_line
from embedstore.registry import require

Dims = tuple[int, ...]

CARD_CHARACTERS = 1 << 20
"""A card is read so far."""

_FRONT = re.compile(r"\A\ufeff?---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_DIMS = re.compile(r'"?matryoshka_dims"?\s*[:=]\s*\[([\d,\s]+)\]')
_WORDS = re.compile(r"matryoshka|\bMRL\b", re.IGNORECASE)


@dataclass(frozen=True)
class Card:
    """A model card.

    Parameters
    ----------
    meta : mapping
        Its front matter.
    text : str
        The rest.
    """

    meta: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""

    @classmethod
    def read(cls, folder: Path) -> Card:
        """The card in `folder`; an empty one where there is none that can be read."""
        try:
            with open(folder / "README.md", encoding="utf-8", errors="replace") as file:
                whole = file.read(CARD_CHARACTERS)
        except OSError:
            return cls()
        found = _FRONT.match(whole)
        if found is None:
            return cls(text=whole)
        yaml = require("yaml")
        try:
            meta = yaml.safe_load(found[1])
        except (yaml.YAMLError, ValueError, RecursionError):
            meta = None
        return cls(meta if isinstance(meta, dict) else {}, whole[found.end() :])

    @property
    def license(self) -> str | None:
        """As the card names it; the name of one that the hub has no word for."""
        given = self.meta.get("license")
        if given == "other":
            given = self.meta.get("license_name") or given
        several = [one for one in given if isinstance(one, str)] if isinstance(given, list) else []
        return " and ".join(several) or None if several else given if isinstance(given, str) and given else None

    @property
    def matryoshka(self) -> Dims | None:
        """The lengths that vectors may be cut to, none for any; None where nothing is said."""
        if found := _DIMS.search(self.text):
            return tuple(int(dim) for dim in found[1].replace(",", " ").split())
        tags = self.meta.get("tags")
        said = [*(tags if isinstance(tags, list) else ()), self.text]
        return () if any(isinstance(words, str) and _WORDS.search(words) for words in said) else None


def hub_card(repository: str) -> Card:
    """The card of a repository of the hub: what its cache holds, else what it says now; an empty one where it cannot be had."""
    library = require("huggingface_hub")
    with hub() as absent:
        try:
            path = library.try_to_load_from_cache(repository, "README.md")
            if not isinstance(path, str):
                path = None if absent else library.hf_hub_download(repository, "README.md")
        except Exception:  # a licence that cannot be read is one that is not shown
            path = None
    return Card() if path is None else Card.read(Path(path).parent)


def matryoshka(folder: Path, *configs: Path) -> Dims | None:
    """The lengths that vectors of the model in `folder` may be cut to, none for any; None where its makers say nothing.

    Parameters
    ----------
    folder : Path
        With the model card.
    configs : Path
        JSON files that may say it, too.
    """
    for path in configs:
        config = read_config(path)
        if isinstance(dims := config.get("matryoshka_dimensions") or config.get("matryoshka_dims"), list):
            return tuple(int(dim) for dim in dims)
        if config.get("is_matryoshka") or config.get("truncate_dim"):
            return ()
    return Card.read(folder).matryoshka


def read_config(path: Path) -> Any:
    """A JSON file of a model's folder; nothing where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise EncoderError(f"{path} cannot be read as JSON ({one_line(error, 100)}).") from error
