"""Statements as calls of Flight, and what users write in their arguments."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Union

from tandemdb import frames, wire
from tandemdb.errors import Failure, InvalidInput, seq_of
from tandemdb.wire import Answer, Link, Stream

Schema = Literal["strict", "add", "create"]
Moment = Union[int, str, datetime.date]

_NO_QUERY = "the statement returns no rows: run it with execute()"
_NO_UPDATE = "the statement returns rows: run it with sql()"


def table_path(name: str) -> list[str]:
    """Splits `t` or `schema.t`. A part in double quotes may hold dots; `""` is a quote."""
    parts = re.fullmatch(r'(?:("(?:[^"]|"")+"|[^".]+)\.)?("(?:[^"]|"")+"|[^".]+)', name)
    if not parts:
        raise InvalidInput(f"{name!r} is no table's name: write table or schema.table")
    return [part[1:-1].replace('""', '"') if part.startswith('"') else part for part in parts.groups() if part is not None]


def read(
    link: Link, query: str, params: Sequence[Any] | None, ask: Mapping[str, Any], headers: Mapping[str, str], seconds: float
) -> Stream:
    if params is None or frames.is_plain(params):
        ticket = {"sql": query, **({"params": list(params)} if params else {}), **ask}
        try:
            return link.get(json.dumps(ticket).encode(), headers, seconds)
        except Failure as failure:
            if "a ticket can only read" in failure.error.message:
                raise Failure(InvalidInput(_NO_QUERY), lost=False) from None
            raise
    as_of = ask.get("as_of")
    more = {
        **({"tandem-as-of": f"seq:{as_of['seq']}" if "seq" in as_of else as_of["time"]} if as_of else {}),
        **({"tandem-min-seq": str(ask["min_seq"])} if "min_seq" in ask else {}),
    }
    return planned(link, query, params, None, {**headers, **more}, seconds)


def planned(
    link: Link, query: str, params: Sequence[Any] | None, transaction: bytes | None, headers: Mapping[str, str], seconds: float
) -> Stream:
    """Runs a query in the steps of Flight SQL, which can carry more than a ticket."""
    with _prepared(link, query, transaction, headers, seconds) as (handle, is_query):
        if not is_query:
            raise Failure(InvalidInput(_NO_QUERY), lost=False)
        command = wire.prepared_query(handle)
        if params:
            link.put(command, frames.parameters(params), headers, seconds)
        info, _ = link.info(command, headers, seconds)
        return link.get(info.endpoints[0].ticket.ticket, headers, seconds)


def execute(
    link: Link, statement: str, params: Sequence[Any] | None, transaction: bytes | None, headers: Mapping[str, str], seconds: float
) -> tuple[Answer, int | None]:
    if not params:
        info, answer = link.info(wire.statement_query(statement, transaction), headers, seconds)
        if answer.number("tandem-seq") is None:
            raise Failure(InvalidInput(_NO_UPDATE), lost=False)
        return answer, info.total_records if info.total_records >= 0 else None
    # The token is the write's, not the preparation's.
    others = {name: value for name, value in headers.items() if name != "tandem-token"}
    with _prepared(link, statement, transaction, others, seconds) as (handle, is_query):
        if is_query:
            raise Failure(InvalidInput(_NO_UPDATE), lost=False)
        reply, answer = link.put(wire.prepared_update(handle), frames.parameters(params), headers, seconds)
        return answer, wire.record_count(reply)


@contextmanager
def _prepared(link: Link, sql: str, transaction: bytes | None, headers: Mapping[str, str], seconds: float) -> Iterator[tuple[bytes, bool]]:
    """A prepared statement, and whether it is a query."""
    results, _ = link.action("CreatePreparedStatement", wire.create_prepared(sql, transaction), headers, seconds)
    handle, columns = wire.result_fields(results)
    try:
        yield handle, bool(columns)
    finally:
        try:
            link.action("ClosePreparedStatement", wire.close_prepared(handle), {}, seconds)
        except Failure:
            # The node forgets it by itself after a while.
            pass


def seen_at_least(seq: int) -> dict[str, str]:
    """What a read demands, so that it sees what was written before, on another node perhaps."""
    return {"tandem-min-seq": str(seq)} if seq else {}


def moment(at: Moment) -> dict[str, Any]:
    if isinstance(at, datetime.datetime):
        aware = at if at.tzinfo else at.replace(tzinfo=datetime.timezone.utc)
        return {"time": aware.astimezone(datetime.timezone.utc).isoformat().replace("+00:00", "Z")}
    if isinstance(at, str):
        seq = re.fullmatch(r"\s*seq:(\d+)\s*", at)
        return {"seq": int(seq[1])} if seq else {"time": at}
    if isinstance(at, datetime.date):
        return {"time": at.isoformat()}
    return {"seq": seq_of(at, "at")}


def seconds(timeout: float) -> float:
    """A time-out, checked."""
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise InvalidInput(f"timeout is {timeout!r}, and not a number of seconds above 0; math.inf is for ever")
    return timeout


def acknowledged(ack: str | None, timeout: float | None) -> dict[str, str]:
    found = {} if ack is None else {"tandem-ack": ack}
    return found if timeout is None else {**found, "tandem-ack-timeout": f"{math.ceil(timeout * 1000)}ms"}


def ingest(
    table: str, schema: Schema, timestamp: str | None, options: Mapping[str, str | int] | None, transaction: bytes | None
) -> tuple[bytes, dict[str, str]]:
    """The command and the headers of an append."""
    if schema not in ("strict", "add", "create"):
        raise InvalidInput(f"schema is {schema!r}, and not one of strict, add, create")
    if (timestamp or options) and schema != "create":
        raise InvalidInput("timestamp and options are for making a table: write with schema='create'")
    for name, value in (options or {}).items():
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise InvalidInput(f"the option {name} is {value!r}, and neither a text nor a whole number")
    with_options = {**{name: str(value) for name, value in (options or {}).items()}, **({"timestamp": timestamp} if timestamp else {})}
    return wire.ingest(table_path(table), schema == "create", with_options, transaction), {"tandem-schema": schema}


_SESSION = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(BEGIN|START|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|SET|RESET)\b", re.IGNORECASE | re.DOTALL
)


def refuse_sessions(statement: str) -> None:
    if word := _SESSION.match(statement):
        raise InvalidInput(
            f"{word[1].upper()} is about a session, and calls share none: use transaction() for a transaction, and the "
            "arguments of each call for its options"
        )
