"""Writes that commit once, and reads that insist, as ADBC and plain Flight ask for them."""

import json
import threading
import time

import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight as fl
import pytest

from harness import Node, call_options, put, ticket

HEADER = "adbc.flight.sql.rpc.call_header."


def rows(first, count):
    return pa.table({"id": pa.array(range(first, first + count), pa.int64()), "name": [f"n{i}" for i in range(first, first + count)]})


def fetch(cursor, query):
    cursor.execute(query)
    return cursor.fetchall()


@pytest.fixture
def table(node, request):
    """An empty table; its name."""
    name = request.node.name.split("[")[0].removeprefix("test_")
    node.sql(f"CREATE TABLE {name} (id BIGINT, name VARCHAR)")
    return name


def under(node, token):
    """A cursor, on a connection of its own, whose next write has this token."""
    connection = node.adbc()
    cursor = connection.cursor()
    cursor.adbc_statement.set_options(**{HEADER + "tandem-token": token})
    return connection, cursor


def trailers(error):
    return {bytes(k).decode() if isinstance(k, bytes) else k: bytes(v).decode() for k, v in error.details}


def test_a_statement_runs_once_per_token(node, table):
    for n, fresh in ((1, True), (1, False), (2, None)):
        connection, cursor = under(node, f"{table} a")
        with connection, cursor:
            if fresh is None:
                with pytest.raises(adbc_driver_manager.Error, match="another write") as caught:
                    cursor.execute(f"INSERT INTO {table} VALUES ({n}, 'x')")
                assert trailers(caught.value)["tandem-error"] == "token-reused"
            else:
                cursor.execute(f"INSERT INTO {table} VALUES ({n}, 'x')")
                assert cursor.rowcount == 1
    assert node.sql(f"SELECT id FROM {table}") == [(1,)]


def test_parameters_belong_to_the_write(node, table):
    for _ in range(2):
        connection, cursor = under(node, f"{table} a")
        with connection, cursor:
            cursor.executemany(f"INSERT INTO {table} VALUES (?, ?)", [(i, f"n{i}") for i in range(50)])
    connection, cursor = under(node, f"{table} a")
    with connection, cursor, pytest.raises(adbc_driver_manager.Error, match="another write"):
        cursor.executemany(f"INSERT INTO {table} VALUES (?, ?)", [(i, f"n{i}") for i in range(49)])
    assert node.sql(f"SELECT count(*), count(DISTINCT id) FROM {table}") == [(50, 50)]


def test_a_stream_is_the_same_however_it_is_cut(node):
    whole = rows(0, 1000)
    cuts = [whole, pa.concat_tables([whole.slice(0, 10), whole.slice(10)]), whole.select(["name", "id"])]
    cuts.append(whole.set_column(1, "name", whole["name"].dictionary_encode()))
    for data in cuts:
        connection, cursor = under(node, "ingest cut")
        with connection, cursor:
            assert cursor.adbc_ingest("cut", data, mode="create") == 1000
    connection, cursor = under(node, "ingest cut")
    with connection, cursor, pytest.raises(adbc_driver_manager.Error, match="another write"):
        cursor.adbc_ingest("cut", rows(1, 1000), mode="create")
    assert node.sql("SELECT count(*), count(DISTINCT id) FROM cut") == [(1000, 1000)]


def test_the_session_option_is_used_up_by_one_write(cursor, table):
    cursor.execute(f"SET tandem.token = '{table} s'")
    assert fetch(cursor, f"SELECT count(*) FROM {table}") == [(0,)]
    for _ in range(2):
        cursor.execute(f"SET tandem.token = '{table} s'")
        cursor.execute(f"INSERT INTO {table} VALUES (1, 'x')")
    assert fetch(cursor, f"SELECT count(*) FROM {table}") == [(1,)]
    cursor.execute(f"INSERT INTO {table} VALUES (1, 'x')")
    assert fetch(cursor, f"SELECT count(*) FROM {table}") == [(2,)]


def test_batches_of_a_put_are_numbered(node, table):
    batches = rows(0, 40).to_batches(max_chunksize=10)
    with node.flight() as client:
        first = put(client, table, batches[:2], {"tandem-token": f"{table} p"})
        assert [a["duplicate"] for a in first] == [False, False]
        again = put(client, table, batches, {"tandem-token": f"{table} p"})
        assert [a["duplicate"] for a in again] == [True, True, False, False]
        assert [a["seq"] for a in again[:2]] == [a["seq"] for a in first]
        own = json.dumps({"token": f"{table} own"}).encode()
        assert put(client, table, [batches[0]], metadata=own)[0]["duplicate"] is False
        assert put(client, table, [batches[0]], metadata=own)[0]["duplicate"] is True
        with pytest.raises((fl.FlightError, pa.ArrowException), match="another write"):
            put(client, table, [batches[1]], metadata=own)
    assert node.sql(f"SELECT count(*), count(DISTINCT id) FROM {table}") == [(50, 40)]


def test_a_token_holds_on_every_node_of_the_store(node, table, tmp_path):
    with Node(node.store, tmp_path / "second") as second:
        for where in (node, second, node):
            connection, cursor = under(where, f"{table} two")
            with connection, cursor:
                cursor.execute("SET tandem.read = latest")
                cursor.execute(f"INSERT INTO {table} VALUES (7, 'seven')")
        assert node.sql(f"SELECT count(*) FROM {table}") == [(1,)]


def test_a_table_may_take_equal_writes_for_one(node, table):
    node.sql(f"ALTER TABLE {table} SET (dedup_window = '10m')")
    batch = rows(0, 3).to_batches()
    with node.flight() as client:
        assert put(client, table, batch)[0]["duplicate"] is False
        assert put(client, table, batch)[0]["duplicate"] is True
    assert node.sql(f"SELECT count(*) FROM {table}") == [(3,)]


def test_a_missed_quorum_names_the_commit_and_leaves_the_row(node, table):
    with node.adbc() as connection, connection.cursor() as cursor:
        cursor.execute("SET tandem.ack = 'quorum(5)'")
        cursor.execute("SET tandem.ack_timeout = 200ms")
        with pytest.raises(adbc_driver_manager.Error, match="committed at .* of 5") as caught:
            cursor.execute(f"INSERT INTO {table} VALUES (1, 'x')")
        details = trailers(caught.value)
        assert details["tandem-error"] == "quorum-timeout" and int(details["tandem-seq"]) > 0
        cursor.execute("RESET tandem.ack")
        assert fetch(cursor, f"SELECT count(*) FROM {table}") == [(1,)]
        with pytest.raises(adbc_driver_manager.Error, match="local"):
            cursor.execute("SET tandem.ack = 'local'")


def test_a_read_waits_for_the_seq_that_it_demands(node, table):
    with node.flight() as client:
        seq = put(client, table, rows(0, 1).to_batches())[0]["seq"]
        demand = ticket(table=table, min_seq=seq + 1)
        with pytest.raises(fl.FlightTimedOutError, match=f"seq {seq + 1}"):
            client.do_get(demand, call_options(seconds=0.5)).read_all()
        late = threading.Timer(0.3, lambda: node.sql(f"INSERT INTO {table} VALUES (2, 'b')"))
        late.start()
        started = time.monotonic()
        assert client.do_get(demand, call_options(seconds=30)).read_all().num_rows == 2
        assert time.monotonic() - started >= 0.2
        late.join()
        with pytest.raises(pa.ArrowInvalid, match="tandem-min-seq"):
            client.do_get(ticket(table=table), call_options({"tandem-min-seq": "soon"})).read_all()


def test_any_node_gives_the_newest_state_when_asked(node, table, tmp_path):
    with Node(node.store, tmp_path / "second") as second:
        with second.flight() as reader, node.flight() as writer:
            for n in range(20):
                put(writer, table, rows(n, 1).to_batches())
                latest = call_options({"tandem-read": "latest"})
                got = reader.do_get(ticket(sql=f"SELECT count(*) AS n FROM {table}"), latest).read_all()
                assert got.to_pylist() == [{"n": n + 1}]


def test_nodes_are_listed(node):
    columns = "node_id, role, epoch, applied_seq, lag_commits, version, last_heartbeat"
    [row] = node.sql(f"SELECT {columns} FROM system.nodes WHERE node_id = '{node.ready['node_id']}'")
    assert row[1] == "writer" and row[3] >= 0
