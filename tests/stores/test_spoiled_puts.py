"""Nodes on S3 behind a proxy that spoils their PUTs: whatever the answer, each write is there exactly once."""

import json
import os
import random
import time

import pyarrow as pa
import pytest

import harness
from cluster.chaos import Chaos
from cluster.driver import Pace
from cluster.spoil import WAYS, Proxy

SCHEMA = pa.schema([("n", pa.int64())])
# How long the nodes wait for the store's answer to one request.
PATIENCE = 3
KILLS = int(os.environ.get("TANDEM_KILLS", "25"))
# With many kills also on the store as it is.
SHARES = [0.125] if "TANDEM_KILLS" not in os.environ else [0.0, 0.125]
SECONDS = 60 if "TANDEM_KILLS" not in os.environ else max(60, KILLS * 6)


def through(store, proxy):
    """The store's options, by way of the proxy."""
    options = {**store.options, "endpoint": f"http://127.0.0.1:{proxy.port}", "timeout": f"{PATIENCE}s"}
    return [x for k, v in options.items() for x in ("--store-option", f"{k}={v}")]


@pytest.fixture(scope="module")
def spoiled(seaweedfs, tmp_path_factory):
    """A node behind a proxy."""
    with Proxy(seaweedfs.port, patience=PATIENCE) as proxy:
        directory = tmp_path_factory.mktemp("spoiled")
        options = [*through(seaweedfs, proxy), "--commit-inline-bytes", "16KB"]
        with harness.Node(seaweedfs.url("ways"), directory, options) as node:
            node.sql("CREATE TABLE logged (n BIGINT)")
            node.sql("CREATE TABLE segments (n BIGINT)")
            yield node, proxy
            assert node.is_up()


@pytest.mark.parametrize("way", WAYS)
def test_one_spoiled_commit(spoiled, way):
    """The PUT of one commit is spoiled: the write succeeds, once."""
    node, proxy = spoiled
    before = node.sql("SELECT count(*) FROM logged")[0][0]
    number = 1000 + WAYS.index(way)
    proxy.arm(way, "/log/")
    began = time.monotonic()
    with node.flight() as client:
        [answer] = harness.put(client, "logged", [pa.record_batch([[number] * 10], SCHEMA)])
    seconds = time.monotonic() - began
    assert not proxy.armed(), "the commit did not pass the proxy"
    assert answer["rows"] == 10
    query = f"SELECT count(*), (SELECT count(*) FROM logged) AS everything FROM logged WHERE n = {number}"
    assert node.sql(query) == [(10, before + 10)], f"after {way!r}, acknowledged as {json.dumps(answer)}"
    [(commits,)] = node.sql(f"SELECT count(*) FROM system.log WHERE seq = {answer['seq']} AND rows = 10")
    assert commits == 1
    # One request's patience for what gets no answer, and some waiting between attempts.
    assert seconds < 4 * PATIENCE + 5, f"{way!r} took {seconds:.1f} s"


@pytest.mark.parametrize("way", WAYS)
def test_one_spoiled_segment(spoiled, way):
    """The same for the object that holds the rows of a large commit."""
    node, proxy = spoiled
    number, rows = WAYS.index(way), 40_000
    batches = [pa.record_batch([range(number * rows + at, number * rows + at + 10_000)], SCHEMA) for at in range(0, rows, 10_000)]
    before = node.sql("SELECT count(*) FROM segments")[0][0]
    proxy.arm(way, "/wal/")
    with node.adbc() as connection, connection.cursor() as cursor:
        assert cursor.adbc_ingest("segments", pa.RecordBatchReader.from_batches(SCHEMA, batches), mode="append") == rows
    assert not proxy.armed(), "no segment passed the proxy"
    query = f"SELECT count(*), count(DISTINCT n), (SELECT count(*) FROM segments) AS everything FROM segments WHERE n / {rows} = {number}"
    assert node.sql(query) == [(rows, rows, before + rows)]


@pytest.mark.chaos
@pytest.mark.seconds(SECONDS + 420)
@pytest.mark.parametrize("share", SHARES)
def test_kills_behind_spoiled_puts(seaweedfs, tmp_path, share):
    """Kills and freezes as on a directory, while that share of the PUTs is spoiled."""
    seed = int(os.environ.get("TANDEM_TEST_SEED", random.randrange(1 << 30)))
    rerun = f"TANDEM_TEST_SEED={seed} TANDEM_KILLS={KILLS} tests/run --only stores -- -k test_kills_behind_spoiled_puts"
    print(rerun)
    with Proxy(seaweedfs.port, seed, patience=PATIENCE) as proxy:
        # Opening tests the store with dozens of PUTs; starts would take minutes.
        proxy.spoil(lambda path: share / 12 if "/probe/" in path else share)
        run = Chaos(
            seaweedfs.url(f"chaos-{seed}-{share}"), tmp_path / "nodes", seed=seed, kills=KILLS, seconds=SECONDS, rerun=rerun, clients=3,
            options=[*through(seaweedfs, proxy), "--commit-inline-bytes", "16KB"], row_counts=(1, 2, 10, 60), may_fail_to_start=True,
            call_seconds=PATIENCE + 1,
            pace=Pace(life=(1.0, 6.0), down=(0.0, 1.0), frozen=(0.2, 4.0), kill_while_starting=0.05), on_end=proxy.heal,
        )  # fmt: skip
        print(run.run())
        print("spoiled:", dict(proxy.spoiled), "passed:", proxy.passed)
        assert share == 0 or sum(proxy.spoiled.values()) >= len(WAYS), "hardly a PUT was spoiled: the test proves little"
