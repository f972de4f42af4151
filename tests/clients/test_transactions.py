"""Transactions over ADBC, over SQL in a session, and in the shell."""

import contextlib

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight as fl
import pytest

import harness


@pytest.fixture
def connect(node):
    """Makes ADBC connections as Python's DB-API has them: in a transaction."""
    with contextlib.ExitStack() as opened:

        def make(**options):
            return opened.enter_context(adbc_driver_flightsql.dbapi.connect(node.url, db_kwargs=options or None))

        yield make


@pytest.fixture
def table(node, request):
    """A table of the test's own: its name."""
    name = request.node.name.split("[")[0].removeprefix("test_")
    node.sql(f"CREATE TABLE {name} (ts TIMESTAMP(3), v BIGINT)")
    node.sql(f"INSERT INTO {name} VALUES ('2024-01-01', 1), ('2024-01-02', 2)")
    return name


def fetch(connection, query):
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def run(connection, statement, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def values(at, name):
    found = at.sql(f"SELECT v FROM {name} ORDER BY v") if isinstance(at, harness.Node) else fetch(
        at, f"SELECT v FROM {name} ORDER BY v"
    )
    return [v for (v,) in found]


def head(node):
    return node.sql("SELECT max(seq) FROM system.log")[0][0]


def test_many_statements_are_one_commit(node, connect, table):
    connection = connect()
    before = head(node)
    run(connection, f"INSERT INTO {table} VALUES ('2024-01-03', 3)")
    run(connection, f"UPDATE {table} SET v = v + 10 WHERE v >= 2")
    run(connection, f"CREATE TABLE {table}_copy AS SELECT * FROM {table}")
    run(connection, f"ALTER TABLE {table}_copy ADD COLUMN w BIGINT")
    run(connection, f"UPDATE {table}_copy SET w = v * 2")
    run(connection, f"DELETE FROM {table} WHERE v = 1")
    assert values(connection, table) == [12, 13]
    assert fetch(connection, f"SELECT v, w FROM {table}_copy ORDER BY v") == [(1, 2), (12, 24), (13, 26)]
    assert values(node, table) == [1, 2], "nobody else sees any of it"
    assert head(node) == before
    connection.commit()
    assert values(node, table) == [12, 13]
    assert node.sql(f"SELECT v, w FROM {table}_copy ORDER BY v") == [(1, 2), (12, 24), (13, 26)]
    assert head(node) == before + 1


def test_rollback_and_the_end_of_a_connection_undo(node, connect, table):
    connection = connect()
    run(connection, f"INSERT INTO {table} VALUES ('2024-01-03', 3)")
    connection.rollback()
    assert values(connection, table) == [1, 2]
    run(connection, f"INSERT INTO {table} VALUES ('2024-01-04', 4)")
    connection.commit()
    run(connection, f"INSERT INTO {table} VALUES ('2024-01-05', 5)")
    connection.close()
    assert values(node, table) == [1, 2, 4]
    harness.wait_until(
        lambda: "rolled back with its writes uncommitted" in node.log.read_text(), 10, "the log warns of what was lost"
    )


def test_one_cursor_and_one_statement_over_several_transactions(node, connect, table):
    connection = connect()
    with connection.cursor() as cursor:
        # The driver keeps the prepared statement of an equal text.
        for v in [10, 11, 12]:
            cursor.execute(f"INSERT INTO {table} VALUES ('2024-02-01', ?)", (v,))
            if v == 11:
                connection.rollback()
            else:
                connection.commit()
        query = f"SELECT count(*) FROM {table}"
        for expected in [4, 4]:
            cursor.execute(query)
            assert cursor.fetchall() == [(expected,)]
            connection.commit()
        cursor.executemany(f"INSERT INTO {table} VALUES ('2024-03-01', ?)", [(n,) for n in range(100, 200)])
        connection.rollback()
    assert values(node, table) == [1, 2, 10, 12]


def test_ingestion_is_part_of_the_sessions_transaction(node, connect, table):
    rows = pa.table({"ts": pa.array([0, 1], pa.timestamp("ms")), "v": [7, 8]})
    connection = connect()
    run(connection, f"INSERT INTO {table} VALUES ('2024-01-03', 3)")
    with connection.cursor() as cursor:
        assert cursor.adbc_ingest(table, rows, mode="append") == 2
        cursor.adbc_ingest(f"{table}_new", rows, mode="create")
        cursor.adbc_ingest(f"{table}_new", rows, mode="append")
        with pytest.raises(adbc_driver_manager.Error, match="exists"):
            cursor.adbc_ingest(f"{table}_new", rows, mode="create")
    assert values(connection, table) == [1, 2, 3, 7, 8]
    assert values(connection, f"{table}_new") == [7, 7, 8, 8]
    assert values(node, table) == [1, 2]
    connection.rollback()
    assert values(node, table) == [1, 2]
    with connection.cursor() as cursor:
        cursor.adbc_ingest(table, rows, mode="append")
        cursor.adbc_ingest(f"{table}_new", rows, mode="replace")
    connection.commit()
    assert values(node, table) == [1, 2, 7, 8]
    assert values(node, f"{table}_new") == [7, 8]


def test_a_large_ingestion_stays_out_of_the_memory(node, connect):
    count = 2_000_000
    rows = pa.table({
        "ts": pa.array(range(count), pa.timestamp("us")),
        "id": pa.array(range(count), pa.int64()),
        "text": pa.array([f"text {n}" for n in range(count)]),
    })  # fmt: skip
    connection = connect()
    run(connection, "CREATE TABLE large (ts TIMESTAMP(6), id BIGINT, text TEXT)")
    with connection.cursor() as cursor:
        # The driver sends each batch in one message.
        rows = pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches(max_chunksize=100_000))
        assert cursor.adbc_ingest("large", rows, mode="append") == count
    run(connection, "DELETE FROM large WHERE id % 2 = 1")
    total = (count // 2, sum(range(0, count, 2)))
    assert fetch(connection, "SELECT count(*), sum(id) FROM large") == [total]
    with pytest.raises(adbc_driver_manager.Error):
        node.sql("SELECT * FROM large")
    connection.commit()
    assert node.sql("SELECT count(*), sum(id) FROM large") == [total]


def test_conflicts_are_told_from_other_errors(node, connect, table):
    first, second = connect(), connect()
    evaluated = f"UPDATE {table} SET v = CAST(power(v, 2) AS BIGINT) WHERE v = 2"
    for connection in [first, second]:
        run(connection, evaluated)
    first.commit()
    with pytest.raises(adbc_driver_manager.Error, match=f"table {table} was changed.*run the transaction again"):
        second.commit()
    # This driver begins no other transaction after that.
    second = connect()
    assert values(second, table) == [1, 4]
    for connection in [first, second]:
        run(connection, f"INSERT INTO {table} VALUES ('2024-01-03', 3)")
        run(connection, f"UPDATE {table} SET v = v + 1")
    first.commit()
    second.commit()
    assert values(node, table) == [3, 4, 5, 6]


def test_statements_that_fail_leave_the_transaction_open(node, connect, table):
    connection = connect()
    run(connection, f"INSERT INTO {table} VALUES ('2024-01-03', 3)")
    for wrong in [f"INSERT INTO {table} VALUES ('x', 4)", "SELECT * FROM nothing", "CHECKPOINT", "COMMIT"]:
        with pytest.raises(adbc_driver_manager.Error):
            run(connection, wrong)
    connection.commit()
    assert values(node, table) == [1, 2, 3]


def test_what_the_driver_is_told(node, connect):
    info = connect().adbc_get_info()
    assert info["vendor_name"] == "TandemDB"
    with node.flight() as client:
        names = {a.type for a in client.list_actions()}
    assert {"BeginTransaction", "EndTransaction", "BeginSavepoint", "EndSavepoint"} <= names


def test_transactions_by_sql_in_a_session(node, table):
    with node.adbc() as connection:
        for statement in [
            "BEGIN ISOLATION LEVEL SNAPSHOT",
            f"INSERT INTO {table} VALUES ('2024-01-03', 3)",
            "SAVEPOINT s",
            f"DELETE FROM {table}",
            "ROLLBACK TO s",
        ]:
            run(connection, statement)
        assert values(connection, table) == [1, 2, 3]
        with connection.cursor() as cursor:
            rows = pa.table({"ts": pa.array([0], pa.timestamp("ms")), "v": [7]})
            cursor.adbc_ingest(table, rows, mode="append")
        assert values(node, table) == [1, 2]
        run(connection, "COMMIT")
        assert values(node, table) == [1, 2, 3, 7]
        run(connection, "BEGIN ISOLATION LEVEL SERIALIZABLE")
        assert values(connection, table) == [1, 2, 3, 7]
        run(connection, "CREATE TABLE by_sql_only (n BIGINT)")
        node.sql(f"INSERT INTO {table} VALUES ('2024-01-04', 4)")
        with pytest.raises(adbc_driver_manager.Error, match="again"):
            run(connection, "COMMIT")
        run(connection, f"INSERT INTO {table} VALUES ('2024-01-05', 5)")
    assert values(node, table) == [1, 2, 3, 4, 5, 7]


def test_rows_that_would_be_committed_by_themselves_are_refused(node, table):
    batch = pa.record_batch([pa.array([0], pa.timestamp("ms")), pa.array([7], pa.int64())], ["ts", "v"])
    query = lambda sql: fl.FlightDescriptor.for_command(statement(sql))  # noqa: E731
    with node.flight() as client:
        client.get_flight_info(query("BEGIN"))
        with pytest.raises(pa.ArrowException, match="transaction open"):
            harness.put(client, table, [batch])
        client.get_flight_info(query("ROLLBACK"))
        harness.put(client, table, [batch])
    assert values(node, table) == [1, 2, 7]


def statement(sql):
    """`CommandStatementQuery` in an `Any`."""

    def field(number, body):
        assert len(body) < 128
        return bytes([number << 3 | 2, len(body)]) + body

    url = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
    return field(1, url) + field(2, field(1, sql.encode()))


def test_a_session_that_is_left_loses_its_transaction(node, table):
    with node.flight() as client:
        client.get_flight_info(fl.FlightDescriptor.for_command(statement("BEGIN")))
        client.get_flight_info(fl.FlightDescriptor.for_command(statement(f"DELETE FROM {table}")))
    assert values(node, table) == [1, 2]


def test_the_shell(node, table, tmp_path):
    commands = ["BEGIN", f"INSERT INTO {table} VALUES ('2024-01-03', 3)", f"SELECT count(*) AS n FROM {table}", "COMMIT"]
    arguments = [part for command in commands for part in ("-c", command)]
    done = node.tandem("sql", *arguments)
    assert "3" in done.stdout and "in the transaction" in done.stderr, done
    assert values(node, table) == [1, 2, 3]
    done = node.tandem("sql", "-c", f"BEGIN; DELETE FROM {table}")
    assert "rolled back" in done.stderr, done.stderr
    assert values(node, table) == [1, 2, 3]
    store = tmp_path / "store"
    script = "CREATE TABLE t (n BIGINT); BEGIN; INSERT INTO t VALUES (1); INSERT INTO t SELECT n + 1 FROM t; COMMIT;"
    harness.run("sql", "--store", store, "-c", script)
    done = harness.run("sql", "--store", store, "-c", "SELECT sum(n) FROM t", "--format", "csv")
    assert done.stdout.split() == ["sum(t.n)", "3"], done.stdout


def test_an_idle_transaction_is_rolled_back(tmp_path):
    with harness.Node(tmp_path / "store", tmp_path / "run", options=["--transaction-timeout", "1s"]) as node:
        node.sql("CREATE TABLE t (n BIGINT)")
        with adbc_driver_flightsql.dbapi.connect(node.url) as connection:
            assert fetch(connection, "SELECT count(*) FROM t") == [(0,)]
            run(connection, "INSERT INTO t VALUES (1)")
            harness.wait_until(
                lambda: "rolled back with its writes uncommitted" in node.log.read_text(), 20, "the transaction expires"
            )
            for _ in range(2):
                with pytest.raises(adbc_driver_manager.Error, match="idle for longer than 1s"):
                    fetch(connection, "SELECT count(*) FROM t")
            with pytest.raises(adbc_driver_manager.Error, match="idle for longer than 1s"):
                connection.commit()
        with adbc_driver_flightsql.dbapi.connect(node.url) as connection:
            run(connection, "INSERT INTO t VALUES (1)")
            harness.wait_until(lambda: node.log.read_text().count("uncommitted") == 2, 20, "the transaction expires")
            connection.rollback()
            run(connection, "INSERT INTO t VALUES (2)")
            connection.commit()
        assert node.sql("SELECT n FROM t") == [(2,)]


def test_a_commit_under_a_token_is_repeated_on_another_node(tmp_path):
    store = tmp_path / "store"
    with harness.Node(store, tmp_path / "a") as a, harness.Node(store, tmp_path / "b") as b:
        a.sql("CREATE TABLE t (n BIGINT)")
        script = ["SET tandem.token = 'order 66'", "BEGIN", "INSERT INTO t VALUES (1)", "UPDATE t SET n = n + 1", "COMMIT"]
        for node in [a, b, a]:
            with node.adbc() as connection:
                run(connection, "SET tandem.read = 'latest'")
                for sql in script:
                    run(connection, sql)
        b_sees = b.tandem("sql", "-c", "SET tandem.read = 'latest'; SELECT sum(n), count(*) FROM t", "--format", "csv")
        assert b_sees.stdout.split()[-1] == "2,1", b_sees.stdout
        with b.adbc() as connection, pytest.raises(adbc_driver_manager.Error, match="token was used"):
            for sql in [*script[:2], "INSERT INTO t VALUES (2)", "COMMIT"]:
                run(connection, sql)
