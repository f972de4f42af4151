"""One connection to one node: the calls of Flight, and the few messages of Flight SQL that they carry.

Every call answers with what its headers said, or raises a `Failure`. Nothing is tried again here, and no call depends on
a session: what it wants goes with it, so that gRPC may connect anew without a word.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl

from tandemdb.errors import Failure, InternalError, Unavailable, failure_of, header
from tandemdb.retry import Address

CONNECT_MILLISECONDS = 5_000
# A node that is silent this long while it owes an answer is asked whether it is still there, and taken for gone when it
# does not say so. A stopped process keeps its connections open.
PING_AFTER_MILLISECONDS = 10_000
PING_TIMEOUT_MILLISECONDS = 10_000
MESSAGE_BYTES_MAX = 4 << 20
# What a write may take longer for each of its bytes.
WRITE_BYTES_PER_SECOND = 1 << 20

_CHANNEL = [
    # A connection of its own for each client: a transaction is one connection's, and a failed one is not waited for.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.min_reconnect_backoff_ms", CONNECT_MILLISECONDS),
    ("grpc.max_reconnect_backoff_ms", CONNECT_MILLISECONDS),
    ("grpc.keepalive_time_ms", PING_AFTER_MILLISECONDS),
    ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MILLISECONDS),
    ("grpc.http2.max_pings_without_data", 0),
]


@dataclass(frozen=True)
class Access:
    """What a node is shown, and whom to believe."""

    token: str | None = None
    tls_ca: bytes | None = None


class Answer(fl.ClientMiddleware):
    """The headers and trailers of one call."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: dict[str, list[str | bytes]] = {}
        self.last: dict[str, list[str | bytes]] = {}

    def received_headers(self, headers: dict[str, list[str | bytes]]) -> None:
        self.last = dict(headers)
        self.headers.update(self.last)

    def text(self, name: str) -> str | None:
        return header(self.headers, name)

    def number(self, name: str) -> int | None:
        value = self.text(name)
        return int(value) if value else None


class _Answers(fl.ClientMiddlewareFactory):
    """Notes the answer of the call that each thread began last."""

    def __init__(self) -> None:
        super().__init__()
        self.here = threading.local()

    def start_call(self, info: Any) -> Answer:
        self.here.answer = Answer()
        return self.here.answer


class Stream:
    """Batches on their way from a node."""

    def __init__(self, reader: fl.FlightStreamReader, answer: Answer) -> None:
        self._reader = reader
        self.answer = answer
        self.schema: pa.Schema = reader.schema

    def next(self) -> tuple[pa.RecordBatch | None, bytes] | None:
        """The next batch, and what is said beside it; `None` at the end."""
        try:
            chunk = self._reader.read_chunk()
        except StopIteration:
            return None
        except Exception as raised:
            raise failure_of(raised, self.answer.last) from raised
        return chunk.data, chunk.app_metadata.to_pybytes() if chunk.app_metadata else b""

    def cancel(self) -> None:
        """Ends the call, from any thread."""
        self._reader.cancel()


class Link:
    """A connection to one node. Connects at the first call. Threads may share it."""

    def __init__(self, address: Address, access: Access) -> None:
        self.address = address
        self._answers = _Answers()
        self._authorization = [(b"authorization", f"Bearer {access.token}".encode())] if access.token else []
        tls = {"tls_root_certs": access.tls_ca} if address.tls and access.tls_ca else {}
        self._client = fl.FlightClient(address.location, middleware=[self._answers], generic_options=_CHANNEL, **tls)

    def info(self, command: bytes, headers: Mapping[str, str], timeout: float) -> tuple[fl.FlightInfo, Answer]:
        """Has a query planned, or a statement carried out."""
        with self._call() as answer:
            info = self._client.get_flight_info(fl.FlightDescriptor.for_command(command), self._options(headers, timeout))
            return info, answer()

    def get(self, ticket: bytes, headers: Mapping[str, str], timeout: float) -> Stream:
        """Begins to read."""
        with self._call() as answer:
            reader = self._client.do_get(fl.Ticket(ticket), self._options(headers, timeout))
            return Stream(reader, answer())

    def put(self, command: bytes, rows: pa.Table, headers: Mapping[str, str], timeout: float) -> tuple[bytes, Answer]:
        """Sends rows, all of them or none; the server's answer."""
        timeout += rows.nbytes / WRITE_BYTES_PER_SECOND
        messages = max(1, math.ceil(rows.nbytes / MESSAGE_BYTES_MAX))
        with self._call() as answer:
            writer, reader = self._client.do_put(fl.FlightDescriptor.for_command(command), rows.schema, self._options(headers, timeout))
            try:
                # In one step: whatever interrupts this thread, and drops the writer, does so before the first row or after
                # the last. A writer that is dropped half way would end the stream as if it were whole.
                writer.write_table(rows, max_chunksize=max(1, math.ceil(rows.num_rows / messages)))
                writer.done_writing()
                reply = reader.read()
            finally:
                # Its error is the call's own, and says more than that of the step that was under way.
                writer.close()
            if reply is None:
                raise Failure(Unavailable("the server ended the call without an answer"), lost=True)
            return reply.to_pybytes(), answer()

    def action(self, name: str, body: bytes, headers: Mapping[str, str], timeout: float) -> tuple[list[bytes], Answer]:
        """One of the server's named chores; what it answers."""
        with self._call() as answer:
            results = self._client.do_action(fl.Action(name, body), self._options(headers, timeout))
            return [result.body.to_pybytes() for result in results], answer()

    def close(self) -> None:
        self._client.close()

    def _options(self, headers: Mapping[str, str], timeout: float) -> fl.FlightCallOptions:
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        # Negative: for ever.
        return fl.FlightCallOptions(timeout=timeout if math.isfinite(timeout) else -1.0, headers=pairs + self._authorization)

    @contextmanager
    def _call(self) -> Iterator[Any]:
        """Turns what is raised within into a `Failure`; gives what asks for the call's answer."""
        here = self._answers.here
        here.answer = Answer()
        try:
            yield lambda: here.answer
        except Failure:
            raise
        except Exception as raised:
            raise failure_of(raised, here.answer.last) from raised


# Messages of Flight SQL, by hand: they are few, and need no library.


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _number(field: int, n: int) -> bytes:
    return _varint(field << 3) + _varint(n)


def _bytes(field: int, value: bytes | str) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _any(name: str, message: bytes) -> bytes:
    return _bytes(1, f"type.googleapis.com/arrow.flight.protocol.sql.{name}") + _bytes(2, message)


def _transaction(field: int, transaction: bytes | None) -> bytes:
    return _bytes(field, transaction) if transaction else b""


def statement_query(sql: str, transaction: bytes | None) -> bytes:
    return _any("CommandStatementQuery", _bytes(1, sql) + _transaction(2, transaction))


def create_prepared(sql: str, transaction: bytes | None) -> bytes:
    return _any("ActionCreatePreparedStatementRequest", _bytes(1, sql) + _transaction(2, transaction))


def close_prepared(handle: bytes) -> bytes:
    return _any("ActionClosePreparedStatementRequest", _bytes(1, handle))


def prepared_query(handle: bytes) -> bytes:
    return _any("CommandPreparedStatementQuery", _bytes(1, handle))


def prepared_update(handle: bytes) -> bytes:
    return _any("CommandPreparedStatementUpdate", _bytes(1, handle))


def ingest(path: Sequence[str], create: bool, options: Mapping[str, str], transaction: bytes | None) -> bytes:
    """Appends to a table; with `create` makes it first if there is none."""
    if_not_exist, append = (1 if create else 2), 2
    message = _bytes(1, _number(1, if_not_exist) + _number(2, append)) + _bytes(2, path[-1])
    message += _bytes(3, path[0]) if len(path) > 1 else b""
    message += _transaction(6, transaction)
    for key, value in sorted(options.items()):
        message += _bytes(1000, _bytes(1, key) + _bytes(2, value))
    return _any("CommandStatementIngest", message)


def begin_transaction() -> bytes:
    return _any("ActionBeginTransactionRequest", b"")


def end_transaction(transaction: bytes, commit: bool) -> bytes:
    return _any("ActionEndTransactionRequest", _bytes(1, transaction) + _number(2, 1 if commit else 2))


def _fields(message: bytes) -> dict[int, int | bytes]:
    """A message's fields by their numbers; those of a kind that Flight SQL has: numbers and bytes."""
    fields: dict[int, int | bytes] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        n = shift = 0
        while True:
            byte = message[at]
            at += 1
            n |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return n

    try:
        while at < len(message):
            field, kind = divmod(varint(), 8)
            if kind == 0:
                fields[field] = varint()
            else:
                length = varint()
                fields[field] = message[at : at + length]
                at += length
    except IndexError:
        raise Failure(InternalError("the server's answer is not readable"), lost=False) from None
    return fields


def record_count(reply: bytes) -> int | None:
    """Rows of a `DoPutUpdateResult`; `None` if they were not counted."""
    count = _fields(reply).get(1, 0)
    # Negative numbers are the upper half of 64 bits.
    return count if isinstance(count, int) and count < 1 << 63 else None


def result_fields(results: list[bytes]) -> tuple[bytes, bytes]:
    """The first two fields of what an action answers with: a handle or an id, and a query's columns."""
    message = _fields(results[0] if results else b"").get(2)
    fields = _fields(message) if isinstance(message, bytes) else {}
    handle, columns = fields.get(1), fields.get(2, b"")
    if not isinstance(handle, bytes) or not isinstance(columns, bytes):
        raise Failure(InternalError("the server's answer is not readable"), lost=False)
    return handle, columns
