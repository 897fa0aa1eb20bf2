"""Columns of texts that have a space of their own: which column each space embeds, and what that asks of a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from embedstore._core.column_types import ColumnType, declared
from embedstore.errors import UsageError
from embedstore.sources.base import free_name
from embedstore.spec import MODALITIES, TEXT

if TYPE_CHECKING:
    import pyarrow as pa

    from embedstore.store import StoreReader
    from embedstore.store.space import Space


def kept_column(column: str, source: Mapping[str, str]) -> str | None:
    """What the store calls `column` of a dataset; None where it is the dataset's texts themselves.

    Parameters
    ----------
    source : mapping
        ``"id"`` or modality → column, as the dataset was opened with.
    """
    named = source.get(TEXT)
    is_text = column == named if named is not None else column.strip().lower() == TEXT
    return None if is_text else free_name(column)


def text_columns(
    asked: Mapping[str, str], source: Mapping[str, str], store: StoreReader, spaces: Iterable[str]
) -> dict[str, str | None]:
    """Space → the metadata column that it embeds (None: the payloads of its modality), of the `spaces` of a run.

    Parameters
    ----------
    asked : mapping of space to column of the dataset
    source : mapping
        As `kept_column` takes it.
    spaces : names

    Raises
    ------
    UsageError
        A space holds the texts of another column.
    """
    found: dict[str, str | None] = {}
    for name in spaces:
        held = store.spaces[name].info.column if name in store.spaces else None
        found[name] = kept_column(asked[name], source) if name in asked else held
        if name in store.spaces and found[name] != held:
            raise UsageError(
                f"Space {name!r} holds the texts of {_in_words(held)}, not of column {asked[name]!r}. Leave out "
                f"--text-column {name}={asked[name]}, or give that column a space of its own: "
                f"--text NEWNAME={store.spaces[name].spec.name} --text-column NEWNAME={asked[name]}"
            )
    return found


def texts_embedded(spaces: Iterable[Space]) -> list[str]:
    """The metadata columns that `spaces` embed, alone or in messages."""
    return list(dict.fromkeys(column for space in spaces for column in space.info.texts))


def message_columns(asked: Mapping[str, Sequence[str]], source: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Space → what the store calls the columns of its messages, of those that are `asked` for by their names in a dataset."""
    return {
        name: tuple(part if part in MODALITIES else kept_column(part, source) or TEXT for part in parts)
        for name, parts in asked.items()
    }


def declared_texts(columns: Mapping[str, str | None], said: Mapping[str, ColumnType]) -> dict[str, ColumnType]:
    """The types that the columns of `columns` have: text, as they are written.

    Raises
    ------
    UsageError
        The user `said` that one is something else.
    """
    for name, column in columns.items():
        if column is not None and column in said and said[column].word != TEXT:
            raise UsageError(
                f"Column {column!r} is embedded into space {name!r}, so it is text, not {said[column].word}. "
                f"Leave out --type {column}={said[column].word}."
            )
    return declared({column: TEXT for column in columns.values() if column is not None})


def texts_as_text(columns: Iterable[str]) -> dict[str, pa.DataType]:
    """Columns of texts, as the store calls them, with the type that says so."""
    import pyarrow as pa

    return {free_name(column): pa.string() for column in columns}


def _in_words(column: str | None) -> str:
    return "the dataset's text column" if column is None else f"column {column!r}"
