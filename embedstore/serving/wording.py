"""What the library says to whoever types commands, said to whoever sends JSON: fields in the place of options.

Errors and notes pass here on their way out, so the library has one wording. Commands that are written out, for whoever runs the
server, stay as they are.
"""

from __future__ import annotations

import re

FIELDS = {
    "id": "query.id",
    "text": "query.text",
    "image": "query.image",
    "audio": "query.audio",
    "video": "query.video",
    "vector": "query.vector",
    "fingerprint": "query.fingerprint",
    "like": "positive",
    "unlike": "negative",
    "where": "filter",
    "space": "space",
    "min-score": "min_score",
    **{name: name for name in ("k", "offset", "diversity", "threshold", "head", "fold")},
}
"""Options of commands, and what a request calls the same."""
ONLY_TYPED = (", or raise the limit: --where-timeout SECONDS", "; --max-pixels raises it")
"""What no request can do."""
QUOTED = r"(?<!\w)'[^']*'(?!\w)"
"""Ids, names and conditions: they are what they are."""
COMMAND = r"embedstore [a-z][a-z-]*(?: (?:[^\s.,;)]|[.,;](?!\s|$))+)*"
FLAG = r"(?<![\w-])--(?P<name>[a-z][a-z-]*)(?: (?:ID|WORDS|NAME|SQL|FILE(?:\.npy)?)\b)?"


def in_json(said: str) -> str:
    """`said` with the fields of requests in the place of options.

    Examples
    --------
    >>> in_json("Say which: --space NAME. Or first: embedstore align a.store --from text --to image")
    'Say which: space. Or first: embedstore align a.store --from text --to image'
    """
    for words in ONLY_TYPED:
        said = said.replace(words, "")
    return re.sub(f"{QUOTED}|{COMMAND}|{FLAG}", _field, said)


def _field(found: re.Match[str]) -> str:
    name = found["name"]
    return found[0] if name is None else FIELDS.get(name, found[0])
