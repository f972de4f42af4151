"""A change stream is resumed on another node after kill -9: no change is lost, none comes twice."""

import collections
import json
import threading

import pyarrow as pa
import pyarrow.flight as fl

import harness


def follow(client, first):
    """(rows, where to go on) of each batch of the changes of `t`."""
    ticket = {"changes": {"table": "t", "from_seq": first, "to_seq": None, "images": "both"}}
    reader = client.do_get(fl.Ticket(json.dumps(ticket).encode()), harness.call_options(seconds=60))
    while True:
        chunk = reader.read_chunk()
        yield chunk.data.to_pylist(), json.loads(chunk.app_metadata.to_pybytes())["next_seq"]


def test_resumed_on_another_node(tmp_path):
    store = tmp_path / "store"
    with harness.Node(store, tmp_path / "a") as first, harness.Node(store, tmp_path / "b") as second:
        first.sql("CREATE TABLE t (k BIGINT PRIMARY KEY, v BIGINT) WITH (on_duplicate = 'merge')")
        stopped = threading.Event()
        failed = []

        def write():
            """Through the node that stays."""
            try:
                with second.adbc() as connection, connection.cursor() as cursor:
                    n = 0
                    while not stopped.is_set():
                        n += 1
                        cursor.execute(f"INSERT INTO t VALUES ({n % 17}, {n}), ({100 + n}, {n})")
                        if n % 7 == 0:
                            cursor.execute(f"DELETE FROM t WHERE k = {n % 17}")
                        if n % 5 == 0:
                            cursor.execute("UPDATE t SET v = v + 1 WHERE k < 9")
                    cursor.execute("INSERT INTO t VALUES (-1, -1)")
            except Exception as error:  # noqa: BLE001
                failed.append(error)

        have, next_seq, seen = collections.Counter(), 1, []

        def take(found, until):
            """Does as told until `until`; what was not whole is thrown away when the stream breaks."""
            nonlocal next_seq
            partly = []
            for rows, at in found:
                partly += rows
                for row in [r for r in partly if r["_seq"] < at]:
                    have[row["k"], row["v"]] += 1 if row["_op"] in ("insert", "update_after") else -1
                    seen.append(row["_seq"])
                partly = [r for r in partly if r["_seq"] >= at]
                next_seq = at
                if until():
                    return

        writer = threading.Thread(target=write)
        writer.start()
        try:
            with first.flight() as client:
                take(follow(client, next_seq), lambda: len(seen) > 40)
                found = follow(client, next_seq)
                next(found)
                first.kill()
                broken = False
                try:
                    take(found, lambda: False)
                except (fl.FlightError, pa.ArrowException, OSError):
                    broken = True
                assert broken
            with second.flight() as client:
                at_kill = len(seen)
                take(follow(client, next_seq), lambda: len(seen) > at_kill + 60)
                stopped.set()
                take(follow(client, next_seq), lambda: have[-1, -1] == 1)
        finally:
            stopped.set()
            writer.join(60)
        assert not failed
        assert seen == sorted(seen)
        assert +have == collections.Counter(tuple(row) for row in second.sql("SELECT k, v FROM t"))
        assert all(count in (0, 1) for count in have.values()), "a change was lost or came twice"
