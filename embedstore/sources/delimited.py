"""CSV and TSV files as streams of text, and the types of their columns, which they do not say.

A column is text unless every value in it is a plain decimal number, as `NUMBER` of `embedstore._core.column_types` has it. So
``007``, ``+5``, ``0x10``, ``yes`` and dates stay what they are, whatever else the file holds.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from embedstore._core.column_types import NUMBER, WHOLE
from embedstore._core.column_values import EXACT_WHOLE
from embedstore.errors import SourceError, one_line

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

TEXT, INTEGER, DOUBLE, NOTHING = "VARCHAR", "BIGINT", "DOUBLE", '"NULL"'
"""The types that a column can have, in DuckDB's words."""

BLOCK, LONGEST_ROW = 1 << 20, 64 << 20
_DELIMITERS = ",;\t|"
_ONE_COLUMN = "\x1f"
_LOOKED_AT = 20
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Delimited:
    """A CSV or TSV file: UTF-8, or UTF-16 and UTF-32 with a byte order mark; any kind of line end, even several.

    Parameters
    ----------
    path : str
        For messages; tells TSV from CSV.
    opened : callable
        Opens the file, in binary.

    Attributes
    ----------
    columns : list of str
        Their names; a column without one is called after its number.

    Raises
    ------
    SourceError
    """

    def __init__(self, path: str, opened: Callable[[], Any]) -> None:
        self._path = path
        self._opened = opened
        with self._opened() as file:
            head = file.read(4)
        self._encoding = next((encoding for mark, encoding in _BOMS if head.startswith(mark)), "utf-8")
        if b"\0" in head and self._encoding == "utf-8":
            raise SourceError(f"{path} is not UTF-8 text (it holds zero bytes, as UTF-16 does). Save it as UTF-8.")
        rows = self._first_lines()
        with _long_fields():
            try:
                self._delimiter = "\t" if path.lower().endswith(".tsv") else _delimiter_of(rows)
                header = next((row for row in csv.reader(rows, delimiter=self._delimiter) if row), [])
            except csv.Error as error:
                raise SourceError(f"{path} cannot be read as a table ({error}).") from error
        self.columns = [name if name.strip() else f"column{i}" for i, name in enumerate(header)]
        lower = [name.lower() for name in self.columns]
        if twice := [name for i, name in enumerate(self.columns) if lower[i] in lower[:i]]:
            raise SourceError(f"{path}: two columns are called {twice[0]!r} (case does not count). Rename one.")
        if not header:
            raise SourceError(f"{path} holds no header; expected the names of the columns in its first line.")

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, every value as the text it is; null where there is none.

        Raises
        ------
        SourceError
            Naming the line.
        """
        import pyarrow as pa

        block = BLOCK
        done = 0
        while True:
            try:
                for batch in self._read(block, done):
                    done += batch.num_rows
                    yield batch
                return
            except pa.ArrowException as error:
                if "Empty CSV file or block" in str(error):
                    return  # a header and nothing else
                if "straddling" not in str(error) or block >= LONGEST_ROW:
                    raise self._unreadable(error) from error
                block = LONGEST_ROW  # a row is longer than a block

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([(name, pa.string()) for name in self.columns])

    @cached_property
    def types(self) -> dict[str, str]:
        """Column → `TEXT`, `INTEGER`, `DOUBLE`, or `NOTHING` where it is empty. Reads the file once."""
        self._refuse_bad_quotes()
        kinds = dict.fromkeys(self.columns, NOTHING)
        large: set[str] = set()
        for batch in self.batches():
            for name, column in zip(self.columns, batch.columns, strict=True):
                if kinds[name] == TEXT or column.null_count == len(column):
                    continue
                kinds[name], rounds = _number_kind(column, kinds[name])
                large |= {name} if rounds else set()
        return {name: TEXT if kind == DOUBLE and name in large else kind for name, kind in kinds.items()}

    def _read(self, block: int, skip: int) -> Iterator[pa.RecordBatch]:
        """The batches after the first `skip` rows."""
        import pyarrow as pa
        import pyarrow.csv as arrow

        with self._opened() as file:
            reader = arrow.open_csv(
                file,
                arrow.ReadOptions(
                    use_threads=False,
                    block_size=block,
                    encoding="utf-8" if self._encoding == "utf-8-sig" else self._encoding,
                    autogenerate_column_names=True,
                    skip_rows_after_names=0,
                ),
                arrow.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
                arrow.ConvertOptions(
                    column_types={f"f{i}": pa.string() for i in range(len(self.columns))},
                    strings_can_be_null=True,
                    null_values=[""],
                ),
            )
            gone = -1 - skip  # the header is the first row
            for batch in reader:
                n = batch.num_rows
                if gone < 0:
                    batch = batch.slice(min(n, -gone))
                    gone += n
                if batch.num_rows:
                    yield pa.RecordBatch.from_arrays(batch.columns, schema=self.schema())

    def _refuse_bad_quotes(self) -> None:
        """A quote that is never closed would swallow the rest of the file; one with text after it would be lost."""
        with self._opened() as file:
            quoted = any(b'"' in piece for piece in iter(lambda: file.read(1 << 20), b""))
        if quoted and (fault := self._fault()):
            raise SourceError(f"{self._path} cannot be read as csv: {fault}")

    def _unreadable(self, error: Exception) -> SourceError:
        reason = self._fault() or one_line(error)
        return SourceError(f"{self._path} cannot be read as csv: {reason}")

    def _fault(self) -> str | None:
        """What is wrong with the first row that cannot be read, and its line; None where nothing is."""
        if (line := self._not_utf8()) is not None:
            return f"line {line[0]} is not UTF-8 ({line[1]}). Save the file as UTF-8."
        begins = 1
        with _long_fields(), self._lines() as lines:
            reader = csv.reader(self._bounded(lines), delimiter=self._delimiter, strict=True)
            try:
                for row in reader:
                    if row and len(row) != len(self.columns):
                        return self._wrong_width(begins, reader.line_num, len(row))
                    begins = reader.line_num + 1
            except csv.Error as error:
                return self._wrong_quote(begins, reader.line_num, str(error))
        return None

    def _wrong_width(self, first: int, last: int, width: int) -> str:
        where = f"line {first} has" if first == last else f"the row in lines {first} to {last} has"
        wanted = len(self.columns)
        return (
            f"{where} {width} value{'' if width == 1 else 's'}, but the header has {wanted}. "
            "Quote values that hold the delimiter, or mend the row."
        )

    def _wrong_quote(self, first: int, last: int, said: str) -> str:
        if "unexpected end" in said:
            return f'a quote (") is opened in line {first} and never closed. Close it, or double it if it is part of a value.'
        if "field larger" in said:
            return f"a value that begins in line {first} is longer than {LONGEST_ROW >> 20} MiB; a quote may not be closed."
        where = f"line {last}" if first == last else f"the row in lines {first} to {last}"
        return f'{where} has text after a closing quote ("). Double the quotes that are part of a value.'

    def _not_utf8(self) -> tuple[int, str] | None:
        """The first line that cannot be decoded, and why."""
        if not self._encoding.startswith("utf-8"):
            return None
        with self._opened() as file:
            buffered = io.BufferedReader(file)
            for n, line in enumerate(iter(lambda: buffered.readline(LONGEST_ROW), b""), start=1):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    return n, f"byte 0x{line[error.start]:02x}"
        return None

    def _first_lines(self) -> list[str]:
        """The first lines, for a look at how they are delimited."""
        with self._lines() as lines:
            return list(islice(self._bounded(lines), _LOOKED_AT))

    def _bounded(self, lines: io.TextIOWrapper) -> Iterator[str]:
        """The lines, none longer than a row may be."""
        for n, line in enumerate(iter(lambda: lines.readline(LONGEST_ROW + 1), ""), start=1):
            if len(line) > LONGEST_ROW:
                raise SourceError(f"{self._path}: line {n} has more than {LONGEST_ROW:,} characters; is a quote not closed?")
            yield line

    def _lines(self) -> io.TextIOWrapper:
        encoding = "utf-8-sig" if self._encoding == "utf-8" else self._encoding
        return io.TextIOWrapper(self._opened(), encoding=encoding, errors="replace", newline="")


@contextmanager
def _long_fields() -> Iterator[None]:
    """Python's reader takes fields of 128 kB, unless it is told otherwise."""
    before = csv.field_size_limit(LONGEST_ROW)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _delimiter_of(lines: list[str]) -> str:
    """What delimits the first rows: what parts most of them alike, then what parts the header most."""

    def quality(delimiter: str) -> tuple[bool, int]:
        rows = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
        widths = rows[:-1] if len(rows) == _LOOKED_AT else rows  # the last may be cut
        return len(set(widths)) <= 1, widths[0] if widths else 0

    best = max(_DELIMITERS, key=quality)
    if quality(best)[1] > 1:
        return best
    most = max(_DELIMITERS, key=lambda delimiter: quality(delimiter)[1])
    return most if quality(most)[1] > 1 else _ONE_COLUMN


def _number_kind(column: Any, kind: str) -> tuple[str, bool]:
    """The type of a column that was of `kind` before these values, and whether float64 would round a whole number in it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def every(mask: Any) -> bool:
        return bool(pc.all(mask, min_count=0).as_py())

    whole = pc.match_substring_regex(column, WHOLE)
    if every(whole):
        try:
            numbers = column.cast(pa.int64())
        except pa.ArrowInvalid:  # beyond int64
            return TEXT, False
        small = pc.less(pc.abs(pc.max_element_wise(numbers, -(2**62))), EXACT_WHOLE)
        return (DOUBLE if kind == DOUBLE else INTEGER), not every(small)
    if not every(pc.match_substring_regex(column, NUMBER)):
        return TEXT, False
    numbers = column.cast(pa.float64())
    rounds = not every(pc.or_(pc.invert(whole), pc.less(pc.abs(numbers), float(EXACT_WHOLE))))
    return (DOUBLE if every(pc.is_finite(numbers)) else TEXT), rounds
