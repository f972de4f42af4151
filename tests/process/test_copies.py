"""Copies, backups, forks and verify, as the commands that people run."""

import json
import pathlib
import shutil
import time

import pytest

from harness import Node, run


@pytest.fixture
def rows(tmp_path):
    node = Node(tmp_path / "store")
    node.start()
    try:
        yield filled(node)
    finally:
        if node.process is not None:
            node.stop()


def filled(node):
    node.sql("CREATE TABLE t (ts TIMESTAMP, v BIGINT)")
    node.sql("INSERT INTO t SELECT to_timestamp(1704067200 + value), value FROM generate_series(1, 1000)")
    node.sql("OPTIMIZE TABLE t")
    node.sql("INSERT INTO t VALUES (TIMESTAMP '2024-01-02', 1001)")
    return node


def tables_of(store):
    done = run("sql", "--store", store, "-c", "SELECT count(*), sum(v) FROM t", "--format", "csv")
    return done.stdout.splitlines()[-1]


def tell(*args):
    return json.loads(run(*args, "--json").stdout)


def test_a_backup_is_taken_while_the_node_runs_and_grows_with_it(rows, tmp_path):
    target = tmp_path / "backup"
    first = tell("backup", "--from", rows.store, "--to", target)["copied"]
    assert (first["tables"], first["rows"]) == (1, 1001)
    rows.sql("INSERT INTO t VALUES (TIMESTAMP '2024-01-03', 1002)")
    second = tell("backup", "--from", rows.store, "--to", target)["copied"]
    assert (second["rows"], second["objects_fetched"], second["database"]) == (1002, 0, first["database"])
    report = tell("verify", "--store", target, "--full")
    assert report["problems"] == [] and report["rows_read"] == 1002
    assert tables_of(target) == "1002,502503"
    refused = run("backup", "--from", rows.store, "--to", rows.store, expect=None)
    assert refused.returncode == 1 and "no copy" in refused.stderr
    back = tell("copy", "--from", rows.store, "--to", tmp_path / "then", "--as-of", f"seq:{first['seq']}")["copied"]
    assert (back["rows"], back["seq"]) == (1001, first["seq"])


def test_a_fork_is_writable_at_once_and_can_be_detached(rows, tmp_path):
    fork = tmp_path / "fork"
    made = tell("fork", "--from", rows.store, "--to", fork)["copied"]
    assert made["rows"] == 1001 and made["objects_fetched"] == 0
    assert not list((fork / "data").rglob("*.parquet")), "nothing was copied"
    run("sql", "--store", fork, "-c", "INSERT INTO t VALUES (TIMESTAMP '2024-02-01', 5)")
    assert tables_of(fork) == "1002,501506"
    assert rows.sql("SELECT count(*) FROM t") == [(1001,)]
    assert "shared" in json.loads((fork / "origin.json").read_text())
    tell("fork", "--detach", fork)
    assert "shared" not in json.loads((fork / "origin.json").read_text())
    assert list((fork / "data").rglob("*.parquet"))
    assert tell("verify", "--store", fork, "--full")["problems"] == []
    # The running node has yet to hear of the commit.
    until = time.monotonic() + 20
    while rows.sql("SELECT count(*) FROM system.forks") != [(0,)]:
        assert time.monotonic() < until, "the parent keeps nothing for it any more"
        time.sleep(0.2)


def test_damage_is_named_with_the_rows_that_it_costs(rows, tmp_path):
    target = tmp_path / "copy"
    tell("copy", "--from", rows.store, "--to", target)
    [file] = list((target / "data").rglob("*.parquet"))
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    found = run("verify", "--store", target, "--full", expect=None)
    assert found.returncode == 4
    assert file.name in found.stdout and "1000 rows of table t" in found.stdout, found.stdout
    assert run("verify", "--store", target, expect=None).returncode == 0
    file.unlink()
    assert run("verify", "--store", target, expect=None).returncode == 4
    nothing = run("verify", "--store", tmp_path / "nowhere", expect=None)
    assert nothing.returncode == 1 and "no database" in nothing.stderr


def test_a_repair_keeps_what_is_whole_and_tells_what_is_not(rows, tmp_path):
    rows.sql("INSERT INTO t VALUES (TIMESTAMP '2024-01-03', 1002)")
    rows.stop()
    store = pathlib.Path(rows.store)
    whole = tell("repair", "--store", rows.store, "--dry-run")
    assert whole["to"] is None and whole["repaired"]["lost"] == []
    assert whole["repaired"]["kept"]["rows"] == 1002
    [file] = list((store / "data").rglob("*.parquet"))
    file.unlink()
    commits = sorted((store / "log").glob("*.commit"))
    last = bytearray(commits[-1].read_bytes())
    last[40] ^= 1
    commits[-1].chmod(0o644)
    commits[-1].write_bytes(last)

    def state():
        return {path: path.stat().st_size for path in store.rglob("*") if path.is_file()}

    before = state()
    told = run("repair", "--store", rows.store, "--dry-run").stdout
    assert file.name in told and "1000 rows of table t" in told and "nothing was written" in told, told
    assert commits[-1].name in told and "would keep 1 tables and 1 rows" in told, told
    target = tmp_path / "repaired"
    done = tell("repair", "--store", rows.store, "--to", target)["repaired"]
    assert done["kept"]["rows"] == 1 and done["lost"][0]["costs"][0]["rows"] == 1000
    assert done["lost_commits"]["first"] == done["lost_commits"]["last"] == done["kept"]["seq"] + 1
    assert state() == before, "the damaged one is as it was"
    assert tell("verify", "--store", target, "--full")["problems"] == []
    assert tables_of(target) == "1,1001"
    run("sql", "--store", target, "-c", "INSERT INTO t VALUES (TIMESTAMP '2024-02-01', 5)")
    again = run("repair", "--store", rows.store, "--to", target, expect=None)
    assert again.returncode == 1 and "written to" in again.stderr, again.stderr
    itself = run("repair", "--store", rows.store, "--to", rows.store, expect=None)
    assert itself.returncode == 1 and "is the damaged database" in itself.stderr
    nowhere = run("repair", "--store", rows.store, expect=None)
    assert nowhere.returncode == 2 and "--to" in nowhere.stderr


def test_moments_are_said_as_in_sql(rows, tmp_path):
    [(first,)] = rows.sql("SELECT commit_time FROM system.log WHERE seq = 1")
    for what in ("fork", "copy", "backup"):
        early = run(what, "--from", rows.store, "--to", tmp_path / "early", "--as-of", "2020-01-01", expect=1)
        assert "2020-01-01T00:00:00Z lies before" in early.stderr, early
        assert f"begins at seq 1 ({first:%Y-%m-%dT%H:%M:%S}" in early.stderr, early
        assert "premature" not in run(what, "--from", rows.store, "--to", tmp_path / "x", "--as-of", "yesterday", expect=1).stderr
        # Later than all there is: the newest.
        assert tell(what, "--from", rows.store, "--to", tmp_path / what, "--as-of", "2100-01-01")["copied"]["rows"] == 1001


def test_a_fork_says_how_it_is_released(rows, tmp_path):
    fork = tmp_path / "fork"
    told = run("fork", "--from", rows.store, "--to", fork).stdout
    deadline = time.monotonic() + 20
    while not (forks := rows.sql("SELECT fork_id FROM system.forks")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    [(fork_id,)] = forks
    command = f"tandem fork --from {rows.store} --release {fork_id}"
    assert command in told, told
    shutil.rmtree(fork)
    run(*command.split()[1:])


def test_a_fork_that_was_deleted_is_released(rows, tmp_path):
    fork = tmp_path / "fork"
    tell("fork", "--from", rows.store, "--to", fork)
    until = time.monotonic() + 20
    while not (forks := rows.sql("SELECT fork_id, store FROM system.forks")):
        assert time.monotonic() < until
        time.sleep(0.2)
    [(fork_id, store)] = forks
    assert store.endswith(str(fork)), store
    there = run("fork", "--from", rows.store, "--release", fork_id, expect=None)
    assert there.returncode == 1 and "is there" in there.stderr, there.stderr
    shutil.rmtree(fork)
    assert tell("fork", "--from", rows.store, "--release", fork_id)["released"] == fork_id
    until = time.monotonic() + 20
    while rows.sql("SELECT count(*) FROM system.forks") != [(0,)]:
        assert time.monotonic() < until, "the parent keeps nothing for it any more"
        time.sleep(0.2)
    unknown = run("fork", "--from", rows.store, "--release", fork_id, expect=None)
    assert unknown.returncode == 1 and "system.forks" in unknown.stderr


def test_gc_does_what_it_shows_and_touches_nothing_young(rows):
    rows.sql("ALTER DATABASE SET (history_window = '1ms')")
    for n in range(4):
        rows.sql(f"INSERT INTO t VALUES (TIMESTAMP '2024-03-01', {n})")
        rows.sql("OPTIMIZE TABLE t")
        rows.sql("CHECKPOINT")
    rows.stop()
    store = pathlib.Path(rows.store)

    def objects():
        return {path for path in store.rglob("*") if path.is_file() and "nodes" not in path.parts}

    before = objects()
    told = json.loads(run("gc", "--store", rows.store, "--dry-run", "--json").stdout)
    assert objects() == before
    done = json.loads(run("gc", "--store", rows.store, "--json").stdout)
    # History is cut. What it sets free was made less than six hours ago, and somebody might still be about to name it.
    assert told["garbage"] == done["garbage"] == [] and done["deleted_objects"] == 0
    assert before <= objects()
    assert done["history_start"] == told["history_start"] > 0
    gone = run("sql", "--store", rows.store, "-c", "SELECT * FROM t VERSION AS OF 2", expect=None)
    assert gone.returncode == 1 and "not kept any more" in gone.stderr, gone.stderr
    assert tables_of(rows.store) == "1005,501507"
