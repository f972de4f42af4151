"""Writers that do not give up while a primary is replaced, and what must be there of theirs in the end."""

import threading
import time

import pyarrow as pa

import harness
from cluster.wire import Failed, Wire

SCHEMA = pa.schema([("writer", pa.int64()), ("n", pa.int64())])
TABLE = "CREATE TABLE t (writer BIGINT, n BIGINT)"
# Whose rows are looked at by themselves.
STRANGER = 99


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
