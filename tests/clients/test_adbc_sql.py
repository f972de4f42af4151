"""ADBC's DB-API: statements, parameters, errors, cancellation."""

import datetime as dt
import decimal
import os
import threading
import time

import adbc_driver_manager
import pyarrow as pa
import pytest

UTC = dt.timezone.utc


def fetch(cursor, query, parameters=None):
    cursor.execute(query, parameters)
    return cursor.fetchall()


def test_a_table_is_made_filled_and_read(cursor):
    cursor.execute("CREATE TABLE made (ts TIMESTAMP NOT NULL, host VARCHAR, load DOUBLE) TIMESTAMP(ts) PARTITION BY DAY")
    cursor.execute("INSERT INTO made VALUES ('2024-05-01T00:00:00', 'a', 0.5), ('2024-05-01T00:00:01', 'b', 1.5)")
    assert cursor.rowcount == 2
    assert fetch(cursor, "SELECT host, load FROM made ORDER BY ts") == [("a", 0.5), ("b", 1.5)]
    assert fetch(cursor, "SELECT ts FROM made ORDER BY ts LIMIT 1") == [(dt.datetime(2024, 5, 1),)]
    cursor.execute("DROP TABLE made")
    with pytest.raises(adbc_driver_manager.ProgrammingError, match="made"):
        cursor.execute("SELECT * FROM made")


def test_statements_that_are_never_fetched_run_once_each(cursor):
    cursor.execute("CREATE TABLE unfetched (n BIGINT)")
    for n in range(25):
        cursor.execute(f"INSERT INTO unfetched VALUES ({n})")
    assert fetch(cursor, "SELECT count(*), count(DISTINCT n) FROM unfetched") == [(25, 25)]


def test_parameters_of_all_common_types(cursor):
    cursor.execute(
        "CREATE TABLE params (i BIGINT, s VARCHAR, d DOUBLE, b BOOLEAN, t TIMESTAMP, tz TIMESTAMP WITH TIME ZONE,"
        " day DATE, raw BYTEA, n DECIMAL(10, 2)) WITH (timestamp = 'none')"
    )
    row = (
        -5, "Zoë's \U0001f40e", 2.5, True, dt.datetime(2024, 5, 1, 12, 0, 0, 123456),
        dt.datetime(2024, 5, 1, 12, tzinfo=UTC), dt.date(2024, 5, 1), b"\x00\xff", decimal.Decimal("12.34"),
    )  # fmt: skip
    cursor.execute("INSERT INTO params VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    assert cursor.rowcount == 1
    [got] = fetch(cursor, "SELECT * FROM params")
    assert got == row
    cursor.execute("INSERT INTO params VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (None,) * 9)
    assert fetch(cursor, "SELECT count(*) FROM params WHERE i IS NULL AND s IS NULL AND raw IS NULL") == [(1,)]
    for column, value in zip(("i", "s", "d", "t", "tz", "day", "n"), (row[0], row[1], row[2], *row[4:7], row[8])):
        assert fetch(cursor, f"SELECT count(*) FROM params WHERE {column} = ?", (value,)) == [(1,)], column


def test_executemany_is_one_statement(cursor):
    cursor.execute("CREATE TABLE many (id BIGINT, name VARCHAR)")
    cursor.executemany("INSERT INTO many VALUES (?, ?)", [(i, f"n{i}") for i in range(500)])
    assert cursor.rowcount == 500
    assert fetch(cursor, "SELECT count(*), sum(id) FROM many") == [(500, 124750)]


def test_question_marks_in_text_are_no_parameters(cursor):
    assert fetch(cursor, "SELECT '?' || ? AS x", ("b",)) == [("?b",)]
    assert fetch(cursor, 'SELECT ? AS "why?" -- really?', (1,))[0][0] == 1


def test_odd_selects_work(cursor):
    assert fetch(cursor, "SELECT repeat('x', 5) AS x") == [("xxxxx",)]
    cursor.execute("SELECT 1 AS n WHERE false")
    assert cursor.fetch_arrow_table().num_rows == 0
    assert fetch(cursor, "SELECT min(n), max(n) FROM (VALUES (3), (1)) AS v (n)") == [(1, 3)]
    assert fetch(cursor, "SELECT n, n AS m FROM (VALUES (3)) AS v (n)") == [(3, 3)]
    assert fetch(cursor, "SELECT NULL AS nothing") == [(None,)]


@pytest.mark.parametrize(
    ("statement", "error", "says"),
    [
        ("SELEC 1", adbc_driver_manager.ProgrammingError, "SELEC"),
        ("SELECT nonsense FROM system.tables", adbc_driver_manager.ProgrammingError, "nonsense"),
        ("SELECT * FROM absent", adbc_driver_manager.ProgrammingError, "absent"),
        ("DROP TABLE absent", adbc_driver_manager.ProgrammingError, "absent"),
        ("SELECT 1/0", adbc_driver_manager.ProgrammingError, "(?i)zero"),
        ("INSERT INTO system.tables VALUES (1)", adbc_driver_manager.Error, "system"),
        ("SELECT CAST('x' AS BIGINT)", adbc_driver_manager.ProgrammingError, "x"),
    ],
)
def test_errors_have_their_class_and_name_the_cause(cursor, statement, error, says):
    with pytest.raises(error, match=says):
        cursor.execute(statement)
        cursor.fetchall()


def test_a_name_that_is_taken_is_told(cursor):
    cursor.execute("CREATE TABLE taken (n BIGINT)")
    with pytest.raises(adbc_driver_manager.Error, match="taken") as caught:
        cursor.execute("CREATE TABLE taken (n BIGINT)")
    assert caught.value.status_code == adbc_driver_manager.AdbcStatusCode.ALREADY_EXISTS
    cursor.execute("CREATE TABLE IF NOT EXISTS taken (n BIGINT)")


def test_update_and_delete_tell_how_many_rows(cursor):
    cursor.execute("CREATE TABLE fixed (ts TIMESTAMP, host VARCHAR, n BIGINT)")
    cursor.execute("INSERT INTO fixed SELECT to_timestamp(value * 3600), 'h' || (value % 10), value FROM generate_series(1, 1000) s")
    cursor.execute("UPDATE fixed SET n = -n WHERE host = 'h3'")
    assert cursor.rowcount == 100
    # A function is evaluated by the node, a comparison is logged: both are counted.
    cursor.execute("UPDATE fixed SET host = upper(host) WHERE n < 0")
    assert cursor.rowcount == 100
    cursor.execute("DELETE FROM fixed WHERE host = ? OR n > ?", ("H3", 990))
    assert cursor.rowcount == 109
    assert fetch(cursor, "SELECT count(*), min(n), max(n) FROM fixed") == [(891, 1, 990)]
    cursor.execute("DELETE FROM fixed WHERE host = 'nobody'")
    assert cursor.rowcount == 0
    cursor.execute("OPTIMIZE TABLE fixed")
    assert fetch(cursor, "SELECT count(*), min(n), max(n) FROM fixed") == [(891, 1, 990)]
    assert fetch(cursor, "SELECT count(*) FROM system.mutations WHERE table_name = 'fixed'") == [(0,)]
    cursor.execute("DELETE FROM fixed WHERE ts < now()")
    assert cursor.rowcount == 891
    assert fetch(cursor, "SELECT count(*) FROM fixed") == [(0,)]


def test_changes_run_once_for_each_row_of_parameters(cursor):
    cursor.execute("CREATE TABLE stock (id BIGINT, n SMALLINT)")
    cursor.executemany("INSERT INTO stock VALUES (?, ?)", [(i, 0) for i in range(20)])
    cursor.executemany("UPDATE stock SET n = n + ? WHERE id = ?", [(i, i) for i in range(10)] + [(5, 1)])
    assert cursor.rowcount == 11
    assert fetch(cursor, "SELECT sum(n), max(n) FROM stock") == [(50, 9)]
    with pytest.raises(adbc_driver_manager.ProgrammingError, match='"n"'):
        cursor.execute("UPDATE stock SET n = 40000 WHERE id = 3")
    with pytest.raises(adbc_driver_manager.ProgrammingError, match="absent"):
        cursor.execute("UPDATE stock SET absent = 1")
    assert fetch(cursor, "SELECT sum(n) FROM stock") == [(50,)]


def test_rows_that_say_what_becomes_of_taken_keys(cursor):
    cursor.execute("CREATE TABLE taken_keys (id BIGINT PRIMARY KEY, a BIGINT, b BIGINT)")
    insert = "INSERT INTO taken_keys VALUES (?, ?, ?)"
    cursor.execute(insert, (1, 1, 1))
    cursor.execute(f"{insert} ON CONFLICT (id) DO NOTHING", (1, 2, 2))
    assert fetch(cursor, "SELECT * FROM taken_keys") == [(1, 1, 1)]
    cursor.execute(f"{insert} ON CONFLICT (id) DO UPDATE SET b = excluded.b", (1, 3, 3))
    assert fetch(cursor, "SELECT * FROM taken_keys") == [(1, 1, 3)]
    cursor.execute(insert, (1, 4, None))
    assert fetch(cursor, "SELECT * FROM taken_keys") == [(1, 4, None)]
    with pytest.raises(adbc_driver_manager.NotSupportedError, match="excluded"):
        cursor.execute("INSERT INTO taken_keys VALUES (1, 5, 5) ON CONFLICT (id) DO UPDATE SET b = b + 1")


def test_a_connection_without_autocommit_is_in_a_transaction(node):
    import adbc_driver_flightsql.dbapi

    # autocommit=False is the DB-API's default.
    with adbc_driver_flightsql.dbapi.connect(node.url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept (n BIGINT)")
        cursor.execute("INSERT INTO kept VALUES (1)")
        connection.commit()
        cursor.execute("INSERT INTO kept VALUES (2)")
    assert node.sql("SELECT n FROM kept") == [(1,)]


def slow(cursor):
    cursor.execute(
        "SELECT count(*) FROM generate_series(1, 200000) a, generate_series(1, 200000) b"
        " WHERE (a.value * 7 + b.value) % 1000003 = 5"
    )
    return cursor.fetchall()


def running_queries(node):
    found = node.sql("SELECT statement FROM system.queries WHERE state = 'running'")
    return [s for (s,) in found if "generate_series" in s and "system.queries" not in s]


def processor_seconds(node):
    fields = open(f"/proc/{node.process.pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_heavy_query_holds_up_nobody_else(own_node):
    with own_node.adbc() as connection, connection.cursor() as cursor:
        thread = threading.Thread(target=lambda: pytest.raises(adbc_driver_manager.Error, slow, cursor))
        thread.start()
        try:
            time.sleep(1)
            began = time.monotonic()
            assert own_node.sql("SELECT 1") == [(1,)]
            assert time.monotonic() - began < 10
        finally:
            cursor.adbc_cancel()
            thread.join(60)


def test_cancel_from_another_thread_stops_the_query_on_the_server(own_node):
    from harness import wait_until

    def slow(cursor):
        cursor.execute("SELECT sum(a.value % 7) FROM generate_series(1, 1000000000000) AS a")
        return cursor.fetchall()

    with own_node.adbc() as connection, connection.cursor() as cursor:
        outcome = []

        def work():
            try:
                outcome.append(slow(cursor))
            except Exception as error:  # noqa: BLE001
                outcome.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        wait_until(lambda: running_queries(own_node), 20, "the query shows in system.queries")
        began = time.monotonic()
        cursor.adbc_cancel()
        thread.join(30)
        assert not thread.is_alive()
        assert isinstance(outcome[0], adbc_driver_manager.Error), outcome
        assert time.monotonic() - began < 20
        wait_until(lambda: not running_queries(own_node), 10, "the query is gone from the server")
        spent = processor_seconds(own_node)
        time.sleep(1)
        assert processor_seconds(own_node) - spent < 0.5, "the query still computes"


def test_a_reader_that_is_dropped_stops_its_query(node):
    from harness import wait_until

    with node.adbc() as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT a.value, b.value AS v FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b")
        reader = cursor.fetch_record_batch()
        assert reader.read_next_batch().num_rows > 0
        reader.close()
        cursor.close()
    wait_until(lambda: not running_queries(node), 10, "the query is gone from the server")


def test_partitions_are_read_after_their_cursor_is_gone(node):
    node.sql("CREATE TABLE parted AS SELECT value AS n FROM generate_series(1, 1000)")
    with node.adbc() as connection:
        cursor = connection.cursor()
        partitions, schema = cursor.adbc_execute_partitions("SELECT n FROM parted WHERE n > ?", (10,))
        cursor.close()
    assert [f.name for f in schema] == ["n"]
    with node.adbc() as other, other.cursor() as cursor:
        rows = 0
        for partition in partitions:
            cursor.adbc_read_partition(partition)
            rows += cursor.fetch_arrow_table().num_rows
    assert rows == 990


def test_many_connections_at_once(node):
    node.sql("CREATE TABLE crowd (who BIGINT, n BIGINT)")
    failures = []

    def work(who):
        try:
            with node.adbc() as connection, connection.cursor() as cursor:
                for n in range(10):
                    cursor.execute("INSERT INTO crowd VALUES (?, ?)", (who, n))
                    cursor.execute("SELECT count(*) FROM crowd WHERE who = ?", (who,))
                    assert cursor.fetchall() == [(n + 1,)]
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures, failures[0]
    assert node.sql("SELECT count(*), count(DISTINCT who * 100 + n) FROM crowd") == [(120, 120)]


def test_prepared_statements_are_used_many_times(cursor):
    cursor.adbc_prepare("SELECT CAST(? AS BIGINT) * 2 AS twice")
    for n in range(5):
        assert fetch(cursor, "SELECT CAST(? AS BIGINT) * 2 AS twice", (n,)) == [(2 * n,)]
    parameters = cursor.adbc_prepare("SELECT * FROM system.tables WHERE table_name = ? AND rows > ?")
    assert len(parameters) == 2


def test_schema_without_running(cursor):
    schema = cursor.adbc_execute_schema("SELECT CAST(1 AS BIGINT) AS a, 'x' AS b")
    assert schema.names == ["a", "b"]
    assert schema.field("a").type == pa.int64()


def test_time_questions(cursor):
    cursor.execute("CREATE TABLE beats (ts TIMESTAMP NOT NULL, v DOUBLE) TIMESTAMP(ts) PARTITION BY HOUR")
    begin = dt.datetime(2024, 1, 1)
    cursor.executemany(
        "INSERT INTO beats VALUES (?, ?)", [(begin + dt.timedelta(minutes=m), float(m)) for m in range(180)]
    )
    got = fetch(
        cursor,
        "SELECT date_bin(INTERVAL '1 hour', ts) AS hour, avg(v) AS v FROM beats"
        " WHERE ts >= '2024-01-01T01:00:00' GROUP BY 1 ORDER BY 1",
    )
    assert got == [(dt.datetime(2024, 1, 1, 1), 89.5), (dt.datetime(2024, 1, 1, 2), 149.5)]
    partitions = fetch(cursor, "SELECT count(*) FROM system.partitions WHERE table_name = 'beats'")
    assert partitions == [(3,)]
    cursor.execute("OPTIMIZE TABLE beats")
    again = fetch(cursor, "SELECT count(*), sum(v), min(ts), max(ts) FROM beats")
    assert again == [(180, 16110.0, begin, begin + dt.timedelta(minutes=179))]
    assert fetch(cursor, "SELECT sum(tail_rows), sum(files) FROM system.tables WHERE table_name = 'beats'") == [(0, 3)]
