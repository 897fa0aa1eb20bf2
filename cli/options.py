"""The arguments and options that several commands share, and how their text becomes values."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from embedstore._core.arguments import DEVICES
from embedstore.errors import UsageError
from embedstore.spec import SOURCE_WORDS

Store = Annotated[Path, typer.Argument(readable=False, metavar="STORE", help="The store's folder.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
Where = Annotated[str | None, typer.Option(help="SQL over the metadata, such as \"label = 'food' and price < 10\".")]
Types = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        metavar="COLUMN=TYPE",
        help="What a metadata column is: text, number, integer, boolean, date or datetime; date:%d.%m.%Y gives a format. "
        "May be repeated.",
    ),
]
IdColumn = Annotated[str | None, typer.Option(help="Column with the ids, if not 'id'.")]
ImageColumn = Annotated[str | None, typer.Option(help="Column with image paths or bytes, if not 'image'.")]
TextColumn = Annotated[str | None, typer.Option(help="Column with texts, if not 'text'.")]
TextColumns = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[SPACE=]COLUMN",
        help="Column with texts, if not 'text'; SPACE=COLUMN: those of one space of texts. May be repeated.",
    ),
]
AudioColumn = Annotated[str | None, typer.Option(help="Column with sounds, if not 'audio'.")]
VideoColumn = Annotated[str | None, typer.Option(help="Column with videos, if not 'video'.")]
SavedHead = Annotated[
    str | None,
    typer.Argument(metavar="HEAD", help="A saved head: its name, or its folder in another store, OTHER.store/heads/NAME."),
]
Device = Annotated[str, typer.Option(help=DEVICES)]
WhereTimeout = Annotated[float, typer.Option(metavar="SECONDS", help="Give --where up after so long.")]
AllowModel = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATH",
        help="Load this model, though the store names it by a relative path or holds it: if you trust it; may be repeated.",
    ),
]
NoCheck = Annotated[
    bool, typer.Option("--no-check", help="Do not compare items and vectors with their checksums on first use.")
]
SECONDS = 60.0


def named_columns(**named: str | None) -> dict[str, str] | None:
    """What is in which column, where they have other names; None where they have not."""
    return {word: column for word, column in named.items() if column} or None


def named_texts(given: list[str] | None, encoders: Iterable[str]) -> dict[str, str]:
    """``COLUMN`` or ``SPACE=COLUMN`` as a mapping; where SPACE is none of `encoders`, all of it is the name of a column."""
    from embedstore.errors import UsageError

    columns: dict[str, str] = {}
    for text in given or []:
        space, equals, column = text.partition("=")
        own = equals and space in encoders and (space == "text" or space not in SOURCE_WORDS)
        space, column = (space, column) if own else ("text", text)
        if space in columns:
            raise UsageError(
                f"Two columns, {columns[space]!r} and {column!r}, for space {space!r}. Name a space of its own for one: "
                f"--text NAME=ENCODER --text-column NAME={column}"
            )
        columns[space] = column
    return columns


def column_types(given: list[str] | None) -> dict[str, str] | None:
    """``COLUMN=TYPE`` as a mapping."""
    from embedstore.errors import UsageError

    types: dict[str, str] = {}
    for text in given or []:
        column, equals, kind = text.rpartition("=")
        if not equals or not column:
            raise UsageError(f"--type {text}: expected COLUMN=TYPE, such as version=text.")
        types[column] = kind
    return types or None


def numbers(given: str | None, what: str) -> list[float] | None:
    """Numbers separated by commas; `UsageError` names the first part that is none."""
    found = []
    for part in names(given) or ():
        try:
            found.append(float(part))
        except ValueError:
            raise UsageError(f"{what} should be numbers separated by commas, such as 1,0.5. Got {part!r}.") from None
    return found or None


def whole_numbers(given: str | None, flag: str) -> list[int] | None:
    """Whole numbers separated by commas."""
    try:
        return None if given is None else [int(part) for part in given.split(",")]
    except ValueError:
        raise UsageError(f"{flag} should be whole numbers, such as 1,2,4. Got {given!r} instead.") from None


def names(given: str | None) -> list[str] | None:
    """Names separated by commas."""
    return [name.strip() for name in given.split(",") if name.strip()] if given else None
