"""Replicas that stop at a commit or a time, that stay behind on purpose, and that keep what they read on their own disk."""

import datetime
import pathlib
import re
import shutil
import time

import pyarrow as pa
import pyarrow.flight
import pytest

import harness

SCHEMA = pa.schema([("n", pa.int64())])
DELAY = 4


def node(tmp_path, name, *options):
    return harness.Node(tmp_path / "store", tmp_path / name, options=["--node-id", name, *options])


def batch(*numbers):
    return pa.record_batch([list(numbers)], SCHEMA)


def status(each):
    return harness.json.loads(each.tandem("status", "--json").stdout)


def metric(each, name):
    """The sum of a metric's values, whatever its labels."""
    text = each.get("/metrics")[1]
    found = re.findall(rf"^{name}(?:{{[^}}]*}})? ([-+.e\d]+)$", text, re.MULTILINE)
    assert found, f"{name} is not in /metrics"
    return sum(map(float, found))


def count(each, table="t"):
    return each.sql(f"SELECT count(*) FROM {table}")[0][0]


def write(each, *numbers, **headers):
    """Appends one commit; its seq."""
    with each.flight() as client:
        return harness.put(client, "t", [batch(*numbers)], headers={k.replace("_", "-"): v for k, v in headers.items()})[0]["seq"]


def read_at_least(each, seq, seconds):
    with each.flight() as client:
        options = harness.call_options({"tandem-min-seq": str(seq)}, seconds)
        return client.do_get(harness.ticket(sql="SELECT count(*) AS n FROM t"), options).read_all()["n"][0].as_py()


def stands(each, rows, seq, seconds=10):
    harness.wait_until(lambda: status(each)["stands_still"], seconds, f"it stands still\n{each.log_end()}")
    now = status(each)
    assert (now["seq"], count(each)) == (seq, rows), now


@pytest.fixture
def writer(tmp_path):
    with node(tmp_path, "w") as writer:
        writer.sql("CREATE TABLE t (n BIGINT)")
        yield writer


def test_until_a_seq(tmp_path, writer):
    """While the log is at it, long after, over restarts, and from a checkpoint that is too new."""
    first = write(writer, 1)
    with node(tmp_path, "r", "--role", "replica", "--until", str(first + 2)) as replica, replica_of(tmp_path, replica) as behind:
        assert status(replica)["applies"] == f"nothing after seq {first + 2}"
        assert not status(replica)["stands_still"]
        for n in range(2, 8):
            last = write(writer, n)
        stands(replica, 3, first + 2)
        assert "the limit is reached" in replica.log.read_text()
        with pytest.raises(pa.ArrowException, match=f"nothing after seq {first + 2}"):
            read_at_least(replica, last, 2)
        with replica.flight() as client, pytest.raises(pa.ArrowException, match="newest commit is asked for"):
            client.do_get(harness.ticket(sql="SELECT 1"), harness.call_options({"tandem-read": "latest"}, 2)).read_all()
        assert read_at_least(replica, first + 2, 2) == 3
        # Whoever follows it finds the rest in the store.
        assert read_at_least(behind, last, 10) == 7
        harness.wait_until(lambda: status(replica)["lag_commits"] == last - first - 2, 10, "it knows how far it is behind")
        writer.sql("OPTIMIZE TABLE t")
        writer.sql("CHECKPOINT")
        for _ in range(2):
            replica.restart()
            stands(replica, 3, first + 2)
        assert replica.sql("SELECT sum(n) FROM t") == [(6,)]


def replica_of(tmp_path, upstream):
    return node(tmp_path, "behind", "--follow", upstream.url)


@pytest.mark.parametrize("follow", ["found", "store"])
def test_until_a_time(tmp_path, writer, follow):
    for n in range(3):
        write(writer, n)
    end = writer.sql("SELECT max(commit_time) FROM system.log")[0][0]
    seq = status(writer)["seq"]
    for n in range(3, 6):
        write(writer, n)
    text = end.replace(tzinfo=datetime.timezone.utc).isoformat()
    options = ["--role", "replica"] if follow == "found" else ["--follow", "store"]
    with node(tmp_path, "r", *options, "--until", text) as replica:
        stands(replica, 3, seq)
        assert status(replica)["applies"].startswith("nothing after 20")
        replica.restart()
        stands(replica, 3, seq)


def test_until_what_cannot_be_had_any_more(tmp_path, writer):
    for n in range(5):
        write(writer, n)
    writer.sql("CHECKPOINT")
    writer.stop()
    (tmp_path / "store" / "log" / f"{1:020}.commit").unlink()
    done = harness.run(
        "serve", "--store", tmp_path / "store", "--flight", "127.0.0.1:0", "--http", "off", "--follow", "store", "--until", "2", expect=1
    )
    for said in ["nothing after seq 2", "oldest checkpoint", f"{1:020}.commit"]:
        assert said in done.stderr, done.stderr


@pytest.mark.parametrize("follow", ["found", "store"])
def test_apply_delay(tmp_path, writer, follow):
    """Never too early, soon after it is due, and so again after a restart; a write waits for its quorum that long."""
    options = ["--role", "replica"] if follow == "found" else ["--follow", "store"]
    with node(tmp_path, "r", *options, "--apply-delay", f"{DELAY}s") as replica:
        time.sleep(DELAY)
        harness.wait_until(lambda: replica.sql("SHOW TABLES FROM public"), 5, "the table is old enough")
        for restart in [False, True]:
            before = count(replica)
            began = time.time()
            seq = write(writer, 1, 2, 3)
            acked = time.time()
            if restart:
                replica.restart()
            harness.wait_until(lambda: count(replica) > before, DELAY + 10, "the rows are old enough", every=0.02)
            seen = time.time()
            assert seen - acked >= DELAY - 0.2, f"after {seen - acked:.2f} s"
            assert seen - began < DELAY + 4, f"after {seen - began:.2f} s"
        seq = write(writer, 4)
        with pytest.raises(pa.ArrowException, match=f"{DELAY}s old"):
            read_at_least(replica, seq, 1)
        lag = status(replica)["lag_seconds"]
        assert status(replica)["seq"] < seq
        assert read_at_least(replica, seq, DELAY + 10) == 7
        assert lag < DELAY + 2


def test_a_delayed_replica_counts_only_once_it_has_applied(tmp_path, writer):
    with node(tmp_path, "r", "--role", "replica", "--apply-delay", f"{DELAY}s") as replica:
        harness.wait_until(lambda: status(replica)["feeds"] == 1, 15, "it is connected")
        with pytest.raises(pa.ArrowException, match="applied by 0 of 1.*must not be written again"):
            write(writer, 1, tandem_ack="quorum(1)", tandem_ack_timeout="1s")
        began = time.time()
        write(writer, 2, tandem_ack="quorum(1)", tandem_ack_timeout="20s")
        assert time.time() - began >= DELAY - 0.2


def test_how_far_others_are_behind(tmp_path, writer):
    with node(tmp_path, "r", "--role", "replica", "--apply-delay", "1h") as replica:
        for n in range(5):
            write(writer, *range(10))
        query = "SELECT lag_commits, lag_rows, lag_bytes > 0, lag_seconds FROM system.nodes WHERE node_id = 'r'"

        def told():
            rows = writer.sql(query)
            return rows and rows[0][:3] == (6, 50, True) and rows[0][3] > 1 and rows

        harness.wait_until(told, 15, f"the writer knows: {writer.sql(query)}")
        assert writer.sql("SELECT lag_commits, lag_rows, lag_bytes FROM system.nodes WHERE node_id = 'w'") == [(0, 0, 0)]
        harness.wait_until(lambda: replica.sql(query)[0][:3] == (6, 50, True), 15, f"and so does it: {replica.sql(query)}")
        assert status(replica)["seq"] == 0
        assert metric(replica, "tandem_lag_rows") == 50
        memory = replica.resident_bytes()
        with writer.flight() as client:
            harness.put(client, "t", [batch(*range(20_000))] * 100)
        time.sleep(3)
        assert replica.resident_bytes() - memory < 60 << 20, "what it may not apply is not kept in memory"


def test_producers_are_listed(writer):
    write(writer, 1)
    seq = write(writer, 2)
    rows = writer.sql("SELECT producer, low, last_counter, last_seq, last_time FROM system.producers")
    assert len(rows) == 1, rows
    producer, low, last, last_seq, last_time = rows[0]
    assert re.fullmatch("[0-9a-f]{32}", producer) and 1 <= low <= last and last_seq == seq
    assert [(last_time,)] == writer.sql(f"SELECT commit_time FROM system.log WHERE seq = {seq}")


def test_a_replica_is_cut_off_and_catches_up(tmp_path, writer):
    with node(tmp_path, "r", "--role", "replica") as replica:
        harness.wait_until(lambda: status(replica)["feeds"] == 1, 15, "it is connected")
        for rows in [300, 600]:
            replica.freeze()
            for n in range(299):
                seq = write(writer, n)
            # Long enough for both sides to give the other up.
            time.sleep(5)
            replica.thaw()
            began = time.time()
            assert read_at_least(replica, seq, 30) == rows - 1
            assert time.time() - began < 15
            harness.wait_until(lambda: status(replica)["feeds"] == 1, 30, "it is fed again")
            seq = write(writer, 0)
            assert read_at_least(replica, seq, 5) == rows


def filled(writer, rows=200_000):
    """Rows in data files, and some in the tail, in a segment of their own; query and answer."""
    writer.sql(f"INSERT INTO t SELECT value * 7919 % 1000003 FROM generate_series(1, {rows})")
    writer.sql("OPTIMIZE TABLE t")
    writer.sql(f"INSERT INTO t SELECT value * 104729 % 999983 FROM generate_series(1, {rows})")
    query = "SELECT count(*), sum(n), min(n), max(n), count(DISTINCT n) FROM t"
    return query, writer.sql(query)


def store_reads(each):
    text = each.get("/metrics")[1]
    found = re.findall(r'^tandem_store_requests_total{([^}]*)} (\d+)$', text, re.MULTILINE)
    return sum(int(n) for labels, n in found if 'op="range"' in labels and 'outcome="ok"' in labels)


def test_what_is_on_disk_is_not_fetched_again_and_damage_is(tmp_path):
    cache = tmp_path / "cache"
    with node(tmp_path, "w", "--commit-inline-bytes", "64KB") as writer:
        writer.sql("CREATE TABLE t (n BIGINT)")
        query, answer = filled(writer)
        # So little memory that the tail does not stay in it.
        options = ["--follow", "store", "--cache-dir", cache, "--cache-size", "64MB", "--cache-memory", "64KB"]
        with node(tmp_path, "r", *options) as replica:
            assert replica.sql(query) == answer
            assert metric(replica, "tandem_cache_bytes") > 1 << 20
            assert sum(f.stat().st_size for f in cache.glob("*") if f.is_file()) <= 64 << 20
            replica.restart()
            before = store_reads(replica)
            assert replica.sql(query) == answer
            assert metric(replica, "tandem_cache_hits_total") > 10
            assert metric(replica, "tandem_cache_misses_total") == 0
            assert store_reads(replica) == before, "all of it came from the disk"
            replica.stop()

            blocks = bytearray((cache / "blocks").read_bytes())
            for at in range(1000, len(blocks), 65_536):
                blocks[at] ^= 1
            (cache / "blocks").write_bytes(blocks)
            replica.start()
            assert replica.sql(query) == answer, "damage in the cache is no damage"
            assert metric(replica, "tandem_cache_damaged_total") > 10
            assert "damaged on disk" in replica.log.read_text()
            damaged = metric(replica, "tandem_cache_damaged_total")
            assert replica.sql(query) == answer
            assert metric(replica, "tandem_cache_damaged_total") == damaged, "it was replaced"

            other = harness.run(
                "serve", "--store", tmp_path / "store", "--flight", "127.0.0.1:0", "--http", "off", "--cache-dir", cache, expect=1
            )
            assert "in use" in other.stderr


@pytest.mark.parametrize("policy", ["recent", "all"])
def test_data_is_there_before_it_is_asked_for(tmp_path, policy):
    """With the data gone from the store, what was fetched ahead still answers."""
    with node(tmp_path, "w", "--commit-inline-bytes", "64KB") as writer:
        writer.sql("CREATE TABLE t (n BIGINT)")
        if policy == "all":
            query, answer = filled(writer)
        options = ["--role", "replica", "--cache-dir", tmp_path / "cache", "--cache-memory", "64KB", "--prefetch", policy]
        with node(tmp_path, "r", *options) as replica:
            if policy == "recent":
                query, answer = filled(writer)
            read_at_least(replica, status(writer)["seq"], 20)
            names = ["tandem_prefetched_bytes_total", "tandem_cache_bytes"]

            def settled(last=[]):
                now = [metric(replica, name) if name in replica.get("/metrics")[1] else 0 for name in names]
                done, last[:] = now == last and now[1] > 1 << 20, now
                return done

            harness.wait_until(settled, 30, "it has fetched all", every=1.5)
            writer.stop()
            for name in ["data", "wal"]:
                shutil.move(tmp_path / "store" / name, tmp_path / f"{name}-away")
            assert replica.sql(query) == answer


def test_every_metric_that_alerts_name_exists(tmp_path, writer):
    page = (pathlib.Path(__file__).parents[2] / "docs" / "alerts.md").read_text()
    named = sorted(set(re.findall(r"tandem_[a-z0-9_]+", page)))
    assert len(named) > 15, named
    with node(tmp_path, "r", "--role", "replica") as replica:
        write(writer, 1)
        read_at_least(replica, status(writer)["seq"], 10)
        writer.sql("OPTIMIZE TABLE t")
        for each in [writer, replica]:
            text = each.get("/metrics")[1]
            missing = [name for name in named if not re.search(rf"^{name}(_bucket|_sum|_count)?[ {{]", text, re.MULTILINE)]
            # A replica measures no commits of its own.
            assert missing == (["tandem_commit_seconds"] if each is replica else [])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--until", "5"], "replica"),
        (["--apply-delay", "1h"], "replica"),
        (["--until", "soon", "--follow", "store"], "--until"),
        (["--until", "0", "--follow", "store"], "--until"),
        (["--apply-delay", "soon", "--follow", "store"], "--apply-delay"),
        (["--apply-delay", "1h", "--follow", "store", "--forward-writes"], "--forward-writes"),
        (["--prefetch", "all"], "--cache-dir"),
        (["--prefetch", "some", "--cache-dir", "c"], "--prefetch"),
        (["--cache-dir", "/dev/null/c"], "cache directory"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, says):
    done = harness.run("serve", "--store", tmp_path / "s", "--flight", "127.0.0.1:0", "--http", "off", *options, expect=1, cwd=tmp_path)
    assert says in done.stderr
