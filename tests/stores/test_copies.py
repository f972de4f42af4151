"""Copies, forks and what they are checked by, between an object store and another place."""

import json

import pytest

import harness

COUNT = "SELECT count(*), sum(v) FROM t"


@pytest.fixture(params=["seaweedfs", "ministack"])
def store(request):
    return request.getfixturevalue(request.param)


@pytest.mark.seconds(300)
def test_there_and_back_again(store, tmp_path):
    """A backup to a directory, a database from it, a fork beside its parent: each with the rows of its moment."""
    env = store.environment()

    def tell(*arguments, expect=0):
        return json.loads(harness.run(*arguments, "--json", env=env, expect=expect).stdout)

    def counted(where):
        done = harness.run("sql", "--store", where, "--format", "csv", "-q", "-c", COUNT, env=env)
        return done.stdout.split()[-1]

    url = store.url("origin")
    with harness.Node(url, tmp_path / "run", store.arguments()) as node:
        node.sql("CREATE TABLE t (ts TIMESTAMP, v BIGINT)")
        node.sql("INSERT INTO t SELECT to_timestamp(1704067200 + value), value FROM generate_series(1, 1000)")
        node.sql("OPTIMIZE TABLE t")
        node.sql("INSERT INTO t VALUES (TIMESTAMP '2024-01-02', 1001)")
        backup = tmp_path / "backup"
        first = tell("backup", "--from", url, "--to", backup)["copied"]
        assert first["rows"] == 1001
        fork = store.url("fork")
        made = tell("fork", "--from", url, "--to", fork, "--as-of", f"seq:{first['seq'] - 1}")["copied"]
        assert (made["rows"], made["objects_fetched"]) == (1000, 0)
        node.sql("DELETE FROM t WHERE v <= 500")
        second = tell("backup", "--from", url, "--to", backup)["copied"]
        assert second["seq"] > first["seq"]
        harness.run("sql", "--store", fork, "-c", "INSERT INTO t VALUES (TIMESTAMP '2024-02-01', 5)", env=env)
        assert node.sql(COUNT) == [(501, 376251)]
        assert (counted(backup), counted(fork)) == ("501,376251", "1001,500505")
        tell("fork", "--detach", fork)
        harness.wait_until(lambda: node.sql("SELECT count(*) FROM system.forks") == [(0,)], 20, "the parent lets go")
    then = store.url("then")
    assert tell("copy", "--from", url, "--to", then, "--as-of", f"seq:{first['seq']}")["copied"]["rows"] == 1001
    assert counted(then) == "1001,501501"
    for place in (url, fork, then, backup):
        assert tell("verify", "--store", place, "--full")["problems"] == [], place
