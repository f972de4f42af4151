"""What must hold once all nodes are up and quiet: the same on all of them, and exactly what clients were told.

Each check reports under the name of the invariant it holds; none of them stops at the first node or row that breaks it.
"""

import hashlib
import time

import numpy as np
import pandas as pd
import pyarrow as pa

from cluster import rows
from cluster.wire import Failed, Wire

# Also for the rows of a long run, from a binary that is not optimised.
SECONDS = 300.0
SHOWN = 5


def level(members, trouble, seconds=90):
    """Waits until all nodes have applied the same seq, and stay there; that seq."""
    deadline, before = time.monotonic() + seconds, None
    seqs = {}
    while time.monotonic() < deadline:
        for member in members:
            try:
                with Wire(member.address, SECONDS) as wire:
                    seqs[member.name] = wire.status()["seq"]
            except Failed as failure:
                seqs[member.name] = str(failure)
        if len(set(seqs.values())) == 1 and isinstance(seqs[members[0].name], int):
            if before == seqs:
                return seqs[members[0].name]
            before = dict(seqs)
        time.sleep(0.3)
    trouble.report("all nodes get level (I23)", f"after {seconds} s the nodes are at {seqs}", members=members)
    return None


def content(table):
    """A hash of rows that does not depend on their order, nor on the order of columns."""
    frame = table.select(sorted(table.column_names)).to_pandas()
    # The sorted hashes, not their sum: no two rows can cancel out.
    hashes = np.sort(pd.util.hash_pandas_object(frame, index=False).to_numpy())
    kinds = sorted(f"{field.name} {field.type}" for field in table.schema)
    return table.num_rows, hashlib.sha256(repr(kinds).encode() + hashes.tobytes()).hexdigest()[:16]


class State:
    """What one node says of everything, at one moment. Tables that are `like` another's are kept once."""

    def __init__(self, member, like=None):
        self.member = member
        with Wire(member.address, SECONDS) as wire:
            self.tables = {table: wire.query(f"SELECT * FROM {table}")[0] for table in rows.TABLES}
            self.log = wire.query("SELECT seq, commit_id, writer_id, kind, rows FROM system.log ORDER BY seq")[0]
        self.hashes = {name: content(table) for name, table in self.tables.items()}
        for name, found in self.hashes.items():
            if like and like.hashes[name] == found:
                self.tables[name] = like.tables[name]


def states_of(members):
    """The states of all members, one after another: of a long run all at once would not fit into memory."""
    first = State(members[0])
    return [first, *(State(member, like=first) for member in members[1:])]


def equal(states, trouble, when):
    """The same tables and the same log everywhere (I4, I5)."""
    first = states[0]
    for other in states[1:]:
        for table in rows.TABLES:
            if other.hashes[table] != first.hashes[table]:
                text = (
                    f"{when}, {table} on {first.member.name} is {first.hashes[table]}, on {other.member.name} {other.hashes[table]}"
                    f" (rows, hash)\n{difference(first.tables[table], other.tables[table])}"
                )
                trouble.report("equal tables on all nodes (I5)", text, members=[first.member, other.member])
        shared = min(first.log.num_rows, other.log.num_rows)
        if not first.log.slice(0, shared).equals(other.log.slice(0, shared)):
            text = f"{when}, the logs of {first.member.name} and {other.member.name} differ among the first {shared} commits"
            trouble.report("one history (I4)", text, members=[first.member, other.member])
    seqs = first.log["seq"].to_pylist()
    if seqs and seqs != list(range(seqs[0], seqs[0] + len(seqs))):
        trouble.report("one history (I4)", f"{when}, the log has gaps or repeats: {len(seqs)} commits from {seqs[0]} to {seqs[-1]}")
    if len(set(first.log["commit_id"].to_pylist())) != len(seqs):
        trouble.report("one history (I4)", f"{when}, a commit id stands in the log twice")


def difference(one, other):
    """Where two tables of rows differ, shortly."""
    if sorted(one.column_names) != sorted(other.column_names):
        return f"    columns: {sorted(set(one.column_names) ^ set(other.column_names))} on one side only"
    keys = ["client", "op"]

    def counts(table):
        return table.select(keys).to_pandas().groupby(keys).size()

    both = pd.concat([counts(one), counts(other)], axis=1, keys=["one", "other"]).fillna(0)
    unequal = both[both["one"] != both["other"]]
    lines = [f"    client {key[0]} op {key[1]}: {int(row.one)} rows against {int(row.other)}" for key, row in unequal.head(SHOWN).iterrows()]
    return "\n".join(lines) or "    the same numbers of rows per operation: values differ"


def against_journal(state, journal, trouble, when):
    """Acknowledged exactly once, everything else whole or absent, no byte changed (I1, I2, I3); (found, found but not acknowledged)."""
    found = unacknowledged = 0
    ops = journal.all()
    for table in rows.TABLES:
        stored = state.tables[table]
        present = stored.select(["client", "op", "n"]).to_pandas().groupby(["client", "op"])["n"].agg(["count", "nunique"])
        there = {(int(client), int(op)): (int(count), int(distinct)) for (client, op), count, distinct in present.itertuples()}
        known = []
        for key, (count, distinct) in there.items():
            op = journal.get(*key)
            if op is None or op.table != table:
                trouble.report("nothing comes from nowhere", f"{when}, {table} has {count} rows of client {key[0]} op {key[1]}, never sent there")
            elif (count, distinct) != (op.rows, op.rows):
                what = "exactly once (I2)" if count > op.rows else "batches are whole (I3)"
                trouble.report(what, f"{when}, {table} has {count} rows, {distinct} distinct, of {op.rows}", ops=[op])
            elif op.outcome == "absent":
                trouble.report("no means no (I8)", f"{when}, {table} has rows of a write that was never taken", ops=[op])
            else:
                known.append(op)
                unacknowledged += op.outcome != "acked"
        found += len(known)
        missing = [op for op in ops if op.table == table and op.outcome == "acked" and (op.client, op.number) not in there]
        if missing:
            trouble.report("acknowledged is there (I1)", f"{when}, {table} lacks {len(missing)} acknowledged writes", ops=missing[:SHOWN])
        values(stored, known, table, trouble, when)
    return found, unacknowledged


def values(stored, ops, table, trouble, when):
    """Every value as it was sent."""
    ops = sorted(ops, key=lambda op: (op.client, op.number))
    if not ops:
        return
    wanted = pa.Table.from_batches([pa.record_batch([pa.array(v, rows.SCHEMA.field(k).type) for k, v in rows.columns(op).items()], rows.SCHEMA)
                                    for op in ops])  # fmt: skip
    extras = [f"x{i}" for i in range(rows.EXTRA_COLUMNS)]
    for name in extras:
        parts = [range(op.number, op.number + op.rows) if name == f"x{op.extra}" else [None] * op.rows for op in ops]
        if name in stored.column_names:
            wanted = wanted.append_column(name, pa.chunked_array([pa.array(list(part), pa.int64()) for part in parts]))
        elif any(name == f"x{op.extra}" for op in ops):
            trouble.report("columns (I28)", f"{when}, {table} has no column {name}, which committed batches brought along")
    got = stored.sort_by([("client", "ascending"), ("op", "ascending"), ("n", "ascending")])
    keys = {(op.client, op.number) for op in ops}
    if got.num_rows != wanted.num_rows:
        # Torn or foreign operations are reported already.
        keep = [pair in keys for pair in zip(got["client"].to_pylist(), got["op"].to_pylist())]
        got = got.filter(pa.array(keep))
    for name in wanted.column_names:
        left, right = got[name].cast(wanted.schema.field(name).type).combine_chunks(), wanted[name].combine_chunks()
        if not left.equals(right):
            at = next((i for i, (a, b) in enumerate(zip(left.to_pylist(), right.to_pylist())) if a != b), None)
            if at is None:
                trouble.report("values as sent (I3)", f"{when}, {table}: {len(left)} values of {name}, {len(right)} sent")
                continue
            op = next(o for o in ops if (o.client, o.number) == (wanted["client"][at].as_py(), wanted["op"][at].as_py()))
            text = f"{when}, {table}.{name} of row {wanted['n'][at]} is {left[at]}, not {right[at]}"
            trouble.report("values as sent (I3)", text, ops=[op])


def order(journal, trouble):
    """A client's acknowledged operations stand in the log in the order in which it made them (I7)."""
    clients = {}
    for op in journal.all():
        if op.seq is not None:
            clients.setdefault(op.client, []).append(op)
    for ops in clients.values():
        ops.sort(key=lambda op: op.number)
        for before, after in zip(ops, ops[1:]):
            if after.seq < before.seq or after.seq == before.seq and after.group != before.group:
                trouble.report("per-client order (I7)", f"seq {before.seq} for the first, {after.seq} for the next", ops=[before, after])


def in_log(state, journal, trouble):
    """Each acknowledged seq is a commit that holds at least those rows."""
    rows_at = dict(zip(state.log["seq"].to_pylist(), state.log["rows"].to_pylist()))
    first, wanted = min(rows_at, default=1), {}
    for op in journal.all():
        if op.seq is not None:
            wanted.setdefault(op.seq, []).append(op)
    for seq, ops in wanted.items():
        total = sum(op.rows for op in ops)
        if seq >= first and rows_at.get(seq, -1) < total:
            trouble.report("an acknowledged seq is a commit (I1)", f"seq {seq} holds {rows_at.get(seq)} rows, {total} acknowledged", ops=ops[:SHOWN])


def altered(state, columns, trouble, when):
    """Columns that were added are there, once."""
    for table, names in columns.items():
        there = state.tables[table].column_names
        for name in sorted(names):
            if there.count(name) != 1:
                trouble.report("columns (I28)", f"{when}, {table} has column {name} {there.count(name)} times: ALTER TABLE had succeeded")
