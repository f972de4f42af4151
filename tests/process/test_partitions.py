"""Links that break: between nodes, between a node and the store, both, and in one direction only.

What the nodes are to do about it: go on with what they can reach, say clearly what they cannot do or do not know, wait for nothing
without a bound, and come back by themselves once the link is there again. In the end all of them hold the same, and
everything that was acknowledged.
"""

import contextlib
import json
import socket
import threading
import time

import pyarrow as pa
import pytest

import harness
from cluster import verify
from cluster.links import DOWN, UP, Link
from cluster.wire import Failed, Wire
from stores.conftest import seaweedfs  # noqa: F401 - a fixture

SCHEMA = pa.schema([("n", pa.int64())])
CREATE = "CREATE TABLE IF NOT EXISTS t (n BIGINT)"
READ = "SELECT n FROM t ORDER BY n"
# An upstream that says nothing for so long is given up (SILENCE_MAX of the node's crate), and as much again for a busy machine.
NOTICED = 6
# Between attempts to follow lie three seconds at most, and each takes three at most.
FOLLOWED_AGAIN = 12
# What needs no broken link takes no longer than this.
PROMPT = 5
# How long a commit's outcome is pursued (RESOLVE_FOR of the log's crate), and the answers that are still awaited then.
RESOLVED = 60 + 15
# How long nodes wait for the store's answer to one request.
PATIENCE = 2


def batch(numbers):
    return pa.record_batch([pa.array(numbers, pa.int64())], SCHEMA)


def write(node, numbers, seconds=PROMPT, token=None, **headers):
    """One transaction; its seq. `Failed` says what became of it otherwise."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        headers["tandem-token"] = token
    answers = []
    with Wire(node.url, seconds) as wire:
        wire.put("t", [batch(numbers)], lambda _, answer: answers.append(answer), headers)
    assert answers[0]["rows"] == len(numbers)
    return answers[0]["seq"]


def read(node, seconds=PROMPT, **headers):
    """All numbers, in order."""
    with Wire(node.url, seconds) as wire:
        return wire.query(READ, {name.replace("_", "-"): value for name, value in headers.items()})[0]["n"].to_pylist()


def is_behind(node, seq):
    """It says itself that it is, before its client has waited for too long; a busy machine gets a second chance."""
    for seconds in (1, 3, 6):
        with pytest.raises(Failed) as refused:
            read(node, seconds, tandem_min_seq=seq)
        if refused.value.code == "behind":
            return
    raise AssertionError(f"asked for seq {seq}: {refused.value}")


def status(node):
    with Wire(node.url, PROMPT) as wire:
        return wire.status()


def feeds(node):
    return status(node)["feeds"]


def follows(node, count, seconds=FOLLOWED_AGAIN):
    harness.wait_until(lambda: feeds(node) == count, seconds, f"{node.options} follows {count}; it says {status(node)}")


def sees(node, numbers, seconds=PROMPT):
    harness.wait_until(lambda: read(node) == sorted(numbers), seconds, f"{node.options} sees {len(numbers)} rows", every=0.02)


def same(nodes, numbers, seconds=20):
    """All nodes hold exactly these rows, and the same log."""

    def state(node):
        with Wire(node.url, PROMPT) as wire:
            log = wire.query("SELECT seq, commit_id, writer_id, rows FROM system.log ORDER BY seq")[0]
            return verify.content(wire.query("SELECT * FROM t")[0]), log.num_rows, log.to_pydict()

    harness.wait_until(lambda: len({state(node)[:2] for node in nodes}) == 1, seconds, "all nodes are level")
    states = [state(node) for node in nodes]
    assert all(each == states[0] for each in states), "the logs differ"
    for node in nodes:
        assert read(node) == sorted(numbers), f"not what was written, on {node.options}"
        assert node.is_up()


def port(node):
    return int(node.ready["flight"].rpartition(":")[2])


def node(tmp_path, name, *options):
    return harness.Node(tmp_path / "store", tmp_path / name, ["--node-id", name, *options])


def prompt(work, *arguments, **keywords):
    """What a call gives that no broken link may hold up."""
    began = time.monotonic()
    answer = work(*arguments, **keywords)
    assert time.monotonic() - began < PROMPT, f"it took {time.monotonic() - began:.1f} s"
    return answer


class Background(threading.Thread):
    """A write under way: its seq or its failure, and how long it took."""

    def __init__(self, *arguments, **keywords):
        super().__init__(daemon=True)
        self.arguments, self.keywords = arguments, keywords
        self.seq = self.failure = self.took = None
        self.start()

    def run(self):
        began = time.monotonic()
        try:
            self.seq = write(*self.arguments, **self.keywords)
        except Failed as failure:
            self.failure = failure
        self.took = time.monotonic() - began

    def ended(self, seconds):
        self.join(seconds)
        assert not self.is_alive(), f"no answer within {seconds} s"
        return self


def test_a_link_breaks_and_heals():
    """As the other tests rely on."""
    with socket.create_server(("127.0.0.1", 0)) as server, Link(server.getsockname()[1]) as link:
        server.settimeout(5)

        def connect():
            near = socket.create_connection(("127.0.0.1", link.port), timeout=5)
            return near, server.accept()[0]

        def silent(end):
            end.settimeout(0.3)
            with pytest.raises(TimeoutError):
                end.recv(1)
            end.settimeout(5)

        near, far = connect()
        near.sendall(b"ask")
        assert far.recv(9) == b"ask"
        link.hang(DOWN)
        near.sendall(b"again")
        assert far.recv(9) == b"again"
        far.sendall(b"late")
        silent(near)
        link.heal()
        assert near.recv(9) == b"late"
        link.hang()
        # Accepted by the link, and by nobody behind it.
        waiting = socket.create_connection(("127.0.0.1", link.port), timeout=5)
        near.sendall(b"held")
        silent(far)
        link.heal()
        assert far.recv(9) == b"held"
        server.accept()[0].close()
        assert waiting.recv(1) == b""
        link.delay(0.4)
        began = time.monotonic()
        near.sendall(b"slow")
        assert far.recv(9) == b"slow" and time.monotonic() - began > 0.3
        link.cut()
        for end in (near, far):
            with pytest.raises(ConnectionError):
                end.recv(1)
                raise ConnectionError("closed")
        with pytest.raises(ConnectionError), socket.create_connection(("127.0.0.1", link.port), timeout=5) as refused:
            if refused.recv(1) == b"":
                raise ConnectionError("closed")
        link.heal()
        near, far = connect()
        near.sendall(b"well")
        assert far.recv(9) == b"well" and link.accepted == 4


# between a node and the store


class OnS3:
    """Nodes on an S3 store, each with a link to the store and one in front of it."""

    def __init__(self, store, prefix, directory):
        self.store, self.prefix, self.directory = store, prefix, directory
        self.nodes, self.to_store, self.to_node = {}, {}, {}
        self.stack = contextlib.ExitStack()

    def launch(self, name, *options):
        store, front = self.stack.enter_context(Link(self.store.port)), self.stack.enter_context(Link())
        settings = {**self.store.options, "endpoint": f"http://127.0.0.1:{store.port}", "timeout": f"{PATIENCE}s"}
        through = [x for key, value in settings.items() for x in ("--store-option", f"{key}={value}")]
        started = harness.Node(
            self.store.url(self.prefix), self.directory / name, ["--node-id", name, "--advertise", front.url, *through, *options]
        )
        self.stack.callback(started.close)
        started.launch()
        self.nodes[name], self.to_store[name], self.to_node[name] = started, store, front

    def ready(self):
        for name, started in self.nodes.items():
            started.wait_ready()
            self.to_node[name].target = port(started)

    def heal(self):
        for link in [*self.to_store.values(), *self.to_node.values()]:
            link.heal()


@pytest.fixture(scope="module")
def stranded(seaweedfs, tmp_path_factory):  # noqa: F811
    """A writer that has lost its store for longer than it looks for the outcome of a commit. Meanwhile other tests run."""
    alone = OnS3(seaweedfs, "stranded", tmp_path_factory.mktemp("stranded"))
    with alone.stack:
        alone.launch("s")
        alone.ready()
        writer = alone.nodes["s"]
        writer.sql(CREATE)
        write(writer, [1, 2])
        alone.to_store["s"].cut()
        alone.lost = Background(writer, [3, 4], seconds=RESOLVED + 10, token="lost")
        yield alone


@pytest.fixture(scope="module")
def three(seaweedfs, tmp_path_factory, stranded):  # noqa: F811
    """Two writers, and a replica of the first."""
    cluster = OnS3(seaweedfs, "three", tmp_path_factory.mktemp("three"))
    with cluster.stack:
        for name in ("a", "b"):
            cluster.launch(name)
        cluster.ready()
        cluster.launch("r", "--follow", cluster.to_node["a"].url)
        cluster.nodes["r"].wait_ready()
        a, b, r = cluster.nodes.values()
        a.sql(CREATE)
        cluster.rows = [1, 2, 3]
        write(a, cluster.rows)
        follows(a, 1)
        follows(b, 1)
        follows(r, 1)
        for each in (a, b, r):
            sees(each, cluster.rows)
        yield cluster


@pytest.mark.parametrize("how", ["hang", "cut"])
def test_a_writer_without_its_store(three, how):
    """Its clients still reach it, and so do the other nodes."""
    (a, b, r), rows = three.nodes.values(), three.rows
    first = max(rows) + 1
    getattr(three.to_store["a"], how)()
    waits = Background(a, [first], seconds=30, token=f"{how} waits")
    with pytest.raises(Failed) as hurried:
        write(a, [first + 1], seconds=1, token=f"{how} hurried")
    assert hurried.value.meaning == "unknown", hurried.value
    # It answers from what it has applied, and knows what it has not.
    assert prompt(read, a) == rows
    is_behind(a, status(a)["seq"] + 1000)
    # The others go on.
    prompt(write, b, [first + 2])
    for each in (b, r):
        sees(each, [*rows, first + 2])
    assert waits.is_alive(), f"acknowledged without a store: {waits.seq}, {waits.failure}"
    three.heal()
    healed = time.monotonic()
    assert waits.ended(15).seq, waits.failure
    # Under its token the other write is safe to send again, anywhere.
    write(b, [first + 1], seconds=15, token=f"{how} hurried")
    write(a, [first + 3])
    assert time.monotonic() - healed < 15
    rows += range(first, first + 4)
    same([a, b, r], rows)


def test_both_links_of_a_node_are_cut(three):
    """A writer, and then a replica, alone in the world but for their clients."""
    (a, b, r), rows = three.nodes.values(), three.rows
    first = max(rows) + 1
    for link in (three.to_store["a"], three.to_node["a"], three.to_node["b"], three.to_store["r"]):
        link.cut()
    waits = Background(a, [first], seconds=30, token="alone")
    prompt(write, b, [first + 1])
    # What cannot be known here is not shown, and what is known is.
    for each in (a, r):
        assert prompt(read, each) == rows
    is_behind(r, status(b)["seq"])
    with pytest.raises(Failed):
        read(r, seconds=2, tandem_read="latest")
    harness.wait_until(lambda: feeds(a) == feeds(b) == feeds(r) == 0, NOTICED, "nobody takes anybody for connected")
    assert prompt(read, b) == [*rows, first + 1]
    three.heal()
    assert waits.ended(20).seq, waits.failure
    rows += [first, first + 1]
    for each in (a, b, r):
        follows(each, 1, 30)
    write(a, [first + 2], tandem_ack="quorum(2)", tandem_ack_timeout="4s")
    rows.append(first + 2)
    same([a, b, r], rows)


# between nodes


def test_a_replica_without_its_upstream_polls(tmp_path):
    with node(tmp_path, "w") as writer, Link(port(writer)) as link, node(tmp_path, "r", "--follow", link.url) as replica:
        writer.sql(CREATE)
        follows(replica, 1)
        rows = []
        for lives, how in enumerate(["cut", "hang"], start=2):
            getattr(link, how)()
            follows(replica, 0, NOTICED)
            assert "tandem_feed_connected 0" in replica.get("/metrics")[1]
            passed = link.passed[DOWN]
            for _ in range(10):
                rows.append(len(rows))
                write(writer, rows[-1:])
            # By the store alone: it is looked at once a second at least.
            sees(replica, rows)
            assert link.passed[DOWN] == passed
            [applied] = replica.sql("SELECT applied_seq, lag_commits FROM system.nodes WHERE node_id = 'r'")
            assert applied == (status(writer)["seq"], 0)
            link.heal()
            follows(replica, 1)
            assert "tandem_feed_connected 1" in replica.get("/metrics")[1]
            passed = link.passed[DOWN]
            more = range(len(rows), len(rows) + 10_000)
            write(writer, list(more))
            rows += more
            sees(replica, rows)
            # The rows were pushed, whole, though polling would have found them as well.
            harness.wait_until(lambda passed=passed: link.passed[DOWN] - passed > 10_000, PROMPT, "rows come by the link")
            log = replica.log.read_text()
            assert log.count(" following address=") == lives and log.count("not followed any more") >= lives - 1, replica.log_end()
        same([writer, replica], rows)


@pytest.mark.parametrize("direction", [DOWN, UP])
def test_one_direction_hangs(tmp_path, direction):
    """Of the link on which b follows a: either b hears nothing, or a hears nothing of b. Neither connection is closed."""
    with Link() as to_a, node(tmp_path, "a", "--advertise", to_a.url) as a, node(tmp_path, "b") as b:
        to_a.target = port(a)
        a.sql(CREATE)
        for each in (a, b):
            follows(each, 1)
        rows = [1]
        write(a, rows, tandem_ack="quorum(1)", tandem_ack_timeout="4s")
        to_a.hang(direction)
        began = time.monotonic()
        for number in range(2, 30, 2):
            prompt(write, a, [number])
            prompt(write, b, [number + 1])
            rows += [number, number + 1]
        for each in (a, b):
            sees(each, rows)
        # b hears nothing: nobody is taken for connected who says nothing. a hears nothing: what b has applied is not known there.
        if direction == DOWN:
            follows(b, 0, NOTICED - (time.monotonic() - began))
        else:
            assert feeds(b) == 1
        assert feeds(a) == 1, "the other way round nothing is broken"
        # A quorum is what a was told, and true: b reaches a with its reports, and applies by polling, where only answers hang.
        asked, seq, told = time.monotonic(), None, None
        try:
            seq = write(a, [100], tandem_ack="quorum(1)", tandem_ack_timeout="1s")
        except Failed as failure:
            told = failure
        assert time.monotonic() - asked < 4
        if told is None:
            assert direction == DOWN and status(b)["seq"] >= seq
        else:
            assert (told.meaning, told.code) == ("committed", "quorum-timeout"), told
        rows.append(100)
        to_a.heal()
        follows(b, 1)
        write(a, [101], seconds=20, tandem_ack="quorum(1)", tandem_ack_timeout="10s")
        rows.append(101)
        same([a, b], rows)


def test_a_quorum_is_cut_off_in_flight(tmp_path):
    """The writes are committed, and their clients are told so, with what is not known."""
    with node(tmp_path, "w") as writer, Link(port(writer)) as link, node(tmp_path, "r", "--follow", link.url) as replica:
        writer.sql(CREATE)
        follows(replica, 1)
        write(writer, [0], tandem_ack="quorum(1)", tandem_ack_timeout="4s")
        link.delay(0.5)
        inflight = [Background(writer, [n], token=f"q{n}", tandem_ack="quorum(1)", tandem_ack_timeout="2s") for n in range(1, 9)]
        time.sleep(0.3)
        link.cut()
        for each in inflight:
            failure = each.ended(PROMPT).failure
            assert failure is not None, f"a quorum that nobody can have told of: seq {each.seq}"
            assert (failure.meaning, failure.code) == ("committed", "quorum-timeout"), failure
            assert "applied by 0 of 1" in failure.text, failure
            each.seq = failure.seq
        rows_at = dict(writer.sql("SELECT seq, rows FROM system.log"))
        assert all(rows_at[each.seq] for each in inflight), "a seq that was told is not in the log"
        # Sent again, as its client may: the same seq, and, once the link is back, the quorum.
        link.heal()
        follows(replica, 1)
        seq = write(writer, [1], seconds=20, token="q1", tandem_ack="quorum(1)", tandem_ack_timeout="10s")
        assert seq == inflight[0].seq
        same([writer, replica], range(9))


def test_a_writer_without_its_store_says_that_nobody_knows(stranded):
    """Within a bound, and not that the write failed. Nothing needs to be started again."""
    writer, lost = stranded.nodes["s"], stranded.lost
    assert prompt(read, writer) == [1, 2]
    lost.ended(RESOLVED)
    assert lost.failure is not None, f"acknowledged without a store, at seq {lost.seq}"
    assert (lost.failure.code, lost.failure.meaning) == ("outcome-unknown", "unknown"), lost.failure
    assert prompt(read, writer) == [1, 2]
    stranded.heal()
    write(writer, [5], seconds=15)
    write(writer, [3, 4], seconds=15, token="lost")
    same([writer], [1, 2, 3, 4, 5])
    assert json.loads(harness.run("status", "--connect", writer.url, "--json").stdout)["failure"] is None
