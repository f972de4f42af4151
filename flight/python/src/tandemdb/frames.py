"""What a user has, as Arrow: frames of pandas and polars, tables, readers, rows."""

from __future__ import annotations

import datetime
import itertools
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import pyarrow as pa

from tandemdb.errors import InvalidInput

#: Arrow data of one transaction, about.
PIECE_BYTES = 64 << 20

# Rows that come one by one are gathered to this much, or to so many, before they are made columns of.
_ROWS_BYTES = 1 << 20
_ROWS_MAX = 1 << 16
# What Arrow raises where it cannot make columns of something.
_UNFIT = (pa.ArrowException, TypeError, ValueError, OverflowError)
# A slice of views is sent with all that they point into.
_PLAIN = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}


def pieces(data: Any, piece_bytes: int = PIECE_BYTES) -> tuple[int | None, Iterator[pa.Table]]:
    """Rows in all, if that is known, and the data cut into tables of about `piece_bytes`, at least one. Equal data is cut
    equally. Of a stream, no more than a piece is held."""
    if isinstance(data, pa.RecordBatchReader):
        return None, _gathered(data, piece_bytes, data.schema)
    table = _table(data)
    if table is not None:
        table = _clean(table)
        count = max(1, table.nbytes // max(1, piece_bytes))
        step = max(1, math.ceil(table.num_rows / count))
        return table.num_rows, (table.slice(at, step) for at in range(0, max(1, table.num_rows), step))
    if _is_column(data):
        raise InvalidInput(f"a {type(data).__name__} is one column without a table: make a frame of it with .to_frame()")
    if hasattr(data, "__arrow_c_stream__"):
        try:
            reader = pa.RecordBatchReader.from_stream(data)
        except pa.ArrowException as error:
            raise InvalidInput(f"a {type(data).__name__} cannot be written: {error}") from None
        return pieces(reader, piece_bytes)
    if isinstance(data, Iterable) and not isinstance(data, (str, bytes, Mapping)) and not hasattr(data, "__array__"):
        frames = iter(data)
        first = next(frames, None)
        if first is None:
            raise InvalidInput("there is nothing to write: the rows come without columns")
        return None, _gathered(_tables(itertools.chain([first], frames)), piece_bytes, None)
    raise InvalidInput(
        f"a {type(data).__name__} cannot be written: give a frame of pandas or polars, an Arrow table, batch or reader, "
        "a list of dicts, a dict of columns, or an iterator of frames, tables, batches or dicts, each of them a row"
    )


def _is_column(data: Any) -> bool:
    libraries = (sys.modules.get("pandas"), sys.modules.get("polars"))
    return any(library and isinstance(data, library.Series) for library in libraries)


def _table(data: Any) -> pa.Table | None:
    """What is in memory already, as a table."""
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if isinstance(data, Mapping):
        return _of_columns(data)
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)) and all(isinstance(row, Mapping) for row in data):
        return _of_rows(data)
    # Whoever has a frame has imported its library.
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if pandas and isinstance(data, pandas.DataFrame):
        return _of_pandas(data)
    if polars and isinstance(data, (polars.DataFrame, polars.LazyFrame)):
        return _of_polars(data.lazy().collect(), polars)
    return None


def _of_columns(columns: Mapping[str, Any]) -> pa.Table:
    try:
        if any(isinstance(column, (str, bytes)) for column in columns.values()):
            raise TypeError("a text is no column")
        return pa.table(dict(columns))
    except _UNFIT as error:
        raise InvalidInput(f"the dict does not make columns of one length each: {error}; rows are written as a list of dicts") from None


def _of_rows(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A column for every key that any of the rows has."""
    names = dict.fromkeys(name for row in rows for name in row)
    if not names:
        raise InvalidInput("there is nothing to write: the rows come without columns")
    try:
        return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})
    except _UNFIT as error:
        raise InvalidInput(f"the rows do not make columns of one type each: {error}") from None


def _of_pandas(frame: Any) -> pa.Table:
    """An index that has names becomes columns; a plain numbering of the rows is left out."""
    if frame.columns.nlevels > 1:
        raise InvalidInput("the frame's columns have several levels: give each one name, as with frame.columns = ['_'.join(c) for c in frame.columns]")
    if not frame.columns.is_unique:
        raise InvalidInput(f"the frame has a column {frame.columns[frame.columns.duplicated()][0]!r} twice")
    for name in [name for name in frame.index.names if name is not None and name in frame.columns]:
        if not frame.index.get_level_values(name).equals(sys.modules["pandas"].Index(frame[name])):
            raise InvalidInput(f"the frame has {name!r} as its index and as a column, and they differ: drop one, as with frame.reset_index(drop=True)")
        frame = frame.reset_index(level=name, drop=True)
    names = frame.index.names
    named = all(name is not None for name in names)
    if not named and (len(names) > 1 or frame.index.dtype.kind not in "iu"):
        raise InvalidInput(
            "the frame's index has no name and would be lost: name it (frame.index.name = 'time') or drop it (frame.reset_index(drop=True))"
        )
    try:
        return pa.Table.from_pandas(frame, preserve_index=named)
    except _UNFIT as error:
        dense = "; .sparse.to_dense() makes it a plain column" if "Sparse" in str(error) else ""
        raise InvalidInput(f"the frame has a column that Arrow has no type for: {error}{dense}") from None


def _of_polars(frame: Any, polars: Any) -> pa.Table:
    for name, kind in frame.schema.items():
        # Arrow would be given where in memory the objects are.
        if kind == polars.Object:
            raise InvalidInput(f"the frame's column {name!r} is of type Object, which Arrow has no type for: cast it to another one")
    try:
        table: pa.Table = frame.to_arrow(compat_level=polars.CompatLevel.oldest())
    except _UNFIT as error:
        raise InvalidInput(f"the frame has a column that Arrow has no type for: {error}") from None
    return table


def _tables(frames: Iterable[Any]) -> Iterator[pa.Table]:
    """A stream's parts. Rows are gathered, twice as many each time until that is enough: of large rows few are held, and
    small ones are no tables of their own. Equal rows are gathered equally."""
    rows: list[Mapping[str, Any]] = []
    many = 1
    for frame in frames:
        if isinstance(frame, Mapping):
            rows.append(frame)
            if len(rows) < many:
                continue
            table = _of_rows(rows)
            many = min(2 * many, _ROWS_MAX) if 2 * table.nbytes < _ROWS_BYTES else max(1, many // 2)
            rows = []
            yield table
            continue
        if rows:
            yield _of_rows(rows)
            rows = []
        other = _table(frame)
        if other is None:
            raise InvalidInput(f"the iterator gave a {type(frame).__name__}, which is no frame, table, batch or dict")
        yield other
    if rows:
        yield _of_rows(rows)


def _gathered(batches: Iterable[pa.RecordBatch | pa.Table], piece_bytes: int, schema: pa.Schema | None) -> Iterator[pa.Table]:
    """Pieces of a stream: each as many whole batches as it takes."""
    held: list[pa.Table] = []
    size = 0
    last: pa.Table | None = None
    for batch in batches:
        table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
        held.append(table)
        size += table.nbytes
        if size >= piece_bytes:
            last = _together(held)
            # One batch of the source may be many pieces.
            yield from pieces(last, piece_bytes)[1]
            held, size = [], 0
    if held:
        yield _clean(_together(held))
    elif last is None and schema is not None:
        yield schema.empty_table()


def _together(tables: list[pa.Table]) -> pa.Table:
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise InvalidInput(f"the stream's batches do not fit together: {error}") from None


def _clean(table: pa.Table) -> pa.Table:
    """Without what only pandas reads, without columns that nobody gave a type, with one dictionary for each column of
    categories, and without views."""
    table = table.select([field.name for field in table.schema if field.type != pa.null()]) if pa.null() in table.schema.types else table
    if not table.num_columns:
        raise InvalidInput("there is nothing to write: the rows come without columns, or with nothing but nulls")
    fields = [field.with_type(_PLAIN.get(field.type, field.type)) for field in table.schema]
    return table.replace_schema_metadata(None).cast(pa.schema(fields)).unify_dictionaries()


def listed(params: Any) -> list[Any] | None:
    """A statement's parameters, checked."""
    if params is None:
        return None
    if not isinstance(params, Iterable) or isinstance(params, (str, bytes, Mapping, Set)):
        raise InvalidInput(f"params is {params!r}: give a list of values, for $1, $2 ... in this order")
    return list(params)


def is_plain(params: Sequence[Any]) -> bool:
    """Whether JSON can carry the parameters as they are."""
    return all(
        p is None
        or type(p) in (bool, str)
        # Beyond 64 bits, JSON's numbers are taken for floats.
        or (type(p) is int and -(1 << 63) <= p < 1 << 64)
        or (type(p) is float and math.isfinite(p))
        for p in params
    )


def parameters(params: Sequence[Any]) -> pa.Table:
    """Parameters of a statement as one row."""
    columns = []
    pandas = sys.modules.get("pandas")
    for place, value in enumerate(params, 1):
        if pandas and (value is pandas.NaT or value is pandas.NA):
            value = None
        if isinstance(value, datetime.datetime) and value.tzinfo is not None:
            # Where a table's times have no zone they are in UTC, and a cast keeps what the clock shows.
            value = value.astimezone(datetime.timezone.utc)
        try:
            columns.append(pa.array([value]))
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise InvalidInput(f"parameter {place} cannot be sent: {error}") from None
    return pa.Table.from_arrays(columns, names=[f"${place}" for place in range(1, len(columns) + 1)])
