"""The Python package `tandemdb`, installed as a user installs it: its rules with fakes, then on real nodes, with kills."""

import datetime
import hashlib
import json
import math
import pathlib
import random
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import harness
from test_security import READER, WRITER, certificates, tls_node, tokens  # noqa: F401

PACKAGE = pathlib.Path(__file__).resolve().parents[2] / "flight" / "python"
INSTALL_SECONDS = 150
COLUMNS = ["time", "city", "temp"]


@pytest.fixture(scope="module")
def tandemdb():
    """The package, built and installed with pip beside the virtual environment, anew only when its files change."""
    files = sorted(p for p in PACKAGE.rglob("*") if p.suffix in (".py", ".toml", ".md", ".typed"))
    digest = hashlib.sha256(b"".join(bytes(p.relative_to(PACKAGE)) + b"\0" + p.read_bytes() for p in files)).hexdigest()
    home = pathlib.Path(sys.prefix).parent / "tandemdb"
    stamp = home / "digest"
    if not stamp.exists() or stamp.read_text() != digest:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--upgrade"]
        done = subprocess.run([*command, "--target", str(home), str(PACKAGE)], capture_output=True, text=True, timeout=INSTALL_SECONDS)
        assert done.returncode == 0, done.stderr
        stamp.write_text(digest)
    sys.path.insert(0, str(home))
    import tandemdb

    assert pathlib.Path(tandemdb.__file__).is_relative_to(home)
    yield tandemdb
    sys.path.remove(str(home))


@pytest.fixture
def db(tandemdb, node):
    with tandemdb.connect(node.url) as opened:
        yield opened


@pytest.fixture
def table(request):
    """A name that no other test uses."""
    return "p_" + re.sub(r"\W+", "_", request.node.name.removeprefix("test_"))


def weather(count, first=0):
    at = pd.date_range("2024-01-01", periods=count, freq="min") + pd.Timedelta(first, "min")
    return pd.DataFrame({"time": at, "city": [f"c{i % 3}" for i in range(count)], "temp": np.arange(first, first + count, dtype=float)})


# Rules, with fakes


class FakeLink:
    """A node that answers as it is told: each of `plan` is a failure to raise or an answer to give."""

    def __init__(self, address, plan, said):
        self.address, self.plan, self.said = address, plan, said

    def put(self, command, rows, headers, timeout):
        self.said.append((self.address.authority, headers["tandem-token"]))
        answer = self.plan.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return b"\x08" + bytes([rows.num_rows]), answer

    def get(self, ticket, headers, timeout):
        self.said.append((self.address.authority, json.loads(ticket)))
        answer = self.plan.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self):
        pass


class FakeTime:
    def __init__(self):
        self.now, self.slept = 0.0, []

    def clock(self):
        self.now += 0.01
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def parts(tandemdb):
    """The package's inner modules."""
    import tandemdb.client
    import tandemdb.errors
    import tandemdb.frames
    import tandemdb.retry
    import tandemdb.statements
    import tandemdb.wire

    return tandemdb


def tries(parts, urls, time, **options):
    links = parts.retry.Links(parts.retry.addresses(urls), lambda address: FakeLink(address, [], []))
    return links, parts.retry.Tries(links, clock=time.clock, sleep=time.sleep, chance=lambda: 0.5, **options)


def test_addresses_are_read_however_they_are_written(parts):
    read = lambda text: [address.url for address in parts.retry.addresses(text)]  # noqa: E731
    assert read(" h:1, grpc://H:1/,http://h:1,grpc+tcp://h:1") == ["grpc://h:1"]
    assert read("https://[fe80::a]:1,grpc+tls://b:2") == ["grpc+tls://[fe80::a]:1", "grpc+tls://b:2"]
    assert read(["a:1", "b:1,c:1"]) == ["grpc://a:1", "grpc://b:1", "grpc://c:1"] and read("https://lb") == ["grpc+tls://lb"]
    for wrong in ("", " , ", "ftp://h:1", "grpc://", "grpc://h:1/path", "grpc://u@h:1", "a:1,ftp://b:2", "h:x", "h:99999", "h:0", [], 3, [3]):
        with pytest.raises(parts.InvalidInput, match="address"):
            read(wrong)
    for wrong in ("localhost", "grpc://[::1]"):
        with pytest.raises(parts.InvalidInput, match="names no port: write grpc://.*:8815"):
            read(wrong)


def test_a_call_goes_round_all_addresses_and_waits_before_the_next_round(parts):
    time = FakeTime()
    _, one = tries(parts, "a:1,b:1", time, retry_for=3)
    lost = parts.errors.Failure(parts.Unavailable("gone"), lost=False)
    asked = []
    with pytest.raises(parts.Unavailable, match=r"given up after \d+ tries in \d\.\d s: gone"):
        while True:
            link = one.link()
            asked.append(link.address.authority)
            one.failed(link, lost)
    assert asked[:6] == ["a:1", "b:1"] * 3
    assert time.slept[:4] == pytest.approx([0.0375, 0.075, 0.15, 0.3]) and max(time.slept) < 0.5
    assert 2 < time.now <= 3.1 and not one.maybe_done


def test_success_begins_the_time_anew(parts):
    time = FakeTime()
    _, one = tries(parts, "a:1", time, retry_for=1)
    lost = parts.errors.Failure(parts.Unavailable("gone"), lost=True)
    for _ in range(50):
        one.failed(one.link(), lost)
        time.now += 0.8
        one.succeeded()
    assert time.now > 40


def test_what_no_other_try_mends_is_raised_at_once(parts):
    for kind in set(parts.errors.BY_CODE.values()) | set(parts.errors.BY_WORDS.values()):
        again = kind in (parts.Unavailable, parts.NotWriter, parts.OutcomeUnknown)
        for lost, lost_again in ((False, True), (True, False), (True, True)):
            _, one = tries(parts, "a:1,b:1", FakeTime(), retry_for=3, lost_again=lost_again)
            try:
                one.failed(one.link(), parts.errors.Failure(kind("x"), lost=lost))
                assert again or (lost and lost_again), kind
            except parts.TandemError as error:
                assert not again and type(error) is kind, kind
            assert one.maybe_done == lost


def test_a_node_that_takes_no_writes_names_who_does(parts):
    links, one = tries(parts, "a:1,b:1", FakeTime(), retry_for=3)

    def refused(writer):
        link = one.link()
        one.failed(link, parts.errors.Failure(parts.NotWriter("no", writer=writer), lost=False))
        return one.link().address.authority

    assert refused("grpc://c:1,grpc://b:1") == "c:1"
    assert len(links) == 3
    assert refused("grpc://a:1") == "a:1"
    assert refused("grpc://a:1") == "b:1", "one that names itself is not asked again at once"
    assert refused("no address") == "c:1"
    assert refused(None) == "a:1"
    stale = links.link()
    links.leave(stale)
    now = links.link()
    links.leave(stale)
    assert links.link() is now, "one loss, seen twice, is acted on once"


@pytest.fixture
def scripted(parts):
    """A database whose nodes answer by a plan; the database, and what was sent to whom under which token."""

    def make(plan, retry_for=1.0):
        said = []
        links = parts.retry.Links(parts.retry.addresses("a:1,b:1"), lambda address: FakeLink(address, plan, said))
        return parts.Database(links, parts.wire.Access(), 5.0, retry_for), said

    return make


def answered(parts, **headers):
    answer = parts.wire.Answer()
    answer.received_headers({name.replace("_", "-"): [value] for name, value in headers.items()})
    return answer


def test_a_write_of_unknown_outcome_is_asked_again_under_its_token_and_no_other(parts, scripted):
    failure = parts.errors.Failure
    plan = [
        failure(parts.Unavailable("broken"), lost=True),
        failure(parts.Timeout("slow"), lost=True),
        failure(parts.OutcomeUnknown("who knows"), lost=True),
        answered(parts, tandem_seq="7", tandem_duplicate="true"),
    ]
    db, said = scripted(plan)
    done = db.write("t", [{"a": 1}, {"a": 2}])
    assert (done.seq, done.rows, done.duplicate, done.tries) == (7, 2, True, 4)
    assert [address for address, _ in said] == ["a:1", "b:1", "a:1", "b:1"]
    assert {token for _, token in said} == {done.token}
    plan.append(answered(parts, tandem_seq="8"))
    assert db.write("t", [{"a": 1}]).token != done.token


class FakeStream:
    """A stream of (rows' numbers of commits, next_seq), and a failure at its end perhaps."""

    def __init__(self, answer, *chunks):
        self.answer, self.chunks = answer, list(chunks)
        self.schema = pa.schema([("_seq", pa.uint64()), ("_op", pa.string())])

    def next(self):
        if not self.chunks:
            return None
        chunk = self.chunks.pop(0)
        if isinstance(chunk, Exception):
            raise chunk
        seqs, next_seq = chunk
        ops = ["schema" if seq < 0 else "insert" for seq in seqs]
        return pa.record_batch([pa.array(map(abs, seqs), pa.uint64()), ops], self.schema), b'{"next_seq":%d}' % next_seq

    def cancel(self):
        pass


def test_changes_are_told_by_whole_commits_and_from_where_they_broke_off(parts, scripted):
    stream = partial(FakeStream, answered(parts))
    broken = parts.errors.Failure(parts.Unavailable("broken"), lost=True)
    plan = [
        stream(([4], 5), ([5, 5], 5), broken),
        broken,
        stream(([], 5), ([5, 5], 5), ([5], 6), ([6], 6), ([6, 7], 7), ([7, -8], 8)),
        stream(([8, 9], 9), ([], 10), ([], 11)),
    ]
    db, said = scripted(plan)
    changes = list(db.changes("t", 4, 10))
    told = [(change.table["_seq"].to_pylist(), change.next_seq) for change in changes]
    assert told == [([4], 5), ([5, 5, 5], 6), ([6, 6], 7), ([7, 7], 8), ([8], 9), ([9], 10)]
    assert [(address, ticket["changes"]["from_seq"]) for address, ticket in said] == [("a:1", 4), ("b:1", 5), ("a:1", 5), ("a:1", 8)]
    db, _ = scripted([stream(([4, -4, 5], 5), ([], 6))])
    assert [change.table["_op"].to_pylist() for change in db.changes(None, 4, 5)] == [["insert", "schema"], ["insert"]]
    # A stream that ends at once, again and again, is not asked for without a pause and for ever.
    db, said = scripted([stream() for _ in range(100)])
    with pytest.raises(parts.Unavailable, match="given up.*told anything"):
        next(db.changes("t", 4))
    assert 2 < len(said) < 20


def test_reads_demand_what_was_written_before(parts, scripted):
    answer = answered(parts, tandem_snapshot_seq="7")
    db, said = scripted([answered(parts, tandem_seq="7"), *[FakeStream(answer) for _ in range(4)]])
    db.write("t", [{"a": 1}])
    for options in ({}, {"min_seq": 3}, {"min_seq": 9}, {"at": 3}):
        db.sql("SELECT 1", **options)
    assert [ticket.get("min_seq") for _, ticket in said[1:]] == [7, 7, 9, None]


@pytest.mark.parametrize(
    "last, raised",
    [("SchemaConflict", "OutcomeUnknown"), ("NotFound", "OutcomeUnknown"), ("TokenReused", "TokenReused"), ("QuorumTimeout", "QuorumTimeout")],
)
def test_a_refusal_after_a_lost_try_says_nothing_of_that_try(parts, scripted, last, raised):
    failure = parts.errors.Failure
    db, said = scripted([failure(parts.Unavailable("broken"), lost=True), failure(getattr(parts, last)("no"), lost=False)])
    with pytest.raises(parts.TandemError) as caught:
        db.write("t", [{"a": 1}])
    assert type(caught.value).__name__ == raised
    assert caught.value.token == said[0][1] == said[1][1]
    db, _ = scripted([failure(getattr(parts, last)("no"), lost=False)])
    with pytest.raises(getattr(parts, last)):
        db.write("t", [{"a": 1}])


def test_too_few_nodes_in_time_is_still_written(parts, scripted):
    late = parts.errors.Failure(parts.QuorumTimeout("committed at 7, and applied by 0 of 1 other nodes", seq=7), lost=False)
    db, said = scripted([late, FakeStream(answered(parts, tandem_snapshot_seq="7"))])
    with pytest.raises(parts.QuorumTimeout, match="same write with token=.*what is missing") as caught:
        db.write("t", {"a": list(range(200))}, piece_bytes=500)
    assert "do not write it again" not in str(caught.value), "of several pieces only the first one is there"
    assert caught.value.token == said[0][1]
    db.sql("SELECT 1")
    assert said[-1][1]["min_seq"] == 7, "a read sees it all the same"


def test_a_stream_whose_source_fails_says_what_is_written(parts, scripted):
    def source(error):
        yield pa.table({"a": list(range(100))})
        raise error

    for error, kind in ((OSError("the disk is gone"), OSError), (KeyboardInterrupt(), KeyboardInterrupt)):
        db, said = scripted([answered(parts, tandem_seq="7")])
        with pytest.raises(kind) as caught:
            db.write("t", source(error), piece_bytes=500)
        [note] = caught.value.__notes__
        assert f"token={said[0][1]!r}" in note and "rows before" in note
    db, said = scripted([answered(parts, tandem_seq="7")])
    with pytest.raises(parts.InvalidInput, match="rows before these are written") as caught:
        db.write("t", iter([pa.table({"a": list(range(100))}), 3]), piece_bytes=500)
    assert caught.value.token == said[0][1] and caught.value.rows > 0


def test_errors_come_from_trailers_then_from_codes(parts):
    said = "Flight returned unavailable error, with message: node b is a replica. gRPC client debug context: x. Client context: OK"
    headers = {"tandem-error": ["not-writer"], "tandem-writer": ["grpc://a:1"], "tandem-seq": [b"7"]}
    failure = parts.errors.failure_of(pa.flight.FlightUnavailableError(said), headers)
    assert type(failure.error) is parts.NotWriter and not failure.lost
    assert (failure.error.message, failure.error.writer, failure.error.seq) == ("node b is a replica", "grpc://a:1", 7)
    served, unserved = {"date": ["today"]}, {}
    for words, kind in parts.errors.BY_WORDS.items():
        error = pa.ArrowException(f"gRPC returned {words} error, with message: a\nb")
        assert type(parts.errors.failure_of(error, served).error) is kind
        assert not parts.errors.failure_of(error, served).lost
    gone = "Flight returned unavailable error, with message: "
    for message, headers, lost in [
        ("Socket closed", unserved, True),
        ("failed to connect to all addresses; last error: refused", unserved, False),
        ("the node is shutting down", served, False),
    ]:
        assert parts.errors.failure_of(pa.flight.FlightUnavailableError(gone + message), headers).lost is lost, message
    late = pa.flight.FlightTimedOutError("Flight returned timeout error, with message: Deadline Exceeded")
    assert parts.errors.failure_of(late, unserved).lost and not parts.errors.failure_of(late, served).lost
    reset = pa.flight.FlightInternalError("Flight returned internal error, with message: Received RST_STREAM with error code 2")
    assert type(parts.errors.failure_of(reset, unserved).error) is parts.Unavailable
    web = pa.ArrowNotImplementedError("Flight returned unimplemented error, with message: Received http2 header with status: 404")
    assert "--flight" in str(parts.errors.failure_of(web, unserved).error)
    for said, hint in [("certificate verify failed: unable", r"tls_ca="), ("SSL routines::wrong version number", "grpc://")]:
        error = parts.errors.failure_of(pa.flight.FlightUnavailableError(gone + "failed to connect to all addresses; " + said), unserved).error
        assert hint in str(error) and hint in str(error.about("given up after 3 tries")), "in other words too"
    assert issubclass(parts.NotWriter, parts.Unavailable) and issubclass(parts.Behind, TimeoutError)


def gathered(pieces):
    return pa.concat_tables(list(pieces[1]), promote_options="default")


def test_frames_of_all_kinds_become_tables(parts):
    pieces = parts.frames.pieces
    frame = weather(4)
    assert gathered(pieces(frame)).column_names == COLUMNS
    assert gathered(pieces(frame[frame.temp > 1])).column_names == COLUMNS, "a numbering is no column"
    assert gathered(pieces(frame.set_index(["city", "time"]))).column_names == ["temp", "city", "time"]
    with pytest.raises(parts.InvalidInput, match="index has no name"):
        pieces(frame.set_index("time").rename_axis(None))
    rows = gathered(pieces([{"a": 1}, {"b": "x", "a": None}]))
    assert rows.to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": "x"}]
    views = pl.from_pandas(frame)
    assert gathered(pieces(views)).schema.field("city").type == pa.large_string()
    assert gathered(pieces(pa.table({"a": pa.array(["x"], pa.string_view())}))).schema.field("a").type == pa.large_string()
    assert gathered(pieces(views.lazy().filter(pl.col("temp") < 2))).num_rows == 2
    assert gathered(pieces({"a": [1, 2]})).num_rows == 2
    assert gathered(pieces(iter([frame, views, {"temp": 1, "city": "x", "time": None}]))).num_rows == 9
    assert pieces(pa.table({"a": pa.array([], pa.int64())}))[0] == 0 and len(list(pieces(frame.head(0))[1])) == 1
    reader = pa.table({"a": [1]}).schema.empty_table().to_reader()
    assert gathered(pieces(reader)).schema.names == ["a"], "an empty stream still has its columns"
    for wrong in (3, "text", [], [3], iter([]), pd.DataFrame(), [{"a": 1}, {"a": "x"}]):
        with pytest.raises(parts.InvalidInput):
            list(pieces(wrong)[1])
    twice = frame.set_index("time", drop=False)
    assert gathered(pieces(twice)).column_names == COLUMNS, "an index that is a column as well"
    assert gathered(pieces(twice.set_index("city", append=True))).column_names == [*COLUMNS[:1], "temp", "city"]
    assert gathered(pieces(pd.DataFrame({"n": [0, 1]}, index=pd.RangeIndex(2, name="n")))).column_names == ["n"]


def test_what_cannot_be_a_table_is_said_with_the_way_out(parts):
    frame = weather(2)
    for wrong, said in [
        (frame["temp"], "to_frame"),
        (pl.Series("a", [1]), "to_frame"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "'a' twice"),
        (pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")])), "several levels"),
        (frame.set_index(frame["time"] + pd.Timedelta(1, "h"), drop=False), "'time'.*index and.*column"),
        (pd.DataFrame({"a": pd.arrays.SparseArray([0, 1])}), "no type for.*parse"),
        (pl.DataFrame({"a": pl.Series([object()], dtype=pl.Object)}), "'a'.*Object"),
        (pl.DataFrame({"a": pl.Series([1], dtype=pl.Int128)}), "no type for"),
        ({"a": [1, 2], "b": [1]}, "columns"),
        ({"a": 5, "b": 6}, "list of dicts"),
        ({"a": "text"}, "list of dicts"),
        ([{"a": 2**70}], "one type"),
        (np.arange(3), "ndarray"),
        (iter([3]), "int"),
    ]:
        with pytest.raises(parts.InvalidInput, match=said):
            list(parts.frames.pieces(wrong)[1])


def test_rows_that_come_one_by_one_are_gathered(parts):
    rows = [{"n": n, "text": "x" * 100, **({"late": 1} if n > 900 else {})} for n in range(20_000)]
    pieces = [list(parts.frames.pieces(iter(rows), 500_000)[1]) for _ in range(2)]
    assert [p.num_rows for p in pieces[0]] == [p.num_rows for p in pieces[1]] and len(pieces[0]) > 2
    assert sum(sum(c.num_chunks for c in p.columns) for p in pieces[0]) < 300, "rows are no messages of their own"
    assert [row["n"] for p in pieces[0] for row in p.to_pylist()] == list(range(20_000))
    made = []
    large = ({"blob": made.append(n) or b"x" * 100_000} for n in range(100))
    next(parts.frames.pieces(large, 1_000_000)[1])
    assert len(made) < 40, "large rows do not wait for many others"


def test_pieces_are_of_their_size_and_always_the_same(parts):
    whole = pa.Table.from_pandas(weather(10_000), preserve_index=False)
    cuts = [[p.num_rows for p in parts.frames.pieces(whole, 50_000)[1]] for _ in range(2)]
    assert cuts[0] == cuts[1] and sum(cuts[0]) == 10_000 and len(cuts[0]) > 3
    assert all(p.nbytes < 60_000 for p in parts.frames.pieces(whole, 50_000)[1])
    reader = pa.RecordBatchReader.from_batches(whole.schema, whole.to_batches(max_chunksize=100))
    streamed = list(parts.frames.pieces(reader, 50_000)[1])
    assert all(50_000 <= p.nbytes < 60_000 for p in streamed[:-1]) and pa.concat_tables(streamed).num_rows == 10_000
    assert len(list(parts.frames.pieces(iter([whole]), 50_000)[1])) == len(cuts[0]), "one large batch is many pieces"


def test_names_and_arguments_are_checked_before_anything_is_sent(parts, scripted):
    path = parts.statements.table_path
    assert path("t") == ["t"] and path("s.t") == ["s", "t"] and path('"a.b"."c""d"') == ["a.b", 'c"d']
    db, said = scripted([])
    for name in ("", ".", "a.", ".a", "a.b.c", '"a', '"a"b'):
        with pytest.raises(parts.InvalidInput, match="table"):
            db.write(name, [{"a": 1}])
    for options in (
        *({"schema": "loose"}, {"timestamp": "a"}, {"token": ""}, {"token": "ä"}, {"token": "x" * 129}),
        # The pieces' tokens are longer.
        {"token": "x" * 128},
        {"schema": "create", "options": {"ttl": None}},
        *({"timeout": wrong} for wrong in (0, -1, math.nan, "5", True)),
    ):
        with pytest.raises(parts.InvalidInput):
            db.write("t", [{"a": 1}], **options)
    number, text = (parts.statements.ingest("t", "create", None, {"target_file_size": value}, None) for value in (7, "7"))
    assert number == text
    for params in ("text", 5, {"a": 1}, {1}):
        for call in (db.sql, db.execute):
            with pytest.raises(parts.InvalidInput, match="list of values"):
                call("SELECT $1", params)
    with pytest.raises(parts.InvalidInput, match="timeout"):
        parts.connect("h:1", timeout=-1)
    assert parts.statements.moment(datetime.date(2024, 5, 1)) == {"time": "2024-05-01"}
    for statement in ("BEGIN", "  -- why\n set tandem.ack = store", "/* x */ COMMIT"):
        with pytest.raises(parts.InvalidInput, match="session"):
            db.execute(statement)
    with pytest.raises(parts.InvalidInput, match="parameter 2"):
        parts.frames.parameters([1, object()])
    assert parts.frames.parameters([pd.NaT, pd.NA, np.int64(3)]).to_pylist() == [{"$1": None, "$2": None, "$3": 3}]
    assert not said


# On a node


def test_frames_are_written_and_read_back(db, table):
    frame = weather(1000)
    done = db.write(table, frame, schema="create", timestamp="time", options={"partition_by": "month"})
    assert (done.rows, done.duplicate, done.acked) == (1000, False, "store") and done.seq > 0
    result = db.sql(f"SELECT * FROM {table} ORDER BY temp")
    pd.testing.assert_frame_equal(result.pandas(), frame, check_dtype=False)
    assert result.polars().height == result.arrow().num_rows == len(result.rows()) == 1000 and result.seq >= done.seq
    [(stamp, unit)] = [tuple(r.values()) for r in db.sql("SELECT timestamp_column, partition_by FROM system.tables WHERE table_name = $1", [table]).rows()]
    assert (stamp, unit) == ("time", "month")
    db.write(table, pl.from_pandas(frame))
    db.write(f"public.{table}", frame.set_index("time"))
    db.write(table, frame.astype({"city": "category"}))
    db.write(table, pa.Table.from_pandas(frame).to_reader())
    db.write(table, frame.to_dict("records"))
    assert db.sql(f"SELECT count(*) AS n, count(DISTINCT temp) AS d FROM {table}").rows() == [{"n": 6000, "d": 1000}]
    assert sum(len(batch) for batch in db.sql(f"SELECT * FROM {table}").reader()) == 6000
    assert pl.DataFrame(db.sql(f"SELECT temp FROM {table} WHERE temp < 3")).height == 18


def test_a_token_commits_one_write(tandemdb, db, table):
    frame = weather(10)
    first = db.write(table, frame, schema="create", token=f"{table} a")
    again = db.write(table, pl.from_pandas(frame), schema="create", token=f"{table} a")
    assert (again.seq, again.rows, again.duplicate, first.duplicate) == (first.seq, 10, True, False)
    with pytest.raises(tandemdb.TokenReused, match="another write"):
        db.write(table, frame.head(9), token=f"{table} a")
    for duplicate in (False, True):
        done = db.execute(f"INSERT INTO {table} VALUES ($1, $2, $3)", [datetime.datetime(2025, 1, 1), "x", 1.5], token=f"{table} b")
        assert (done.rows, done.duplicate) == (1, duplicate)
    assert db.sql(f"SELECT count(*) FROM {table}").scalar() == 11


def test_columns_that_do_not_fit_are_said(tandemdb, db, table):
    frame = weather(10)
    with pytest.raises(tandemdb.NotFound, match="schema='create'"):
        db.write(table, frame)
    db.write(table, frame, schema="create")
    with pytest.raises(tandemdb.NotFound, match="extra.*schema='add'"):
        db.write(table, frame.assign(extra=1))
    db.write(table, frame.assign(extra=1), schema="add")
    with pytest.raises(tandemdb.SchemaConflict, match="temp"):
        db.write(table, frame.assign(temp="warm"))
    assert db.sql(f"SELECT count(*) AS n, count(extra) AS e FROM {table}").rows() == [{"n": 20, "e": 10}]


def test_a_stream_is_written_as_it_comes(tandemdb, db, table):
    told, made = [], 0

    def frames(count, bad=None):
        nonlocal made
        for i in range(count):
            made += 100
            # What was made and is not committed yet is what is in memory.
            assert made - (told[-1][0] if told else 0) <= 400
            yield weather(100, 100 * i).assign(temp="bad" if i == bad else np.arange(100.0))

    done = db.write(table, frames(20), schema="create", piece_bytes=5000, progress=lambda *now: told.append(now))
    assert done.rows == 2000 and told[-1] == (2000, None) and len(told) > 5
    assert db.sql(f"SELECT count(*) AS n, count(DISTINCT time) AS d FROM {table}").rows() == [{"n": 2000, "d": 2000}]
    told.clear()
    made = 0
    db.execute(f"TRUNCATE {table}")
    with pytest.raises(tandemdb.InvalidInput, match="fit together"):
        db.write(table, frames(20, bad=7), piece_bytes=5000, progress=lambda *now: told.append(now))
    assert db.sql(f"SELECT count(*) FROM {table}").scalar() == told[-1][0] and 0 < told[-1][0] <= 700


def test_a_write_that_failed_half_way_is_gone_on_with(tandemdb, db, table):
    frame = weather(1000)
    db.execute(f"CREATE TABLE {table} (time TIMESTAMP NOT NULL, city VARCHAR, temp DOUBLE) TIMESTAMP(time)")
    broken = frame.copy()
    broken.loc[777, "time"] = pd.NaT
    with pytest.raises(tandemdb.TandemError, match="time.*rows before these are written.*token") as caught:
        db.write(table, broken, piece_bytes=3000)
    written = caught.value.rows
    assert 0 < written < 777 and db.sql(f"SELECT count(*) FROM {table}").scalar() == written
    done = db.write(table, frame, piece_bytes=3000, token=caught.value.token)
    assert done.rows == 1000 and not done.duplicate
    assert db.sql(f"SELECT count(*) AS n, count(DISTINCT temp) AS d FROM {table}").rows() == [{"n": 1000, "d": 1000}]


def test_a_large_frame(db, table):
    count = 400_000
    frame = pa.table({"id": pa.array(range(count), pa.int64()), "text": pa.array(["%060d" % i for i in range(count)], pa.string_view())})
    done = db.write(table, frame, schema="create", piece_bytes=12 << 20)
    assert done.rows == count
    got = db.sql(f"SELECT * FROM {table} ORDER BY id").arrow()
    assert got["id"].to_pylist() == list(range(count)) and got["text"][-1].as_py() == "%060d" % (count - 1)


def test_parameters_of_every_type(tandemdb, db, table):
    db.write(table, weather(10), schema="create", timestamp="time")
    since = datetime.datetime(2024, 1, 1, 0, 7)
    aware = datetime.datetime(2024, 1, 1, 2, 7, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    for params in ([since], [aware], [pd.Timestamp(since)], [np.datetime64(since)], ["2024-01-01T00:07:00"]):
        assert db.sql(f"SELECT count(*) FROM {table} WHERE time >= $1", params).scalar() == 3, params
    assert db.sql("SELECT $1 AS a, $2 AS b, $3 AS c, $4 AS d", [1, 1.5, "x", None]).rows() == [{"a": 1, "b": 1.5, "c": "x", "d": None}]
    assert db.sql("SELECT $1 AS a, $2 AS b", [b"x", np.int64(7)]).rows() == [{"a": b"x", "b": 7}]
    with pytest.raises(tandemdb.InvalidInput, match="parameter 1"):
        db.sql("SELECT $1", [1 << 64])
    assert db.execute(f"INSERT INTO {table} VALUES ($1, 'x', 0.5)", [aware]).rows == 1
    assert db.sql(f"SELECT time FROM {table} WHERE city = 'x'").scalar() == since
    assert db.execute(f"UPDATE {table} SET temp = $1 WHERE time > $2", [0.5, since]).rows == 2
    assert db.execute(f"DELETE FROM {table} WHERE temp = 0.5").rows == 3


def test_times_with_a_zone(tandemdb, db, table):
    frame = weather(10)
    zoned = frame.assign(time=frame.time.dt.tz_localize("UTC").dt.tz_convert("Europe/Oslo"))
    db.write(table, frame, schema="create", timestamp="time")
    with pytest.raises(tandemdb.SchemaConflict, match=r"tz_convert\(None\)"):
        db.write(table, zoned)
    db.write(table, zoned.assign(time=zoned.time.dt.tz_convert(None)))
    db.write(f"{table}_zoned", zoned, schema="create", timestamp="time")
    for name, rows in ((table, 6), (f"{table}_zoned", 3)):
        assert db.sql(f"SELECT count(*) FROM {name} WHERE time >= $1", [zoned.time[7]]).scalar() == rows
    assert db.sql(f"SELECT max(time) FROM {table}_zoned").scalar() == zoned.time[9]


def test_a_column_of_nulls_alone_gets_its_type_later(db, table):
    db.write(table, [{"a": 1, "b": None}], schema="create")
    db.write(table, [{"a": 2, "b": "x"}], schema="create")
    db.write(table, [{"a": 3, "b": None}])
    assert db.sql(f"SELECT a, b FROM {table} ORDER BY a").rows() == [{"a": 1, "b": None}, {"a": 2, "b": "x"}, {"a": 3, "b": None}]


def test_threads_share_a_connection(db, table):
    db.write(table, [{"worker": -1, "n": 0}], schema="create")
    failed, seqs = [], []

    def work(worker):
        try:
            for n in range(15):
                done = db.write(table, [{"worker": worker, "n": n}] * (worker + 1))
                result = db.sql(f"SELECT count(*) FROM {table} WHERE worker = $1", [worker])
                assert done.rows == worker + 1 and result.scalar() == (n + 1) * (worker + 1) and result.seq >= done.seq
                seqs.append(done.seq)
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed and len(seqs) == 90


def interrupt_in(seconds):
    timer = threading.Timer(seconds, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    timer.start()
    return timer


def test_an_interrupted_write_is_there_wholly_or_not_at_all(db, table):
    count = 150_000
    frame = pa.table({"id": pa.array(range(count)), "text": pa.array(["%030d" % i for i in range(count)])})
    whole = db.write(table, frame, schema="create").rows
    numbers = random.Random(3)
    interrupted = 0
    for _ in range(12):
        timer = interrupt_in(numbers.uniform(0, 0.12))
        try:
            db.write(table, frame)
            timer.join()
        except KeyboardInterrupt:
            interrupted += 1
        timer.cancel()
    rows = db.sql(f"SELECT count(*) FROM {table}", read="latest").scalar()
    assert rows % whole == 0 and interrupted


def test_an_interrupted_stream_stops_at_once(db, table):
    db.write(table, weather(2), schema="create")
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), db.changes(table) as changes:
        interrupt_in(0.5)
        next(changes)
    assert time.monotonic() - began < 3


def test_the_past_and_reads_that_insist(tandemdb, db, node, table):
    seqs = [db.write(table, weather(1, i), schema="create").seq for i in range(4)]
    for rows, seq in enumerate(seqs, 1):
        moment = node.sql(f"SELECT commit_time FROM system.log WHERE seq = {seq}")[0][0]
        for at in (seq, f"seq:{seq}", moment, moment.replace(tzinfo=datetime.timezone.utc), f"{moment.isoformat()}Z"):
            result = db.sql(f"SELECT * FROM {table}", at=at)
            assert result.arrow().num_rows == rows and result.seq == seq, at
    assert db.sql(f"SELECT count(*) FROM {table} WHERE time >= $1", [datetime.datetime(2024, 1, 1)], at=seqs[1]).scalar() == 2
    assert db.sql(f"SELECT count(*) FROM {table}", read="latest").scalar() == 4 and db.seq() >= seqs[-1]
    assert db.sql(f"SELECT count(*) FROM {table}", min_seq=seqs[-1]).scalar() == 4
    with pytest.raises(tandemdb.Behind, match="timeout="):
        db.sql("SELECT 1", min_seq=seqs[-1] + 1_000_000, timeout=0.5)
    with pytest.raises(tandemdb.InvalidInput, match="no moment of the past"):
        db.sql("SELECT 1", at="yesterday")


def test_what_is_wrong_is_said_with_the_way_out(tandemdb, db):
    for call, kind, said in [
        (lambda: db.sql("SELEC 1"), tandemdb.InvalidInput, "expected a statement"),
        (lambda: db.sql("SELECT * FROM p_nowhere"), tandemdb.NotFound, "p_nowhere"),
        (lambda: db.sql("CREATE TABLE p_x (n BIGINT)"), tandemdb.InvalidInput, r"execute\(\)"),
        (lambda: db.sql("DELETE FROM p_x WHERE n = $1", [b"x"]), tandemdb.TandemError, r"execute\(\)|p_x"),
        (lambda: db.execute("SELECT 1"), tandemdb.InvalidInput, r"sql\(\)"),
        (lambda: db.sql("SELECT CAST(x AS BIGINT) FROM (VALUES ('a')) AS t(x)").arrow(), tandemdb.InvalidInput, "cast"),
        (lambda: db.sql("SELECT 1", read="newest"), tandemdb.InvalidInput, "newest"),
        (lambda: next(db.changes("p_nowhere", 1)), tandemdb.NotFound, "does not exist"),
        (lambda: db.sql("SELECT 1 AS a, 2 AS b").scalar(), tandemdb.InvalidInput, "2 columns"),
        (lambda: db.execute("CREATE TABLE system.x (n BIGINT)"), tandemdb.TandemError, "system"),
    ]:
        with pytest.raises(kind, match=said):
            call()
    result = db.sql("SELECT 1 AS n")
    assert result.reader().read_all().num_rows == 1
    with pytest.raises(tandemdb.InvalidInput, match="again"):
        result.arrow()


def test_a_read_that_takes_too_long_is_ended(tandemdb, db):
    began = time.monotonic()
    slow = "SELECT count(*) FROM generate_series(1, 1000000000) a"
    with pytest.raises(tandemdb.Timeout, match="timeout="):
        db.sql(slow, timeout=1).arrow()
    assert time.monotonic() - began < 10


def test_a_transaction_is_one_commit(tandemdb, db, table):
    frame = weather(10)
    db.write(table, frame, schema="create")
    before = db.seq()
    with db.transaction() as tx:
        assert tx.write(table, frame) == 10
        assert tx.write(f"{table}_new", frame, schema="create", timestamp="time") == 10
        assert tx.execute(f"UPDATE {table} SET temp = $1 WHERE temp < $2", [-1.0, 5.0]) == 10
        assert tx.sql(f"SELECT count(*) FROM {table} WHERE time >= $1", [datetime.datetime(2024, 1, 1)]).scalar() == 20
        assert db.sql(f"SELECT count(*) FROM {table}").scalar() == 10, "nobody else sees it"
        with pytest.raises(tandemdb.NotFound):
            db.sql(f"SELECT * FROM {table}_new")
    assert tx.done.seq == before + 1
    assert db.sql(f"SELECT count(*) FROM {table} WHERE temp = -1").scalar() == 10
    with pytest.raises(ZeroDivisionError), db.transaction() as tx:
        tx.execute(f"DELETE FROM {table}")
        1 / 0
    assert tx.done is None and db.sql(f"SELECT count(*) FROM {table}").scalar() == 20
    with pytest.raises(tandemdb.InvalidInput, match="ended"):
        tx.execute(f"DELETE FROM {table}")
    with pytest.raises(tandemdb.SerializationFailure, match="run the transaction again"), db.transaction() as tx:
        tx.execute(f"UPDATE {table} SET temp = power(temp, 2)")
        db.execute(f"UPDATE {table} SET temp = 7")
    assert db.sql(f"SELECT count(*) FROM {table} WHERE temp = 7").scalar() == 20
    for duplicate in (False, True):
        with db.transaction(token=f"{table} once") as tx:
            tx.execute(f"DELETE FROM {table} WHERE temp = 7")
        assert tx.done.duplicate is duplicate


def test_a_transaction_keeps_no_half_of_a_stream_whose_source_fails(tandemdb, db, table):
    def source():
        yield from (weather(100, first) for first in (0, 100))
        raise OSError("the disk is gone")

    def interrupted(link):
        raise KeyboardInterrupt

    db.write(table, weather(1), schema="create")
    with pytest.raises(tandemdb.SerializationFailure, match="half way.*the disk is gone"), db.transaction() as tx:
        with pytest.raises(OSError):
            tx.write(table, source(), piece_bytes=500)
    with pytest.raises(tandemdb.SerializationFailure, match="interrupted"), db.transaction() as tx:
        with pytest.raises(KeyboardInterrupt):
            tx._run(interrupted)
    with db.transaction() as tx:
        with pytest.raises(tandemdb.InvalidInput):
            tx.write(table, iter([3]))
        assert tx.write(table, weather(4, 1)) == 4
    assert db.sql(f"SELECT count(*) FROM {table}").scalar() == 5


def test_changes_up_to_now_and_from_a_read_on(db, table):
    db.write(table, weather(5), schema="create", timestamp="time")
    full = db.sql(f"SELECT * FROM {table}")
    db.execute(f"UPDATE {table} SET temp = 100 WHERE temp = 0")
    db.execute(f"DELETE FROM {table} WHERE temp = 1")
    changes = list(db.changes(table, full.seq + 1, follow=False, images="both"))
    told = [(row["_op"], row["temp"]) for change in changes for row in change.rows()]
    assert told == [("update_before", 0.0), ("update_after", 100.0), ("delete", 1.0)]
    assert changes[-1].next_seq == db.seq() + 1
    assert sum(len(change) for change in db.changes(table, 1, full.seq)) == 5
    assert list(db.changes(table, follow=False)) == [], "from now on, up to now"


def test_a_stream_goes_on_after_new_columns_and_ends_with_the_table(tandemdb, db, table):
    db.write(table, weather(2), schema="create")
    seen = []
    with db.changes(table) as changes:
        db.write(table, weather(3))
        seen.append(next(changes))
        db.execute(f"ALTER TABLE {table} ADD COLUMN wind DOUBLE")
        db.write(table, weather(4).assign(wind=1.0))
        seen.append(next(changes))
        db.execute(f"ALTER TABLE {table} DROP COLUMN city")
        db.write(table, weather(5)[["time", "temp"]])
        seen.append(next(changes))
        db.execute(f"DROP TABLE {table}")
        with pytest.raises(tandemdb.NotFound, match="told up to seq"):
            next(changes)
    extra = ["_seq", "_op", "_commit_time"]
    assert [len(change) for change in seen] == [3, 4, 5]
    assert [change.table.column_names for change in seen] == [[*COLUMNS, *extra], [*COLUMNS, "wind", *extra], ["time", "temp", "wind", *extra]]
    assert seen[0].pandas()["_op"].unique().tolist() == ["insert"] and seen[1].polars().height == 4


def test_all_tables_in_one_stream(db, table):
    first = db.seq() + 1
    db.write(table, weather(2), schema="create")
    db.write(f"{table}_other", weather(1), schema="create")
    db.execute(f"DELETE FROM {table} WHERE temp = 1")
    rows = [row for change in db.changes(None, first, follow=False) for row in change.rows()]
    told = [(row["_table"], row["_op"], row["_row"] and json.loads(row["_row"])["temp"]) for row in rows]
    kept = [row for row in told if row[1] != "schema"]
    assert kept == [(table, "insert", 0.0), (table, "insert", 1.0), (f"{table}_other", "insert", 0.0), (table, "delete", 1.0)]
    assert {name for name, op, _ in told if op == "schema"} == {table, f"{table}_other"}


def test_a_stream_is_closed_from_another_thread(db, table):
    db.write(table, weather(2), schema="create")
    changes = db.changes(table)
    threading.Timer(0.5, changes.close).start()
    began = time.monotonic()
    assert list(changes) == []
    assert time.monotonic() - began < 5


def test_a_slow_reader_of_changes_gets_whole_commits(db, table):
    first = db.write(table, weather(1), schema="create").seq
    for i in range(5):
        db.write(table, weather(60_000, i))
    rows = []
    for change in db.changes(table, first, follow=False):
        counts = change.pandas().groupby("_seq").size()
        rows += counts.tolist()
        time.sleep(0.05)
    assert rows == [1] + [60_000] * 5


def test_tokens_and_tls(tandemdb, tls_node, certificates):  # noqa: F811
    url, ca = f"grpc+tls://{tls_node.ready['flight']}", certificates / "ca.pem"
    with tandemdb.connect(url, token=WRITER, tls_ca=ca) as db:
        db.write("by_package", weather(5), schema="create")
        with db.transaction() as tx:
            tx.write("by_package", weather(5))
    with tandemdb.connect(url, token=READER, tls_ca=ca.read_bytes()) as db:
        assert db.sql("SELECT count(*) FROM by_package").scalar() == 10
        assert sum(len(change) for change in db.changes("by_package", 1, follow=False)) == 10
        with pytest.raises(tandemdb.Forbidden, match="may only read"):
            db.write("by_package", weather(5))
    for token in (None, "wrong-token-0123456789"):
        with pytest.raises(tandemdb.Unauthenticated, match=r"connect\(token="):
            tandemdb.connect(url, token=token, tls_ca=ca)
    with pytest.raises(tandemdb.Unavailable, match="tls_ca="):
        tandemdb.connect(url, token=WRITER, tls_ca=certificates / "other.pem", retry_for=0.5)


def test_nobody_there_is_said_in_time(tandemdb):
    began = time.monotonic()
    with pytest.raises(tandemdb.Unavailable, match=r"given up after \d+ tries.*refused"):
        tandemdb.connect(f"127.0.0.1:{harness.free_port()},127.0.0.1:{harness.free_port()}", retry_for=1)
    assert time.monotonic() - began < 5


# On several nodes


@pytest.fixture
def pair(tmp_path):
    with harness.Node(tmp_path / "store", tmp_path / "a") as a, harness.Node(tmp_path / "store", tmp_path / "b") as b:
        yield a, b


def stand_still(node):
    """Freezes a node, and waits until none of its threads runs any more."""
    node.freeze()
    threads = pathlib.Path(f"/proc/{node.process.pid}/task")
    stopped = lambda: all((thread / "stat").read_text().rpartition(")")[2].split()[0] == "T" for thread in threads.iterdir())  # noqa: E731
    harness.wait_until(stopped, 10, "the node stands still", every=0.01)


def test_a_replica_leads_to_a_writer(tandemdb, pair, tmp_path):
    writer = pair[0]
    with harness.Node(writer.store, tmp_path / "replica", ["--role", "replica", "--follow", writer.url]) as replica:
        with tandemdb.connect(replica.url) as db:
            assert db.url == replica.url
            db.write("t", weather(10), schema="create")
            assert db.url in {node.url for node in pair}
            assert db.sql("SELECT count(*) FROM t").scalar() == 10
        with tandemdb.connect(replica.url) as db:
            for last in (False, True):
                try:
                    with db.transaction() as tx:
                        tx.write("t", weather(5))
                    assert last
                except tandemdb.NotWriter as error:
                    assert not last and "run the transaction again" in str(error)
            assert db.sql("SELECT count(*) FROM t").scalar() == 15


def test_a_node_that_stands_still_is_left_and_its_write_is_there_once(tandemdb, pair):
    a, b = pair
    with tandemdb.connect(f"{a.url},{b.url}") as db:
        db.write("t", weather(10), schema="create")
        stand_still(a)
        try:
            done = db.write("t", weather(10), timeout=2)
        finally:
            a.thaw()
        assert done.tries > 1 and db.url == b.url
        time.sleep(1)
        assert db.sql("SELECT count(*) FROM t", read="latest").scalar() == 20


@pytest.mark.seconds(120)
def test_killed_while_writing_nothing_is_lost_or_there_twice(tandemdb, pair, tmp_path):
    """Four writers and two change streams over three nodes, two of which are killed under them."""
    with harness.Node(pair[0].store, tmp_path / "c") as third:
        nodes = [*pair, third]
        orders = [nodes, [*nodes[1:], nodes[0]]]
        urls = [",".join(node.url for node in order) for order in orders]
        with tandemdb.connect(third.url) as db:
            first = db.execute("CREATE TABLE t (id BIGINT, part BIGINT)").seq + 1
        stop, failed, acknowledged, repeated, told = threading.Event(), [], [], [], {0: [], 1: []}

        def write(worker):
            with tandemdb.connect(urls[worker % 2]) as db:
                for part in range(10_000):
                    ids = [worker * 1_000_000 + part * 10 + n for n in range(10)]
                    done = db.write("t", {"id": ids, "part": [part] * 10})
                    acknowledged.extend(ids)
                    repeated.extend([part] if done.tries > 1 else [])
                    if stop.is_set():
                        return

        def follow(which):
            with tandemdb.connect(urls[which]) as db, db.changes("t", first) as changes:
                for change in changes:
                    told[which] += change.table["id"].to_pylist()
                    if -1 in told[which]:
                        return

        def run(work, argument):
            try:
                work(argument)
            except Exception as error:  # noqa: BLE001
                failed.append(error)

        writers = [threading.Thread(target=run, args=(write, n)) for n in range(4)]
        followers = [threading.Thread(target=run, args=(follow, n)) for n in range(2)]
        for thread in [*writers, *followers]:
            thread.start()
        for victim in nodes[:2]:
            before = len(acknowledged)
            harness.wait_until(lambda: len(acknowledged) > before + 400 or failed, 30, "all are writing")
            victim.kill()
        before = len(acknowledged)
        harness.wait_until(lambda: len(acknowledged) > before + 400 or failed, 30, "writes go on at the last node")
        stop.set()
        for thread in writers:
            thread.join(60)
        with tandemdb.connect(third.url) as db:
            db.write("t", {"id": [-1], "part": [0]})
            for thread in followers:
                thread.join(60)
            assert not failed and not any(thread.is_alive() for thread in [*writers, *followers]), failed
            ids = db.sql("SELECT id FROM t", read="latest").arrow()["id"].to_pylist()
    assert len(ids) == len(set(ids)), "a row is there twice"
    assert set(ids) == {-1, *acknowledged}, "a row was lost"
    assert sorted(told[0]) == sorted(told[1]) == sorted(ids), "each stream told each row once"
    assert repeated, "no write met a kill"


def test_a_read_that_breaks_off_is_asked_for_again(tandemdb, pair):
    a, b = pair
    with tandemdb.connect(f"{a.url},{b.url}") as db:
        count = 600_000
        db.write("t", {"id": list(range(count)), "text": ["x" * 40] * count}, schema="create")
        whole = db.sql("SELECT * FROM t")
        part = db.sql("SELECT * FROM t").reader()
        assert len(part.read_next_batch()) > 0
        assert db.url == a.url
        a.kill()
        assert whole.arrow().num_rows == count and db.url == b.url
        with pytest.raises(tandemdb.Unavailable, match="run it again"):
            part.read_all()


def test_a_transaction_whose_node_is_lost(tandemdb, pair):
    a, b = pair
    with tandemdb.connect(f"{a.url},{b.url}") as db:
        db.write("t", weather(10), schema="create")
        with pytest.raises(tandemdb.SerializationFailure, match="run the transaction again"), db.transaction() as tx:
            tx.write("t", weather(10))
            a.kill()
            tx.execute("UPDATE t SET temp = 0")
        with db.transaction() as tx:
            tx.write("t", weather(10))
        assert db.url == b.url and db.sql("SELECT count(*) FROM t").scalar() == 20
        with pytest.raises(tandemdb.OutcomeUnknown, match="token=") as caught, db.transaction() as tx:
            tx.write("t", weather(10))
            # The commit arrives at a node that does not read it any more.
            stand_still(b)
            threading.Timer(0.5, b.process.kill).start()
        assert caught.value.token


def test_a_transaction_of_unknown_state_is_not_committed(tandemdb, own_node):
    with tandemdb.connect(own_node.url, timeout=20) as db:
        db.write("t", weather(10), schema="create")
        with pytest.raises(tandemdb.SerializationFailure, match="rolled back"), db.transaction() as tx:
            tx.write("t", weather(10))
            stand_still(own_node)
            try:
                with pytest.raises(tandemdb.SerializationFailure, match="lost"):
                    tx.write("t", weather(10), timeout=0.5)
            finally:
                own_node.thaw()
            with pytest.raises(tandemdb.SerializationFailure, match="only be rolled back"):
                tx.write("t", weather(10))
        broken = weather(1000)
        broken.loc[777, "time"] = pd.NaT
        db.execute("CREATE TABLE strict (time TIMESTAMP NOT NULL, city VARCHAR, temp DOUBLE) TIMESTAMP(time)")
        with pytest.raises(tandemdb.SerializationFailure, match="half way"), db.transaction() as tx:
            with pytest.raises(tandemdb.TandemError, match="time"):
                tx.write("strict", broken, piece_bytes=3000)
        with db.transaction() as tx:
            assert tx.write("strict", weather(1000), piece_bytes=3000) == 1000
        assert db.sql("SELECT count(*) FROM t").scalar() == 10 and db.sql("SELECT count(*) FROM strict").scalar() == 1000


# What is written about it


def scripts(text):
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_quick_start_works_as_it_stands(tandemdb, own_node, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(scripts((PACKAGE / "README.md").read_text()))
    assert code.count("tandemdb.connect(") == 1
    scope = {}
    exec(compile(code.replace("grpc://127.0.0.1:8815,grpc://127.0.0.1:8816", own_node.url), "README.md", "exec"), scope)  # noqa: S102
    scope["db"].close()


def test_the_example_draws(tandemdb, own_node, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib cannot be had")
    picture = tmp_path / "weather.png"
    command = [sys.executable, PACKAGE / "examples" / "weather.py", own_node.url, picture]
    environment = {"PYTHONPATH": str(pathlib.Path(tandemdb.__file__).parents[1]), "MPLCONFIGDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=harness.clean_environment(environment))
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000
