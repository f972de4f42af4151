"""Replicas: they follow writers and each other, say who writes, and come back by themselves."""

import signal
import statistics
import subprocess
import threading
import time

import grpc
import pyarrow as pa
import pyarrow.flight
import pytest

import harness

SCHEMA = pa.schema([("n", pa.int64())])


def node(tmp_path, name, *options):
    return harness.Node(tmp_path / "store", tmp_path / name, options=["--node-id", name, *options])


def batch(*numbers):
    return pa.record_batch([list(numbers)], SCHEMA)


def sees(nodes, query, rows, seconds=2):
    """Waits until all nodes give the same rows; those that do not, by name."""
    for each in nodes:
        last = []

        def look(each=each, last=last):
            try:
                last[:] = each.sql(query)
            except Exception as error:  # noqa: BLE001 - a table may not be there yet
                last[:] = [error]
            return last == rows

        try:
            harness.wait_until(look, seconds, "rows arrive", every=0.02)
        except AssertionError as error:
            raise AssertionError(f"{error} on {each.options}: {query} gives {last}, not {rows}\n{each.log_end()}") from None


def status(each):
    return harness.json.loads(each.tandem("status", "--json").stdout)


def fed(each, feeds=1, seconds=15):
    """Waits until a node is connected to so many upstreams."""
    harness.wait_until(lambda: status(each)["feeds"] >= feeds, seconds, f"{each.options} follows {feeds}\n{each.log_end()}")


@pytest.fixture
def chain(tmp_path):
    """A writer, a replica that finds it, and a replica of that replica."""
    with node(tmp_path, "w") as writer, node(tmp_path, "r1", "--role", "replica") as first:
        with node(tmp_path, "r2", "--follow", first.url) as second:
            fed(first)
            fed(second)
            yield writer, first, second


def test_what_is_written_is_read_on_all(chain):
    writer, first, second = chain
    writer.sql("CREATE TABLE t (n BIGINT)")
    with writer.flight() as client:
        harness.put(client, "t", [batch(1, 2, 3)])
    sees(chain, "SELECT count(*), sum(n) FROM t", [(3, 6)])
    assert [status(n)["role"] for n in chain] == ["writer", "replica", "replica"]
    rows = second.sql("SELECT node_id, role, address FROM system.nodes ORDER BY node_id")
    assert [(r[0], r[1]) for r in rows] == [("r1", "replica"), ("r2", "replica"), ("w", "writer")]
    assert rows[2][2] == writer.url
    ok, text = first.get("/readyz")
    assert ok == 200, text
    text = first.get("/metrics")[1]
    for name in ["tandem_applied_seq", "tandem_lag_seconds", "tandem_lag_commits", "tandem_feed_connected 1"]:
        assert name in text


def test_a_replica_says_who_writes(chain):
    writer, first, second = chain
    writer.sql("CREATE TABLE t (n BIGINT)")
    sees(chain, "SELECT count(*) FROM t", [(0,)])
    for replica in (first, second):
        harness.wait_until(lambda replica=replica: any(p["role"] == "writer" for p in status(replica)["peers"]), 10, "a writer is known")
        trailers = refused_put(replica)
        assert trailers["tandem-error"] == "not-writer"
        assert trailers["tandem-writer"] == writer.url
        with pytest.raises(Exception, match="replica"):
            replica.sql("OPTIMIZE TABLE t")
        with pytest.raises(Exception, match="replica"):
            replica.sql("CREATE TABLE u (n BIGINT)")
    sees(chain, "SELECT count(*) FROM t", [(0,)])


def refused_put(replica):
    """The trailers of a write that is refused, as gRPC shows them."""
    channel = grpc.insecure_channel(replica.ready["flight"])
    try:
        call = channel.stream_stream("/arrow.flight.protocol.FlightService/DoPut")(iter(raw_put()), timeout=20)
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE, caught.value
        return {k: v for k, v in [*caught.value.trailing_metadata(), *(caught.value.initial_metadata() or ())]}
    finally:
        channel.close()


def raw_put():
    """A statement that writes, as the one message of a DoPut of Flight SQL."""

    def field(number, payload):
        return bytes([number << 3 | 2, len(payload)]) + payload

    statement = field(1, b"INSERT INTO t VALUES (1)")
    url = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementUpdate"
    command = field(1, url) + field(2, statement)
    # FlightDescriptor: type CMD, cmd.
    descriptor = b"\x08\x02" + field(2, command)
    assert len(descriptor) < 128 and len(command) < 128
    return [field(1, descriptor)]


def test_the_writer_dies_and_replicas_go_on(chain):
    writer, first, second = chain
    writer.sql("CREATE TABLE t AS SELECT value AS n FROM generate_series(1, 100)")
    sees(chain, "SELECT count(*) FROM t", [(100,)])
    writer.kill()
    for replica in (first, second):
        assert replica.sql("SELECT count(*), sum(n) FROM t") == [(100, 5050)]
    writer.start()
    with writer.flight() as client:
        harness.put(client, "t", [batch(101)])
    sees(chain, "SELECT count(*) FROM t", [(101,)], seconds=5)
    fed(first)
    with writer.flight() as client:
        harness.put(client, "t", [batch(102)])
    sees(chain, "SELECT count(*) FROM t", [(102,)])


def test_a_replica_dies_and_catches_up(chain):
    writer, first, second = chain
    writer.sql("CREATE TABLE t (n BIGINT)")
    with writer.flight() as client:
        for round_ in range(4):
            first.kill()
            harness.put(client, "t", [batch(3 * round_, 3 * round_ + 1), batch(3 * round_ + 2)])
            # The one behind it has lost its upstream and reads the store.
            sees([second], "SELECT count(*) FROM t", [(3 * round_ + 3,)], seconds=10)
            first.start()
            sees([first], "SELECT count(*) FROM t", [(3 * round_ + 3,)])
    sees(chain, "SELECT count(DISTINCT n) FROM t", [(12,)])


@pytest.mark.parametrize("victim", ["writer", "first"])
def test_an_upstream_sleeps(chain, victim):
    writer, first, second = chain
    writer.sql("CREATE TABLE t (n BIGINT)")
    sees(chain, "SELECT count(*) FROM t", [(0,)])
    asleep = writer if victim == "writer" else first
    asleep.process.send_signal(signal.SIGSTOP)
    try:
        if victim == "writer":
            assert second.sql("SELECT count(*) FROM t") == [(0,)]
            time.sleep(4)
            # Nobody is taken for connected who says nothing.
            harness.wait_until(lambda: status(first)["feeds"] == 0, 10, "the feed is given up")
        else:
            with writer.flight() as client:
                harness.put(client, "t", [batch(1)])
            sees([second], "SELECT count(*) FROM t", [(1,)], seconds=10)
    finally:
        asleep.process.send_signal(signal.SIGCONT)
    with writer.flight() as client:
        harness.put(client, "t", [batch(2)])
    expected = [(1 if victim == "writer" else 2,)]
    sees(chain, "SELECT count(*) FROM t", expected, seconds=10)
    fed(first)
    fed(second)


def test_a_replica_that_calls_nobody(tmp_path):
    with node(tmp_path, "w") as writer, node(tmp_path, "r", "--follow", "store") as replica:
        writer.sql("CREATE TABLE t (n BIGINT)")
        sees([replica], "SELECT count(*) FROM t", [(0,)])
        with writer.flight() as client:
            for n in range(20):
                harness.put(client, "t", [batch(n)])
                time.sleep(0.05)
        sees([replica], "SELECT count(*) FROM t", [(20,)])
        assert status(replica)["feeds"] == 0
        assert status(writer)["followers"] == 0


def test_writers_see_each_other_at_once(tmp_path):
    with node(tmp_path, "a") as a, node(tmp_path, "b") as b, node(tmp_path, "c") as c:
        nodes = [a, b, c]
        for each in nodes:
            fed(each, feeds=2)
        a.sql("CREATE TABLE t (n BIGINT)")
        sees(nodes, "SELECT count(*) FROM t", [(0,)])

        def write(which):
            with nodes[which].flight() as client:
                for n in range(50):
                    harness.put(client, "t", [batch(which * 1000 + n)])

        threads = [threading.Thread(target=write, args=(which,)) for which in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        sees(nodes, "SELECT count(*), count(DISTINCT n) FROM t", [(150, 150)])
        c.kill()
        harness.wait_until(lambda: status(a)["feeds"] == 1, 15, "a dead writer is not followed")


def test_a_replica_waits_for_its_database(tmp_path):
    replica = node(tmp_path, "r", "--role", "replica").launch()
    try:
        time.sleep(1)
        assert not (tmp_path / "store" / "tandem.json").exists(), "a replica creates nothing"
        with node(tmp_path, "w") as writer:
            writer.sql("CREATE TABLE t AS SELECT 1 AS n")
            replica.wait_ready()
            sees([replica], "SELECT count(*) FROM t", [(1,)])
    finally:
        replica.close()


def test_another_database_is_not_followed(tmp_path):
    with node(tmp_path, "w") as writer, harness.Node(tmp_path / "other", tmp_path / "o") as other:
        writer.sql("CREATE TABLE t AS SELECT 1 AS n")
        with node(tmp_path, "r", "--follow", other.url) as replica:
            sees([replica], "SELECT count(*) FROM t", [(1,)])
            harness.wait_until(lambda: "not to be followed" in replica.log.read_text(), 15, "a warning")
            assert other.url in replica.log.read_text()
            writer.sql("INSERT INTO t VALUES (2)")
            sees([replica], "SELECT count(*) FROM t", [(2,)])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--role", "boss"], "--role"),
        (["--role", "writer", "--follow", "store"], "replica"),
        (["--follow", "ftp://x"], "--follow"),
        (["--node-id", "a/b"], "node id"),
    ],
)
def test_wrong_roles_are_refused(tmp_path, options, says):
    done = harness.run("serve", "--store", tmp_path / "s", "--flight", "127.0.0.1:0", "--http", "off", *options, expect=1)
    assert says in done.stderr


def test_lag_is_a_few_milliseconds(chain):
    """From the acknowledgement on the writer to the commit applied on each replica, by the replica's own count."""
    writer, first, second = chain
    writer.sql("CREATE TABLE t (n BIGINT)")
    sees(chain, "SELECT count(*) FROM t", [(0,)])
    lags = {"r1": [], "r2": []}
    with writer.flight() as client, first.flight() as one, second.flight() as two:
        for n in range(40):
            harness.put(client, "t", [batch(n)])
            acked = time.monotonic()
            for name, reader in (("r1", one), ("r2", two)):
                while len(reader.do_get(harness.ticket(sql=f"SELECT n FROM t WHERE n = {n}")).read_all()) == 0:
                    assert time.monotonic() - acked < 5
                lags[name].append(time.monotonic() - acked)
    for name, seen in lags.items():
        print(f"{name}: p50 {statistics.median(seen) * 1000:.1f} ms, max {max(seen) * 1000:.1f} ms, queries included")
    assert statistics.median(lags["r1"]) < 0.2


def test_a_node_follows_as_its_present_role_asks(tmp_path):
    """Writers hear of each other's own commits; who stands by hears of all, from the one that writes; and back again."""
    with node(tmp_path, "a") as a, node(tmp_path, "b") as b:
        a.sql("CREATE TABLE t (n BIGINT)")
        fed(a)
        fed(b)

        def follows(upstream, follower, scope, seconds=20):
            said = f"followed node_id={follower} scope={scope}"
            before = upstream.log.read_text().count(said)
            return lambda: harness.wait_until(lambda: upstream.log.read_text().count(said) > before, seconds, said + upstream.log_end())

        standby = follows(a, "b", "All")
        a.sql("ALTER DATABASE SET (mode = 'single-primary')")
        standby()
        fed(b)
        handed_on = follows(b, "a", "All")
        harness.run("promote", "--connect", b.url)
        handed_on()
        fed(a)
        with b.flight() as client:
            harness.put(client, "t", [batch(1)])
        sees([a], "SELECT count(*) FROM t", [(1,)])
        again = [follows(a, "b", "Own"), follows(b, "a", "Own")]
        b.sql("ALTER DATABASE SET (mode = 'multi-primary')")
        for wait in again:
            wait()
        for which, each in enumerate([a, b]):
            with each.flight() as client:
                harness.put(client, "t", [batch(10 + which)])
        sees([a, b], "SELECT count(*) FROM t", [(3,)])


def test_a_node_that_was_killed_does_not_warn_of_itself(tmp_path):
    """Its heartbeat is still there when it is started again, under another name, at the same address."""
    address = f"127.0.0.1:{harness.free_port()}"
    logs = []
    for life in range(2):
        logs.append(tmp_path / f"log-{life}")
        ready = tmp_path / f"ready-{life}"
        command = [
            harness.binary(), "serve", "--store", tmp_path / "s", "--flight", address, "--http", "off", "--pg", "off",
            "--ready-file", ready,
        ]  # fmt: skip
        with open(logs[-1], "wb") as log:
            process = subprocess.Popen(
                list(map(str, command)), stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=harness.clean_environment()
            )
        try:
            harness.wait_until(ready.exists, 60, "the node is ready")
            if life == 0:
                harness.wait_until(lambda: list((tmp_path / "s" / "nodes").glob("*.json")), 20, "a heartbeat")
            else:
                assert len(list((tmp_path / "s" / "nodes").glob("*.json"))) == 2, "the old heartbeat is there"
                # A heartbeat of a local store takes a second; who it names is followed at once.
                time.sleep(3)
        finally:
            process.kill()
            process.wait(30)
    assert "not to be followed" not in logs[-1].read_text() and "follow itself" not in logs[-1].read_text(), logs[-1].read_text()
