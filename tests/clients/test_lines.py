"""Line protocol over HTTP: the clients that people have, and what goes over the wire when something is wrong."""

import base64
import concurrent.futures
import contextlib
import datetime
import decimal
import gzip
import http.client
import json
import socket

import numpy as np
import pandas as pd
import pytest

import harness

UTC = datetime.timezone.utc
STAMP = 1_700_000_000_000_000_001
READER, WRITER = "reader-0123456789abcdef", "writer-0123456789abcdef"


class Answer:
    def __init__(self, answer):
        self.status, self.headers, self.text = answer.status, answer.headers, answer.read().decode()
        self.seq = int(self.headers["tandem-seq"]) if "tandem-seq" in self.headers else None

    def json(self):
        return json.loads(self.text)


def ask(node, method, path, body=None, **headers):
    """One request on a connection of its own; underscores in header names stand for hyphens."""
    body = body.encode() if isinstance(body, str) else body
    with contextlib.closing(http.client.HTTPConnection(node.ready["http"], timeout=60)) as connection:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return Answer(connection.getresponse())


def post(node, path, body, **headers):
    return ask(node, "POST", path, body, **headers)


# QuestDB's client


def sender(node, more=""):
    questdb = pytest.importorskip("questdb.ingress", exc_type=ImportError)
    return questdb.Sender.from_conf(f"http::addr={node.ready['http']};{more}"), questdb


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", [None, 1, 2, 3])
def test_questdb_client_in_all_versions(node, version):
    table = f"questdb_{version or 'auto'}"
    opened, questdb = sender(node, f"protocol_version={version};" if version else "")
    text = 'he said "x"\n,= \\ y'
    fields = {"f": 0.1, "i": -7, "b": True, "s": text, "at": questdb.TimestampMicros(1_700_000_000_000_000)}
    if version != 1:
        # A double whose bytes are line ends, too.
        odd = np.frombuffer(b"\n, =\n\n,\n", dtype="<f8")[0]
        fields |= {"odd": float(odd), "a": np.array([[1.0, 2.0], [3.0, float(odd)]])}
    if version in (None, 3):
        fields["d"] = decimal.Decimal("12.345")
    with opened as open_sender:
        symbols = {"city": "Oslo, = x", "path": "C:\\"}
        open_sender.row(table, symbols=symbols, columns=fields, at=questdb.TimestampNanos(STAMP))
        open_sender.row(table, symbols={"city": "Rom"}, at=datetime.datetime(2024, 1, 1, tzinfo=UTC))
    rows = node.table(f"SELECT * FROM {table} ORDER BY timestamp").to_pylist()
    first = rows[0]
    assert first.pop("timestamp").value == STAMP
    assert first.pop("at") == datetime.datetime(2023, 11, 14, 22, 13, 20)
    expected = {**symbols, **{name: value for name, value in fields.items() if name != "at"}}
    if "a" in expected:
        expected["a"] = expected["a"].tolist()
    assert first == expected
    assert rows[1]["city"] == "Rom" and rows[1]["f"] is None
    partitions = f"SELECT count(*) FROM system.partitions WHERE table_name = '{table}'"
    assert node.sql(partitions) == [(2,)], "by day"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_questdb_client_data_frames(node):
    opened, _ = sender(node)
    frame = pd.DataFrame(
        {
            "sym": pd.Categorical([f"s{i % 7}" for i in range(5000)]),
            "x": np.arange(5000) / 3,
            "n": range(5000),
            "ts": pd.date_range("2024-01-01", periods=5000, freq="min"),
        }
    )
    with opened as open_sender:
        open_sender.dataframe(frame, table_name="frame", symbols=["sym"], at="ts")
    found = node.table("SELECT * FROM frame ORDER BY n").to_pandas()
    assert found["x"].tolist() == frame["x"].tolist()
    assert found["sym"].tolist() == frame["sym"].tolist()
    assert found["timestamp"].tolist() == frame["ts"].tolist()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_questdb_client_understands_errors(node):
    post(node, "/write", "clash n=1i 1\n")
    opened, questdb = sender(node)
    with pytest.raises(Exception, match='table "clash", column "n": the column is Int64, the line has a string.*line: 1'):
        with opened as open_sender:
            open_sender.row("clash", columns={"n": "text"}, at=questdb.TimestampNanos(5))
    assert node.sql("SELECT count(*) FROM clash") == [(1,)]


# InfluxDB's clients


def test_influxdb_2_client(node):
    influx = pytest.importorskip("influxdb_client")
    from influxdb_client.client.write_api import SYNCHRONOUS

    with influx.InfluxDBClient(f"http://{node.ready['http']}", token="any", org="o", enable_gzip=True) as client:
        assert client.ping() and client.health().status == "pass"
        points = [
            influx.Point("weather").tag("city", f"c {i % 3}").field("temp", i / 2).field("n", i).time(1_700_000_000_000 + i, "ms")
            for i in range(1000)
        ]
        with client.write_api(write_options=SYNCHRONOUS) as writer:
            writer.write(bucket="b", record=points, write_precision="ms")
            with pytest.raises(influx.rest.ApiException) as caught:
                writer.write(bucket="b", record='weather n="text" 1')
    assert caught.value.status == 400 and 'column "n"' in json.loads(caught.value.body)["message"]
    assert node.sql("SELECT count(*), sum(n), max(temp), count(DISTINCT city) FROM weather") == [(1000, 499500, 499.5, 3)]
    assert node.table("SELECT min(timestamp) t FROM weather")["t"][0].value == 1_700_000_000_000_000_000


def test_influxdb_3_client(node):
    influx = pytest.importorskip("influxdb_client_3")
    options = influx.write_client_options(write_options=influx.SYNCHRONOUS)
    with influx.InfluxDBClient3(
        host=f"http://{node.ready['http']}", token="any", database="d", write_client_options=options
    ) as client:
        client.write([f"air,room=r{i} co={i}i,hum={i}.5 {STAMP + i}" for i in range(100)])
        client.write(influx.Point("air").tag("room", "r7").field("hum", 1.25).time(STAMP))
    assert node.sql("SELECT count(*), sum(co) FROM air") == [(101, 4950)]


def test_what_telegraf_sends(node):
    """By its documentation: the influxdb_v2 output, with its defaults."""
    headers = {
        "user_agent": "Telegraf/1.36.0", "authorization": "Token any", "content_type": "text/plain; charset=utf-8",
        "content_encoding": "gzip",
    }  # fmt: skip
    lines = f"cpu,cpu=cpu0,host=my\\ host usage_idle=97.5,usage_user=1.25 {STAMP}\nmem,host=my\\ host free=12345i,used_percent=7 {STAMP}\n"
    answer = post(node, "/api/v2/write?bucket=b&org=o", gzip.compress(lines.encode()), **headers)
    assert (answer.status, answer.text) == (204, "")
    assert node.sql("SELECT host, usage_idle FROM cpu") == [("my host", 97.5)]
    assert node.sql("SELECT free, used_percent FROM mem") == [(12345, 7.0)]


# the wire


def test_one_request_is_one_commit_over_all_tables(node):
    body = "".join(f"many{i % 5},tag=t{i} v={i}i {i + 1}\n" for i in range(100))
    answer = post(node, "/write", body)
    assert (answer.status, answer.text) == (204, "")
    seqs = node.sql("SELECT DISTINCT created_seq FROM system.tables WHERE table_name LIKE 'many_'")
    assert seqs == [(answer.seq,)]
    refused = post(node, "/write", "many0 v=1i 1\nmany1 v=oops 2\nmany2 v=1i 3\n")
    assert refused.status == 400
    assert [node.sql(f"SELECT count(*) FROM many{i}") for i in range(5)] == [[(20,)]] * 5


def test_errors_are_told_in_each_family_s_shape(node):
    bad = "shape v=1i 1\nshape v=oops 2\n"
    for path in ["/write", "/write?db=x", "/api/v2/write?bucket=b", "/api/v3/write_lp?db=x"]:
        answer = post(node, path + ("" if path == "/write" else "&accept_partial=false"), bad)
        assert answer.status == 400
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["transfer-encoding"] == "chunked"
        body = answer.json()
        told = body.get("message") or body["error"]
        assert "line 2, byte 9" in (body["data"]["error_message"] if "data" in body else told)
        if path == "/write":
            assert body["code"] == "invalid" and body["line"] == 2
    with pytest.raises(Exception, match="shape"):
        node.sql("SELECT * FROM shape")


def test_good_lines_are_kept_where_the_protocol_says_so(node):
    answer = post(node, "/api/v3/write_lp?db=x&precision=ns", "part v=1i 1\npart v=oops 2\npart v=1.5 3\npart v=4i 4\n")
    assert answer.status == 400
    body = answer.json()
    assert body["error"] == "partial write of line protocol occurred"
    assert [line["line_number"] for line in body["data"]] == [2, 3]
    assert body["data"][0]["original_line"] == "part v=oops 2"
    assert node.sql("SELECT v FROM part ORDER BY v") == [(1,), (4,)]


def test_older_versions_of_influxdb_keep_good_lines_too(node):
    lines = "older{} v=1i 1\nolder{} v=oops 2\nolder{} v=1.5 3\nolder{} v=4i 4\n"
    for version, path in [(1, "/write?db=x"), (2, "/api/v2/write?bucket=b")]:
        answer = post(node, path, lines.replace("{}", str(version)))
        body = answer.json()
        told = body["error" if version == 1 else "message"]
        assert answer.status == 400 and answer.seq is not None
        assert told.startswith("partial write: line 2, byte 10") and "; line 3, " in told and told.endswith(" dropped=2")
        assert [line["line_number"] for line in body["data"]] == [2, 3]
        assert node.sql(f"SELECT v FROM older{version} ORDER BY v") == [(1,), (4,)]
    assert post(node, "/api/v2/write?bucket=b&accept_partial=false", "older2 v=5i 5\nolder2 v=x 6\n").status == 400
    assert node.sql("SELECT max(v) FROM older2") == [(4,)]


def test_precisions(node):
    for precision, stamp in [("n", STAMP), ("us", STAMP // 1000), ("ms", STAMP // 10**6), ("s", STAMP // 10**9)]:
        assert post(node, f"/write?precision={precision}", f"prec_{precision} v=1i {stamp}\n").status == 204
        found = node.table(f"SELECT timestamp FROM prec_{precision}")["timestamp"][0].value
        assert found == stamp * 10 ** (9 - {"n": 9, "us": 6, "ms": 3, "s": 0}[precision])
    assert post(node, "/api/v3/write_lp?db=d", f"prec_auto v=1i {STAMP // 10**9}\n").status == 204
    assert node.table("SELECT timestamp FROM prec_auto")["timestamp"][0].value == STAMP // 10**9 * 10**9
    assert post(node, "/write?precision=d", "x v=1i 1\n").status == 400


def test_a_line_without_a_timestamp_gets_the_server_s(node):
    before = pd.Timestamp.now(UTC).tz_localize(None)
    assert post(node, "/write", "clock v=1i\nclock v=2i\n").status == 204
    stamps = node.table("SELECT timestamp FROM clock")["timestamp"].to_pylist()
    assert all(before - pd.Timedelta("5s") <= stamp <= before + pd.Timedelta("60s") for stamp in stamps)


def test_gzip_of_several_members(node):
    body = gzip.compress(b"zip v=1i 1\nzip v") + gzip.compress(b"=2i 2\n")
    assert post(node, "/api/v2/write?bucket=b", body, content_encoding="gzip").status == 204
    assert node.sql("SELECT v FROM zip ORDER BY v") == [(1,), (2,)]
    assert post(node, "/api/v2/write?bucket=b", body[:-5], content_encoding="gzip").status == 400
    assert post(node, "/api/v2/write?bucket=b", body, content_encoding="br").status == 415


def test_lines_go_into_tables_that_exist(node):
    node.sql("CREATE TABLE made (ts TIMESTAMP(6), city VARCHAR, x DOUBLE, small INT, price DECIMAL(10, 2)) PARTITION BY MONTH")
    lines = f"made,city=Oslo x=5i,small=3i,price=1.5d {STAMP}\n"
    assert post(node, "/write", lines).status == 204
    assert post(node, "/write", f"made x=1.5,new=\"column\" {STAMP}\n").status == 204
    rows = node.sql("SELECT city, x, small, price, new FROM made ORDER BY x")
    assert rows == [(None, 1.5, None, None, "column"), ("Oslo", 5.0, 3, decimal.Decimal("1.50"), None)]
    types = dict(node.sql("SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'made'"))
    assert types["small"] == "Int32", "kept while the values fit"
    for field, message in [
        ("x=9007199254740993i", "the column is Float64, the line has an integer, and this one does not fit"),
        ("price=1.001d", "does not fit without loss"),
        ("city=1i", "the column is Utf8"),
        ("ts=1i", "designated timestamp"),
    ]:
        answer = post(node, "/write", f"made {field} 5\n")
        assert answer.status == 400 and message in answer.json()["message"], answer.text
    assert post(node, "/write", f"made small=3000000000i {STAMP}\n").status == 204, "the column widens"
    strict = post(node, "/write", "made other=1i 5\n", tandem_schema="add")
    assert strict.status == 204
    assert post(node, "/write", "made another=1i 5\n", tandem_schema="strict").status == 400
    assert post(node, "/write", "unmade v=1i 5\n", tandem_schema="add").status == 400


def test_lines_that_would_widen_a_strict_table_are_refused_one_by_one(node):
    node.sql("CREATE TABLE narrow (ts TIMESTAMP, i SMALLINT, r REAL) WITH (schema = 'strict')")
    answer = post(node, "/api/v2/write", "narrow i=6i,r=0.5 2000\nnarrow i=70000i 3000\nnarrow r=0.1 4000\n")
    assert answer.status == 400 and [line["line_number"] for line in answer.json()["data"]] == [2, 3], answer.text
    assert 'table "narrow", column "i": the column is Int16, the line has an integer' in answer.json()["message"]
    assert node.sql("SELECT i, r FROM narrow") == [(6, 0.5)]
    assert post(node, "/write", "narrow i=70000i 3000\n", tandem_schema="add").status == 204
    assert node.sql("SELECT i FROM narrow ORDER BY i") == [(6,), (70_000,)]


def test_a_token_commits_once(node):
    first = post(node, "/write", "once v=1i 1\n", tandem_token="lines 1")
    again = post(node, "/write", "once v=1i 1\n", tandem_token="lines 1")
    assert (first.status, again.status) == (204, 204) and first.seq == again.seq
    assert again.headers["tandem-duplicate"] == "true"
    other = post(node, "/write", "once v=2i 1\n", tandem_token="lines 1")
    assert (other.status, other.headers["tandem-error"]) == (409, "token-reused")
    assert node.sql("SELECT count(*) FROM once") == [(1,)]
    assert post(node, "/write", "once v=1i 1\n", tandem_nonsense="1").status == 400


def test_a_body_that_is_sent_again_commits_once_where_the_tables_say_so(node):
    for table in ("again1", "again2", "plain"):
        window = "" if table == "plain" else " WITH (dedup_window = '10m')"
        node.sql(f"CREATE TABLE {table} (timestamp TIMESTAMP, host VARCHAR, v BIGINT){window}")

    def send(body, rows, **headers):
        answers = [post(node, "/write", body, **headers) for _ in range(2)]
        assert [answer.status for answer in answers] == [204, 204]
        tables = " UNION ALL ".join(f"SELECT v FROM {table}" for table in ("again1", "again2", "plain"))
        assert node.sql(f"SELECT count(*) FROM ({tables})") == [(rows,)]
        return [answer.headers["tandem-duplicate"] for answer in answers]

    both = "again1,host=a v=1i 1\nagain2,host=a v=1i 1\n"
    assert send(both, 2) == [None, "true"]
    assert send(both, 4, user_agent="somebody else") == [None, "true"]
    assert send("again1,host=a v=2i\n", 6) == [None, None], "two events, each when it came"
    assert send("again1 v=3i 1\nplain v=3i 1\n", 10) == [None, None], "one table keeps all"


def test_a_body_that_is_sent_again_commits_once_in_tables_that_lines_make(own_node):
    def twice(table, lines, path="/write", **headers):
        body = "".join(f"{table} {line}\n" for line in lines)
        answers = [post(own_node, path, body, **headers) for _ in range(2)]
        assert [answer.status for answer in answers] == [204, 204], answers[0].text
        return own_node.sql(f"SELECT count(*) FROM {table}")[0][0]

    assert twice("made", ["v=1i 1", "v=2i 2"]) == 2, "the first request, which makes the table, too"
    assert twice("made", ["v=1i 1", "v=2i 2"], user_agent="other") == 4, "another client's are others"
    assert twice("made", ["v=1i 1", "v=2i"]) == 8, "a line without a timestamp of its own"
    assert twice("made", ["v=9i 1"], path="/api/v2/write?bucket=b", content_encoding="identity") == 9
    assert twice("kept", ["v=1i 1"], path="/write?dedup_window=off") == 2
    post(own_node, "/write", "mixed,t=a v=1i 1\n")
    own_node.sql("CREATE TABLE keyed (ts TIMESTAMP, host VARCHAR, v BIGINT, PRIMARY KEY (ts, host))")
    both = "mixed,t=a v=2i 2\nkeyed,host=a v=1i 2\n"
    assert [post(own_node, "/write", both).headers["tandem-duplicate"] for _ in range(2)] == [None, "true"]
    # Lines that were refused the first time are not taken for written the second time.
    own_node.sql("CREATE TABLE wide (timestamp TIMESTAMP, v INT) WITH (dedup_window = '10m')")
    partial = "wide v=1i 1\nwide v=1.5 2\n"
    assert post(own_node, "/api/v2/write", partial).status == 400
    own_node.sql("ALTER TABLE wide ALTER COLUMN v TYPE DOUBLE")
    again = post(own_node, "/api/v2/write", partial)
    assert (again.status, again.headers["tandem-duplicate"]) == (204, None)
    assert own_node.sql("SELECT max(v) FROM wide") == [(1.5,)]
    # Of statements, two are two.
    for _ in range(2):
        own_node.sql("INSERT INTO mixed (timestamp, t, v) VALUES ('2024-01-01', 'sql', 7)")
    assert own_node.sql("SELECT count(*) FROM mixed WHERE t = 'sql'") == [(2,)]
    own_node.sql("ALTER DATABASE SET (line_dedup_window = off)")
    assert twice("later", ["v=1i 1"]) == 2
    assert own_node.sql("SELECT table_name FROM system.tables WHERE options LIKE '%dedup%' ORDER BY 1") == [
        ("made",), ("mixed",), ("wide",)
    ]  # fmt: skip


def test_tags_and_time_are_the_key_where_that_is_asked_for(node):
    def send(body, path="/api/v2/write?bucket=b&keys=tags", expect=204):
        answer = post(node, path, body)
        assert answer.status == expect, answer.text
        return answer

    send("series,host=a,dc=x cpu=1,mem=1i 5\nseries,host=b cpu=2 5\nseries cpu=3 5\n")
    send("series,dc=x,host=a cpu=7 5\nseries cpu=8 5\nseries,host=b disk=1i 5\n")
    rows = node.sql("SELECT host, dc, cpu, mem, disk FROM series ORDER BY cpu")
    assert rows == [("b", "", 2.0, None, 1), ("a", "x", 7.0, 1, None), ("", "", 8.0, None, None)]
    [[key, options]] = node.sql("SELECT primary_key, options FROM system.tables WHERE table_name = 'series'")
    assert [name.strip(' "') for name in key.split(",")] == ["host", "dc", "timestamp"] and "merge" in options
    node.sql("OPTIMIZE TABLE series")
    assert node.sql("SELECT host, dc, cpu, mem, disk FROM series ORDER BY cpu") == rows
    # A key cannot grow: a new tag would make one row of two.
    told = send("series,host=a,rack=r cpu=9 5\nseries,host=c cpu=4 5\n", expect=400).json()
    assert 'line 1, byte 15, table "series", column "rack"' in told["message"] and "primary key" in told["message"]
    assert node.sql("SELECT count(*) FROM series WHERE host = 'c'") == [(1,)], "the others are written"
    # Who does not ask for it has to name the whole key.
    told = send("series,host=d cpu=1 5\n", path="/write", expect=400).json()
    assert 'column "dc"' in told["message"] and "NOT NULL" in told["message"]
    assert send("untagged v=1i 5\nuntagged v=2i 5\n") and node.sql("SELECT v FROM untagged") == [(2,)]
    # A table that is there stays as it is.
    send("plainly,host=a v=1i 5\n", path="/write")
    send("plainly,host=a v=2i 5\n")
    assert node.sql("SELECT count(*) FROM plainly") == [(2,)]


def test_requests_and_the_database_say_how_tables_are_made(own_node):
    def options(table):
        found = own_node.sql(f"SELECT partition_by, options FROM system.tables WHERE table_name = '{table}'")
        return " ".join(map(str, found[0]))

    assert post(own_node, "/write?partition_by=HOUR&ttl=30d&dedup_window=1m&db=x", "one v=1i 1\n").status == 204
    assert all(word in options("one").lower() for word in ("hour", "ttl", "30d", "1m")), options("one")
    assert post(own_node, "/write?partition_by=fortnight", "none v=1i 1\n").status == 400
    own_node.sql("ALTER DATABASE SET (line_partition_by = month, line_ttl = '90d', line_keys = tags)")
    assert post(own_node, "/write", "two,a=x v=1i 1\n").status == 204
    assert all(word in options("two").lower() for word in ("month", "90d", "merge")), options("two")
    assert post(own_node, "/write?keys=none&ttl=off", "three,a=x v=1i 1\n").status == 204
    assert "month" in options("three").lower() and "ttl" not in options("three") and "merge" not in options("three")
    with pytest.raises(Exception, match="line_keys"):
        own_node.sql("ALTER DATABASE SET (line_keys = fields)")
    # What lines may make: the request says it, else the table, else the database.
    own_node.sql("ALTER DATABASE SET (line_schema = add)")
    for body, status, headers in [
        ("four v=1i 1\n", 400, {}), ("four v=1i 1\n", 204, {"tandem_schema": "create"}), ("four w=1i 1\n", 204, {})
    ]:  # fmt: skip
        assert post(own_node, "/write", body, **headers).status == status, body
    own_node.sql("ALTER TABLE four SET (schema = 'strict')")
    partly = post(own_node, "/api/v2/write", "four x=1i 2\nfour v=3i 3\n")
    assert partly.status == 400 and 'column "x"' in partly.json()["message"]
    assert own_node.sql("SELECT max(v) FROM four") == [(3,)]
    assert post(own_node, "/write", "four x=1i 2\n", tandem_schema="add").status == 204


def test_values_of_a_wrong_type_are_kept_aside_where_the_table_says_so(own_node):
    assert own_node.sql("SELECT * FROM system.rejected") == []
    empty = own_node.table("SELECT * FROM system.rejected").schema
    assert post(own_node, "/write?on_type_conflict=divert", "aside,t=a v=1i 1\n").status == 204
    before = own_node.sql("SELECT max(created_seq) FROM system.tables")[0][0]
    body = 'aside,t=b v="te xt" 2\naside,t=c v=3i 3\nbeside v=1i 4\naside v=1.5 5\n'
    answer = post(own_node, "/write", body, user_agent="me/1")
    assert (answer.status, answer.text) == (204, "")
    assert own_node.sql("SELECT v FROM aside ORDER BY v") == [(1,), (3,)]
    kept = "SELECT table_name, column_name, expected, got, line, client FROM system.rejected ORDER BY line"
    expected = [
        ("aside", "v", "Int64", "a string", 'aside,t=b v="te xt" 2', "me/1"),
        ("aside", "v", "Int64", "a float", "aside v=1.5 5", "me/1"),
    ]
    assert sorted(own_node.sql(kept)) == sorted(expected)
    assert own_node.sql(f"SELECT count(*) FROM system.rejected WHERE seq <= {answer.seq} AND time > now() - INTERVAL '1 hour'") == [(2,)]
    assert own_node.table("SELECT * FROM system.rejected").schema == empty
    # One commit with the rows that stand.
    assert own_node.sql("SELECT created_seq FROM system.tables WHERE table_name = 'rejected'") == [(answer.seq,)]
    assert own_node.sql(f"SELECT count(*) FROM system.rejected VERSION AS OF {answer.seq}") == [(2,)]
    assert own_node.sql(f"SELECT count(*) FROM system.rejected VERSION AS OF {before}") == [(0,)]
    # What is no line, and what another table refuses, is refused; with it, where all stand or fall, the rest.
    assert post(own_node, "/write", 'aside v="x" 6\naside v=oops 7\n').status == 400
    assert post(own_node, "/write", 'aside v="x" 6\nbeside v="x" 7\n').status == 400
    assert own_node.sql("SELECT count(*) FROM system.rejected") == [(2,)]
    assert post(own_node, "/write", 'aside v="x" 6\n').status == 204, "aside alone"
    # Nobody else writes it.
    for statement in [
        "INSERT INTO system.rejected (line, time) VALUES ('x', now())", "DELETE FROM system.rejected", "DROP TABLE system.rejected",
        "UPDATE system.rejected SET line = 'x'", "TRUNCATE TABLE system.rejected", "ALTER TABLE system.rejected SET (ttl = off)",
        "ALTER TABLE system.rejected RENAME TO mine", "ALTER TABLE aside RENAME TO system.others",
    ]:  # fmt: skip
        with pytest.raises(Exception, match="read-only|not supported|expected"):
            own_node.sql(statement)
    rows = own_node.table("SELECT * FROM system.rejected")
    with pytest.raises(Exception, match="read-only"):
        harness.put(own_node.flight(), ["system", "rejected"], rows.to_batches())
    assert own_node.sql("SELECT count(*) FROM system.rejected") == [(3,)]
    assert ("system", "rejected") in own_node.sql("SELECT table_schema, table_name FROM information_schema.tables")
    assert not any("rejected" in row for row in own_node.sql("SHOW TABLES"))
    own_node.restart()
    assert own_node.sql("SELECT count(*) FROM system.rejected") == [(3,)]
    own_node.sql("ALTER TABLE aside SET (on_type_conflict = 'reject')")
    assert post(own_node, "/write", 'aside v="x" 6\n').status == 400


def test_who_believes_in_a_token_that_nobody_asks_for_is_told_once(own_node):
    for agent in ("one/1", "one/1", "two/2"):
        assert post(own_node, "/write", "t v=1i 1\n", user_agent=agent, authorization="Token secret-of-mine").status == 204
    log = own_node.log.read_text()
    assert [log.count(agent) for agent in ("one/1", "two/2", "secret-of-mine")] == [1, 1, 0], own_node.log_end()


def test_slow_and_broken_clients_cost_nobody_else(node):
    """Bodies that never end hold their connections and nothing more, and nothing of them is written."""
    host, port = node.ready["http"].split(":")
    head = "POST /write HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\nslow v=1i 1\n"
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection((host, int(port)))).sendall(head.encode())
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda i: post(node, "/write", f"quick v={i}i {i + 1}\n").status, range(40)))
    assert answers == [204] * 40
    assert node.sql("SELECT count(*) FROM quick") == [(40,)]
    with pytest.raises(Exception, match="slow"):
        node.sql("SELECT * FROM slow")


def test_rows_of_equal_key_are_one(node):
    node.sql("CREATE TABLE keyed (ts TIMESTAMP, host VARCHAR, v DOUBLE, PRIMARY KEY (ts, host))")
    for value in (1, 2):
        assert post(node, "/write", f"keyed,host=a v={value} 5\nkeyed,host=b v={value} 5\n").status == 204
    assert node.sql("SELECT host, v FROM keyed ORDER BY host") == [("a", 2.0), ("b", 2.0)]


def test_a_large_body_is_one_commit_in_bounded_memory(node):
    lines = b"".join(b"large,host=h%d,dc=eu a=%di,b=%d.5,text=\"row %d\" %d\n" % (i % 50, i, i, i, STAMP + i) for i in range(400_000))
    before = node.resident_bytes()
    answer = post(node, "/write", lines)
    assert answer.status == 204, answer.text
    assert node.sql("SELECT count(*), sum(a), count(DISTINCT host), count(DISTINCT text) FROM large") == [
        (400_000, 399_999 * 200_000, 50, 400_000)
    ]
    assert node.resident_bytes() < before + (700 << 20)
    node.sql("OPTIMIZE TABLE large")
    assert node.sql("SELECT count(*), max(text) FROM large WHERE host = 'h7'") == [(8000, "row 99957")]
    spoilt = post(node, "/write", lines + b"large a=oops 1\n")
    assert spoilt.status == 400 and "line 400001" in spoilt.json()["message"]
    assert node.sql("SELECT count(*) FROM large") == [(400_000,)]


def test_what_was_acknowledged_survives_a_crash(own_node):
    assert post(own_node, "/write", "safe v=1i 1\n").status == 204
    own_node.kill()
    own_node.start()
    assert own_node.sql("SELECT v FROM safe") == [(1,)]


def test_nodes_make_columns_at_once(tmp_path):
    """Every request names columns that no table has yet, on two nodes; none is refused for that."""
    with harness.Node(tmp_path / "store", tmp_path / "a") as a, harness.Node(tmp_path / "store", tmp_path / "b") as b:

        def write(i):
            body = f"wide,tag{i % 9}=x c{i % 40}={i}i,d{i % 25}={i}.5 {i + 1}\nwide{i % 3} v{i % 7}=\"t\" {i + 1}\n"
            return post((a, b)[i % 2], "/write", body)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(write, range(200)))
        assert {(answer.status, answer.text) for answer in answers} == {(204, "")}
        for node in (a, b):
            with node.adbc(**{"adbc.flight.sql.rpc.call_header.tandem-read": "latest"}) as connection:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT count(*) FROM wide UNION ALL SELECT count(*) FROM wide0")
                    assert sorted(cursor.fetchall()) == [(67,), (200,)]


def test_nodes_differ_over_a_column_s_type(tmp_path):
    """Whoever comes first decides; who comes second is refused, or may try again, and nothing is half there."""
    with harness.Node(tmp_path / "store", tmp_path / "a") as a, harness.Node(tmp_path / "store", tmp_path / "b") as b:

        def write(i):
            column, value = f"c{i // 2}", ('"text"', f"{i}i")[i % 2]
            return post((a, b)[i % 2], "/write", f"differ,n=n{i} {column}={value} {i + 1}\nbeside n={i}i {i + 1}\n")

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(write, range(120)))
        statuses = [answer.status for answer in answers]
        # 500: two nodes that hand their commits to each other may not know what became of one. It may come again as well.
        assert set(statuses) <= {204, 400, 500, 503}, statuses
        again = {204, 500, 503}
        assert all(again & set(statuses[i : i + 2]) for i in range(0, 120, 2)), "one of each two, or both may come again"
        for answer in answers:
            assert answer.status != 500 or "unknown" in answer.text, answer.text
            assert answer.status in (204, 500) or "differ" in answer.json()["message"], answer.text
        good, unknown = statuses.count(204), statuses.count(500)
        with b.adbc(**{"adbc.flight.sql.rpc.call_header.tandem-read": "latest"}) as connection, connection.cursor() as cursor:

            def counts():
                cursor.execute("SELECT count(*) FROM differ UNION ALL SELECT count(*) FROM beside")
                return [count for (count,) in cursor.fetchall()]

            one, other = counts()
            assert one == other and good <= one <= good + unknown
            # Tried again, all that is left is final.
            final = [write(i).status if status in (500, 503) else status for i, status in enumerate(statuses)]
            assert all(sorted(final[i : i + 2]) == [204, 400] for i in range(0, 120, 2)), final
            assert counts() == [60, 60]


def test_a_replica_says_who_writes(own_node, tmp_path):
    options = ["--role", "replica", "--follow", own_node.url]
    assert post(own_node, "/write", "t v=1i 1\n").status == 204
    with harness.Node(own_node.store, tmp_path / "replica", options) as replica:
        questdb = post(replica, "/write", "t v=1i 1\n")
        if questdb.status == 204:
            pytest.skip("this replica hands its writes on")
        assert questdb.status == 421 and questdb.headers["x-questdb-role"] == "REPLICA"
        assert json.loads(ask(replica, "GET", "/settings").text)["accepting.writes"] == []
        influx = post(replica, "/api/v2/write?bucket=b", "t v=1i 1\n")
        assert influx.status == 503 and influx.headers["retry-after"], "or its clients would throw the lines away"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A node that wants tokens."""
    home = tmp_path_factory.mktemp("guarded")
    (home / "tokens").write_text(f"read {READER}\nwrite {WRITER}\n")
    with harness.Node(home / "store", home / "run", ["--auth-token-file", home / "tokens"]) as running:
        yield running


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tokens_as_each_client_shows_them(guarded):
    basic = base64.b64encode(f"me:{WRITER}".encode()).decode()
    for shown in (f"Bearer {WRITER}", f"Token {WRITER}", f"Basic {basic}"):
        assert post(guarded, "/write", "t v=1i 1\n", authorization=shown).status == 204, shown
    assert post(guarded, f"/write?db=x&u=me&p={WRITER}", "t v=1i 1\n").status == 204
    assert post(guarded, "/write", "t v=1i 1\n").status == 401
    assert post(guarded, "/write?p=wrong", "t v=1i 1\n").status == 401
    forbidden = post(guarded, "/api/v2/write", "t v=1i 1\n", authorization=f"Token {READER}")
    assert forbidden.status == 403 and forbidden.json()["code"] == "forbidden" and forbidden.json()["message"]
    assert post(guarded, "/api/v2/write", "t v=1i 1\n", authorization="Token x").json()["code"] == "unauthorized"
    assert [ask(guarded, "GET", path).status for path in ("/ping", "/health", "/settings")] == [204, 200, 200]
    for secret in (f"token={WRITER}", f"username=me;password={WRITER}"):
        opened, questdb = sender(guarded, secret + ";")
        with opened as open_sender:
            open_sender.row("q", columns={"v": 1}, at=questdb.TimestampNanos(1))
