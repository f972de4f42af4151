"""Writers and followers as real processes on one directory, killed, frozen and restarted at random under load.

    TANDEM_KILLS=3000      as many kills, for as long as they take (tests/run --kills 3000)
    TANDEM_TEST_SEED=N     the same choices of the driver and the clients again; the machine's timing stays its own
"""

import os
import random
import types

import pyarrow as pa
import pytest

from cluster import rows, verify
from cluster.chaos import Chaos, Trouble
from cluster.clients import Reader

KILLS = int(os.environ.get("TANDEM_KILLS", "300"))
# By default as many kills as fit into the time.
SECONDS = 75 if "TANDEM_KILLS" not in os.environ else max(75, KILLS * 3)


@pytest.mark.chaos
@pytest.mark.seconds(SECONDS + 420)
def test_kills_freezes_and_restarts(tmp_path):
    seed = int(os.environ.get("TANDEM_TEST_SEED", random.randrange(1 << 30)))
    rerun = f"TANDEM_TEST_SEED={seed} TANDEM_KILLS={KILLS} tests/run --only process -- -k test_kills_freezes_and_restarts"
    print(rerun)
    run = Chaos(
        tmp_path / "store", tmp_path / "nodes", seed=seed, kills=KILLS, seconds=SECONDS, rerun=rerun,
        options=["--commit-inline-bytes", "16KB", "--cache-size", "4MB"],
    )  # fmt: skip
    print(run.run())
    kinds = {op.kind for op in run.journal.all() if op.outcome == "acked"}
    assert kinds == {"put", "burst", "insert", "ingest"}, f"only {kinds} ever succeeded: the test proves little"
    assert run.reads >= min(8, KILLS // 5), "hardly a snapshot was read while nodes were killed"


def written():
    """A few operations as a node would hold them, and the journal of who wrote them."""
    journal = rows.Journal()
    ops = [rows.Op(1 + i % 2, i // 2, rows.TABLES[i % 3 % 2], 3 + i, "put", i // 2, outcome="acked", seq=10 + i) for i in range(12)]
    for op in ops:
        journal.add(op)
    tables = {name: pa.Table.from_batches([rows.batch(op) for op in ops if op.table == name]) for name in rows.TABLES}
    log = pa.table({
        "seq": range(1, 31), "commit_id": [f"c{i}" for i in range(30)], "writer_id": ["w"] * 30, "kind": ["append"] * 30, "rows": [20] * 30,
    })  # fmt: skip
    return state_of(tables, log), journal, ops


def state_of(tables, log):
    hashes = {name: verify.content(table) for name, table in tables.items()}
    return types.SimpleNamespace(member=types.SimpleNamespace(name="w1"), tables=tables, log=log, hashes=hashes)


def judged(state, journal, other=None):
    """The names of all invariants that are found broken."""
    trouble = Trouble()
    verify.against_journal(state, journal, trouble, "now")
    verify.order(journal, trouble)
    verify.in_log(state, journal, trouble)
    verify.equal([state, other or state], trouble, "now")
    return {name for _, name, *_ in trouble.faults}


def replaced(state, table):
    """The state with other rows in the first table."""
    return state_of({**state.tables, rows.TABLES[0]: table}, state.log)


def test_the_verdict_finds_each_kind_of_damage():
    """A suite that finds nothing must be able to find something."""
    state, journal, ops = written()
    assert judged(state, journal) == set()
    name = rows.TABLES[0]
    good = state.tables[name]
    # The order of rows is nobody's business.
    assert judged(state, journal, replaced(state, good.take(list(reversed(range(good.num_rows)))))) == set()
    unequal = "equal tables on all nodes (I5)"
    assert judged(state, journal, replaced(state, good.slice(1))) == {unequal}
    assert "batches are whole (I3)" in judged(replaced(state, good.slice(1)), journal)
    assert "exactly once (I2)" in judged(replaced(state, pa.concat_tables([good, good.slice(0, 1)])), journal)
    first = next(op for op in ops if op.table == name)
    assert "acknowledged is there (I1)" in judged(replaced(state, good.slice(first.rows)), journal)
    changed = good.set_column(5, "value", pa.array([v + (i == 4) for i, v in enumerate(good["value"].to_pylist())]))
    assert judged(replaced(state, changed), journal) == {"values as sent (I3)"}
    foreign = pa.Table.from_batches([*good.to_batches(), rows.batch(rows.Op(9, 0, name, 2, "put", 0))])
    assert "nothing comes from nowhere" in judged(replaced(state, foreign), journal)
    first.outcome, first.seq = "absent", None
    assert judged(state, journal) == {"no means no (I8)"}
    first.outcome, first.seq = "acked", 99
    assert judged(state, journal) == {"per-client order (I7)", "an acknowledged seq is a commit (I1)"}
    first.seq = 10
    twice = state_of(state.tables, pa.concat_tables([state.log, state.log.slice(29)]))
    assert judged(twice, journal) == {"one history (I4)"}


def test_a_reader_finds_each_kind_of_wrong_view():
    _, journal, ops = written()
    cluster = types.SimpleNamespace(seed=1, journal=journal, trouble=None)
    member = types.SimpleNamespace(name="w1")

    def judged_view(found, seq):
        cluster.trouble = Trouble()
        Reader(1, cluster).judge(member, found, seq, 0)
        return {name for _, name, *_ in cluster.trouble.faults}

    def row(op):
        return {"t": op.table, "client": op.client, "op": op.number, "rows": op.rows, "dist": op.rows, "of_rows": op.rows,
                "total": int(rows.columns(op)["value"].sum())}  # fmt: skip

    upto = [row(op) for op in ops if op.seq <= 15]
    assert judged_view(upto, 15) == set()
    assert judged_view(upto[1:], 15) == {"acknowledged is there (I1)"}
    assert judged_view(upto, 14) == {"a view is a prefix of the log (I3)"}
    assert judged_view([{**upto[0], "rows": 2}, *upto[1:]], 15) == {"batches are whole, once (I2, I3)"}
    assert judged_view([*upto, {**upto[0], "client": 77}], 15) == {"nothing comes from nowhere"}
