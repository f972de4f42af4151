"""PostgreSQL's wire protocol, with the clients that people have: psycopg, SQLAlchemy, psql, and what Grafana asks."""

import contextlib
import datetime
import decimal
import shutil
import socket
import struct
import subprocess
import threading
import time

import pytest

import harness

psycopg = pytest.importorskip("psycopg", reason="the package psycopg cannot be had")

UTC = datetime.timezone.utc
WHEN = datetime.datetime(2024, 1, 2, 3, 4, 5, 678901)
READER, WRITER = "reader-token-0123456789", "writer-token-0123456789"


def address(node):
    host, port = node.ready["pg"].rsplit(":", 1)
    return host, int(port)


def connect(node, autocommit=True, **options):
    host, port = address(node)
    options = {"dbname": "tandem", "user": "me", "connect_timeout": 20, **options}
    return psycopg.connect(host=host, port=port, autocommit=autocommit, **options)


@pytest.fixture
def pg(node):
    with connect(node) as connection:
        yield connection


@pytest.fixture(scope="module")
def readings(node):
    """A table for those that only read."""
    with connect(node) as connection:
        connection.execute(
            "CREATE TABLE readings (ts TIMESTAMP NOT NULL, sensor TEXT, value DOUBLE PRECISION, n BIGINT) "
            "TIMESTAMP(ts) PARTITION BY DAY"
        )
        done = connection.execute(
            "INSERT INTO readings VALUES ('2024-01-02 03:00:00', 'a', 1.5, 1), ('2024-01-02 04:00:00', 'b', 2.5, NULL)"
        )
        assert (done.statusmessage, done.rowcount) == ("INSERT 0 2", 2)
        connection.execute("CREATE TABLE keyed (\"Id\" BIGINT, name TEXT, v DOUBLE PRECISION, PRIMARY KEY (\"Id\", name))")
    return "readings"


# Values


VALUES = [
    ("BOOLEAN", True, "bool"),
    ("SMALLINT", -7, "int2"),
    ("INTEGER", 2**31 - 1, "int4"),
    ("BIGINT", -(2**63), "int8"),
    ("REAL", 1.5, "float4"),
    ("DOUBLE PRECISION", 0.1, "float8"),
    ("DECIMAL(20, 4)", decimal.Decimal("-1234567890.0400"), "numeric"),
    ("TEXT", "grün \\ ' \" \n", "text"),
    ("BYTEA", b"\x00\xff\\", "bytea"),
    ("DATE", datetime.date(1999, 12, 31), "date"),
    ("TIMESTAMP", WHEN, "timestamp"),
    ("TIMESTAMP WITH TIME ZONE", WHEN.replace(tzinfo=UTC), "timestamptz"),
]


@pytest.mark.parametrize("binary", [False, True])
def test_values_come_back_as_they_were_sent(node, pg, binary):
    table = f"values_{'binary' if binary else 'text'}"
    columns = [f"c{i}" for i in range(len(VALUES))]
    declared = ", ".join(f"{c} {t}" for c, (t, *_) in zip(columns, VALUES))
    pg.execute(f"CREATE TABLE {table} (at TIMESTAMP, {declared}) TIMESTAMP(at)")
    marks = ", ".join(["%b" if binary else "%s"] * len(VALUES))
    insert = f"INSERT INTO {table} VALUES ('2024-01-01', {marks})"
    pg.execute(insert, [value for _, value, _ in VALUES])
    pg.execute(insert, [None] * len(VALUES))
    with pg.cursor(binary=binary) as cursor:
        cursor.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY c3 NULLS LAST")
        assert [psycopg.adapters.types[c.type_code].name for c in cursor.description] == [name for *_, name in VALUES]
        assert cursor.fetchall() == [tuple(value for _, value, _ in VALUES), (None,) * len(VALUES)]
    # The same over Flight SQL.
    assert node.sql(f"SELECT c3, c7 FROM {table} WHERE c3 IS NOT NULL") == [(-(2**63), "grün \\ ' \" \n")]


@pytest.mark.parametrize("binary", [False, True])
def test_special_numbers_lists_and_structs(pg, binary):
    with pg.cursor(binary=binary) as cursor:
        cursor.execute("SELECT CAST('NaN' AS DOUBLE) AS nan, CAST('-inf' AS DOUBLE) AS inf, 1e300 AS large")
        nan, inf, large = cursor.fetchone()
        assert nan != nan and inf == float("-inf") and large == 1e300
        cursor.execute("SELECT make_array(1, NULL, 3) AS a, make_array('x,\"y', '') AS t, NULL AS n")
        assert cursor.fetchone() == ([1, None, 3], ['x,"y', ""], None)
        cursor.execute("SELECT named_struct('a', 1, 'b', 'x') AS s, arrow_cast(18446744073709551615, 'UInt64') AS u")
        assert cursor.fetchone() == ({"a": 1, "b": "x"}, decimal.Decimal(2**64 - 1))
        cursor.execute("SELECT INTERVAL '1 day 2 hours' AS i")
        assert cursor.fetchone() == (datetime.timedelta(days=1, hours=2),)


def test_parameters_filter(pg, readings):
    rows = pg.execute("SELECT n FROM readings WHERE ts >= %s AND sensor = %s", [WHEN.replace(hour=3, minute=0, second=0, microsecond=0), "a"])
    assert rows.fetchall() == [(1,)]
    aware = datetime.datetime(2024, 1, 2, 5, 0, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
    assert pg.execute("SELECT sensor FROM readings WHERE ts = %s", [aware]).fetchall() == [("b",)]
    assert pg.execute("SELECT %s::int + 1, %s::text", [41, "x"]).fetchall() == [(42, "x")]
    with pytest.raises(psycopg.Error) as error:
        pg.execute("SELECT * FROM readings WHERE n = %s", ["many"])
    assert "$1" in str(error.value)


@pytest.mark.parametrize("mark", ["%s", "%b", "%t"])
def test_no_parameter_becomes_another_value(pg, mark):
    table = f"exact_{ord(mark[1])}"
    columns = "n BIGINT, d DECIMAL(10, 2), day DATE, r REAL, long DECIMAL(38, 5), f DOUBLE PRECISION"
    pg.execute(f"CREATE TABLE {table} ({columns})")
    pg.execute(f"INSERT INTO {table} (n, d, day) VALUES (7, 1.24, '2024-01-02')")
    for condition, value in [
        ("n = ", 7.5), ("n < ", 7.5), ("n = ", decimal.Decimal("7.5")), ("d = ", decimal.Decimal("1.2399")), ("day = ", WHEN),
    ]:  # fmt: skip
        for statement in (f"SELECT n FROM {table} WHERE {condition}{mark}", f"DELETE FROM {table} WHERE {condition}{mark}"):
            with pytest.raises(psycopg.Error) as error:
                pg.execute(statement, [value])
            assert "$1" in str(error.value), statement
    assert pg.execute(f"SELECT n FROM {table} WHERE n < CAST({mark} AS DOUBLE)", [7.5]).fetchall() == [(7,)]
    equal = f"SELECT n FROM {table} WHERE n = {mark} AND d = {mark}"
    assert pg.execute(equal, [7.0, decimal.Decimal("1.240")]).fetchall() == [(7,)]
    for column, value in [("n", 1.5), ("r", 1e200), ("long", decimal.Decimal("1" * 40))]:
        with pytest.raises(psycopg.Error):
            pg.execute(f"INSERT INTO {table} ({column}) VALUES ({mark})", [value])
    with pytest.raises(psycopg.Error):
        pg.execute(f"INSERT INTO {table} (f) VALUES (%s)", ["1e400"])
    assert pg.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)
    # What is stored is rounded to the column's digits, and to no fewer.
    long, odd = decimal.Decimal("12345678901234567890123456.123454" + "9" * 20), decimal.Decimal("0.1234567890123456789")
    pg.execute(f"INSERT INTO {table} (long, f) VALUES ({mark}, {mark})", [long, odd])
    stored = pg.execute(f"SELECT long, f FROM {table} WHERE n IS NULL").fetchone()
    assert stored == (decimal.Decimal("12345678901234567890123456.12345"), float(odd))


@pytest.mark.parametrize("mark", ["%s", "%b"])
def test_parameters_of_no_column_keep_their_types(pg, mark):
    moments = [WHEN, WHEN.replace(tzinfo=UTC), WHEN.date(), datetime.timedelta(days=-3, hours=5)]
    values = [41, 2**40, 0.5, True, *moments, b"\x00\xff", [1, None]]
    with pg.cursor(binary=mark == "%b") as cursor:
        cursor.execute(f"SELECT {', '.join([mark] * len(values))}", values)
        assert cursor.fetchone() == tuple(values)
        numbers = [decimal.Decimal("1.5"), decimal.Decimal("2.25"), None]
        cursor.execute(f"SELECT cardinality({mark}), array_has({mark}, CAST(2.25 AS DECIMAL(38, 2)))", [numbers, numbers])
        assert cursor.fetchone() == (3, True)


@pytest.mark.parametrize("mark", ["%s", "%b", "%t"])
def test_a_list_without_a_value_is_null(pg, mark):
    pg.execute(f"CREATE TABLE lists_{ord(mark[1])} (k BIGINT, l BIGINT[], t TEXT[])")
    rows = [(1, None, None), (2, [], [""]), (3, [1, None], ["{a,b}", None])]
    for row in rows:
        pg.execute(f"INSERT INTO lists_{ord(mark[1])} VALUES ({mark}, {mark}, {mark})", row)
    assert pg.execute(f"SELECT * FROM lists_{ord(mark[1])} ORDER BY k").fetchall() == rows
    with pytest.raises(psycopg.Error):
        pg.execute(f"INSERT INTO lists_{ord(mark[1])} (k, l) VALUES (4, {mark})", [4])


def test_infinite_moments_are_refused(pg):
    least, greatest = b"\x80" + b"\0" * 7, b"\x7f" + b"\xff" * 7
    with connect_raw(pg) as raw:
        raw.send(message(b"Q", b"CREATE TABLE finite (ts TIMESTAMP, day DATE, at TIMESTAMP) TIMESTAMP(ts)\0"))
        assert raw.kinds() == "CZ"
        for column, oid, value in [
            (b"day", 1082, least[:4]), (b"day", 1082, greatest[:4]),
            (b"at", 1114, least), (b"at", 1184, least), (b"at", 1114, greatest),
        ]:  # fmt: skip
            insert = b"\0INSERT INTO finite (ts, " + column + b") VALUES (now(), $1)\0" + struct.pack(">HI", 1, oid)
            bind = b"\0\0" + struct.pack(">HHHI", 1, 1, 1, len(value)) + value + b"\0\0"
            raw.send(message(b"P", insert), message(b"B", bind), message(b"E", b"\0\0\0\0\0"), message(b"S"))
            assert raw.kinds() == "1EZ", (column, value)
    assert pg.execute("SELECT count(*) FROM finite").fetchone() == (0,)


def test_moments_may_go_without_seconds(pg):
    pg.execute("CREATE TABLE minutes (at TIMESTAMP, zoned TIMESTAMP WITH TIME ZONE)")
    pg.execute("INSERT INTO minutes VALUES (%s, %s)", ["2024-01-01 10:00", "2024-01-01T12:00+02"])
    with pg.cursor() as cursor, cursor.copy("COPY minutes FROM STDIN") as copy:
        copy.write("2024-01-01 10:00\t2024-01-01 12:00+02:00\n2024-01-01\t\\N\n")
    at = datetime.datetime(2024, 1, 1, 10)
    assert pg.execute("SELECT * FROM minutes WHERE at = %s", ["2024-01-01 10:00"]).fetchall() == [(at, at.replace(tzinfo=UTC))] * 2


def test_prepared_statements_see_changes(node, pg):
    pg.execute("CREATE TABLE prepared (a BIGINT)")
    for n in range(8):
        pg.execute("INSERT INTO prepared VALUES (%s)", [n], prepare=True)
        assert pg.execute("SELECT count(*) FROM prepared", prepare=True).fetchone() == (n + 1,)
        names = pg.execute("SELECT count(*) FROM information_schema.tables WHERE table_name LIKE 'prepared%'", prepare=True)
        assert names.fetchone() == (n + 1,)
        pg.execute(f"CREATE TABLE prepared_{n} (a BIGINT)")
    assert node.sql("SELECT sum(a) FROM prepared") == [(28,)]


def test_many_rows_in_one_pipeline_are_one_transaction(node, pg):
    pg.execute("CREATE TABLE many (a BIGINT, b TEXT)")
    before = pg.execute("SELECT max(seq) FROM system.log").fetchone()[0]
    with pg.cursor() as cursor:
        cursor.executemany("INSERT INTO many VALUES (%s, %s)", [(n, str(n)) for n in range(200)])
        assert cursor.rowcount == 200
    assert pg.execute("SELECT count(*), sum(a) FROM many").fetchone() == (200, 19_900)
    assert pg.execute("SELECT count(*) FROM system.log WHERE seq > %s AND rows > 0", [before]).fetchone() == (1,)
    with pytest.raises(psycopg.Error), pg.cursor() as cursor:
        cursor.executemany("INSERT INTO many VALUES (%s, %s)", [(1000, "x"), ("no number", "y")])
    assert pg.execute("SELECT count(*) FROM many").fetchone() == (200,)


def test_several_statements_in_one_text(pg):
    with pg.cursor() as cursor:
        cursor.execute("CREATE TABLE several (a BIGINT); INSERT INTO several VALUES (1); SELECT a FROM several; -- end")
        results = [cursor.statusmessage]
        while cursor.nextset():
            results.append(cursor.statusmessage)
        assert results == ["CREATE TABLE", "INSERT 0 1", "SELECT 1"]
    for text in (
        "INSERT INTO several VALUES (2); INSERT INTO several VALUES (3); nonsense",
        "INSERT INTO several VALUES (2); SELECT * FROM nowhere",
        "CREATE TABLE fewer (a BIGINT); SELECT a / 0 FROM several",
    ):
        with pytest.raises(psycopg.Error):
            pg.execute(text)
    assert pg.execute("SELECT count(*) FROM several").fetchone() == (1,), "one transaction"
    with pytest.raises(psycopg.errors.UndefinedTable):
        pg.execute("SELECT * FROM fewer")
    with pytest.raises(psycopg.Error):
        pg.execute("INSERT INTO several VALUES (2); BEGIN READ ONLY; INSERT INTO several VALUES (3)")
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        pg.execute("INSERT INTO several VALUES (2); CHECKPOINT")
    assert pg.execute("SELECT count(*) FROM several").fetchone() == (1,), "too late, or not together"


def test_rows_of_a_copy_stand_or_fall_with_their_text(pg):
    pg.execute("CREATE TABLE together (a BIGINT)")
    with connect_raw(pg) as raw:
        for second, row in ((b"SELECT * FROM nowhere", b"1\n"), (b"SELECT 1", b"2\n")):
            text = b"COPY together FROM STDIN; " + second + b"\0"
            raw.send(message(b"Q", text), message(b"d", row), message(b"c"))
            assert raw.kinds() in ("GCEZ", "GCTDCZ")
        # Gone in the middle of its rows.
        raw.send(message(b"Q", b"COPY together FROM STDIN\0"), message(b"d", b"3\n"))
    with connect_raw(pg) as raw:
        raw.send(message(b"Q", b"COPY together FROM STDIN\0"), message(b"d", b"4\n"), message(b"X"))
    assert pg.execute("SELECT a FROM together").fetchall() == [(2,)]


def test_large_results_arrive_in_pieces(pg):
    with pg.cursor() as cursor:
        rows = cursor.stream("SELECT value FROM generate_series(1, 100000)", size=1000)
        assert sum(n for (n,) in rows) == 5_000_050_000
    with connect_raw(pg) as raw:
        raw.send(message(b"P", b"\0SELECT value FROM generate_series(1, 5)\0\0\0"), message(b"B", b"\0\0\0\0\0\0\0\0"))
        raw.send(message(b"E", b"\0" + struct.pack(">i", 2)), message(b"E", b"\0" + struct.pack(">i", 2)))
        raw.send(message(b"E", b"\0\0\0\0\0"), message(b"S"))
        assert raw.kinds() == "12DDsDDsDCZ"
        # What is over has no more rows; and what has no name is gone with the next simple query.
        portal = (message(b"P", b"\0SELECT 1\0\0\0"), message(b"B", b"\0\0\0\0\0\0\0\0"), message(b"E", b"\0\0\0\0\0"))
        raw.send(*portal, message(b"E", b"\0\0\0\0\0"), message(b"S"))
        assert [(kind, body) for kind, body in raw.messages()][-2] == ("C", b"SELECT 0\0")
        raw.send(message(b"Q", b"SELECT 1\0"))
        assert raw.kinds() == "TDCZ"
        raw.send(message(b"B", b"\0\0\0\0\0\0\0\0"), message(b"S"))
        assert raw.kinds() == "EZ", "the statement without a name is gone"


# Transactions


def test_transactions(node, pg):
    pg.execute("CREATE TABLE account (id BIGINT, amount BIGINT, PRIMARY KEY (id))")
    with connect(node, autocommit=False) as connection:
        idle, open_, failed = (psycopg.pq.TransactionStatus(s) for s in (0, 2, 3))
        assert connection.info.transaction_status == idle
        connection.execute("INSERT INTO account VALUES (1, 10)")
        assert connection.info.transaction_status == open_
        assert connection.execute("SELECT count(*) FROM account").fetchone() == (1,), "its own row"
        assert pg.execute("SELECT count(*) FROM account").fetchone() == (0,), "nobody else sees it"
        connection.commit()
        assert pg.execute("SELECT amount FROM account").fetchone() == (10,)

        changed = connection.execute("UPDATE account SET amount = amount + 1 WHERE id = 1")
        assert (changed.statusmessage, changed.rowcount) == ("UPDATE 1", 1)
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT * FROM nothing")
        assert connection.info.transaction_status == failed
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            connection.execute("SELECT 1")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            connection.execute("LISTEN what_is_not_supported")
        connection.rollback()
        assert connection.execute("SELECT amount FROM account").fetchone() == (10,)

        connection.execute("DELETE FROM account")
        with pytest.raises(psycopg.Error), connection.transaction():  # a savepoint
            connection.execute("nonsense")
        assert connection.execute("SELECT count(*) FROM account").fetchone() == (0,)
        connection.rollback()
    assert pg.execute("SELECT count(*) FROM account").fetchone() == (1,)


def test_a_failed_transaction_takes_no_prepared_statement_either(node, pg):
    pg.execute("CREATE TABLE untaken (a BIGINT)")
    with connect(node, autocommit=False) as connection:
        connection.prepare_threshold = 0
        insert, select = "INSERT INTO untaken VALUES (%s)", "SELECT count(*) FROM untaken"
        connection.execute(insert, [1])
        connection.execute(select)
        connection.commit()
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT * FROM nowhere")
        for statement, values in ((insert, [2]), (select, None)):
            with pytest.raises(psycopg.errors.InFailedSqlTransaction):
                connection.execute(statement, values)
        connection.commit()
    assert pg.execute(select).fetchone() == (1,)


@pytest.mark.parametrize("end", ["COMMIT AND CHAIN", "COMMIT PREPARED 'x'", "ROLLBACK PREPARED 'x'"])
def test_an_end_that_is_more_than_that_is_refused(node, end):
    with connect(node, autocommit=False) as connection:
        connection.execute("SELECT 1")
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            connection.execute(end)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
        connection.rollback()


def test_conflicts_have_the_code_that_is_retried(node, pg):
    pg.execute("CREATE TABLE contested (id BIGINT, n BIGINT, PRIMARY KEY (id))")
    pg.execute("INSERT INTO contested VALUES (1, 0)")
    with connect(node, autocommit=False) as one, connect(node, autocommit=False) as two:
        for connection in (one, two):
            connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            assert connection.execute("SELECT n FROM contested").fetchone() == (0,)
            connection.execute("UPDATE contested SET n = n + 1 WHERE id = 1")
        one.commit()
        with pytest.raises(psycopg.errors.SerializationFailure):
            two.commit()
        assert two.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert pg.execute("SELECT n FROM contested").fetchone() == (1,)


def test_isolation_levels(node):
    with connect(node, autocommit=False) as connection:
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        assert connection.execute("SELECT 1").fetchone() == (1,)
        connection.rollback()
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        assert connection.execute("SELECT 1").fetchone() == (1,)
        connection.rollback()
        connection.isolation_level, connection.read_only = None, True
        with pytest.raises(psycopg.Error):
            connection.execute("CREATE TABLE forbidden (a BIGINT)")


# Our own statements, settings, errors


def test_statements_of_our_own(pg, readings):
    seq = pg.execute("SELECT max(seq) FROM system.log").fetchone()[0]
    pg.execute("UPDATE readings SET value = 9 WHERE sensor = 'b'")
    assert pg.execute("SELECT value FROM readings WHERE sensor = 'b'").fetchone() == (9.0,)
    assert pg.execute(f"SELECT value FROM readings VERSION AS OF {seq} WHERE sensor = 'b'").fetchone() == (2.5,)
    pg.execute(f"SET tandem.as_of = 'seq:{seq}'")
    assert pg.execute("SELECT value FROM readings WHERE sensor = 'b'").fetchone() == (2.5,)
    pg.execute("RESET tandem.as_of")
    assert any("readings" in row for row in pg.execute("SHOW TABLES").fetchall())
    assert pg.execute("OPTIMIZE TABLE readings").statusmessage.startswith("OPTIMIZE")


def test_settings(node):
    with connect(node, options="-c statement_timeout=30s -c tandem.read=latest", application_name="tests") as connection:
        assert connection.info.server_version == 140000 and connection.info.encoding == "utf-8"
        assert connection.execute("SHOW application_name").fetchone() == ("tests",)
        assert connection.execute("SHOW statement_timeout").fetchone() == ("30s",)
        assert connection.execute("SHOW tandem.read").fetchone()[-1] == "latest"
        connection.execute("SET TIME ZONE 'UTC'; SET client_encoding = 'UTF8'; SET extra_float_digits = 3")
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            connection.execute("SET TIME ZONE 'Europe/Berlin'")
        for clean in ("DISCARD ALL", "RESET ALL"):
            seq = connection.execute("SELECT max(seq) FROM system.log").fetchone()[0]
            connection.execute(f"SET tandem.as_of = 'seq:{seq}'; SET tandem.read = applied; SET application_name = 'other'")
            connection.execute(clean)
            # As it was begun.
            assert connection.execute("SHOW tandem.as_of").fetchone()[-1] == "", clean
            assert connection.execute("SHOW tandem.read").fetchone()[-1] == "latest", clean
            assert connection.execute("SHOW application_name").fetchone() == ("tests",), clean
            assert connection.info.parameter_status("application_name") == "tests", clean


def test_what_is_set_for_a_transaction_ends_with_it(node):
    with connect(node) as connection:
        show = ("SHOW statement_timeout", "SHOW application_name", "SHOW search_path")
        values = lambda: [connection.execute(statement).fetchone()[0] for statement in show]  # noqa: E731
        connection.execute("SET statement_timeout = '20s'")
        for end in ("COMMIT", "ROLLBACK"):
            before = values()
            connection.execute("BEGIN")
            connection.execute("SET LOCAL statement_timeout = '30s'; SET LOCAL application_name = 'a'")
            connection.execute("SET LOCAL search_path = system")
            assert values() == ["30s", "a", "system"]
            assert connection.info.parameter_status("application_name") == "a"
            connection.execute(end)
            assert values() == before
            assert connection.info.parameter_status("application_name") == ""
        connection.execute("SET LOCAL statement_timeout = '30s'")
        assert values() == before


@pytest.mark.parametrize(
    "statement, code",
    [
        ("SELEC 1", "42601"),
        ("SELECT * FROM nowhere", "42P01"),
        ("SELECT nothing FROM readings", "42703"),
        ("CREATE TABLE readings (a BIGINT)", "42P07"),
        ("SELECT 'x'::regclass", "42P01"),
        ("LISTEN channel", "0A000"),
        ("COPY readings FROM '/etc/passwd'", "0A000"),
        ("COPY readings TO STDOUT (FORMAT binary)", "0A000"),
        ("SET nonsense = 1", "22023"),
    ],
)
def test_errors_have_codes_and_harm_nothing(pg, readings, statement, code):
    with pytest.raises(psycopg.Error) as error:
        pg.execute(statement)
    assert error.value.sqlstate == code, error.value
    assert pg.execute("SELECT 1").fetchone() == (1,)


def test_cancel_and_timeout(node, pg):
    slow = "SELECT sum(a.value * b.value) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b"
    timer = threading.Timer(1, pg.cancel)
    timer.start()
    began = time.monotonic()
    with pytest.raises(psycopg.errors.QueryCanceled):
        pg.execute(slow)
    assert time.monotonic() - began < 30
    pg.execute("SET statement_timeout = '500ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        pg.execute(slow)
    pg.execute("SET statement_timeout = 0")
    assert pg.execute("SELECT 1").fetchone() == (1,)
    # A client that goes away takes its query with it.
    gone = connect(node)
    gone.pgconn.send_query(slow.encode())
    gone.pgconn.flush()
    running = "SELECT count(*) FROM system.queries WHERE state = 'running' AND statement LIKE 'SELECT sum(a.value%'"
    harness.wait_until(lambda: pg.execute(running).fetchone() == (1,), 20, "the query runs")
    gone.pgconn.finish()
    harness.wait_until(lambda: pg.execute(running).fetchone() == (0,), 20, "the query has ended")


# COPY


def test_copy(pg):
    pg.execute("CREATE TABLE copied (ts DATE, name TEXT, v DOUBLE PRECISION, flag BOOLEAN, raw BYTEA)")
    day = WHEN.date()
    rows = [(day, "tab\t\\ \n end", 1.5, True, b"\x00\xff"), (None, None, None, None, None), (day, "", -1e-9, False, b"")]
    with pg.cursor() as cursor:
        with cursor.copy("COPY copied FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        assert (cursor.rowcount, cursor.statusmessage) == (3, "COPY 3")
        assert sorted(pg.execute("SELECT * FROM copied").fetchall(), key=str) == sorted(rows, key=str)
        with cursor.copy("COPY (SELECT name, v FROM copied WHERE v > 0) TO STDOUT") as copy:
            assert list(copy.rows()) == [("tab\t\\ \n end", "1.5")]
        with cursor.copy("COPY copied (v, name) TO STDOUT WITH (FORMAT csv, HEADER)") as copy:
            text = b"".join(copy).decode()
        assert text.startswith("v,name\n") and '1.5,"tab\t\\ \n end"' in text
        with cursor.copy("COPY copied (name, v) FROM STDIN WITH (FORMAT csv, HEADER true)") as copy:
            copy.write("name,v\n\"a,b\",2.5\n,\n")
        assert pg.execute("SELECT v FROM copied WHERE name = 'a,b'").fetchall() == [(2.5,)]
        for wrong in ("1\t2\n", "2024-01-01\tx\tno number\tt\t\\\\x00\n"):
            with pytest.raises(psycopg.Error), cursor.copy("COPY copied FROM STDIN") as copy:
                copy.write(wrong)
        with pytest.raises(ZeroDivisionError), cursor.copy("COPY copied FROM STDIN") as copy:
            copy.write_row(rows[0])
            raise ZeroDivisionError
        assert pg.execute("SELECT count(*) FROM copied").fetchone() == (5,)


def test_copy_keeps_what_it_is_given(pg):
    pg.execute("CREATE TABLE kept (name TEXT)")
    for options, rows, kept in [
        # An empty line is a row, and what is in quotes is no null.
        ("(FORMAT csv)", 'a\n\n""\n', [("",), ("a",), (None,)]),
        ("(FORMAT csv, NULL 'x')", '"x"\nx\n', [("x",), (None,)]),
        ("", "a\n\n\\.\n", [("",), ("a",)]),
        ("", "\\x41\\102\\x\n", [("ABx",)]),
        # As psycopg2 asks.
        ("WITH DELIMITER AS '\t' NULL AS E'\\\\N'", "\\N\n", [(None,)]),
    ]:
        with pg.cursor() as cursor:
            with cursor.copy(f"COPY kept FROM STDIN {options}") as copy:
                copy.write(rows)
            assert cursor.rowcount == len(kept), options
        assert pg.execute("SELECT name FROM kept ORDER BY name NULLS LAST").fetchall() == kept, options
        pg.execute("DELETE FROM kept")
    with pytest.raises(psycopg.Error), pg.cursor() as cursor, cursor.copy("COPY kept FROM STDIN CSV") as copy:
        copy.write('a\n"b\n')
    pg.execute("CREATE TABLE kept_numbers (f DOUBLE PRECISION, l BIGINT[], d DECIMAL(38, 5))")
    with pg.cursor() as cursor:
        with cursor.copy("COPY kept_numbers FROM STDIN") as copy:
            copy.write("-Infinity\t{1,NULL,3}\t1\nNaN\t{}\t-0.00001\n")
        with pytest.raises(psycopg.Error), cursor.copy("COPY kept_numbers FROM STDIN") as copy:
            copy.write("1e400\t{}\t1\n")
    rows = pg.execute("SELECT l, d FROM kept_numbers ORDER BY d DESC").fetchall()
    assert rows == [([1, None, 3], 1), ([], decimal.Decimal("-0.00001"))]


def test_copy_takes_many_rows(pg):
    pg.execute("CREATE TABLE bulk (a BIGINT, b TEXT)")
    with pg.cursor() as cursor, cursor.copy("COPY bulk FROM STDIN") as copy:
        for block in range(20):
            copy.write("".join(f"{block * 5000 + n}\trow {n}\n" for n in range(5000)))
    assert pg.execute("SELECT count(*), sum(a) FROM bulk").fetchone() == (100_000, 4_999_950_000)


# Catalogs


def test_sqlalchemy(node, readings):
    sa = pytest.importorskip("sqlalchemy", reason="the package SQLAlchemy cannot be had")
    host, port = address(node)
    engine = sa.create_engine(f"postgresql+psycopg://me@{host}:{port}/tandem")
    inspector = sa.inspect(engine)
    assert "public" in inspector.get_schema_names() and {"readings", "keyed"} <= set(inspector.get_table_names())
    columns = {column["name"]: column for column in inspector.get_columns("readings")}
    assert list(columns) == ["ts", "sensor", "value", "n"] and not columns["ts"]["nullable"] and columns["n"]["nullable"]
    assert isinstance(columns["ts"]["type"], sa.TIMESTAMP) and isinstance(columns["n"]["type"], sa.BIGINT)
    assert inspector.get_pk_constraint("keyed")["constrained_columns"] == ["Id", "name"]
    assert inspector.get_foreign_keys("keyed") == [] and inspector.get_indexes("keyed") == []
    assert inspector.has_table("keyed") and not inspector.has_table("nothing")

    table = sa.Table("readings", sa.MetaData(), autoload_with=engine)
    with engine.connect() as connection:
        query = sa.select(table.c.sensor, table.c.value).where(table.c.sensor == "a", table.c.n >= 1)
        assert connection.execute(query).all() == [("a", 1.5)]
    events = sa.Table(
        "sa_events", sa.MetaData(), sa.Column("at", sa.DateTime), sa.Column("name", sa.String), sa.Column("n", sa.Integer)
    )
    events.create(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(events), [{"at": WHEN, "name": f"n{n}", "n": n} for n in range(50)])
    with engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count(), sa.func.max(events.c.at))).one() == (50, WHEN)
        with pytest.raises(sa.exc.ProgrammingError):
            connection.execute(sa.text("SELECT * FROM nothing"))
    events.drop(engine)
    assert not sa.inspect(engine).has_table("sa_events")
    engine.dispose()


SCHEMAS = """quote_ident(table_schema) IN (
      SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
      FROM generate_series(
             array_lower(string_to_array(current_setting('search_path'),','),1),
             array_upper(string_to_array(current_setting('search_path'),','),1)) as i,
           string_to_array(current_setting('search_path'),',') s)"""


def test_what_grafana_asks(pg, readings):
    """As its built-in PostgreSQL source does: its editor's questions, then the expansions of its macros."""
    assert pg.execute("SELECT current_setting('server_version_num')::int/100 as version").fetchone() == (1400,)
    assert pg.execute("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'").fetchall() == []
    tables = pg.execute(
        "select quote_ident(table_name) as \"table\" from information_schema.tables where quote_ident(table_schema) not in "
        f"('information_schema', 'pg_catalog', '_timescaledb_cache') and {SCHEMAS}"
    )
    assert ("readings",) in tables.fetchall()
    columns = pg.execute(
        'select quote_ident(column_name) as "column", data_type as "type" from information_schema.columns '
        f"where quote_ident(table_name) = 'readings' and {SCHEMAS}"
    )
    assert columns.fetchall() == [
        ("ts", "timestamp without time zone"), ("sensor", "text"), ("value", "double precision"), ("n", "bigint")
    ]  # fmt: skip
    series = pg.execute(
        "SELECT floor(extract(epoch from ts)/3600)*3600 AS \"time\", avg(value) AS \"value\", sensor FROM readings "
        "WHERE ts BETWEEN '2024-01-02T00:00:00Z' AND '2024-01-02T03:30:00Z' GROUP BY 1, sensor ORDER BY 1"
    )
    assert series.fetchall() == [(1_704_164_400, 1.5, "a")]
    raw = pg.execute("SELECT ts AS \"time\", value FROM readings WHERE ts >= '2024-01-02T03:30:00Z' ORDER BY ts LIMIT 50")
    assert [row[0] for row in raw.fetchall()] == [datetime.datetime(2024, 1, 2, 4)]


def psql(node, *commands, ok=True, **env):
    program = shutil.which("psql")
    if not program:
        pytest.skip("psql is not on the path")
    host, port = address(node)
    words = [word for command in commands for word in ("-c", command)]
    done = subprocess.run(
        [program, "-X", "-A", "-h", host, "-p", str(port), "-U", "me", "-d", "tandem", *words],
        capture_output=True, text=True, timeout=60, env=harness.clean_environment(env),
    )  # fmt: skip
    assert (done.returncode == 0) == ok and (not ok or "ERROR" not in done.stderr), done.stdout + done.stderr
    return done.stdout + done.stderr


def test_psql(node, readings):
    assert "a|1" in psql(node, "SELECT sensor, n FROM readings ORDER BY ts")
    assert "public|readings|table|tandem" in psql(node, "\\dt")
    assert "public|readings|table|tandem" in psql(node, "\\d")
    described = psql(node, "\\d readings")
    assert "ts|timestamp without time zone||not null|" in described and "sensor|text|||" in described
    keyed = psql(node, "\\d keyed")
    assert '"keyed_pkey" PRIMARY KEY, btree ("Id", name)' in keyed and "Id|bigint" in keyed
    assert "tandem|tandem|UTF8" in psql(node, "\\l")
    assert "public|tandem" in psql(node, "\\dn")
    assert "keyed_pkey" in psql(node, "\\di")
    for command in ("\\d+ readings", "\\dt+", "\\du", "\\dv", "\\df", "\\dx", "\\conninfo", "\\dT", "\\dp", "\\ds", "\\dm"):
        psql(node, command)
    assert "Did not find any relation" in psql(node, "\\d nothing", ok=False)
    assert "2" in psql(node, "\\copy (SELECT * FROM readings) TO STDOUT", "SELECT count(*) FROM readings")


# Access


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A node with tokens and TLS."""
    if not shutil.which("openssl"):
        pytest.skip("certificates are made by the openssl command, which is not here")
    home = tmp_path_factory.mktemp("guarded")
    (home / "tokens").write_text(f"read {READER} dashboards\nwrite {WRITER} loader\n")
    (home / "tokens").chmod(0o600)
    command = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1,DNS:localhost"
    done = subprocess.run(
        ["openssl", *command.split(), "-keyout", "node.key", "-out", "node.pem"], cwd=home, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    options = ["--auth-token-file", home / "tokens", "--tls-cert", home / "node.pem", "--tls-key", home / "node.key"]
    with harness.Node(home / "store", home / "run", options) as node:
        node.ca = str(home / "node.pem")
        yield node


def test_tokens_and_tls(guarded):
    with connect(guarded, password=WRITER, sslmode="verify-full", sslrootcert=guarded.ca) as writer:
        assert writer.pgconn.ssl_in_use
        writer.execute("CREATE TABLE t (a BIGINT); INSERT INTO t VALUES (1)")
        assert writer.execute("SELECT current_user").fetchone() == ("loader",)
    with connect(guarded, password=READER, sslmode="require") as reader:
        assert reader.execute("SELECT a FROM t").fetchall() == [(1,)]
        for statement in ("INSERT INTO t VALUES (2)", "DROP TABLE t", "COPY t FROM STDIN", "DELETE FROM t"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege) as error:
                reader.execute(statement)
            assert "dashboards" in str(error.value)
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (1,)
    for wrong in ("wrong-token-0123456789", ""):
        with pytest.raises(psycopg.OperationalError) as error:
            connect(guarded, password=wrong, sslmode="require").close()
        assert wrong not in str(error.value) or not wrong
    with pytest.raises(psycopg.OperationalError, match="TLS"):
        connect(guarded, password=WRITER, sslmode="disable").close()


def test_other_databases_do_not_exist(node):
    connect(node, dbname="me").close()
    with pytest.raises(psycopg.OperationalError, match="sales"):
        connect(node, dbname="sales").close()


# What no client sends


def message(kind, body=b""):
    return kind + struct.pack(">I", len(body) + 4) + body


STARTUP = struct.pack(">II", 8 + 9, 196608) + b"user\0me\0\0"


class Raw:
    """A connection by hand."""

    def __init__(self, where, startup=STARTUP):
        self.socket = socket.create_connection(where, timeout=30)
        self.socket.sendall(startup)
        if startup == STARTUP:
            assert self.kinds().endswith("Z")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *messages):
        self.socket.sendall(b"".join(messages))

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                return None
            data += more
        return data

    def messages(self):
        """Up to `ReadyForQuery`, or the connection's end."""
        while head := self.exactly(5):
            kind, length = head[:1].decode(), struct.unpack(">I", head[1:])[0]
            yield kind, self.exactly(length - 4)
            if kind == "Z":
                return

    def kinds(self):
        return "".join(kind for kind, _ in self.messages())


def connect_raw(connection):
    return Raw((connection.info.host, connection.info.port))


def test_after_an_error_everything_up_to_sync_is_skipped(pg):
    with connect_raw(pg) as raw:
        raw.send(message(b"P", b"\0nonsense\0\0\0"), message(b"B", b"\0\0\0\0\0\0\0\0"), message(b"E", b"\0\0\0\0\0"))
        raw.send(message(b"Q", b"SELECT 1\0"), message(b"S"))
        assert raw.kinds() == "EZ", "a simple query as well"
        raw.send(message(b"E", b"none\0\0\0\0\0"), message(b"D", b"S\0"), message(b"S"))
        assert raw.kinds() == "EZ"
        raw.send(message(b"Q", b"  -- nothing\0"))
        assert raw.kinds() == "IZ"


def test_statements_with_names_are_bounded_and_others_replace_each_other(pg):
    with connect_raw(pg) as raw:
        raw.send(*(message(b"P", b"s%d\0\0\0\0" % n) for n in range(1001)), message(b"S"))
        assert raw.kinds() == "1" * 1000 + "EZ"
        for _ in range(2):
            raw.send(message(b"P", b"\0SELECT 1\0\0\0"), message(b"B", b"\0\0\0\0\0\0\0\0"))
            raw.send(message(b"E", b"\0\0\0\0\0"), message(b"S"))
            assert raw.kinds() == "12DCZ"


@pytest.mark.parametrize(
    "wrong",
    [
        message(b"Q", b"no end"),
        message(b"B", b"\0\0\0\0\0\x05\0\0"),
        message(b"P", b"\0SELECT 1\0\x7f\xff"),
        message(b"?"),
        b"Q\0\0\0\1",
        b"Q\x7f\xff\xff\xff",
        message(b"Q", b"\xff\xfe\0"),
    ],
)
def test_broken_messages_end_their_own_connection_with_an_error(node, pg, wrong):
    with connect_raw(pg) as raw:
        raw.send(wrong)
        ((kind, body),) = raw.messages()
        assert kind == "E" and b"FATAL" in body and b"08P01" in body
    assert pg.execute("SELECT 1").fetchone() == (1,)


def test_what_is_no_client_is_let_go(node, pg):
    where = address(node)
    for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x08\x04\xd2\x16\x30", b"\x16\x03\x01\0\x05", struct.pack(">II", 8, 0x20000)):
        with Raw(where, startup=noise) as raw:
            with contextlib.suppress(OSError):  # reset, because of what was not read
                raw.socket.shutdown(socket.SHUT_WR)
                while raw.socket.recv(1000):
                    pass
    with Raw(where, startup=struct.pack(">II", 8, 80877103)) as raw:
        assert raw.socket.recv(1) == b"N", "no TLS here"
    assert pg.execute("SELECT 1").fetchone() == (1,)


def test_off_and_taken_ports(node, tmp_path):
    with harness.Node(tmp_path / "store", tmp_path / "run", ["--pg", "off"]) as other:
        assert other.ready["pg"] is None
    done = harness.run(
        "serve", "--store", tmp_path / "other", "--flight", "127.0.0.1:0", "--http", "off", "--pg", node.ready["pg"], expect=1
    )
    assert "--pg" in done.stderr


def test_a_node_that_stops_says_so(tmp_path):
    with harness.Node(tmp_path / "store", tmp_path / "run") as own:
        with connect(own) as connection:
            connection.execute("CREATE TABLE t (a BIGINT)")
            assert own.stop() == 0
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
