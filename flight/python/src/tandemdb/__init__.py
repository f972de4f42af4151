"""TandemDB from Python.

    import tandemdb

    db = tandemdb.connect("grpc://127.0.0.1:8815,grpc://127.0.0.1:8816")
    db.write("weather", frame, schema="create", timestamp="time")
    db.sql("SELECT * FROM weather WHERE temp > $1", [20]).pandas()

It promises: a write commits once, however many tries on however many nodes it takes, or raises an error that says what is
known of it; a read sees what this connection wrote before; no call waits for ever; a change stream goes on where it was,
on any node, without a row lost or told twice. It knows nothing of SQL but the words that begin a transaction.
"""

from tandemdb.changes import Change, Changes
from tandemdb.client import Database, connect
from tandemdb.errors import (
    AlreadyExists,
    Behind,
    Cancelled,
    Damaged,
    Forbidden,
    HistoryGone,
    InternalError,
    InvalidInput,
    NotFound,
    NotWriter,
    OutcomeUnknown,
    Overloaded,
    QuorumTimeout,
    SchemaConflict,
    SerializationFailure,
    TandemError,
    Timeout,
    TokenExpired,
    TokenReused,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from tandemdb.result import Result, Written
from tandemdb.transaction import Transaction

__version__ = "0.1.0"

__all__ = [
    "AlreadyExists", "Behind", "Cancelled", "Change", "Changes", "Damaged", "Database", "Forbidden", "HistoryGone",
    "InternalError", "InvalidInput", "NotFound", "NotWriter", "OutcomeUnknown", "Overloaded", "QuorumTimeout", "Result",
    "SchemaConflict", "SerializationFailure", "TandemError", "Timeout", "TokenExpired", "TokenReused", "Transaction",
    "Unauthenticated", "Unavailable", "Unsupported", "Written", "connect",
]  # fmt: skip
