"""Copies, backups, forks and verify, as the commands that people run."""

import json
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
