"""One primary at a time: promotion in order and by force, fail-over, fencing. Nothing is lost or doubled on the way."""

import json
import time

import pyarrow as pa
import pytest

import harness
from cluster.load import SCHEMA, STRANGER, TABLE, Load, become, roles, status
from cluster.wire import Failed, Wire

# The gap that writers may see at defaults when the primary is killed.
GOAL_SECONDS = 5.0


def node(tmp_path, name, *options):
    return harness.Node(tmp_path / "store", tmp_path / name, ["--node-id", name, *options])


def promote(asked, *arguments, expect=0):
    return asked.tandem("promote", *arguments, expect=expect)


@pytest.fixture
def trio(tmp_path):
    """A primary `a` with a table, and two standbys that know of it."""
    with node(tmp_path, "a", "--mode", "single-primary") as a, node(tmp_path, "b") as b, node(tmp_path, "c") as c:
        become([a, b, c], ["primary", "standby", "standby"])
        a.sql(TABLE)
        yield a, b, c


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
        a.sql(TABLE)
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
