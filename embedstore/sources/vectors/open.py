"""Vectors that somebody else computed, with their ids and metadata: files, and the folders that other tools write.

=================  ==========================================================================================================
``.npy``, ``.npz``   one array (n, dim); in ``.npz`` also ``ids``
Parquet            a column of lists of floats, or of lists of such lists (several vectors an item, with their places in
                   ``NAME.places``); every other column is metadata
CSV, TSV, JSONL    a column of lists, or columns of numbers with one prefix
HDF5               a dataset (n, dim), and ``id`` beside it: ``FILE.h5:/path/to/dataset``
clip-retrieval     ``img_emb/*.npy``, ``text_emb/*.npy``, ``metadata/*.parquet``
autofaiss          a folder of ``.npy`` files, or of Parquet files with embeddings
=================  ==========================================================================================================
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedstore._core.arguments import shown, strings
from embedstore._core.hdf5 import plain_dataset
from embedstore.errors import SourceError, UsageError, reason_of
from embedstore.sources.base import ID
from embedstore.sources.files import absent, natural_paths
from embedstore.sources.left_out import STORE, LeftOut, files_below
from embedstore.sources.vectors.arrays import (
    ID_NAMES,
    HdfRows,
    Matrix,
    MemoryRows,
    NpyRows,
    NpzMatrix,
    Stacked,
    chosen,
    hdf_datasets,
    npz_arrays,
    open_hdf,
    read_array,
    read_member,
)
from embedstore.sources.vectors.columns import PARQUET, TEXT, Columns, MemoryColumns, ParquetColumns, TextColumns, open_columns
from embedstore.sources.vectors.ids import without_same_ids
from embedstore.sources.vectors.piece_columns import PieceVectors, companions, piece_column
from embedstore.sources.vectors.source import Named, VectorSource
from embedstore.sources.vectors.tables import ParquetVectors, TextVectors

if TYPE_CHECKING:
    import pyarrow as pa

Given = str | os.PathLike[str]

HDF = (".h5", ".hdf5", ".hdf", ".he5")
CLIP_RETRIEVAL = {"image": "img_emb", "text": "text_emb"}
"""Modality → folder, as clip-retrieval writes them."""

ROW_NUMBERS = "row"


def open_vectors(
    source: Given | npt.NDArray[Any],
    *,
    ids: Given | Sequence[str] | npt.NDArray[Any] | None = None,
    metadata: Given | Mapping[str, Sequence[Any]] | None = None,
    vector_column: str | None = None,
) -> VectorSource:
    """Find out what `source` is, and where its ids and metadata are.

    Parameters
    ----------
    source : path or (n, dim) array
    ids : str, path, or sequence, optional
        A column (or dataset, or array) of the source or of `metadata`; a file (``.txt``, ``.npy`` or a table); ``"row"`` for
        the numbers of the rows; or the ids themselves. Default: a column ``id``.
    metadata : path or mapping, optional
        A table, or a folder of Parquet files, whose rows are those of the vectors; or columns. Where the source has ids of its
        own, a column of ids has to agree with them, row by row.
    vector_column : str, optional
        The column, dataset or array with the vectors; for columns of numbers, their prefix.

    Raises
    ------
    SourceError, UsageError
    """
    text = [ids] if isinstance(ids, str) else []
    if isinstance(source, np.ndarray):
        found = VectorSource("the array", {"": Stacked("the array", [MemoryRows(source)])})
    elif isinstance(source, str | os.PathLike):
        found = _opened(source, vector_column, text)
    else:
        raise UsageError(f"source must be a path or an array (n, dim). Got {shown(source)} instead.")
    if metadata is not None:
        columns = _metadata(metadata, text)
        found = replace(found, metadata=[*found.metadata, (columns, columns.names)])
    opened, found = found, _with_ids(found, ids)
    _check_lengths(found)
    if metadata is not None and found.ids is not None:
        tables = [table for table, _ in opened.metadata[:-1]]
        if opened.ids is found.ids or any(found.ids[0] is table for table in tables):
            return without_same_ids(found)
    return found


def _opened(source: Given, vector_column: str | None, text: Sequence[str]) -> VectorSource:
    path, dataset = _split(source)
    if not path.exists():
        raise SourceError(absent(str(path)))
    if path.is_dir():
        return _folder(path, vector_column, text)
    suffix = path.suffix.lower()
    if suffix in HDF:
        return _hdf(path, dataset or vector_column, text)
    if suffix == ".npz":
        return _npz(path, vector_column, text)
    if suffix in (*PARQUET, *TEXT):
        return _table(open_columns(path, [*text, ID]), vector_column)
    if suffix != ".npy":
        raise SourceError(f"{path}: expected .npy, .npz, {', '.join((*HDF, *PARQUET, *TEXT))}, or a folder of such files.")
    if vector_column is not None:
        raise UsageError(f"{path} is one array; it has no column {vector_column!r}.")
    return VectorSource(str(path), {"": Stacked(str(path), [NpyRows(path)])})


def _split(source: Given) -> tuple[Path, str | None]:
    """``FILE.h5:/dataset`` into both."""
    file, colon, dataset = os.fspath(source).rpartition(":")
    if colon and not os.path.exists(source) and Path(file).suffix.lower() in HDF:
        return Path(file), dataset
    return Path(source), None


def _folder(path: Path, vector_column: str | None, text: Sequence[str]) -> VectorSource:
    if any((path / folder).is_dir() for folder in CLIP_RETRIEVAL.values()):
        return _clip_retrieval(path)
    if (path / STORE).exists():
        raise SourceError(f"{path} is a store of embedstore: name vectors of it, {path}/embeddings.h5:/SPACE/vectors.")
    tables, left_out = path / "metadata", LeftOut()
    files = natural_paths(files_below(path, left_out))
    parts = [file for file in files if file.suffix == ".parquet"]
    beside = [file for file in parts if file.is_relative_to(tables)]
    if arrays := [file for file in files if file.suffix == ".npy"]:
        metadata = [ParquetColumns(str(tables), natural_paths(beside))] if beside else []
        stacked = Stacked(str(path), [NpyRows(file) for file in arrays])
        found = VectorSource(str(path), {"": stacked}, metadata=[(columns, columns.names) for columns in metadata])
        return replace(found, notes=left_out.notes())
    if parts:
        found = _table(ParquetColumns(str(path), parts), vector_column)
        return replace(found, notes=[*found.notes, *left_out.notes()])
    raise SourceError(f"{path} holds no .npy and no .parquet file. Name the file itself, if it has another format.")


def _clip_retrieval(path: Path) -> VectorSource:
    matrices: dict[str, Matrix] = {}
    for modality, folder in CLIP_RETRIEVAL.items():
        if arrays := natural_paths((path / folder).glob("*.npy")):
            matrices[modality] = Stacked(str(path / folder), [NpyRows(file) for file in arrays])
    if not matrices:
        raise SourceError(
            f"{path} looks like a folder of clip-retrieval, but {', '.join(CLIP_RETRIEVAL.values())} hold no .npy."
        )
    found = VectorSource(str(path), matrices, id_columns=("image_path", "key", ID))
    if files := natural_paths((path / "metadata").glob("*.parquet")):
        columns = ParquetColumns(str(path / "metadata"), files)
        found = replace(found, metadata=[(columns, columns.names)])
    return found


def _table(table: ParquetColumns | TextColumns, vector_column: str | None) -> VectorSource:
    matrix: ParquetVectors | PieceVectors | TextVectors
    beside: list[str] = []
    if isinstance(table, ParquetColumns):
        several = piece_column(table, vector_column)
        matrix = ParquetVectors(table, vector_column) if several is None else PieceVectors(table, several)
        used, beside = [matrix.column], companions(table, matrix.column)
    else:
        matrix = TextVectors(table, vector_column)
        used = matrix.columns
    which = f"column {used[0]!r}" if len(used) == 1 else f"columns {used[0]!r} to {used[-1]!r}"
    names = [name for name in table.names if name not in used and name not in beside]
    notes = [f"Vectors are taken from {which}."]
    if beside:
        notes.append(f"Columns that go with it are no metadata: {', '.join(beside)}.")
    return VectorSource(table.name, {"": matrix}, metadata=[(table, names)], notes=notes)


def _npz(path: Path, member: str | None, text: Sequence[str]) -> VectorSource:
    arrays = npz_arrays(path)
    matrix = NpzMatrix.open(path, chosen(arrays, member, str(path), "--vector-column NAME"))
    found = VectorSource(str(path), {"": matrix})
    lines = {name: read_member(path, name) for name in (*text, *ID_NAMES) if len(arrays.get(name, ((), None))[0]) == 1}
    return _with_own_ids(found, lines, str(path))


def _hdf(path: Path, dataset: str | None, text: Sequence[str]) -> VectorSource:
    datasets = hdf_datasets(path)
    name = chosen(datasets, dataset, str(path), f"{path}:/DATASET")
    found = VectorSource(f"{path}:{name}", {"": Stacked(f"{path}:{name}", [HdfRows(path, name)])})
    group = name.rpartition("/")[0]
    lines: dict[str, npt.NDArray[Any]] = {}
    with open_hdf(path) as file:
        for wanted in (*text, *ID_NAMES):
            for place in (f"{group}/{wanted}", f"/{wanted.lstrip('/')}"):
                if len(datasets.get(place, ((), None))[0]) == 1:
                    node = plain_dataset(file, place, str(path))
                    lines.setdefault(wanted, node.asstr()[...] if node.dtype.kind in "SO" else node[...])
    return _with_own_ids(found, lines, str(path))


def _with_own_ids(found: VectorSource, lines: Mapping[str, npt.NDArray[Any]], where: str) -> VectorSource:
    """Ids that lie beside the vectors in one file; the first name counts."""
    if not lines:
        return found
    name, values = next(iter(lines.items()))
    return replace(found, ids=(MemoryColumns(_one_column(name, values, where), where), name))


def _metadata(given: Given | Mapping[str, Sequence[Any]], text: Sequence[str]) -> Columns:
    import pyarrow as pa

    if not isinstance(given, Mapping):
        path = Path(given)
        if not path.exists():
            raise SourceError(absent(str(path)))
        return open_columns(path, [*text, ID])
    try:
        return MemoryColumns(pa.table({name: pa.array(values) for name, values in given.items()}), "metadata")
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise UsageError(f"metadata should be columns of one length, each of values of one type: {error}.") from error


def _with_ids(found: VectorSource, ids: Given | Sequence[str] | npt.NDArray[Any] | None) -> VectorSource:
    """Settle where the ids come from; the column that they are is no metadata."""
    columns = [(table, name) for table, names in found.metadata for name in names]
    if ids is None:
        for wanted in found.id_columns:
            for named in columns:
                if named[1].lower() == wanted and found.ids is None:
                    return _taken(found, named)
        return found
    if not isinstance(ids, (str, os.PathLike)):
        values = ids if isinstance(ids, np.ndarray) else np.asarray(strings(ids, "ids"), object)
        return replace(found, ids=(MemoryColumns(_one_column(ID, values, "ids"), "ids"), ID))
    if found.ids is not None and found.ids[1] == ids:
        return found
    for named in columns:
        if named[1] == ids:
            return _taken(found, named)
    if ids == ROW_NUMBERS:
        return replace(found, ids=None)
    if Path(ids).exists():
        return _taken(found, _id_file(Path(ids)))
    beside = [found.ids] if found.ids is not None else []
    known = ", ".join(dict.fromkeys(name for _, name in [*beside, *columns])) or "none"
    raise UsageError(f"{os.fspath(ids)!r} is neither a column nor a file. Columns: {known}; 'row' numbers the rows.")


def _taken(found: VectorSource, named: Named) -> VectorSource:
    metadata = [(table, [n for n in names if (table, n) != named]) for table, names in found.metadata]
    return replace(found, ids=named, metadata=metadata)


def _id_file(path: Path) -> Named:
    """One id a line, a one-dimensional ``.npy``, or a table with a column ``id`` or only one column."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        try:
            values = read_array(path)
        except SourceError as error:
            raise SourceError(
                f"{path} is no array of ids: expected text or whole numbers, as numpy.save writes them."
            ) from error
        return MemoryColumns(_one_column(ID, values, str(path)), str(path)), ID
    if path.is_dir() or suffix in (*PARQUET, *TEXT):
        table = open_columns(path, [ID])
        names = [n for n in table.names if n.lower() in ID_NAMES] or list(table.names)
        if len(names) != 1:
            raise UsageError(f"{path} has several columns ({', '.join(names)}); call the one with the ids 'id'.")
        return table, names[0]
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else "it is not UTF-8"
        raise SourceError(f"{path} cannot be read as one id a line: {reason}.") from error
    return MemoryColumns(_one_column(ID, np.asarray(lines, object), str(path)), str(path)), ID


def _one_column(name: str, values: npt.NDArray[Any], where: str) -> pa.Table:
    import pyarrow as pa

    if values.ndim != 1:
        raise SourceError(f"{where}: ids should be one-dimensional; {name!r} has the shape {values.shape}.")
    try:
        if values.dtype.kind == "S":
            values = np.char.decode(values, "utf-8")
        return pa.table({name: pa.array(values.tolist() if values.dtype.kind in "UO" else values)})
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise SourceError(f"{where}: ids should be text or whole numbers ({error}).") from error


def _check_lengths(found: VectorSource) -> None:
    """Vectors, ids and metadata have as many rows, file by file where there are as many files."""
    first = next(iter(found.matrices.values()))
    others: list[Matrix | Columns] = [*found.matrices.values(), *(table for table, names in found.metadata if names)]
    others += [found.ids[0]] if found.ids else []
    for other in others:
        if len(first.files) == len(other.files) > 1:
            for (name, rows), (beside, count) in zip(first.files, other.files, strict=True):
                _refuse_unlike(name, rows, beside, count)
        _refuse_unlike(first.name, sum(n for _, n in first.files), other.name, sum(n for _, n in other.files))


def _refuse_unlike(name: str, rows: int, beside: str, count: int) -> None:
    if rows != count:
        raise SourceError(f"{name} has {rows:,} rows, but {beside} has {count:,}. They should go together row by row.")
