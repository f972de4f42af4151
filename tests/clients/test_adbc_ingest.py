"""Bulk loading over ADBC, and every type there and back."""

import datetime as dt
import decimal
import threading

import adbc_driver_manager
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

MIB = 1 << 20


def rows(first, count):
    return pa.table({
        "ts": pa.array(range(first, first + count), pa.timestamp("us")),
        "id": pa.array(range(first, first + count), pa.int64()),
        "name": [f"n{i % 7}" for i in range(count)],
    })  # fmt: skip


def count(cursor, table):
    cursor.execute(f"SELECT count(*), count(DISTINCT id) FROM {table}")
    return cursor.fetchone()


def test_the_four_modes(cursor):
    assert cursor.adbc_ingest("modes", rows(0, 100), mode="create") == 100
    with pytest.raises(adbc_driver_manager.Error, match="modes") as caught:
        cursor.adbc_ingest("modes", rows(0, 100), mode="create")
    assert caught.value.status_code == adbc_driver_manager.AdbcStatusCode.ALREADY_EXISTS
    assert cursor.adbc_ingest("modes", rows(100, 50), mode="append") == 50
    assert count(cursor, "modes") == (150, 150)
    with pytest.raises(adbc_driver_manager.ProgrammingError, match="absent"):
        cursor.adbc_ingest("absent", rows(0, 1), mode="append")
    assert cursor.adbc_ingest("modes", rows(1000, 10), mode="replace") == 10
    assert count(cursor, "modes") == (10, 10)
    assert cursor.adbc_ingest("modes", rows(0, 5), mode="create_append") == 5
    assert cursor.adbc_ingest("modes2", rows(0, 5), mode="create_append") == 5
    assert (count(cursor, "modes"), count(cursor, "modes2")) == ((15, 15), (5, 5))


def test_rows_of_equal_key_are_one_row(cursor):
    cursor.execute("CREATE TABLE keyed (ts TIMESTAMP(6), id BIGINT, name VARCHAR, PRIMARY KEY (id, ts))")
    assert cursor.adbc_ingest("keyed", rows(0, 100), mode="append") == 100
    again = rows(50, 100).set_column(2, "name", pa.array(["again"] * 100))
    assert cursor.adbc_ingest("keyed", again, mode="append") == 100
    for _ in range(2):
        assert count(cursor, "keyed") == (150, 150)
        cursor.execute("SELECT count(*) FROM keyed WHERE name = 'again'")
        assert cursor.fetchone() == (100,)
        cursor.execute("OPTIMIZE TABLE keyed")
    cursor.execute("ALTER TABLE keyed SET (on_duplicate = 'merge')")
    nulls = rows(0, 10).set_column(2, "name", pa.nulls(10, pa.string()))
    cursor.adbc_ingest("keyed", nulls, mode="append")
    cursor.execute("SELECT count(name) FROM keyed")
    assert cursor.fetchone() == (150,)
    with pytest.raises(adbc_driver_manager.ProgrammingError, match='"id"'):
        cursor.adbc_ingest("keyed", rows(0, 1).set_column(1, "id", pa.nulls(1, pa.int64())), mode="append")
    with pytest.raises(adbc_driver_manager.ProgrammingError, match='"id"'):
        cursor.adbc_ingest("keyed", rows(0, 1).drop_columns(["id"]), mode="append")


def test_columns_go_by_name_and_misfits_are_refused_whole(cursor):
    cursor.adbc_ingest("byname", rows(0, 3), mode="create")
    shuffled = rows(3, 3).select(["name", "ts", "id"])
    assert cursor.adbc_ingest("byname", shuffled, mode="append") == 3
    extra = rows(6, 3).append_column("surplus", pa.array([1, 2, 3]))
    with pytest.raises(adbc_driver_manager.ProgrammingError, match="surplus"):
        cursor.adbc_ingest("byname", extra, mode="append")
    wrong = rows(6, 3).set_column(1, "id", pa.array(["x", "y", "z"]))
    with pytest.raises(adbc_driver_manager.ProgrammingError, match="id"):
        cursor.adbc_ingest("byname", wrong, mode="append")
    assert count(cursor, "byname") == (6, 6)
    missing = rows(6, 3).select(["ts", "id"])
    assert cursor.adbc_ingest("byname", missing, mode="append") == 3
    cursor.execute("SELECT count(*) FROM byname WHERE name IS NULL")
    assert cursor.fetchone() == (3,)


def test_into_another_schema(cursor):
    cursor.execute("CREATE SCHEMA lake")
    assert cursor.adbc_ingest("fish", rows(0, 4), mode="create", db_schema_name="lake") == 4
    assert count(cursor, "lake.fish") == (4, 4)


def test_ingest_is_one_transaction(cursor):
    """A batch that does not fit spoils those before it too."""
    cursor.execute("CREATE TABLE whole (id BIGINT NOT NULL)")
    schema = pa.schema([pa.field("id", pa.int64())])
    batches = [pa.record_batch([pa.array([1, 2, 3], pa.int64())], schema), pa.record_batch([pa.array([None], pa.int64())], schema)]
    with pytest.raises(adbc_driver_manager.Error, match="id"):
        cursor.adbc_ingest("whole", pa.RecordBatchReader.from_batches(schema, batches), mode="append")
    cursor.execute("SELECT count(*) FROM whole")
    assert cursor.fetchone() == (0,)


@pytest.mark.seconds(300)
def test_a_large_stream_stays_out_of_the_servers_memory(own_node):
    total, each = 2_000_000, 50_000
    schema = pa.schema([
        ("ts", pa.timestamp("us")), ("id", pa.int64()), ("a", pa.float64()), ("b", pa.float64()), ("pad", pa.binary(16)),
    ])  # fmt: skip
    rng = np.random.default_rng(7)
    sent = 0

    def batches():
        nonlocal sent
        for first in range(0, total, each):
            ids = np.arange(first, first + each)
            batch = pa.record_batch([
                pa.array(ids, pa.timestamp("us")), pa.array(ids), pa.array(rng.random(each)), pa.array(rng.random(each)),
                pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), each, [None, pa.py_buffer(rng.bytes(16 * each))]),
            ], schema)  # fmt: skip
            sent += batch.nbytes
            yield batch

    peak, done = 0, threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, own_node.resident_bytes())

    own_node.sql("SELECT 1")
    before = own_node.resident_bytes()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with own_node.adbc() as connection, connection.cursor() as cursor:
            reader = pa.RecordBatchReader.from_batches(schema, batches())
            assert cursor.adbc_ingest("large", reader, mode="create") == total
    finally:
        done.set()
        watcher.join()
    print(f"sent {sent // MIB} MiB; resident {before // MIB} MiB before, {peak // MIB} MiB at most")
    with own_node.adbc() as connection, connection.cursor() as cursor:
        assert count(cursor, "large") == (total, total)
        cursor.execute("SELECT max(seq) FROM system.tables, (SELECT max(created_seq) AS seq FROM system.tables)")
        assert cursor.fetchone() == (1,), "the stream was one commit"
    # The tail cache (128 MB by default) may hold rows; the rest must not grow with the stream.
    assert peak - before < 400 * MIB


TS = dt.datetime(2024, 5, 1, 12, 30, 15, 123456)
TYPES = {
    "bool": (pa.bool_(), [True, False, None]),
    "int8": (pa.int8(), [-128, 127, None]),
    "int16": (pa.int16(), [-32768, 32767, None]),
    "int32": (pa.int32(), [-(2**31), 2**31 - 1, None]),
    "int64": (pa.int64(), [-(2**63), 2**63 - 1, None]),
    "uint8": (pa.uint8(), [0, 255, None]),
    "uint16": (pa.uint16(), [0, 65535, None]),
    "uint32": (pa.uint32(), [0, 2**32 - 1, None]),
    "uint64": (pa.uint64(), [0, 2**64 - 1, None]),
    "float16": (pa.float16(), [np.float16(1.5), np.float16(-2), None]),
    "float32": (pa.float32(), [1.5, float("inf"), None]),
    "float64": (pa.float64(), [1.1, float("-inf"), None]),
    "decimal128": (pa.decimal128(38, 10), [decimal.Decimal("1234567890.0123456789"), decimal.Decimal(-1), None]),
    "decimal256": (pa.decimal256(60, 2), [decimal.Decimal("1e40"), decimal.Decimal("-0.01"), None]),
    "utf8": (pa.string(), ["", "Zoë \U0001f40e", None]),
    "large_utf8": (pa.large_string(), ["", "x" * 1000, None]),
    "utf8_view": (pa.string_view(), ["", "longer than twelve bytes", None]),
    "binary": (pa.binary(), [b"", b"\x00\xff", None]),
    "large_binary": (pa.large_binary(), [b"", b"\x00" * 100, None]),
    "binary_view": (pa.binary_view(), [b"", b"longer than twelve bytes", None]),
    "fixed_binary": (pa.binary(4), [b"abcd", b"\x00\x01\x02\x03", None]),
    "date32": (pa.date32(), [dt.date(1969, 7, 20), dt.date(2024, 2, 29), None]),
    "date64": (pa.date64(), [dt.date(1969, 7, 20), dt.date(2024, 2, 29), None]),
    "time32s": (pa.time32("s"), [dt.time(0), dt.time(23, 59, 59), None]),
    "time32ms": (pa.time32("ms"), [dt.time(0), dt.time(23, 59, 59, 999000), None]),
    "time64us": (pa.time64("us"), [dt.time(0), dt.time(23, 59, 59, 999999), None]),
    "ts_s": (pa.timestamp("s"), [TS.replace(microsecond=0), dt.datetime(1960, 1, 1), None]),
    "ts_ms": (pa.timestamp("ms"), [TS.replace(microsecond=123000), dt.datetime(1960, 1, 1), None]),
    "ts_us": (pa.timestamp("us"), [TS, dt.datetime(1960, 1, 1), None]),
    "ts_ns": (pa.timestamp("ns"), [TS, dt.datetime(1960, 1, 1), None]),
    "ts_tz": (pa.timestamp("us", "UTC"), [TS.replace(tzinfo=dt.timezone.utc), None, None]),
    "ts_zone": (pa.timestamp("ms", "Europe/Vienna"), [dt.datetime(2024, 5, 1, tzinfo=dt.timezone.utc), None, None]),
    "duration": (pa.duration("us"), [dt.timedelta(days=3, microseconds=5), dt.timedelta(seconds=-1), None]),
    "list": (pa.list_(pa.int32()), [[1, None, 3], [], None]),
    "list_of_text": (pa.list_(pa.string()), [["a", None], ["b"], None]),
    "large_list": (pa.large_list(pa.int64()), [[1], [], None]),
    "fixed_list": (pa.list_(pa.float32(), 2), [[1.0, 2.0], [3.0, 4.0], None]),
    "struct": (pa.struct([("x", pa.int32()), ("y", pa.string())]), [{"x": 1, "y": "a"}, {"x": None, "y": None}, None]),
    "list_of_struct": (pa.list_(pa.struct([("x", pa.int32())])), [[{"x": 1}, {"x": 2}], [], None]),
    "struct_of_list": (pa.struct([("l", pa.list_(pa.int64()))]), [{"l": [1, 2]}, {"l": None}, None]),
    "map": (pa.map_(pa.string(), pa.int32()), [[("a", 1), ("b", None)], [], None]),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), ["red", "green", None]),
    "dictionary8": (pa.dictionary(pa.int8(), pa.string()), ["red", "red", None]),
}


@pytest.mark.parametrize("name", TYPES)
def test_a_type_there_and_back(cursor, name):
    """Values are the same from the tail, from data files, and through a filter; the wire's types are plain ones."""
    kind, values = TYPES[name]
    column = pa.array(values, kind)
    # The first timestamp column is the designated one, which is never null: it must not be the one under test.
    sent = pa.table({"i": pa.array(range(3), pa.int64()), "at": pa.array(range(3), pa.timestamp("us")), "v": column})
    table = f"type_{name}"
    assert cursor.adbc_ingest(table, sent, mode="create") == 3
    for where in ("tail", "file"):
        cursor.execute(f"SELECT v FROM {table} ORDER BY i")
        got = cursor.fetch_arrow_table().column("v")
        assert got.to_pylist() == column.to_pylist(), where
        assert not pa.types.is_dictionary(got.type) and "view" not in str(got.type), got.type
        cursor.execute(f"SELECT count(*) FROM {table} WHERE v IS NULL")
        assert cursor.fetchone() == (column.null_count,), where
        cursor.execute(f"OPTIMIZE TABLE {table}")


def test_nan_and_negative_zero(cursor):
    values = pa.array([float("nan"), -0.0, 0.0])
    cursor.adbc_ingest("floats", pa.table({"i": [0, 1, 2], "v": values}), mode="create")
    for _ in range(2):
        cursor.execute("SELECT v FROM floats ORDER BY i")
        got = cursor.fetch_arrow_table().column("v").to_pylist()
        assert np.isnan(got[0]) and np.signbit(got[1]) and not np.signbit(got[2])
        cursor.execute("SELECT count(*) FROM floats WHERE v = 0")
        assert cursor.fetchone() == (2,)
        cursor.execute("OPTIMIZE TABLE floats")


def test_zero_rows(cursor):
    """A reader with one empty batch creates the table; the driver cannot send one without batches."""
    empty = pa.record_batch([pa.array([], pa.int64())], names=["id"])
    cursor.adbc_ingest("hollow", pa.RecordBatchReader.from_batches(empty.schema, [empty]), mode="create")
    assert count(cursor, "hollow") == (0, 0)


def test_wide_tables(cursor):
    wide = pa.table({f"c{i:04}": pa.array([i, None], pa.int64()) for i in range(1000)} | {"id": [1, 2]})
    assert cursor.adbc_ingest("wide", wide, mode="create") == 2
    cursor.execute("OPTIMIZE TABLE wide")
    cursor.execute("SELECT * FROM wide ORDER BY id")
    got = cursor.fetch_arrow_table()
    assert got.num_columns == 1001 and got.column("c0999").to_pylist() == [999, None]


def test_big_values(cursor):
    text = "x" * (3 * MIB)
    cursor.adbc_ingest("big", pa.table({"id": [1, 2], "v": [text, "y"]}), mode="create")
    cursor.execute("SELECT v FROM big ORDER BY id")
    assert cursor.fetchall() == [(text,), ("y",)]


def test_a_large_result_streams(cursor):
    cursor.execute("SELECT value AS n, value * 2 AS m FROM generate_series(1, 3000000)")
    total, seen = 0, 0
    for batch in cursor.fetch_record_batch():
        total += pc.sum(batch.column(0)).as_py()
        seen += batch.num_rows
    assert (seen, total) == (3_000_000, 3_000_000 * 3_000_001 // 2)
