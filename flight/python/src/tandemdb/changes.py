"""The change stream: what each commit did to a table, followed over failures, fail-overs and new columns.

The node says with every batch up to where all is told. Rows beyond that are held back until it is passed, so that only
whole commits are given out; what is held when a stream breaks is thrown away, and told again by the next one.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

import pyarrow as pa
import pyarrow.compute as pc

from tandemdb.errors import Behind, Failure, NotFound, Unavailable, failure_of
from tandemdb.retry import AGAIN, Tries
from tandemdb.wire import Link, Stream

if TYPE_CHECKING:
    import pandas
    import polars

# Batches that wait between the connection and the reader.
_WAITING = 2
# How often whoever waits looks up: a signal is not heard earlier.
_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Change:
    """What one or several commits did, whole: rows in the order of the commits.

    The columns are the table's and `_seq`, `_op` (`insert`, `update_before`, `update_after`, `delete`), `_commit_time`.
    """

    table: pa.Table
    #: Where to go on: everything before it is in this change and those before.
    next_seq: int

    def arrow(self) -> pa.Table:
        return self.table

    def pandas(self, **options: Any) -> pandas.DataFrame:
        return self.table.to_pandas(**options)

    def polars(self) -> polars.DataFrame:
        import polars

        frame = polars.from_arrow(self.table)
        assert isinstance(frame, polars.DataFrame)
        return frame

    def rows(self) -> list[dict[str, Any]]:
        return self.table.to_pylist()

    def __len__(self) -> int:
        return self.table.num_rows


class Changes(Iterator[Change]):
    """A table's changes, to iterate over; `next_seq` is where it is. To be closed, or used in a `with`.

    Made by `Database.changes`.
    """

    def __init__(self, table: str | None, next_seq: int, to_seq: int | None, images: str, tries: Tries[Link]) -> None:
        self.next_seq = self._first = next_seq
        self._ask = {"table": table, "to_seq": to_seq, "images": images}
        self._to_seq = to_seq
        self._tries = tries
        self._pump: _Pump | None = None
        self._link: Link | None = None
        self._held: list[pa.RecordBatch] = []
        self._heard = False
        self._stopped = threading.Event()

    def __next__(self) -> Change:
        while True:
            change = self._step()
            if change is not None:
                return change

    def close(self) -> None:
        """Ends the stream, from any thread; whoever waits for a change gets none."""
        self._stopped.set()
        self._drop()

    def __enter__(self) -> Changes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _step(self) -> Change | None:
        if self._stopped.is_set() or (self._to_seq is not None and self.next_seq > self._to_seq):
            self._drop()
            raise StopIteration
        try:
            pump = self._pump or self._open()
            found = pump.next(self._stopped)
            if found is None and not self._heard and not self._stopped.is_set():
                raise Failure(Unavailable("the stream ended before it told anything"), lost=False)
        except Failure as failure:
            self._lost(failure)
            return None
        if found is None:
            # New columns, or the table was dropped: the next stream says which. Or closed.
            self._drop()
            return None
        self._heard = True
        self._tries.succeeded()
        return self._told(*found)

    def _open(self) -> _Pump:
        link = self._link = self._tries.link()
        self._heard = False
        ticket = json.dumps({"changes": {**self._ask, "from_seq": self.next_seq}}).encode()
        self._pump = _Pump(lambda: link.get(ticket, {}, float("inf")))
        return self._pump

    def _lost(self, failure: Failure) -> None:
        self._drop()
        if self._link is None:
            raise failure.error from None
        try:
            self._tries.failed(self._link, failure)
        except NotFound as error:
            if self.next_seq == self._first:
                raise
            raise error.with_message(f"{error.message}; its changes are told up to seq {self.next_seq - 1}") from None

    def _told(self, batch: pa.RecordBatch | None, said: bytes) -> Change | None:
        """Takes a batch; what is whole by now."""
        if batch is not None and batch.num_rows:
            self._held.append(batch)
        next_seq = json.loads(said)["next_seq"] if said else self.next_seq
        if next_seq <= self.next_seq:
            return None
        self.next_seq = next_seq
        if not self._held:
            return None
        held = pa.Table.from_batches(self._held)
        whole = pc.less(held["_seq"], pa.scalar(next_seq, pa.uint64()))
        self._held = held.filter(pc.invert(whole)).to_batches()
        if self._ask["table"] is not None:
            # Of one table, the row `schema` says only that the columns are others from here on, which the next change shows.
            whole = pc.and_(whole, pc.not_equal(held["_op"], "schema"))
        rows = held.filter(whole)
        return Change(rows, next_seq) if rows.num_rows else None

    def _drop(self) -> None:
        pump, self._pump = self._pump, None
        self._held = []
        if pump is not None:
            pump.close()


_Found = Union[tuple[Union[pa.RecordBatch, None], bytes], None, Failure]


class _Pump:
    """Reads a stream in a thread of its own: a thread that waits inside Flight hears neither signals nor `close`."""

    def __init__(self, begin: Callable[[], Stream]) -> None:
        self._queue: queue.Queue[_Found] = queue.Queue(_WAITING)
        self._closed = threading.Event()
        self._stream: Stream | None = None
        self._begin = begin
        threading.Thread(target=self._run, name="tandemdb changes", daemon=True).start()

    def next(self, stopped: threading.Event) -> tuple[pa.RecordBatch | None, bytes] | None:
        while not stopped.is_set():
            try:
                found = self._queue.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                continue
            if isinstance(found, Failure):
                raise found
            return found
        return None

    def close(self) -> None:
        self._closed.set()
        if self._stream is not None:
            self._stream.cancel()

    def _run(self) -> None:
        try:
            stream = self._stream = self._begin()
            # It may have been closed before there was anything to cancel.
            found: _Found = None if self._closed.is_set() else stream.next()
            while found is not None:
                if not self._put(found):
                    stream.cancel()
                    return
                found = stream.next()
        except Failure as failure:
            found = failure
        except Exception as raised:
            # Nobody hears what a thread raises, and the reader would wait for ever.
            found = failure_of(raised, {})
        self._put(found)

    def _put(self, found: _Found) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(found, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue
            return True
        return False


#: A node that is asked for what it has not applied yet, or knows no such table yet, is no worse than one that is gone.
AGAIN_CHANGES = (*AGAIN, Behind)
