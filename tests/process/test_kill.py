"""kill -9 at random moments: what was acknowledged is there exactly once, the rest wholly or not at all."""

import os
import random
import threading
import time

import pyarrow as pa
import pyarrow.flight as fl
import pytest

import harness

KILLS = int(os.environ.get("TANDEM_TEST_KILLS", "22"))
SECONDS = int(os.environ.get("TANDEM_TEST_KILL_SECONDS", "90"))
WRITERS = 3
SCHEMA = pa.schema([("ts", pa.timestamp("us")), ("batch", pa.int64()), ("row", pa.int64()), ("pad", pa.string())])


class Writer(threading.Thread):
    """Sends numbered batches to whatever node is there; remembers which were sent and which acknowledged."""

    def __init__(self, number, seed):
        super().__init__(daemon=True)
        self.random = random.Random(seed * 1000 + number)
        self.next = number * 10_000_000
        self.address = None
        self.stopped = threading.Event()
        self.sent = {}
        self.acked = {}
        self.errors = []

    def run(self):
        while not self.stopped.is_set():
            if self.address is None:
                time.sleep(0.005)
                continue
            try:
                with fl.FlightClient(self.address) as client:
                    self.stream(client)
            except (fl.FlightError, pa.ArrowException, OSError) as error:
                # Only a dead node may break a stream.
                self.errors.append(str(error))
                time.sleep(0.02)

    def stream(self, client):
        writer, reader = client.do_put(fl.FlightDescriptor.for_path("acks"), SCHEMA, harness.call_options(seconds=30))
        try:
            while not self.stopped.is_set():
                burst = []
                for _ in range(self.random.randint(1, 4)):
                    number, self.next = self.next, self.next + 1
                    rows = self.random.choice([1, 10, 200, 3000])
                    self.sent[number] = rows
                    burst.append(number)
                    start = self.random.randrange(5) * 86_400_000_000
                    writer.write_batch(
                        pa.record_batch([
                            pa.array(range(start, start + rows), pa.timestamp("us")), pa.array([number] * rows),
                            pa.array(range(rows)), pa.array(["x" * 20] * rows),
                        ], SCHEMA)  # fmt: skip
                    )
                for number in burst:
                    answer = reader.read()
                    if answer is None:
                        return
                    self.acked[number] = answer.to_pybytes()
        finally:
            writer.close()


def verify(node, writers, when):
    found = {
        row["batch"]: row
        for row in node.table(
            'SELECT batch, count(*) AS n, count(DISTINCT "row") AS d, max("row") AS m FROM acks GROUP BY batch'
        ).to_pylist()
    }
    sent = {number: rows for writer in writers for number, rows in list(writer.sent.items())}
    acked = {number for writer in writers for number in list(writer.acked)}
    lost = sorted(acked - found.keys())
    assert not lost, f"{when}: {len(lost)} acknowledged batches are gone: {lost[:5]}"
    unknown = sorted(found.keys() - sent.keys())
    assert not unknown, f"{when}: batches nobody sent: {unknown[:5]}"
    for number, row in found.items():
        whole = (sent[number], sent[number], sent[number] - 1)
        got = (row["n"], row["d"], row["m"])
        assert got == whole, f"{when}: batch {number} has (rows, distinct, last) {got}, not {whole}; acked: {number in acked}"
    return len(found), len(acked)


@pytest.mark.seconds(SECONDS + 240)
def test_kills_lose_nothing_that_was_acknowledged(tmp_path):
    seed = int(os.environ.get("TANDEM_TEST_SEED", random.randrange(1 << 30)))
    print(f"TANDEM_TEST_SEED={seed}")
    chance = random.Random(seed)
    node = harness.Node(tmp_path / "store", tmp_path / "run", ["--commit-inline-bytes", "64KB", "--cache-size", "4MB"])
    writers = [Writer(number, seed) for number in range(1, WRITERS + 1)]
    upkeep_stop = threading.Event()

    def upkeep():
        """Compaction and checkpoints under way at most times, so that kills hit them too."""
        while not upkeep_stop.is_set():
            try:
                node.sql("OPTIMIZE TABLE acks")
                node.sql("CHECKPOINT")
            except Exception:  # noqa: BLE001 - the node is being killed
                time.sleep(0.05)

    with node:
        node.sql("CREATE TABLE acks (ts TIMESTAMP NOT NULL, batch BIGINT, \"row\" BIGINT, pad VARCHAR)"
                 " TIMESTAMP(ts) PARTITION BY DAY WITH (target_file_size = 200000)")  # fmt: skip
        node.sql("ALTER DATABASE SET (checkpoint_commits = 20)")
        helper = threading.Thread(target=upkeep, daemon=True)
        for thread in [*writers, helper]:
            thread.start()
        deadline = time.monotonic() + SECONDS
        kills, found, acked, slowest = 0, 0, 0, 0.0
        try:
            while kills < KILLS and time.monotonic() < deadline:
                for writer in writers:
                    writer.address = node.url
                time.sleep(chance.choice([0.02, 0.2, 0.8, 2.0]) * chance.random() + 0.02)
                node.kill()
                kills += 1
                for writer in writers:
                    writer.address = None
                began = time.monotonic()
                node.start()
                slowest = max(slowest, time.monotonic() - began)
                found, acked = verify(node, writers, f"seed {seed}, after kill {kills}")
        finally:
            upkeep_stop.set()
            for writer in writers:
                writer.stopped.set()
        for thread in [*writers, helper]:
            thread.join(60)
            assert not thread.is_alive()
        print(f"{kills} kills, {acked} batches acknowledged, {found} found, slowest start {slowest:.2f} s")
        found, acked = verify(node, writers, f"seed {seed}, at the end")
        node.sql("OPTIMIZE TABLE acks")
        assert verify(node, writers, f"seed {seed}, compacted") == (found, acked)
        node.restart()
        assert verify(node, writers, f"seed {seed}, restarted") == (found, acked)
        assert node.sql("SELECT tail_rows FROM system.tables WHERE table_name = 'acks'") == [(0,)]
        assert kills >= min(20, KILLS), f"only {kills} kills in {SECONDS} s: starts are too slow ({slowest:.1f} s)"
        assert acked > 50, "the writers hardly wrote: the test proves nothing"


def test_a_killed_ingest_is_there_whole_or_not_at_all(tmp_path):
    """One transaction of many batches: every kill leaves all of its rows or none."""
    node = harness.Node(tmp_path / "store", tmp_path / "run")
    each, batches = 20_000, 30
    schema = pa.schema([("run", pa.int64()), ("n", pa.int64())])
    with node:
        node.sql("CREATE TABLE runs (run BIGINT, n BIGINT)")
        finished = set()
        for run in range(6):
            def stream(run=run):
                for i in range(batches):
                    time.sleep(0.005)
                    yield pa.record_batch([pa.array([run] * each), pa.array(range(i * each, (i + 1) * each))], schema)

            killer = threading.Timer(0.05 + 0.06 * run, node.kill)
            killer.start()
            try:
                with node.adbc() as connection, connection.cursor() as cursor:
                    cursor.adbc_ingest("runs", pa.RecordBatchReader.from_batches(schema, stream()), mode="append")
                    finished.add(run)
            except Exception as error:  # noqa: BLE001
                print(f"run {run}: {str(error)[:100]}")
            killer.join()
            node.kill()
            node.start()
            got = {r: (n, d) for r, n, d in node.sql("SELECT run, count(*), count(DISTINCT n) FROM runs GROUP BY run")}
            assert finished <= got.keys()
            assert set(got.values()) <= {(each * batches, each * batches)}, got
