"""Several writes and statements as one commit, on one node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from tandemdb import frames, statements, wire
from tandemdb.errors import Failure, InvalidInput, NotWriter, OutcomeUnknown, SerializationFailure, TandemError, Unavailable
from tandemdb.result import Result, Written
from tandemdb.retry import AGAIN
from tandemdb.statements import Schema
from tandemdb.wire import Link

if TYPE_CHECKING:
    from tandemdb.client import Database

T = TypeVar("T")


class Transaction:
    """One commit in the making, on a connection of its own. Made by `Database.transaction`."""

    def __init__(self, database: Database, token: str, ack: Mapping[str, str]) -> None:
        self._database = database
        self._token = token
        self._ack = ack
        self._link: Link | None = None
        self._id = b""
        self._seen: dict[str, str] = {}
        # Why it can only be rolled back.
        self._broken = ""
        #: What it did; known once the `with` has ended without an exception.
        self.done: Written | None = None

    def __enter__(self) -> Transaction:
        database = self._database
        self._seen = statements.seen_at_least(database._written)

        def begin(link: Link) -> tuple[Link, bytes]:
            own = Link(link.address, database._access)
            results, _ = own.action("BeginTransaction", wire.begin_transaction(), {}, database._timeout)
            return own, wire.result_fields(results)[0]

        self._link, self._id = database._try(database._tries(AGAIN), begin)
        return self

    def sql(self, query: str, params: Sequence[Any] | None = None, *, timeout: float | None = None) -> Result:
        """Runs a query on the transaction's snapshot, and on what it wrote itself."""
        params = frames.listed(params)
        seconds = self._database._seconds(timeout)
        stream = self._run(lambda link: statements.planned(link, query, params, self._id, self._seen, seconds))
        return Result(stream, self._fail)

    def execute(self, statement: str, params: Sequence[Any] | None = None, *, timeout: float | None = None) -> int | None:
        """Runs a statement; the rows that it changed, if it counts them."""
        statements.refuse_sessions(statement)
        params = frames.listed(params)
        seconds = self._database._seconds(timeout)
        return self._run(lambda link: statements.execute(link, statement, params, self._id, self._seen, seconds))[1]

    def write(
        self,
        table: str,
        data: Any,
        *,
        schema: Schema = "strict",
        timestamp: str | None = None,
        options: Mapping[str, str | int] | None = None,
        piece_bytes: int = frames.PIECE_BYTES,
        timeout: float | None = None,
    ) -> int:
        """Appends rows, as `Database.write` does, of any size: pieces are only how they are sent. The number of rows."""
        command, policy = statements.ingest(table, schema, timestamp, options, self._id)
        headers = {**policy, **self._seen}
        seconds = self._database._seconds(timeout)
        written = 0
        try:
            for piece in frames.pieces(data, piece_bytes)[1]:
                reply, _ = self._run(partial(Link.put, command=command, rows=piece, headers=headers, timeout=seconds))
                written += wire.record_count(reply) or 0
        except BaseException as error:
            # What the rows come from may fail as well, and whoever catches that must not commit half of them.
            if written:
                self._broken = f"a write into {table} failed half way: {getattr(error, 'message', '') or repr(error)}"
            raise
        return written

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        link = self._link
        if link is None:
            return
        try:
            if kind is None and not self._broken:
                self._commit(link)
                return
            self._roll_back(link)
            if kind is None:
                raise SerializationFailure(f"the transaction was rolled back: {self._broken}: run it again")
        finally:
            self._link = None
            link.close()

    def _commit(self, link: Link) -> None:
        headers = {"tandem-token": self._token, **self._ack}
        try:
            _, answer = link.action("EndTransaction", wire.end_transaction(self._id, True), headers, self._database._timeout)
        except Failure as failure:
            if not failure.lost:
                self._roll_back(link)
                self._database._committed_all_the_same(failure.error)
                self._fail(failure)
            self._left(failure)
            said = f"the connection was lost during the commit: {failure.error.message}; whether it was committed is not known"
            unknown = OutcomeUnknown(said, token=self._token)
            unknown.hint = "run the whole transaction again with transaction(token= this error's .token): it is committed once at most"
            raise unknown from None
        self.done = Written.of(answer, None, self._token, 1)
        self._database._wrote(self.done.seq)

    def _roll_back(self, link: Link) -> None:
        try:
            link.action("EndTransaction", wire.end_transaction(self._id, False), {}, self._database._timeout)
        except Failure:
            # It ends with its connection.
            pass

    def _run(self, call: Callable[[Link], T]) -> T:
        if self._link is None:
            raise InvalidInput("the transaction has ended, or has not begun: use it in a with statement")
        if self._broken:
            raise SerializationFailure(f"the transaction can only be rolled back: {self._broken}: run it again")
        try:
            return call(self._link)
        except Failure as failure:
            self._fail(failure)
        except (KeyboardInterrupt, SystemExit):
            self._broken = "a call was interrupted, and it is not known what it did"
            raise

    def _fail(self, failure: Failure) -> NoReturn:
        error = failure.error
        self._left(failure)
        if failure.lost or type(error) is Unavailable:
            self._broken = f"the connection was lost: {error.message}"
            raise SerializationFailure(f"{self._broken}, and with it the transaction: run the transaction again") from None
        if isinstance(error, NotWriter):
            raise error.with_message(f"{error.message}; run the transaction again, it will begin at a node that takes writes") from None
        raise error from None

    def _left(self, failure: Failure) -> None:
        """The next transaction is to begin elsewhere."""
        if isinstance(failure.error, AGAIN) and self._link is not None:
            shared = self._database._links.link()
            if shared.address == self._link.address:
                self._database._links.leave(shared, failure.error.writer)
