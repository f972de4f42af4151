"""One primary at a time: promotion in order and by force, fail-over, fencing. Nothing is lost or doubled on the way."""

import json
import threading
import time

import pyarrow as pa
import pytest

import harness
from cluster.wire import Failed, Wire

SCHEMA = pa.schema([("writer", pa.int64()), ("n", pa.int64())])
# The gap that writers may see at defaults when the primary is killed.
GOAL_SECONDS = 5.0
# Whose rows are looked at by themselves.
STRANGER = 99


def node(tmp_path, name, *options):
    return harness.Node(tmp_path / "store", tmp_path / name, ["--node-id", name, *options])


def status(each):
    with Wire(each.url, 10) as wire:
        return wire.status()


def roles(nodes):
    return [status(each)["role"] for each in nodes]


def become(nodes, wanted, seconds=20):
    """Waits until the nodes have these roles, each by its own word."""
    try:
        harness.wait_until(lambda: roles(nodes) == wanted, seconds, "roles")
    except AssertionError:
        raise AssertionError(f"after {seconds} s the roles are {roles(nodes)}, not {wanted}\n{nodes[0].log_end()}") from None


def promote(asked, *arguments, expect=0):
    return asked.tandem("promote", *arguments, expect=expect)


@pytest.fixture
def trio(tmp_path):
    """A primary `a` with a table, and two standbys that know of it."""
    with node(tmp_path, "a", "--mode", "single-primary") as a, node(tmp_path, "b") as b, node(tmp_path, "c") as c:
        become([a, b, c], ["primary", "standby", "standby"])
        a.sql("CREATE TABLE t (writer BIGINT, n BIGINT)")
        yield a, b, c


class Writer(threading.Thread):
    """Writes numbered rows, each under a token and until it is acknowledged, at whichever node takes it."""

    def __init__(self, number, urls, enough, seconds=2.0):
        super().__init__(daemon=True)
        self.number, self.urls, self.enough, self.seconds = number, list(urls), enough, seconds
        self.acked, self.redirects, self.trouble = [], 0, None

    def run(self):
        try:
            at = self.urls[0]
            while not self.enough.is_set():
                at = self.write(len(self.acked), at)
        except Exception as error:  # noqa: BLE001
            self.trouble = error

    def write(self, n, at):
        batch = pa.record_batch([pa.array([self.number]), pa.array([n])], SCHEMA)
        deadline = time.monotonic() + 60
        while True:
            wire = Wire(at, self.seconds)
            try:
                answers = []
                wire.put("t", [batch], lambda _, answer: answers.append(answer), tokens=[f"w{self.number}-{n}"])
                self.acked.append((time.monotonic(), answers[0]["seq"], at))
                return at
            except Failed as failure:
                if failure.meaning == "rejected" or time.monotonic() > deadline:
                    raise
                named = wire.trailer("tandem-writer")
                self.redirects += bool(named)
                others = self.urls[(self.urls.index(at) + 1) % len(self.urls) :] if at in self.urls else self.urls
                at = named if named and named != at else others[0]
                time.sleep(0.02)
            finally:
                wire.close()

    def longest_gap(self):
        times = [when for when, *_ in self.acked]
        return max((after - before for before, after in zip(times, times[1:])), default=0.0)


class Load:
    """Writers for as long as the block lasts."""

    def __init__(self, nodes, count=3, seconds=2.0):
        self.enough = threading.Event()
        urls = [each.url for each in nodes]
        self.writers = [Writer(i, urls, self.enough, seconds) for i in range(count)]

    def __enter__(self):
        for writer in self.writers:
            writer.start()
        self.wait_for(10)
        return self

    def __exit__(self, kind, *_):
        self.enough.set()
        for writer in self.writers:
            writer.join(90)
        if kind is None:
            for writer in self.writers:
                assert writer.trouble is None, writer.trouble
                assert not writer.is_alive(), "a write was never settled"

    def wait_for(self, more, seconds=60, at=None):
        """Waits until each writer has so many acknowledgements more, at this node if one is given."""

        def counts():
            return [sum(at is None or where == at.url for *_, where in w.acked) for w in self.writers]

        before = counts()

        def grown():
            assert all(w.trouble is None for w in self.writers), [w.trouble for w in self.writers]
            return all(now >= then + more for now, then in zip(counts(), before))

        harness.wait_until(grown, seconds, "writes go on", every=0.02)

    def longest_gap(self):
        return max(writer.longest_gap() for writer in self.writers)

    def verify(self, *nodes):
        """Each row is there once, on every node, and each writer's rows stand in its order."""
        seq = max(seq for w in self.writers for _, seq, _ in w.acked)
        for each in nodes:
            with Wire(each.url, 30) as wire:
                rows = wire.query(f"SELECT writer, n FROM t WHERE writer <> {STRANGER}", {"tandem-min-seq": str(seq)})[0]
            found = sorted(zip(rows["writer"].to_pylist(), rows["n"].to_pylist()))
            wanted = sorted((w.number, n) for w in self.writers for n in range(len(w.acked)))
            missing, extra = sorted(set(wanted) - set(found))[:5], len(found) - len(set(found))
            assert found == wanted, f"{len(found)} rows of {len(wanted)}; missing {missing}, doubled {extra}"
        for writer in self.writers:
            seqs = [seq for _, seq, _ in writer.acked]
            assert seqs == sorted(seqs)


def test_a_promotion_in_order_loses_and_refuses_nothing_for_good(trio):
    a, b, c = trio
    gaps = []
    with Load(trio) as load:
        # Any node may be asked; the default is the one that is.
        for epoch, (asked, arguments, winner) in enumerate([(c, ["--node-id", "b"], b), (c, [], c), (c, ["--node-id", "a"], a)], start=2):
            began = time.monotonic()
            answer = json.loads(promote(asked, "--json", *arguments).stdout)
            gaps.append(time.monotonic() - began)
            assert (answer["address"], answer["epoch"], answer["changed"]) == (winner.url, epoch, True)
            become(trio, ["primary" if each is winner else "standby" for each in trio])
            load.wait_for(10, at=winner)
    load.verify(a, b, c)
    assert load.longest_gap() < GOAL_SECONDS
    print(f"orderly promotions took {[round(g, 2) for g in gaps]} s, the writers' longest gap was {load.longest_gap():.2f} s")
    for each in trio:
        rows = each.sql("SELECT node_id, role FROM system.nodes ORDER BY node_id")
        assert rows == [("a", "primary"), ("b", "standby"), ("c", "standby")]
        assert status(each)["primary"] == {"node_id": "a", "address": a.url}
    kinds = [kind for (kind,) in a.sql("SELECT kind FROM system.log ORDER BY seq")]
    assert sum("promotion" in kind for kind in kinds) == 4, "the founding, and three more"
    again = promote(b, "--node-id", "a")
    assert "already" in again.stdout


def test_a_killed_primary_is_replaced_within_seconds(trio):
    a, b, c = trio
    with Load(trio) as load:
        a.kill()
        load.wait_for(20)
    gap = load.longest_gap()
    print(f"kill -9 of the primary: the writers' longest gap was {gap:.2f} s")
    load.verify(b, c)
    assert gap < GOAL_SECONDS
    assert sorted(roles([b, c])) == ["primary", "standby"]
    winner = b if status(b)["role"] == "primary" else c
    metrics = winner.get("/metrics")[1]
    assert "tandem_is_primary 1" in metrics and "tandem_epoch 2" in metrics
    # It comes back as what it is now, and catches up.
    a.start()
    become([a], ["standby"])
    load.verify(a)


def test_a_primary_that_is_stopped_hands_its_role_on(trio):
    a, b, c = trio
    with Load(trio) as load:
        assert a.stop() == 0
        load.wait_for(20)
    gap = load.longest_gap()
    print(f"SIGTERM of the primary: the writers' longest gap was {gap:.2f} s")
    load.verify(b, c)
    assert sorted(roles([b, c])) == ["primary", "standby"]
    # Not by falling silent.
    metrics = "".join(each.get("/metrics")[1] for each in (b, c))
    assert "tandem_epoch 2" in metrics and 'tandem_promotions_total{how="failover"}' not in metrics


def test_a_frozen_primary_wakes_up_fenced_and_follows(trio):
    a, b, c = trio
    with Load(trio) as load:
        a.freeze()
        try:
            harness.wait_until(lambda: "primary" in roles([b, c]), 30, "another takes over")
            load.wait_for(10)
        finally:
            a.thaw()
        winner = b if status(b)["role"] == "primary" else c
        # Whatever it was doing, it commits nothing by itself any more.
        with Wire(a.url, 10) as wire:
            try:
                wire.put("t", [pa.record_batch([pa.array([STRANGER]), pa.array([0])], SCHEMA)], lambda *_: None, tokens=["late"])
            except Failed as failure:
                assert failure.code == "not-writer", failure
                assert wire.trailer("tandem-writer") == winner.url
            else:
                assert winner.sql(f"SELECT count(*) FROM t WHERE writer = {STRANGER}") == [(1,)], "handed over, it was committed"
        become([a], ["standby"])
        load.wait_for(10)
    print(f"SIGSTOP of the primary: the writers' longest gap was {load.longest_gap():.2f} s")
    load.verify(a, b, c)
    authors = winner.sql("SELECT writer_id, min(seq), max(seq) FROM system.log WHERE epoch >= 1 GROUP BY 1 ORDER BY 2")
    assert all(before[2] < after[1] for before, after in zip(authors, authors[1:])), f"two wrote in one epoch: {authors}"


def test_the_most_wanted_takes_over(tmp_path):
    first = node(tmp_path, "a", "--mode", "single-primary")
    with first as a, node(tmp_path, "b", "--failover-priority", "10") as b, node(tmp_path, "c", "--failover-priority", "90") as c:
        become([a, b, c], ["primary", "standby", "standby"])
        harness.wait_until(lambda: len(status(b)["peers"]) == 2, 20, "the candidates know each other")
        time.sleep(1)
        a.kill()
        become([b, c], ["standby", "primary"])


def test_who_never_takes_over_can_be_promoted_by_force(tmp_path):
    with node(tmp_path, "a", "--mode", "single-primary") as a, node(tmp_path, "b", "--failover-priority", "never") as b:
        become([a, b], ["primary", "standby"])
        a.sql("CREATE TABLE t (writer BIGINT, n BIGINT)")
        a.sql("INSERT INTO t VALUES (0, 0)")
        a.kill()
        time.sleep(7)
        assert status(b)["role"] == "standby"
        with Wire(b.url, 10) as wire, pytest.raises(Failed) as refused:
            wire.execute("INSERT INTO t VALUES (0, 1)")
        assert refused.value.code == "not-writer"
        in_order = promote(b, expect=1)
        assert "--force" in in_order.stderr, in_order.stderr
        assert "node b" in promote(b, "--force").stdout
        b.sql("INSERT INTO t VALUES (0, 1)")
        assert b.sql("SELECT count(*) FROM t") == [(2,)]


def test_a_living_primary_that_is_passed_over_by_force_follows(trio):
    a, b, c = trio
    with Load(trio) as load:
        promote(b, "--force")
        become(trio, ["standby", "primary", "standby"])
        load.wait_for(10, at=b)
    load.verify(a, b, c)


def test_silence_is_as_long_as_the_setting_says(trio):
    a, b, c = trio
    a.sql("ALTER DATABASE SET (failover_after = 'off')")
    time.sleep(1)
    a.freeze()
    try:
        time.sleep(6)
        assert roles([b, c]) == ["standby", "standby"]
    finally:
        a.thaw()
    a.sql("ALTER DATABASE SET (failover_after = '1s')")
    with Load(trio) as load:
        a.kill()
        load.wait_for(10)
    print(f"failover_after = 1s: the writers' longest gap was {load.longest_gap():.2f} s")
    load.verify(b, c)


def test_the_mode_is_chosen_once_and_checked(tmp_path):
    with node(tmp_path, "a", "--mode", "single-primary") as a:
        assert (status(a)["mode"], status(a)["role"], status(a)["epoch"]) == ("single-primary", "primary", 1)
        refused = harness.run(
            "serve", "--store", tmp_path / "store", "--flight", "127.0.0.1:0", "--http", "off", "--mode", "multi-primary", expect=1
        )
        assert "--mode" in refused.stderr and "ALTER DATABASE" in refused.stderr
        wrong = harness.run("serve", "--store", tmp_path / "other", "--flight", "127.0.0.1:0", "--mode", "dual", expect=1)
        assert "single-primary" in wrong.stderr
        # Another port, the same name: it is the primary again.
        a.restart()
        assert status(a)["role"] == "primary"
        a.sql("ALTER DATABASE SET (mode = 'multi-primary')")
        with node(tmp_path, "b", "--mode", "multi-primary") as b:
            assert roles([a, b]) == ["writer", "writer"]
            a.sql("CREATE TABLE t (n BIGINT)")
            b.sql("INSERT INTO t VALUES (1)")
            assert "multi-primary" in promote(b, expect=1).stderr
            b.sql("ALTER DATABASE SET (mode = 'single-primary')")
            become([a, b], ["standby", "primary"])


def test_who_cannot_be_promoted_is_named_with_the_reason(trio, tmp_path):
    a, b, _ = trio
    assert "known are a, b, c" in promote(b, "--node-id", "nobody", expect=1).stderr
    with node(tmp_path, "r", "--role", "replica") as replica:
        assert "replica" in promote(replica, expect=1).stderr
        assert "replica" in promote(a, "--node-id", "r", expect=1).stderr
        assert promote(replica, "--node-id", "b").returncode == 0
        become([a, b, replica], ["standby", "primary", "replica"])


def test_the_shell_goes_to_the_primary_by_itself(trio):
    a, b, c = trio
    done = b.tandem("sql", "-c", "INSERT INTO t VALUES (1, 1)", "-c", "SELECT count(*) FROM t")
    assert a.url in done.stderr, done.stderr
    promote(c)
    b.tandem("sql", "-c", "INSERT INTO t VALUES (1, 2)")
    assert sorted(c.sql("SELECT n FROM t")) == [(1,), (2,)]
    # Without a server, on the store alone: the primary is found all the same.
    harness.run("sql", "--store", c.store, "-c", "INSERT INTO t VALUES (1, 3)")
    assert c.sql("SELECT count(*) FROM t") == [(3,)]
