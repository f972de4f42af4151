"""Plain Flight: DoPut by path, JSON tickets, listings, actions, compression, foreign and hostile messages."""

import json
import struct

import pyarrow as pa
import pyarrow.flight as fl
import pytest

from harness import action, call_options, put, ticket, wait_until

COLUMNS = pa.schema([("ts", pa.timestamp("us")), ("id", pa.int64()), ("host", pa.string())])


def batch(first, count=10):
    ids = range(first, first + count)
    return pa.record_batch([pa.array(ids, pa.timestamp("us")), pa.array(ids, pa.int64()), [f"h{i % 3}" for i in ids]], COLUMNS)


@pytest.fixture
def client(node):
    with node.flight() as opened:
        yield opened


@pytest.fixture
def points(node, request):
    """An empty table; its name."""
    name = request.node.name.split("[")[0].removeprefix("test_")
    node.sql(f"DROP TABLE IF EXISTS {name}")
    node.sql(f"CREATE TABLE {name} (ts TIMESTAMP NOT NULL, id BIGINT, host VARCHAR) TIMESTAMP(ts)")
    return name


def read(client, **fields):
    return client.do_get(ticket(**fields), call_options()).read_all()


def test_every_batch_is_acknowledged_with_its_seq(client, points):
    answers = put(client, points, [batch(0), batch(10), batch(20, 5)])
    assert [a["batch"] for a in answers] == [0, 1, 2]
    assert [a["rows"] for a in answers] == [10, 10, 5]
    assert all(a["duplicate"] is False for a in answers)
    seqs = [a["seq"] for a in answers]
    assert seqs == sorted(seqs) and seqs[0] > 1
    many = [a["seq"] for a in put(client, points, [batch(first) for first in range(1000, 2000, 10)])]
    assert many == sorted(many), "one stream's batches are committed in the order they were sent"
    assert put(client, ["public", points], [batch(25)])[0]["seq"] > many[-1]
    assert read(client, sql=f"SELECT count(*) AS n, count(DISTINCT id) AS d FROM {points}").to_pylist() == [{"n": 1035, "d": 1035}]


def test_json_tickets(client, points):
    put(client, points, [batch(0)])
    assert read(client, table=points).num_rows == 10
    some = read(client, table=f"public.{points}", columns=["id"])
    assert some.column_names == ["id"]
    assert read(client, sql=f"SELECT id FROM {points} WHERE id >= ? AND host = ?", params=[5, "h0"]).column(0).to_pylist() == [6, 9]
    for wrong in ({}, {"sql": "SELECT 1", "table": points}, {"tabel": points}, {"table": points, "columns": []}):
        with pytest.raises((pa.ArrowInvalid, fl.FlightServerError)):
            read(client, **wrong)
    with pytest.raises((pa.ArrowInvalid, fl.FlightServerError)):
        client.do_get(fl.Ticket(b"SELECT 1")).read_all()


def test_a_statement_that_changes_something_is_no_ticket(client, points):
    with pytest.raises((pa.ArrowInvalid, fl.FlightServerError, pa.ArrowNotImplementedError)):
        read(client, sql=f"DROP TABLE {points}")
    assert read(client, table=points).num_rows == 0


def test_listings_and_infos(client, points):
    put(client, points, [batch(0)])
    listed = {tuple(p.decode() for p in i.descriptor.path): i for i in client.list_flights(options=call_options())}
    assert ("public", points) in listed
    info = client.get_flight_info(fl.FlightDescriptor.for_path(points), call_options())
    assert info.schema.names == COLUMNS.names
    assert len(info.endpoints) == 1
    got = client.do_get(info.endpoints[0].ticket, call_options()).read_all()
    assert got.schema.equals(info.schema) and got.num_rows == 10
    schema = client.get_schema(fl.FlightDescriptor.for_path(points), call_options()).schema
    assert schema.equals(info.schema)
    with pytest.raises((KeyError, fl.FlightServerError, pa.ArrowKeyError)):
        client.get_flight_info(fl.FlightDescriptor.for_path("absent"), call_options())


def test_actions_are_listed_and_work(client, node, points):
    names = {a.type for a in client.list_actions(call_options())}
    assert {
        "CreatePreparedStatement", "ClosePreparedStatement", "CancelFlightInfo", "SetSessionOptions",
        "tandem.Status", "tandem.Compact", "tandem.Checkpoint",
    } <= names  # fmt: skip
    put(client, points, [batch(0)])
    status = json.loads(action(client, "tandem.Status")[0])
    assert status["seq"] >= 2
    action(client, "tandem.Compact", {"table": points})
    assert node.sql(f"SELECT files, tail_rows FROM system.tables WHERE table_name = '{points}'") == [(1, 0)]
    action(client, "tandem.Checkpoint")
    with pytest.raises(Exception, match="nonsense"):
        action(client, "nonsense")
    with pytest.raises(Exception, match="absent"):
        action(client, "tandem.Compact", {"table": "absent"})


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_batches_are_understood(client, points, codec):
    descriptor = fl.FlightDescriptor.for_path(points)
    options = fl.FlightCallOptions(timeout=60, write_options=pa.ipc.IpcWriteOptions(compression=codec))
    writer, reader = client.do_put(descriptor, COLUMNS, options)
    for first in range(0, 3000, 1000):
        writer.write_batch(batch(first, 1000))
    writer.done_writing()
    assert [json.loads(reader.read().to_pybytes())["rows"] for _ in range(3)] == [1000] * 3
    writer.close()
    assert read(client, sql=f"SELECT count(DISTINCT id) AS n FROM {points}").to_pylist() == [{"n": 3000}]
    compressed = client.do_get(ticket(table=points), call_options({"tandem-compression": codec})).read_all()
    assert compressed.num_rows == 3000


def test_dictionaries_that_change_between_batches(client, points):
    schema = COLUMNS.set(2, pa.field("host", pa.dictionary(pa.int32(), pa.string())))

    def coded(first, words):
        plain = batch(first, len(words))
        return pa.record_batch([plain.column(0), plain.column(1), pa.array(words).dictionary_encode()], schema)

    answers = put(client, points, [coded(0, ["a", "b", "a"]), coded(3, ["c", None, "a"]), coded(6, ["b"])])
    assert [a["rows"] for a in answers] == [3, 3, 1]
    got = read(client, sql=f"SELECT host FROM {points} ORDER BY id").column(0).to_pylist()
    assert got == ["a", "b", "a", "c", None, "a", "b"]


def test_schema_header(client, points, node):
    wider = batch(0).append_column("extra", pa.array([1.5] * 10))
    with pytest.raises(Exception, match="extra"):
        put(client, points, [wider])
    assert read(client, table=points).num_rows == 0
    put(client, points, [wider], {"tandem-schema": "add"})
    assert read(client, table=points).column_names == ["ts", "id", "host", "extra"]
    with pytest.raises(Exception, match="fresh_one"):
        put(client, "fresh_one", [batch(0)])
    put(client, "fresh_one", [batch(0)], {"tandem-schema": "create"})
    assert node.sql("SELECT count(*) FROM fresh_one") == [(10,)]


@pytest.mark.parametrize("header", [("tandem-nonsense", "1"), ("tandem-schema", "sometimes"), ("tandem-as-of", "then"), ("tandem-min-seq", "one")])
def test_headers_that_are_not_understood_are_errors(client, points, header):
    with pytest.raises(Exception, match=header[0]):
        put(client, points, [batch(0)], [header])
    assert read(client, table=points).num_rows == 0
    assert put(client, points, [batch(0)], {"x-somebody-elses": "1"})[0]["rows"] == 10


def test_a_bad_batch_spoils_itself_alone(client, points):
    bad = pa.record_batch([pa.array([50, None], pa.timestamp("us")), pa.array([50, 51], pa.int64()), ["x", "y"]], COLUMNS)
    with pytest.raises(Exception, match="ts"):
        put(client, points, [batch(0), bad, batch(100)])
    ids = set(read(client, sql=f"SELECT id FROM {points}").column(0).to_pylist())
    assert ids >= set(range(10)) and ids.isdisjoint({50, 51})
    # What was on its way behind it was never acknowledged: whole or absent.
    assert len(ids & set(range(100, 110))) in (0, 10)


def test_a_batch_of_more_than_twenty_megabytes(client, points):
    count = 400_000
    names = pa.array(["%050d" % i for i in range(count)])
    big = pa.record_batch([pa.array(range(count), pa.timestamp("us")), pa.array(range(count)), names], COLUMNS)
    assert big.nbytes > 20 << 20
    assert put(client, points, [big])[0]["rows"] == count
    got = read(client, table=points)
    assert got.num_rows == count and got.column("host")[-1].as_py() == names[-1].as_py()
    assert read(client, sql=f"SELECT count(DISTINCT host) AS n FROM {points}").to_pylist() == [{"n": count}]


def test_a_client_that_goes_away_leaves_whole_batches(client, points, node):
    other = node.flight()
    writer, _ = other.do_put(fl.FlightDescriptor.for_path(points), COLUMNS)
    for first in range(0, 100, 10):
        writer.write_batch(batch(first))
    del writer
    other.close()
    seen = read(client, sql=f"SELECT host, id FROM {points}")
    ids = seen.column("id").to_pylist()
    assert len(ids) == len(set(ids)) and len(ids) % 10 == 0
    assert put(client, points, [batch(1000)])[0]["rows"] == 10


# Messages no client library would send.


def varint(n):
    out = b""
    while True:
        n, low = n >> 7, n & 0x7F
        out += bytes([low | (0x80 if n else 0)])
        if not n:
            return out


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def test_keys_are_told_by_flight_sql(client, node):
    node.sql("CREATE TABLE with_key (ts TIMESTAMP, host VARCHAR, v DOUBLE, PRIMARY KEY (host, ts))")
    node.sql("CREATE TABLE without_key (ts TIMESTAMP, host VARCHAR)")

    def keys(table):
        name = "type.googleapis.com/arrow.flight.protocol.sql.CommandGetPrimaryKeys"
        command = field(1, name.encode()) + field(2, field(3, table.encode()))
        info = client.get_flight_info(fl.FlightDescriptor.for_command(command))
        return client.do_get(info.endpoints[0].ticket).read_all().to_pylist()

    columns = [(row["db_schema_name"], row["table_name"], row["column_name"], row["key_sequence"]) for row in keys("with_key")]
    assert columns == [("public", "with_key", "host", 1), ("public", "with_key", "ts", 2)]
    assert keys("without_key") == keys("absent") == []


def flight_data(descriptor=None, header=b"", body=b""):
    message = b"" if descriptor is None else field(1, descriptor)
    return message + (field(2, header) if header else b"") + (field(1000, body) if body else b"")


def path_descriptor(*path):
    return b"\x08\x01" + b"".join(field(3, p.encode()) for p in path)


def ipc_parts(schema, one):
    """(schema header, batch header, batch body) as Flight carries them."""
    message = pa.ipc.read_message(schema.serialize())
    data = pa.ipc.read_message(one.serialize())
    return message.metadata.to_pybytes(), data.metadata.to_pybytes(), data.body.to_pybytes()


def hostile_streams(table):
    schema_header, header, body = ipc_parts(COLUMNS, batch(0))
    start = flight_data(path_descriptor(table), schema_header)
    yield "garbage instead of a schema", [flight_data(path_descriptor(table), b"\xff" * 100)]
    yield "no descriptor", [flight_data(None, schema_header)]
    yield "nothing", []
    yield "an empty path", [flight_data(path_descriptor(), schema_header)]
    yield "garbage instead of a batch", [start, flight_data(None, b"\x10\x00\x00\x00" + b"\xff" * 60, body)]
    yield "a body that is cut", [start, flight_data(None, header, body[: len(body) // 2])]
    yield "no body", [start, flight_data(None, header)]
    yield "no protobuf at all", [b"\xff\xff\xff\xff\xff"]
    yield "a schema twice, then a batch for it", [start, flight_data(None, schema_header), flight_data(None, header, body)]
    for position in range(0, len(header) - 4, 4):
        mangled = bytearray(header)
        struct.pack_into("<i", mangled, position, 0x7FFFFFF0 if position % 8 else -5)
        yield f"batch header with a wild number at {position}", [start, flight_data(None, bytes(mangled), body)]
    for position in range(0, len(schema_header) - 4, 4):
        mangled = bytearray(schema_header)
        struct.pack_into("<i", mangled, position, 0x7FFFFFF0 if position % 8 else -5)
        yield f"schema with a wild number at {position}", [
            flight_data(path_descriptor(table), bytes(mangled)), flight_data(None, header, body),
        ]  # fmt: skip
    offsets = struct.pack("<11i", *range(10, -1, -1))
    yield "text offsets that run backwards", [start, flight_data(None, header, body[:160] + offsets + body[160 + len(offsets) :])]


def test_hostile_messages_fail_alone(node, client, points):
    grpc = pytest.importorskip("grpc")
    before = node.resident_bytes()
    refused, sent = 0, 0
    with grpc.insecure_channel(node.ready["flight"]) as channel:
        do_put = channel.stream_stream("/arrow.flight.protocol.FlightService/DoPut")
        for what, messages in hostile_streams(points):
            sent += 1
            try:
                list(do_put(iter(messages), timeout=20))
            except grpc.RpcError as error:
                refused += 1
                assert error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), what
                assert "fault of the server" not in error.details(), (what, error.details())
            assert node.is_up(), what
        for method in ("GetFlightInfo", "GetSchema"):
            call = channel.unary_unary(f"/arrow.flight.protocol.FlightService/{method}")
            for body in (b"", b"\xff" * 50, field(2, b"\xff" * 30), b"\x08\x02" + field(2, field(1, b"type.googleapis.com/x"))):
                with pytest.raises(grpc.RpcError):
                    call(body, timeout=20)
        get = channel.unary_stream("/arrow.flight.protocol.FlightService/DoGet")
        for body in (b"", field(1, b"\x00" * 20), field(1, b"{"), field(1, b'{"sql":' + b"[" * 10000)):
            with pytest.raises(grpc.RpcError):
                list(get(body, timeout=20))
    print(f"{refused} of {sent} streams refused")
    assert refused > sent // 2
    # What slipped through must be readable, and the node as well as before.
    total = read(client, sql=f"SELECT count(*) AS n, count(host) AS h, max(id) AS i FROM {points}")
    assert total.num_rows == 1
    read(client, table=points)
    put(client, points, [batch(10_000)])
    action(client, "tandem.Compact", {"table": points})
    assert read(client, sql=f"SELECT count(*) AS n FROM {points} WHERE id >= 10000").to_pylist() == [{"n": 10}]
    assert node.resident_bytes() - before < 300 << 20


def test_deep_and_long_statements_are_refused_or_answered(client, node):
    for sql in ("SELECT " + "(" * 5000 + "1" + ")" * 5000, "SELECT " + "-" * 1 + "1" + " + 1" * 50_000, "SELECT '" + "x" * (5 << 20)):
        try:
            read(client, sql=sql)
        except (pa.ArrowException, fl.FlightError):
            pass
        assert node.is_up()
    assert read(client, sql="SELECT 1 AS one").to_pylist() == [{"one": 1}]


def test_health_and_metrics(node, client, points):
    put(client, points, [batch(0)])
    assert node.get("/healthz")[0] == 200
    assert node.get("/readyz")[0] == 200
    status, text = node.get("/metrics")
    assert status == 200
    applied = [line for line in text.splitlines() if line.startswith("tandem_applied_seq")]
    assert applied and float(applied[0].split()[-1]) >= 2
    assert f'tandem_tail_rows{{table="public.{points}"}} 10' in text or f'table="{points}"' in text
    assert node.get("/nonsense")[0] == 404


def test_sessions_follow_the_connection(client, node):
    wait_until(lambda: node.sql("SELECT count(*) FROM system.settings")[0][0] > 0, 10, "settings are shown")
    names = {name for (name,) in node.sql("SELECT name FROM system.settings")}
    assert {"checkpoint_commits", "checkpoint_bytes"} <= names
