"""The change stream with plain Flight: bounded, followed while others write, cut and resumed, new columns, slow readers."""

import collections
import json
import random
import threading
import time

import pyarrow as pa
import pyarrow.flight as fl
import pytest

import harness


def open_changes(client, table, first, to=None, images="after", seconds=60):
    ticket = {"changes": {"table": table, "from_seq": first, "to_seq": to, "images": images}}
    return client.do_get(fl.Ticket(json.dumps(ticket).encode()), harness.call_options(seconds=seconds))


def batches(reader):
    """(rows, where to go on) of each batch, until the stream ends."""
    while True:
        try:
            chunk = reader.read_chunk()
        except StopIteration:
            return
        yield chunk.data.to_pylist(), json.loads(chunk.app_metadata.to_pybytes())["next_seq"]


def head(node):
    return node.sql("SELECT max(seq) FROM system.log")[0][0]


def told(row):
    return tuple(value for name, value in row.items() if name not in ("_seq", "_op", "_commit_time"))


def replay(rows):
    """What somebody has who began with nothing and did as all images told him."""
    have = collections.Counter()
    for row in rows:
        match row["_op"]:
            case "insert" | "update_after":
                have[told(row)] += 1
            case "delete" | "update_before":
                have[told(row)] -= 1
                assert have[told(row)] >= 0, row
    return +have


@pytest.fixture
def table(node, request):
    name = request.node.name.split("[")[0].removeprefix("test_")
    node.sql(f"CREATE TABLE {name} (ts TIMESTAMP NOT NULL, id BIGINT, name VARCHAR) TIMESTAMP(ts)")
    return name


def test_a_bounded_stream_and_the_table_function(node, table):
    first = head(node)
    node.sql(f"INSERT INTO {table} VALUES ('2024-01-01', 1, 'a'), ('2024-01-02', 2, 'b')")
    node.sql(f"UPDATE {table} SET name = 'B' WHERE id = 2")
    node.sql(f"DELETE FROM {table} WHERE id = 1")
    node.sql(f"OPTIMIZE TABLE {table}")
    last = head(node)
    with node.flight() as client:
        reader = open_changes(client, f"public.{table}", first, last, "both")
        assert reader.schema.names == ["ts", "id", "name", "_seq", "_op", "_commit_time"]
        assert reader.schema.field("_seq").type == pa.uint64()
        assert reader.schema.field("_commit_time").type == pa.timestamp("us")
        found = list(batches(reader))
    assert found[-1][1] == last + 1
    rows = [(r["id"], r["name"], r["_op"]) for rows, _ in found for r in rows]
    assert rows == [
        (1, "a", "insert"), (2, "b", "insert"), (2, "b", "update_before"), (2, "B", "update_after"), (1, "a", "delete"),
    ]  # fmt: skip
    by_sql = node.sql(f"SELECT id, name, _op FROM system.changes('{table}', {first}, {last}, 'both')")
    assert [tuple(r) for r in by_sql] == rows
    with node.flight() as client:
        none = [r for rows, _ in batches(open_changes(client, table, first, last, "none")) for r in rows]
    assert [(r["id"], r["_op"]) for r in none] == [(1, "insert"), (2, "insert"), (None, "update_after"), (None, "delete")]


def test_followed_live_while_others_write(node, table):
    first = head(node)
    writes = 60
    failed = []

    def write():
        try:
            with node.adbc() as connection, connection.cursor() as cursor:
                for i in range(writes):
                    cursor.execute(f"INSERT INTO {table} VALUES (TIMESTAMP '2024-01-01' + INTERVAL '{i} hours', {i}, 'n{i}')")
                    if i % 10 == 3:
                        cursor.execute(f"UPDATE {table} SET name = 'changed' WHERE id = {i - 1}")
                    if i % 10 == 7:
                        cursor.execute(f"DELETE FROM {table} WHERE id = {i - 2}")
                cursor.execute(f"INSERT INTO {table} VALUES ('2025-01-01', -1, 'last')")
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    rows, delays = [], []
    with node.flight() as client:
        reader = open_changes(client, table, first, images="both")
        writer = threading.Thread(target=write)
        writer.start()
        for found, _ in batches(reader):
            rows += found
            delays += [time.time() - r["_commit_time"].timestamp() for r in found if time.timezone == 0]
            if any(r["id"] == -1 for r in found):
                break
        reader.cancel()
        writer.join()
    assert not failed
    table_now = collections.Counter(tuple(row) for row in node.sql(f"SELECT ts, id, name FROM {table}"))
    assert replay(rows) == table_now
    seqs = [r["_seq"] for r in rows]
    assert seqs == sorted(seqs)
    if delays:
        # Woken, and not by asking once in a while.
        assert sorted(delays)[len(delays) // 2] < 2


def test_cut_anywhere_and_resumed(node, table):
    first = head(node)
    numbers = random.Random(7)
    with node.adbc() as connection, connection.cursor() as cursor:
        for i in range(12):
            # Several batches in some commits.
            size = numbers.choice([1, 5, 3000, 30_000])
            rows = pa.table({
                "ts": pa.array([i * 1000 + n for n in range(size)], pa.timestamp("us")),
                "id": pa.array([i * 100_000 + n for n in range(size)]),
                "name": [f"x{n % 7}" for n in range(size)],
            })  # fmt: skip
            cursor.adbc_ingest(table, rows, mode="append")
            if i % 4 == 3:
                cursor.execute(f"UPDATE {table} SET name = 'u{i}' WHERE id % 10 = {i}")
                cursor.execute(f"DELETE FROM {table} WHERE id % 1000 = {i}")
    last = head(node)
    expected = collections.Counter(tuple(row) for row in node.sql(f"SELECT ts, id, name FROM {table}"))
    cuts = 0
    for seed in range(4):
        numbers = random.Random(seed)
        whole, at = [], first
        while at <= last:
            partly = []
            with node.flight() as client:
                reader = open_changes(client, table, at, last, "both")
                left = numbers.randint(1, 12)
                for rows, next_seq in batches(reader):
                    partly += rows
                    # What is before next_seq is whole.
                    whole += [r for r in partly if r["_seq"] < next_seq]
                    partly = [r for r in partly if r["_seq"] >= next_seq]
                    at = next_seq
                    left -= 1
                    if left == 0 and at <= last:
                        cuts += 1
                        reader.cancel()
                        break
        assert replay(whole) == expected, f"seed {seed}"
    assert cuts > 4


def test_new_columns_end_the_stream_and_the_next_has_them(node, table):
    first = head(node)
    node.sql(f"INSERT INTO {table} VALUES ('2024-01-01', 1, 'a')")
    with node.flight() as client:
        reader = open_changes(client, table, first)
        found = batches(reader)
        rows = []
        while not rows:
            rows, _ = next(found)
        node.sql(f"ALTER TABLE {table} ADD COLUMN extra BIGINT")
        node.sql(f"INSERT INTO {table} VALUES ('2024-01-02', 2, 'b', 7)")
        rest = [(r, at) for rows, at in found for r in rows]
        [(marker, at)] = rest
        assert marker["_op"] == "schema" and marker["id"] is None and at == marker["_seq"]
        again = open_changes(client, table, at)
        assert again.schema.names[:4] == ["ts", "id", "name", "extra"]
        rows = []
        found = batches(again)
        while not rows:
            rows, at = next(found)
        assert [(r["id"], r["extra"], r["_op"]) for r in rows] == [(2, 7, "insert")]
        node.sql(f"DROP TABLE {table}")
        [(gone, at)] = [(r, at) for rows, at in found for r in rows]
        assert gone["_op"] == "schema" and at == gone["_seq"] + 1
        with pytest.raises(KeyError, match="does not exist"):
            list(batches(open_changes(client, table, at)))


def test_a_slow_reader_waits_alone(node, table):
    first = head(node)
    with node.flight() as client, node.adbc() as connection, connection.cursor() as cursor:
        reader = open_changes(client, table, first)
        size, writes = 50_000, 20
        for i in range(writes):
            rows = pa.table({
                "ts": pa.array([n for n in range(size)], pa.timestamp("us")),
                "id": pa.array([i * size + n for n in range(size)]),
                "name": ["y" * 100] * size,
            })  # fmt: skip
            cursor.adbc_ingest(table, rows, mode="append")
        # Nobody read, and everything else went on.
        cursor.execute(f"SELECT count(*) FROM {table}")
        assert cursor.fetchall() == [(size * writes,)]
        cursor.execute("SELECT rows FROM system.queries WHERE state = 'running' AND statement LIKE 'changes of%'")
        handed_out = sum(rows for (rows,) in cursor.fetchall())
        assert handed_out < size * writes / 2, "what nobody reads is not computed"
        count = 0
        for rows, _ in batches(reader):
            count += len(rows)
            if count == size * writes:
                break
        reader.cancel()


def test_all_tables_in_one_stream(own_node):
    """Followed live over new tables and new columns, which end the stream of a single table but not this one."""
    with own_node.flight() as client:
        reader = open_changes(client, None, 1, images="both")
        have, upto = collections.defaultdict(collections.Counter), 1
        stream = batches(reader)
        for n in range(3):
            own_node.sql(f"CREATE TABLE t{n} (id BIGINT, name VARCHAR)")
            own_node.sql(f"INSERT INTO t{n} VALUES (1, 'one'), (2, NULL)")
            own_node.sql(f"ALTER TABLE t{n} ADD COLUMN more DOUBLE")
            own_node.sql(f"UPDATE t{n} SET more = {n}.5 WHERE id = 2")
            own_node.sql(f"DELETE FROM t{n} WHERE id = 1")
            want = head(own_node)
            while upto <= want:
                rows, upto = next(stream)
                for row in rows:
                    if row["_op"] == "schema":
                        assert row["_row"] is None
                        continue
                    values = tuple(sorted((k, v) for k, v in json.loads(row["_row"]).items() if v is not None))
                    have[row["_table"]][values] += 1 if row["_op"] in ("insert", "update_after") else -1
            assert +have[f"t{n}"] == collections.Counter([(("id", 2), ("more", n + 0.5))])
        reader.cancel()


def test_what_cannot_be_told_is_said(node, table):
    with node.flight() as client:
        for changes, said in [
            ({"table": "nowhere", "from_seq": 1}, "does not exist"),
            ({"table": table, "from_seq": 1, "images": "some"}, "none, after or both"),
            ({"table": table}, "from_seq"),
            ({"table": table, "from_seq": 9, "to_seq": 2}, "ends before it begins"),
        ]:
            with pytest.raises((KeyError, pa.ArrowException, fl.FlightError), match=said):
                client.do_get(fl.Ticket(json.dumps({"changes": changes}).encode()), harness.call_options()).read_all()


def test_a_node_that_stops_ends_its_streams(own_node):
    own_node.sql("CREATE TABLE t (a BIGINT)")
    own_node.sql("INSERT INTO t VALUES (1)")
    with own_node.flight() as client:
        reader = open_changes(client, "t", 1)
        found = batches(reader)
        rows = []
        while not rows:
            rows, _ = next(found)
        begin = time.monotonic()
        process = own_node.process
        process.terminate()
        with pytest.raises(fl.FlightUnavailableError):
            list(found)
        assert process.wait(30) == 0
        assert time.monotonic() - begin < 8, "the stream held the node up"
    own_node.process = None
