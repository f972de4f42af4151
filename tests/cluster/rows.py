"""What clients write: operations whose rows follow from a few numbers, so that every byte can be checked afterwards."""

import dataclasses
import threading

import numpy as np
import pyarrow as pa

TABLES = ("chaos_a", "chaos_b")
DAY = 86_400_000_000
# Columns that batches bring along by themselves, the same names from all clients at about the same time.
EXTRA_COLUMNS = 12
OPS_PER_EXTRA = 40

CREATE = (
    "CREATE TABLE IF NOT EXISTS chaos_a (ts TIMESTAMP NOT NULL, client BIGINT, op BIGINT, n BIGINT, of_rows BIGINT,"
    " value BIGINT, tag VARCHAR) TIMESTAMP(ts) PARTITION BY DAY WITH (target_file_size = 200000)",
    "CREATE TABLE IF NOT EXISTS chaos_b (ts TIMESTAMP NOT NULL, client BIGINT, op BIGINT, n BIGINT, of_rows BIGINT,"
    " value BIGINT, tag VARCHAR) TIMESTAMP(ts) PARTITION BY NONE ORDER BY (client, op)",
)

SCHEMA = pa.schema(
    [("ts", pa.timestamp("us"))] + [(name, pa.int64()) for name in ("client", "op", "n", "of_rows", "value")] + [("tag", pa.string())]
)


@dataclasses.dataclass(slots=True)
class Op:
    """One transaction of one client: `rows` rows for one table."""

    client: int
    number: int
    table: str
    rows: int
    kind: str
    # Operations sent in one stream share a group; all others have one of their own.
    group: int
    extra: int | None = None
    token: str | None = None
    # None: under way or given up; "acked", "unknown" or "absent" (known to have had no effect).
    outcome: str | None = None
    seq: int | None = None
    # (time, node, life of the node, what became of it)
    attempts: list = dataclasses.field(default_factory=list)

    @property
    def name(self):
        return f"client {self.client} op {self.number}"

    def history(self):
        what = f"{self.name}: {self.kind} of {self.rows} rows to {self.table}, {self.outcome or 'not settled'}"
        what += f" at seq {self.seq}" if self.seq is not None else ""
        what += f", column x{self.extra}" if self.extra is not None else ""
        what += f", token {self.token}" if self.token else ""
        return "\n".join([what, *(f"    {at:8.3f} s  {node} (life {life})  {text}" for at, node, life, text in self.attempts)])


class Journal:
    """All operations ever tried, by client and number."""

    def __init__(self):
        self._ops = {}
        self._lock = threading.Lock()

    def add(self, op):
        with self._lock:
            self._ops[op.client, op.number] = op

    def get(self, client, number):
        with self._lock:
            return self._ops.get((client, number))

    def all(self):
        with self._lock:
            return list(self._ops.values())


def columns(op):
    """The rows of an operation, column by column."""
    n = np.arange(op.rows, dtype=np.int64)
    start = (op.number * 7 + op.client) % 5 * DAY + op.number * 1000
    value = (op.client * 1_000_003 + op.number) * 4093 + n * n
    # Without a tag now and then: nulls must survive too.
    tag = None if op.number % 7 == 3 else f"{op.client}/{op.number:x}" * (op.number % 4)
    return {
        "ts": start + n, "client": np.full(op.rows, op.client, np.int64), "op": np.full(op.rows, op.number, np.int64), "n": n,
        "of_rows": np.full(op.rows, op.rows, np.int64), "value": value, "tag": [tag] * op.rows,
    }  # fmt: skip


def total(op):
    """The sum of an operation's values."""
    return op.rows * (op.client * 1_000_003 + op.number) * 4093 + (op.rows - 1) * op.rows * (2 * op.rows - 1) // 6


def batch(op):
    """The rows of an operation as a record batch."""
    made = columns(op)
    arrays = [pa.array(made[field.name], field.type) for field in SCHEMA]
    schema = SCHEMA
    if op.extra is not None:
        # Half of the clients send the narrower type: the column has to be the wider of the two.
        kind = pa.int64() if op.client % 2 else pa.int32()
        arrays.append(pa.array(made["n"] + op.number, kind))
        schema = schema.append(pa.field(f"x{op.extra}", kind))
    return pa.record_batch(arrays, schema)


def insert(op):
    """The rows of an operation as an INSERT statement."""
    made = columns(op)
    tag = "NULL" if made["tag"][0] is None else f"'{made['tag'][0]}'"
    rows = ", ".join(
        f"(to_timestamp_micros({made['ts'][i]}), {op.client}, {op.number}, {i}, {op.rows}, {made['value'][i]}, {tag})" for i in range(op.rows)
    )
    return f"INSERT INTO {op.table} (ts, client, op, n, of_rows, value, tag) VALUES {rows}"
