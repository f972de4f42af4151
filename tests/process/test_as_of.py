"""Looking at the past and bringing it back, over restarts, compaction, several nodes, and from the command line."""

import json
import time

import adbc_driver_manager
import pytest

import harness


def node(tmp_path, name, *options):
    return harness.Node(tmp_path / "store", tmp_path / name, options=["--node-id", name, *options])


@pytest.fixture
def one(tmp_path):
    with node(tmp_path, "one") as running:
        yield running


def head(each):
    return each.sql("SELECT max(seq) FROM system.log")[0][0]


def ask(each, sql):
    return [tuple(row) for row in each.sql(sql)]


def grown(each):
    """A table that is written, compacted, changed and renamed: {seq: (query, rows)}."""
    states = {}

    def did(sql, query, rows):
        each.sql(sql)
        states[head(each)] = (query, rows)

    did("CREATE TABLE t (ts TIMESTAMP, n BIGINT) TIMESTAMP(ts)", "SELECT n FROM t{} ORDER BY n", [])
    did("INSERT INTO t VALUES ('2024-01-01', 1), ('2024-01-02', 2)", "SELECT n FROM t{} ORDER BY n", [(1,), (2,)])
    did("OPTIMIZE TABLE t", "SELECT n FROM t{} ORDER BY n", [(1,), (2,)])
    did("INSERT INTO t VALUES ('2024-01-01', 3)", "SELECT n FROM t{} ORDER BY n", [(1,), (2,), (3,)])
    did("CHECKPOINT", "SELECT n FROM t{} ORDER BY n", [(1,), (2,), (3,)])
    did("ALTER TABLE t RENAME COLUMN n TO m", "SELECT m FROM t{} ORDER BY m", [(1,), (2,), (3,)])
    did("OPTIMIZE TABLE t", "SELECT m FROM t{} ORDER BY m", [(1,), (2,), (3,)])
    did("ALTER TABLE t DROP PARTITION LIST '2024-01-02'", "SELECT m FROM t{} ORDER BY m", [(1,), (3,)])
    did("TRUNCATE TABLE t", "SELECT m FROM t{} ORDER BY m", [])
    did("INSERT INTO t VALUES ('2024-01-05', 9)", "SELECT m FROM t{} ORDER BY m", [(9,)])
    did("ALTER TABLE t RENAME TO u", "SELECT m FROM u{} ORDER BY m", [(9,)])
    return states


def check(each, states):
    for seq, (query, rows) in states.items():
        assert ask(each, query.format(f" VERSION AS OF {seq}")) == rows, seq
        shell = each.tandem("sql", "--as-of", seq, "--json", "-c", query.format(""))
        assert [tuple(row.values()) for row in json.loads(shell.stdout)] == rows, seq


def test_every_state_is_read_on_every_node_and_after_restarts(tmp_path, one):
    states = grown(one)
    check(one, states)
    with node(tmp_path, "two", "--role", "replica") as two:
        check(two, states)
        one.kill()
        one.start()
        check(one, states)
        check(two, states)


def test_times_and_seqs_go_together(one):
    one.sql("CREATE TABLE t (n BIGINT)")
    for n in range(30):
        one.sql(f"INSERT INTO t VALUES ({n})")
    log = ask(one, "SELECT seq, commit_time FROM system.log WHERE kind = 'insert' ORDER BY seq")
    for seq, at in log[::7]:
        text = f"{at.isoformat()}Z"
        by_time = ask(one, f"SELECT count(*) FROM t FOR SYSTEM_TIME AS OF TIMESTAMP '{text}'")
        assert by_time == ask(one, f"SELECT count(*) FROM t VERSION AS OF {seq}")
        assert ask(one, f"SELECT max(seq) FROM system.log WHERE commit_time <= TIMESTAMP '{text}'") == [(seq,)]
        later = [s for s, t in log if t > at]
        assert ask(one, f"SELECT count(*) FROM system.log WHERE commit_time > TIMESTAMP '{text}' AND kind = 'insert'") == [(len(later),)]


def test_a_dropped_table_comes_back(one):
    one.sql("CREATE TABLE t (ts TIMESTAMP, n BIGINT) TIMESTAMP(ts)")
    one.sql("INSERT INTO t VALUES ('2024-01-01', 1), ('2024-01-02', 2)")
    one.sql("OPTIMIZE TABLE t")
    one.sql("INSERT INTO t VALUES ('2024-01-03', 3)")
    one.sql("DROP TABLE t")
    one.sql("CREATE TABLE other (n BIGINT)")
    one.restart()
    one.sql("UNDROP TABLE t")
    assert ask(one, "SELECT n FROM t ORDER BY n") == [(1,), (2,), (3,)]
    one.sql("INSERT INTO t VALUES ('2024-01-04', 4)")
    one.sql("OPTIMIZE TABLE t")
    one.restart()
    assert ask(one, "SELECT n FROM t ORDER BY n") == [(1,), (2,), (3,), (4,)]
    with pytest.raises(adbc_driver_manager.Error, match="no table never was dropped"):
        one.sql("UNDROP TABLE never")


def test_a_database_is_restored_by_one_commit(tmp_path, one):
    for sql in (
        "CREATE TABLE kept (n BIGINT)",
        "INSERT INTO kept VALUES (1)",
        "CREATE TABLE t (n BIGINT)",
        "INSERT INTO t VALUES (1), (2)",
        "CREATE TABLE dropped (n BIGINT)",
        "INSERT INTO dropped VALUES (7)",
    ):
        one.sql(sql)
    then = head(one)
    [(at,)] = one.sql(f"SELECT commit_time FROM system.log WHERE seq = {then}")
    for sql in (
        "INSERT INTO t VALUES (3)",
        "DROP TABLE dropped",
        "CREATE TABLE created (n BIGINT)",
        "ALTER DATABASE SET (checkpoint_commits = 77)",
        "OPTIMIZE TABLE kept",
    ):
        one.sql(sql)
    before = head(one)

    plan = one.tandem("restore", "--as-of", f"{at.isoformat()}Z", "--dry-run", "--json")
    plan = json.loads(plan.stdout)
    assert plan["seq"] is None and plan["dry_run"] is True
    changes = {(c["kind"], c["name"]): (c["action"], c["rows_now"], c["rows_then"]) for c in plan["changes"]}
    assert changes == {
        ("table", "t"): ("restore", 3, 2),
        ("table", "dropped"): ("bring back", None, 1),
        ("table", "created"): ("drop", 0, None),
        ("setting", "checkpoint_commits"): ("reset", None, None),
    }
    assert head(one) == before, "nothing was changed"

    done = one.tandem("restore", "--as-of", f"seq:{then}")
    assert "restore table t: 3 rows now, 2 then" in done.stdout and f"seq:{before}" in done.stderr
    assert head(one) == before + 1
    assert ask(one, "SELECT (SELECT sum(n) FROM t) AS a, (SELECT sum(n) FROM dropped) AS b, (SELECT sum(n) FROM kept) AS c") == [(3, 7, 1)]
    with pytest.raises(adbc_driver_manager.Error, match="created"):
        one.sql("SELECT * FROM created")
    again = json.loads(one.tandem("restore", "--as-of", f"seq:{then}", "--json").stdout)
    assert (again["changes"], again["seq"]) == ([], None)

    # One table, and back again; then without a server.
    one.tandem("restore", "--as-of", before, "--table", "t")
    assert ask(one, "SELECT sum(n) FROM t") == [(6,)]
    one.stop()
    done = harness.run("restore", "--store", tmp_path / "store", "--as-of", then, "--table", "public.t", "--json")
    assert json.loads(done.stdout)["seq"] > before
    one.start()
    assert ask(one, "SELECT sum(n) FROM t") == [(3,)]
    failed = one.tandem("restore", "--as-of", "seq:1", "--table", "t", expect=1)
    assert "did not exist at seq 1" in failed.stderr
    assert one.tandem("restore", "--as-of", "yesterday", expect=1).stderr.count("yesterday")


def test_a_read_of_the_future_waits_for_another_nodes_commit(tmp_path, one):
    one.sql("CREATE TABLE t (n BIGINT)")
    seq = head(one)
    with node(tmp_path, "two") as two, two.flight() as client:
        two.sql("INSERT INTO t VALUES (1)")
        reading = client.do_get(harness.ticket(table="t", as_of={"seq": seq + 1}), harness.call_options(seconds=20))
        assert reading.read_all().num_rows == 1
        started = time.monotonic()
        with pytest.raises(Exception, match="has applied seq"):
            client.do_get(harness.ticket(table="t", as_of={"seq": seq + 50}), harness.call_options(seconds=2)).read_all()
        assert time.monotonic() - started < 10


def test_a_time_before_the_first_commit_restores_nothing(one):
    """A mistyped year would drop every table."""
    one.sql("CREATE TABLE t (n BIGINT)")
    one.sql("INSERT INTO t VALUES (1)")
    before = head(one)
    [(first,)] = one.sql("SELECT commit_time FROM system.log WHERE seq = 1")
    said = f"seq 1 of {first:%Y-%m-%dT%H:%M:%S}"
    for arguments in (["--dry-run"], [], ["--table", "t"], ["--table", "t", "--dry-run"]):
        failed = one.tandem("restore", "--as-of", "2020-01-01", *arguments, expect=1)
        assert "before the first commit" in failed.stderr and said in failed.stderr, failed
        assert "t" not in failed.stdout, "no plan"
    for sql in ("RESTORE DATABASE TO TIMESTAMP '2020-01-01'", "EXPLAIN RESTORE DATABASE TO TIMESTAMP '2020-01-01'"):
        with pytest.raises(adbc_driver_manager.Error, match="before the first commit"):
            one.sql(sql)
    assert head(one) == before and ask(one, "SELECT n FROM t") == [(1,)]
