"""Whole cycles on S3: SeaweedFS, ministack, and s3rver, which lacks put-if-absent and must be refused."""

import threading

import pyarrow as pa
import pytest

import harness

SCHEMA = pa.schema([("ts", pa.timestamp("us")), ("node", pa.int64()), ("n", pa.int64())])


@pytest.fixture(params=["seaweedfs", "ministack"])
def store(request):
    return request.getfixturevalue(request.param)


def batch(which, first, count):
    stamps = [(first + i) * 3_600_000_000 for i in range(count)]
    return pa.record_batch([pa.array(stamps, pa.timestamp("us")), [which] * count, range(first, first + count)], SCHEMA)


@pytest.mark.seconds(300)
def test_the_whole_cycle(store, tmp_path):
    with harness.Node(store.url("cycle"), tmp_path / "run", store.arguments()) as node:
        node.sql("CREATE TABLE t (ts TIMESTAMP NOT NULL, node BIGINT, n BIGINT) TIMESTAMP(ts) PARTITION BY MONTH")
        with node.flight() as client:
            harness.put(client, "t", [batch(0, first, 100) for first in range(0, 2000, 100)])
        many = pa.Table.from_batches([batch(1, 0, 2000)])
        with node.adbc() as connection, connection.cursor() as cursor:
            assert cursor.adbc_ingest("t", many, mode="append") == 2000
        answer = [(4000, 2000, 3998000)]
        query = "SELECT count(*), count(DISTINCT n), sum(n) FROM t"
        assert node.sql(query) == answer
        node.sql("OPTIMIZE TABLE t")
        assert node.sql(query) == answer
        assert node.sql("SELECT tail_rows, files FROM system.tables WHERE table_name = 't'") == [(0, 3)]
        node.sql("CHECKPOINT")
        node.sql("INSERT INTO t VALUES ('2024-01-01T00:00:00', 2, 2000)")
        answer = [(4001, 2001, 4000000)]
        node.restart()
        assert node.sql(query) == answer
        node.kill()
        node.start()
        assert node.sql(query) == answer
    # The settings come from the environment as well.
    done = harness.run("sql", "--store", store.url("cycle"), "--format", "csv", "-q", "-c", query, env=store.environment())
    assert done.stdout.split()[-1] == "4001,2001,4000000"


@pytest.mark.seconds(300)
def test_large_commits_go_to_segments(store, tmp_path):
    options = [*store.arguments(), "--commit-inline-bytes", "10KB", "--cache-size", "1MB"]
    with harness.Node(store.url("segments"), tmp_path / "run", options) as node:
        rows = 300_000
        table = pa.table({"n": pa.array(range(rows)), "s": pa.array([f"text {i}" for i in range(rows)])})
        with node.adbc() as connection, connection.cursor() as cursor:
            assert cursor.adbc_ingest("large", table.to_reader(max_chunksize=20_000), mode="create") == rows
        for _ in range(2):
            assert node.sql("SELECT count(*), count(DISTINCT s) FROM large") == [(rows, rows)]
            node.sql("OPTIMIZE TABLE large")
        node.restart()
        assert node.sql("SELECT count(*), count(DISTINCT s) FROM large") == [(rows, rows)]


@pytest.mark.seconds(300)
def test_two_nodes(store, tmp_path):
    url, arguments = store.url("pair"), store.arguments()
    with harness.Node(url, tmp_path / "a", arguments) as a, harness.Node(url, tmp_path / "b", arguments) as b:
        a.sql("CREATE TABLE t (ts TIMESTAMP NOT NULL, node BIGINT, n BIGINT) TIMESTAMP(ts)")
        there = "SELECT count(*) FROM system.tables WHERE table_name = 't'"
        harness.wait_until(lambda: b.sql(there) == [(1,)], 20, "the other node sees the table")
        failures = []

        def write(which, node):
            try:
                with node.flight() as client:
                    for first in range(0, 300, 10):
                        harness.put(client, "t", [batch(which, first, 10)])
            except Exception as error:  # noqa: BLE001
                failures.append(error)

        threads = [threading.Thread(target=write, args=pair) for pair in enumerate((a, b))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(200)
            assert not thread.is_alive()
        assert not failures, failures[0]
        query = "SELECT node, count(*), count(DISTINCT n) FROM t GROUP BY node ORDER BY node"
        for node in (a, b):
            harness.wait_until(lambda node=node: node.sql(query) == [(0, 300, 300), (1, 300, 300)], 20, "both see all rows")


def test_a_store_without_put_if_absent_is_refused(s3rver):
    done = harness.run("serve", "--store", s3rver.url("x"), *s3rver.arguments(), "--flight", "127.0.0.1:0", "--http", "off",
                       expect=3, seconds=60)  # fmt: skip
    assert "s3://test/x" in done.stderr and "absent" in done.stderr


def test_an_unreachable_store_is_named_in_time(tmp_path):
    port = harness.free_port()
    options = [x for o in (f"endpoint=http://127.0.0.1:{port}", "allow_http=true", "access_key_id=k", "secret_access_key=s")
               for x in ("--store-option", o)]  # fmt: skip
    done = harness.run("serve", "--store", "s3://nobody/x", *options, "--flight", "127.0.0.1:0", "--http", "off",
                       expect=1, seconds=120)  # fmt: skip
    assert "nobody" in done.stderr


def test_an_unknown_option_is_named():
    done = harness.run("serve", "--store", "s3://b/x", "--store-option", "nonsense=1", "--flight", "127.0.0.1:0", expect=None, seconds=30)
    assert done.returncode in (1, 2) and "nonsense" in done.stderr
