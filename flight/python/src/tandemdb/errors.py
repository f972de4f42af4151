"""One tree of errors, and the way from what a call of Flight raised to one of them.

A server names its errors in the trailer `tandem-error`; what has no name there is told by gRPC's code. Each class says in
`hint` what to do next, and its text ends with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.flight as fl


class TandemError(Exception):
    """Anything that went wrong with a call. `message` is what was said, without the hint."""

    hint: str = ""

    def __init__(self, message: str, *, seq: int | None = None, writer: str | None = None, token: str | None = None, rows: int = 0) -> None:
        super().__init__(message)
        self.message = message
        #: The commit that the error is about.
        self.seq = seq
        #: Addresses, by commas, of nodes that take writes.
        self.writer = writer
        #: What the write was made under: the same write under it cannot be committed twice.
        self.token = token
        #: Rows of the same call that were committed before it failed.
        self.rows = rows

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def about(self, what: str) -> TandemError:
        """The same error, said to have happened while doing `what`."""
        return self.with_message(f"{what}: {self.message}")

    def with_message(self, message: str) -> TandemError:
        """The same error in other words."""
        other = type(self)(message, seq=self.seq, writer=self.writer, token=self.token, rows=self.rows)
        other.hint = self.hint
        return other


class InvalidInput(TandemError, ValueError):
    """The statement, the rows or an argument is wrong."""


class SchemaConflict(InvalidInput):
    """The rows' columns do not fit the table's."""

    hint = "make the column's type what the table has, or widen it with ALTER TABLE ... ALTER COLUMN ... TYPE"


class NotFound(TandemError, LookupError):
    """There is no such table, column or the like."""


class AlreadyExists(TandemError):
    """The name is taken."""


class Unsupported(TandemError):
    """It is no part of TandemDB."""


class Unavailable(TandemError, ConnectionError):
    """No node could be reached, or none that can do it, for as long as it was tried."""


class NotWriter(Unavailable):
    """The node takes no writes; `writer` names those that do, if they are known."""


class OutcomeUnknown(TandemError):
    """The write was sent, and nobody could say what became of it. It is there once or not at all."""

    hint = "do the same write again with token= this error's .token: it is committed once at most"


class SerializationFailure(TandemError):
    """Others changed what the transaction rests on, or its connection was lost. Nothing of it is committed, and all of it
    may be run again."""


class TokenReused(TandemError):
    """The token belongs to another write."""

    hint = "a token is for one write: take another one, or send the very same rows"


class TokenExpired(TandemError):
    """The token is too old for anybody to know whether it was used."""


class Overloaded(TandemError):
    """The node has too much to do, or this is too much at once."""

    hint = "try again later, or with less at once"


class Timeout(TandemError, TimeoutError):
    """It took longer than it was given."""

    hint = "give the call more time with timeout="


class Behind(Timeout):
    """The node has not applied the commit that the read insists on."""

    hint = "ask another node, or give it more time with timeout="


class QuorumTimeout(Timeout):
    """The write is committed, at `seq`, but too few other nodes have said in time that they have it."""

    hint = "do not write it again: it is there"


class HistoryGone(TandemError):
    """The state or the change is older than the history that is kept."""

    hint = "read the table anew, and follow its changes from the result's .seq + 1"


class Damaged(TandemError):
    """Stored bytes are not what was written."""


class Unauthenticated(TandemError):
    """No valid access token was shown."""

    hint = "give it to connect(token=...)"


class Forbidden(TandemError):
    """The access token does not allow it."""


class Cancelled(TandemError):
    """The call was ended by somebody else."""


class InternalError(TandemError):
    """A fault of the server or of this package."""


BY_CODE: Mapping[str, type[TandemError]] = {
    "not-writer": NotWriter,
    "overloaded": Overloaded,
    "serialization": SerializationFailure,
    "schema-conflict": SchemaConflict,
    "token-reused": TokenReused,
    "token-expired": TokenExpired,
    "quorum-timeout": QuorumTimeout,
    "behind": Behind,
    "history-gone": HistoryGone,
    "damaged": Damaged,
    "outcome-unknown": OutcomeUnknown,
}

# pyarrow raises several codes as one class, but its texts tell them all apart.
BY_WORDS: Mapping[str, type[TandemError]] = {
    "internal": InternalError,
    "invalid argument": InvalidInput,
    "timeout": Timeout,
    "not found": NotFound,
    "already exists": AlreadyExists,
    "unauthenticated": Unauthenticated,
    "unauthorized": Forbidden,
    "unimplemented": Unsupported,
    "unavailable": Unavailable,
    "cancelled": Cancelled,
    "resource exhausted": Overloaded,
    "precondition failed": InvalidInput,
    "aborted": SerializationFailure,
    "out-of-range": InvalidInput,
    "data loss": Damaged,
}

_SAID = re.compile(
    r"(?:Flight|gRPC) (?:returned (?P<words>[a-z -]+?) error|(?P<cancelled>cancelled) call), with message: (?P<said>.*?)"
    r"(?:\. gRPC client debug context: .*|\. Client context: .*|\. Detail: .*)?\Z",
    re.DOTALL,
)
# How gRPC says that there was no connection to send anything over.
_UNSENT = "failed to connect to all addresses"
# How gRPC says that it met a web server that knows nothing of it, such as a node's other port.
_WEB = "http2 header with status"
# Why there was no connection, and what mends that.
_TLS = {
    "certificate verify failed": "the node's certificate is not one to be believed: name the file of the right ones with connect(tls_ca=...)",
    "wrong version number": "the node speaks no TLS: write grpc:// before its address",
}
# How gRPC says, with various codes, that the connection broke.
_BROKEN = ("RST_STREAM", "Stream removed", "Socket closed", "GOAWAY", "Connection reset")


class Failure(Exception):
    """One try of a call that failed: the error, and whether the server may have carried it out all the same."""

    def __init__(self, error: TandemError, *, lost: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.lost = lost


def failure_of(raised: BaseException, headers: Mapping[str, Sequence[str | bytes]]) -> Failure:
    """What a call of Flight raised, with the headers that came last. A status that a server sent has some; one that
    gRPC made up, because the connection broke, has none."""
    text = str(raised)
    match = _SAID.search(text)
    if match is None and not isinstance(raised, pa.ArrowException):
        return Failure(InternalError(f"{type(raised).__name__}: {text}"), lost=True)
    # What Arrow refuses before anything is sent has no such text.
    unsaid = "internal" if isinstance(raised, fl.FlightError) else "invalid argument"
    words = (match["words"] or match["cancelled"]) if match else unsaid
    said = match["said"] if match else text
    kind = BY_CODE.get(header(headers, "tandem-error") or "") or BY_WORDS.get(words, InternalError)
    if kind is Unsupported and _WEB in said:
        kind, said = InvalidInput, f"what listens at the address speaks HTTP and not Flight ({said}): give the address of the node's --flight"
    by_server = bool(headers)
    if not by_server and kind in (InternalError, Cancelled) and any(sign in said for sign in _BROKEN):
        kind = Unavailable
    seq = header(headers, "tandem-seq")
    error = kind(said or "no reason was given", seq=int(seq) if seq else None, writer=header(headers, "tandem-writer"))
    if kind is Unavailable:
        error.hint = next((hint for sign, hint in _TLS.items() if sign in said), "")
    broken = not by_server and kind in (Unavailable, Timeout, InternalError, Cancelled) and _UNSENT not in said
    return Failure(error, lost=broken or kind is OutcomeUnknown)


def header(headers: Mapping[str, Sequence[str | bytes]], name: str) -> str | None:
    """A header's value as text."""
    values = headers.get(name)
    if not values:
        return None
    value = values[0]
    return value.decode() if isinstance(value, bytes) else value


def of_write(error: TandemError, maybe_done: bool, token: str) -> TandemError:
    """What is known of a write that failed."""
    # Whoever refuses speaks for its own moment: an earlier try, on a node that cannot answer now, may still be committed
    # in another. These two say what became of the token.
    if maybe_done and not isinstance(error, (TokenReused, QuorumTimeout)):
        unknown = f"{error.message}; whether it was committed is not known"
        error = OutcomeUnknown(unknown, seq=error.seq, writer=error.writer, rows=error.rows)
    error.token = token
    return error


def seq_of(value: int, name: str) -> int:
    """A commit's number, checked."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInput(f"{name} is {value!r}, and not the number of a commit")
    return value
