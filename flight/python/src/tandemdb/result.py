"""What a query answers, and what a write did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tandemdb.errors import Failure, InvalidInput
from tandemdb.wire import Answer, Stream

if TYPE_CHECKING:
    import pandas
    import polars


@dataclass(frozen=True)
class Written:
    """What a write did, once, before this was known."""

    #: The commit that holds it; of several pieces, the last one's.
    seq: int
    #: Rows written, changed or deleted; `None` for statements that do not count rows.
    rows: int | None
    #: It was there before under its token, by an earlier call or, if `tries` says so, by an earlier try of this one.
    duplicate: bool = False
    #: How it is acknowledged, such as `store` or `quorum(1/1)`.
    acked: str | None = None
    #: What it was written under.
    token: str | None = None
    #: How often it was sent; of several pieces, the most of any.
    tries: int = 1
    #: `rows` is a fact, no estimate: nobody else changed the table meanwhile.
    exact: bool = True

    @classmethod
    def of(cls, answer: Answer, rows: int | None, token: str | None, tries: int) -> Written:
        return cls(
            seq=answer.number("tandem-seq") or 0,
            rows=rows,
            duplicate=answer.text("tandem-duplicate") == "true",
            acked=answer.text("tandem-acked"),
            token=token,
            tries=tries,
            exact=answer.text("tandem-exact") != "false",
        )


class Result:
    """The rows of a query: `arrow()`, `pandas()`, `polars()`, `rows()`, or bit by bit with `reader()`.

    Rows that were read as a whole are kept, so that they can be had in several forms. When a node is lost, a result that is
    read as a whole is asked for again elsewhere; one that is read bit by bit cannot be, and says so.
    """

    def __init__(self, stream: Stream, again: Callable[[Failure], Stream]) -> None:
        self._stream: Stream | None = stream
        self._again = again
        self._table: pa.Table | None = None
        self._schema = stream.schema
        self._seq = stream.answer.number("tandem-snapshot-seq")

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return self._schema

    @property
    def seq(self) -> int | None:
        """The commit whose state the rows are of: `changes(from_seq=result.seq + 1)` tells what came after."""
        return self._seq

    def arrow(self) -> pa.Table:
        """All rows as an Arrow table."""
        while self._table is None:
            stream = self._taken()
            try:
                batches = [chunk[0] for chunk in iter(stream.next, None) if chunk[0] is not None]
            except Failure as failure:
                self._stream = stream = self._again(failure)
                self._schema, self._seq = stream.schema, stream.answer.number("tandem-snapshot-seq")
            else:
                self._table = pa.Table.from_batches(batches, self._schema)
        return self._table

    def pandas(self, **options: Any) -> pandas.DataFrame:
        """All rows as a frame of pandas; options are those of `pyarrow.Table.to_pandas`."""
        return self.arrow().to_pandas(**options)

    def polars(self) -> polars.DataFrame:
        """All rows as a frame of polars."""
        import polars

        frame = polars.from_arrow(self.arrow())
        assert isinstance(frame, polars.DataFrame)
        return frame

    def rows(self) -> list[dict[str, Any]]:
        """All rows as dicts."""
        return self.arrow().to_pylist()

    def scalar(self) -> Any:
        """The only value of the only row."""
        table = self.arrow()
        if table.shape != (1, 1):
            raise InvalidInput(f"the result has {table.num_rows} rows of {table.num_columns} columns, not one value")
        return table.column(0)[0].as_py()

    def reader(self) -> pa.RecordBatchReader:
        """The rows batch by batch, once, in bounded memory. The query's time-out holds for all of it."""
        if self._table is not None:
            return self._table.to_reader()
        stream, self._stream = self._taken(), None

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                while (chunk := stream.next()) is not None:
                    if chunk[0] is not None:
                        yield chunk[0]
            except Failure as failure:
                raise failure.error.about("the query broke off after a part of its rows; run it again") from None
            finally:
                stream.cancel()

        return pa.RecordBatchReader.from_batches(self._schema, batches())

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.reader().__arrow_c_stream__(requested_schema)

    def close(self) -> None:
        """Gives up what was not read. Dropping the result does the same."""
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None

    def __repr__(self) -> str:
        return f"<Result: {', '.join(self._schema.names)} at seq {self._seq}>"

    def _taken(self) -> Stream:
        if self._stream is None:
            raise InvalidInput("the result was read with reader(), or closed: run the query again")
        return self._stream
