"""What a user meets: `connect`, and the `Database` that it gives."""

from __future__ import annotations

import itertools
import os
import pathlib
import secrets
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, Union

import pyarrow as pa

from tandemdb import frames, statements, wire
from tandemdb.changes import AGAIN_CHANGES, Changes
from tandemdb.errors import Failure, InvalidInput, NotFound, QuorumTimeout, SchemaConflict, TandemError, of_write, seq_of
from tandemdb.result import Result, Written
from tandemdb.retry import AGAIN, Links, Tries, addresses
from tandemdb.statements import Moment, Schema
from tandemdb.transaction import Transaction
from tandemdb.wire import Access, Answer, Link, Stream

TIMEOUT_SECONDS = 60.0
RETRY_SECONDS = 30.0
TOKEN_BYTES_MAX = 128
# A piece's number, behind the token.
NUMBER_BYTES_MAX = len("#9999999")

Progress = Union[bool, Callable[[int, Union[int, None]], object], None]
T = TypeVar("T")


def connect(
    urls: str | Sequence[str],
    *,
    token: str | None = None,
    tls_ca: str | os.PathLike[str] | bytes | None = None,
    timeout: float = TIMEOUT_SECONDS,
    retry_for: float = RETRY_SECONDS,
) -> Database:
    """Connects to one of several nodes of a database: `grpc://host:port` or `grpc+tls://host:port`, by commas
    or as a list.

    `token` is the access token, by default what the environment variable TANDEM_AUTH_TOKEN says; `tls_ca` a file with the
    certificates to believe, or its content, by default TANDEM_TLS_CA, else those that the machine believes. `timeout` is
    how many seconds a call may take, unless it says otherwise itself; `math.inf` for ever. After a failure that another
    node, or the same one later, may not have, a call is tried again for `retry_for` seconds, at all addresses in turn.

    Raises `Unavailable` if no node can be reached, `Unauthenticated` if the token is wrong.
    """
    token = token if token is not None else os.environ.get("TANDEM_AUTH_TOKEN")
    if token is not None and not (token.strip() and token.strip().isascii() and token.strip().isprintable() and " " not in token.strip()):
        raise InvalidInput("the access token has characters that cannot be sent: it is letters, digits and signs")
    tls_ca = tls_ca if tls_ca is not None else os.environ.get("TANDEM_TLS_CA")
    if tls_ca is not None and not isinstance(tls_ca, bytes):
        tls_ca = pathlib.Path(tls_ca).read_bytes()
    statements.seconds(timeout)
    access = Access(token.strip() if token else None, tls_ca)
    database = Database(Links(addresses(urls), lambda address: Link(address, access)), access, timeout, retry_for)
    database.sql("SELECT 1").close()
    return database


class Database:
    """A database, wherever its nodes are. Threads may share it; a process that forks connects again afterwards.

    Made by `connect`. Reads see what was written over the same `Database` before, on whichever node.
    """

    def __init__(self, links: Links[Link], access: Access, timeout: float, retry_for: float) -> None:
        self._links = links
        self._access = access
        self._timeout = timeout
        self._retry_for = retry_for
        # 128 random bits: nobody else's tokens begin so.
        self._producer = secrets.token_hex(16)
        self._counter = itertools.count()
        self._lock = threading.Lock()
        self._written = 0

    # Reading

    def sql(
        self,
        query: str,
        params: Sequence[Any] | None = None,
        *,
        at: Moment | None = None,
        min_seq: int | None = None,
        read: Literal["applied", "latest"] = "applied",
        timeout: float | None = None,
    ) -> Result:
        """Runs a query. `params` stand for `$1`, `$2` ... or `?`.

        `at` reads the past: a seq, `"seq:12"`, a datetime (UTC if it has no zone), a date, or a time as text. `min_seq` waits until
        the node has applied that commit, `read="latest"` until it has all that are committed now, by any node.
        """
        params, seconds = frames.listed(params), self._seconds(timeout)
        ask: dict[str, Any] = {} if at is None else {"as_of": statements.moment(at)}
        seen = 0 if at is not None else self._written
        if min_seq is not None or seen:
            ask["min_seq"] = max(seq_of(min_seq or 0, "min_seq"), seen)
        headers = {"tandem-read": read} if read != "applied" else {}
        tries = self._tries(AGAIN)
        asked: list[Link] = []

        def begin(link: Link) -> Stream:
            asked[:] = [link]
            return statements.read(link, query, params, ask, headers, seconds)

        def again(failure: Failure) -> Stream:
            tries.failed(asked[0], failure)
            return self._try(tries, begin)

        return Result(self._try(tries, begin), again)

    def seq(self) -> int:
        """The newest commit of the database: what is committed before the call, by any node, is in it or before it."""
        return self.sql("SELECT 1", read="latest").seq or 0

    def changes(
        self,
        table: str | None,
        from_seq: int | None = None,
        to_seq: int | None = None,
        *,
        images: Literal["none", "after", "both"] = "after",
        follow: bool = True,
    ) -> Changes:
        """A table's changes from a commit on, by default from now on; up to `to_seq`, else for ever. Without `follow`, up to
        what is committed now.

        It goes on by itself when a node is lost and when the table's columns change. To go on in another process, keep the
        `next_seq` of the last change that was dealt with, and give it as `from_seq`. `None` for `table` follows all tables:
        each row then has its table's name in `_table`, and what it holds as JSON in `_row`.

        Iterating raises `NotFound` when the table is dropped, `HistoryGone` when the changes are not kept any more.
        """
        now = self.seq() if from_seq is None or (to_seq is None and not follow) else 0
        first = max(1, now + 1 if from_seq is None else seq_of(from_seq, "from_seq"))
        last = now if to_seq is None and not follow else to_seq
        return Changes(table, first, last, images, self._tries(AGAIN_CHANGES))

    # Writing

    def write(
        self,
        table: str,
        data: Any,
        *,
        schema: Schema = "strict",
        timestamp: str | None = None,
        options: Mapping[str, str | int] | None = None,
        ack: str | None = None,
        ack_timeout: float | None = None,
        token: str | None = None,
        progress: Progress = None,
        piece_bytes: int = frames.PIECE_BYTES,
        timeout: float | None = None,
    ) -> Written:
        """Appends rows to `table` or `schema.table`, exactly once: a frame of pandas or polars, an Arrow table, batch or
        reader, a list of dicts, a dict of columns, or an iterator of frames, tables, batches or dicts, each of them a row.

        `schema="add"` adds columns that the table does not have, `"create"` makes the table as well, with `timestamp` as its
        designated timestamp and other `options` of CREATE TABLE ... WITH, such as `partition_by`.

        About `piece_bytes` of Arrow data are one transaction: smaller frames are there wholly or not at all. Of a stream no
        more than one piece is in memory. If a later piece fails, the error's `rows` says how many are there, and the same
        write under the error's `token` goes on behind them. For one transaction of any size use `transaction()`.

        `ack="quorum(1)"` waits until that many other nodes have applied it. `progress` is called with the rows written and
        the rows in all (`None` if that is not known) after each piece; `True` prints them.
        """
        command, policy = statements.ingest(table, schema, timestamp, options, None)
        headers = {**policy, **statements.acknowledged(ack, ack_timeout)}
        # Pieces behind the first one have a number behind the token.
        base = self._token(token, TOKEN_BYTES_MAX - NUMBER_BYTES_MAX)
        seconds = self._seconds(timeout)
        told = _teller(progress, table)
        total, pieces = frames.pieces(data, piece_bytes)
        done: Written | None = None
        try:
            for number, piece in enumerate(pieces):
                one = self._write_piece(command, piece, headers, base if number == 0 else f"{base}#{number}", seconds)
                done = _both(done, one, base)
                told(done.rows or 0, total)
        except TandemError as error:
            raise _of_piece(error, table, schema, base, done) from None
        except BaseException as error:
            # The user's own, of what the rows come from. Before Python 3.11 there is no place to say it.
            if done is not None and hasattr(error, "add_note"):
                error.add_note(f"{done.rows} rows before were written into {table}; the same write with token={base!r} goes on behind them")
            raise
        assert done is not None
        return done

    def execute(
        self,
        statement: str,
        params: Sequence[Any] | None = None,
        *,
        token: str | None = None,
        ack: str | None = None,
        ack_timeout: float | None = None,
        timeout: float | None = None,
    ) -> Written:
        """Runs a statement that returns no rows (CREATE, INSERT, UPDATE, DELETE ...), exactly once."""
        statements.refuse_sessions(statement)
        token = self._token(token)
        params, seconds = frames.listed(params), self._seconds(timeout)
        headers = {"tandem-token": token, **statements.seen_at_least(self._written), **statements.acknowledged(ack, ack_timeout)}
        return self._write(token, lambda link: statements.execute(link, statement, params, None, headers, seconds))

    def transaction(self, *, token: str | None = None, ack: str | None = None, ack_timeout: float | None = None) -> Transaction:
        """Several writes and statements as one commit, all or nothing, on one node:

            with db.transaction() as tx:
                tx.write("booking", frame)
                tx.execute("DELETE FROM incoming")

        It is committed at the end of the `with`, and rolled back if that is left by an exception. A `SerializationFailure`
        means that nothing is committed, and that all of it may be run again.
        """
        return Transaction(self, self._token(token), statements.acknowledged(ack, ack_timeout))

    # Life

    @property
    def url(self) -> str:
        """The address in use."""
        return self._links.link().address.url

    def close(self) -> None:
        """Closes the connection; what is under way over it may end."""
        self._links.close()

    def __repr__(self) -> str:
        return f"<Database: {self._links}>"

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Inside

    def _write_piece(self, command: bytes, rows: pa.Table, headers: Mapping[str, str], token: str, seconds: float) -> Written:
        headers = {**headers, "tandem-token": token}

        def send(link: Link) -> tuple[Answer, int | None]:
            reply, answer = link.put(command, rows, headers, seconds)
            return answer, wire.record_count(reply)

        return self._write(token, send)

    def _write(self, token: str, send: Callable[[Link], tuple[Answer, int | None]]) -> Written:
        tries: Tries[Link] = Tries(self._links, self._retry_for, lost_again=True)
        try:
            answer, rows = self._try(tries, send)
        except TandemError as error:
            self._committed_all_the_same(error)
            raise of_write(error, tries.maybe_done, token) from None
        written = Written.of(answer, rows, token, tries.count)
        self._wrote(written.seq)
        return written

    def _committed_all_the_same(self, error: TandemError) -> None:
        if isinstance(error, QuorumTimeout):
            self._wrote(error.seq or 0)

    def _wrote(self, seq: int) -> None:
        with self._lock:
            self._written = max(self._written, seq)

    def _try(self, tries: Tries[Link], call: Callable[[Link], T]) -> T:
        while True:
            link = tries.link()
            try:
                return call(link)
            except Failure as failure:
                tries.failed(link, failure)

    def _tries(self, again: tuple[type[TandemError], ...]) -> Tries[Link]:
        return Tries(self._links, self._retry_for, again)

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else statements.seconds(timeout)

    def _token(self, given: str | None, bytes_max: int = TOKEN_BYTES_MAX) -> str:
        if given is None:
            return f"{self._producer}-{next(self._counter)}"
        if not 0 < len(given) <= bytes_max or not given.isascii() or not given.isprintable():
            raise InvalidInput(f"a token has 1 to {bytes_max} ASCII characters, and {given!r} has not")
        return given


def _of_piece(error: TandemError, table: str, schema: str, token: str, done: Written | None) -> TandemError:
    error.token = token
    if isinstance(error, NotFound) and schema != "create":
        way = "write with schema='add' to add it" if " has no column " in error.message else "write with schema='create' to make it"
        error.hint = f"if that is no mistake, {way}"
    if isinstance(error, SchemaConflict) and "Timestamp(" in error.message:
        error.hint = (
            "tables hold times in UTC without a zone unless they were made otherwise; a zone is dropped by "
            ".dt.tz_convert(None) in pandas, .dt.convert_time_zone('UTC').dt.replace_time_zone(None) in polars"
        )
    if isinstance(error, QuorumTimeout):
        # One piece is there, and others perhaps not.
        error.hint = "the same write with token= this error's .token writes what is missing, and nothing twice"
    if done is not None:
        kept = error.with_message(f"{error.message}; {done.rows} rows before these are written into {table}")
        kept.hint = "the same write with token= this error's .token goes on behind them, and writes nothing twice"
        kept.rows, kept.token = done.rows or 0, token
        return kept
    return error


def _both(before: Written | None, one: Written, token: str) -> Written:
    if before is None:
        return one
    return Written(
        seq=max(before.seq, one.seq),
        rows=(before.rows or 0) + (one.rows or 0),
        duplicate=before.duplicate and one.duplicate,
        acked=one.acked,
        token=token,
        tries=max(before.tries, one.tries),
    )


def _teller(progress: Progress, table: str) -> Callable[[int, int | None], object]:
    if callable(progress):
        return progress
    if not progress:
        return lambda rows, total: None

    def tell(rows: int, total: int | None) -> None:
        of = f" of {total:,} rows ({rows / max(1, total):.0%})" if total is not None else " rows"
        print(f"{table}: {rows:,}{of}", file=sys.stderr, flush=True)

    return tell
