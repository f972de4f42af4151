"""Whether a node keeps up: rows at full speed for a while, with queries beside them; the tail and the memory over time.

The rows of `tandem-bench rows` are sent again and again, each time later by as much as they last, over four connections
with four unacknowledged batches each. A row takes about 140 bytes of disk until old log objects are deleted, which no
version does yet: a minute at 2 million rows/s takes 17 GB.

Usage: soak.py --bench target/release/tandem-bench [--seconds 60] [--dir DIR]     needs pyarrow
"""

import argparse
import json
import pathlib
import subprocess
import tempfile
import threading
import time

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.flight as flight

STREAMS, INFLIGHT = 4, 4
SAMPLE_SECONDS = 2
CREATE = "CREATE TABLE cpu ({columns}) TIMESTAMP(ts) PARTITION BY DAY ORDER BY (hostname, ts)"
QUERIES = [
    "SELECT sum(tail_rows) FROM system.tables",
    "SELECT hostname, max(usage_user) FROM cpu WHERE hostname = 'host_7' GROUP BY hostname",
]


def rows_of(client, sql):
    return client.do_get(flight.Ticket(json.dumps({"sql": sql}).encode())).read_all()


def declared(field):
    text = pa.types.is_dictionary(field.type) or pa.types.is_string(field.type)
    kind = "SYMBOL" if text else "TIMESTAMP" if pa.types.is_timestamp(field.type) else "BIGINT"
    return f"{field.name} {kind}"


class Sender(threading.Thread):
    def __init__(self, url, batches, step, until):
        super().__init__(daemon=True)
        self.client, self.batches, self.step, self.until = flight.connect(url), batches, step, until
        self.rows, self.trouble = 0, None

    def run(self):
        try:
            self.send()
        except Exception as error:
            self.trouble = error

    def send(self):
        writer, answers = self.client.do_put(flight.FlightDescriptor.for_path("cpu"), self.batches[0].schema)
        open_batches, passes = 0, 0
        while time.monotonic() < self.until:
            for batch in self.batches:
                ts = batch.column(0)
                later = pc.add(ts, pa.scalar(passes * self.step, pa.duration(ts.type.unit))).cast(ts.type)
                writer.write_batch(pa.record_batch([later, *batch.columns[1:]], batch.schema))
                open_batches += 1
                while open_batches >= INFLIGHT:
                    self.rows += json.loads(answers.read().to_pybytes())["rows"]
                    open_batches -= 1
                if time.monotonic() >= self.until:
                    break
            passes += 1
        writer.done_writing()
        for _ in range(open_batches):
            self.rows += json.loads(answers.read().to_pybytes())["rows"]
        writer.close()


def anonymous_mb(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True, help="the program tandem-bench")
    parser.add_argument("--binary", help="the server; by default beside tandem-bench")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rows", type=int, default=1_000_000, help="that are sent again and again")
    parser.add_argument("--dir", help="where to write; by default the system's directory for temporary files")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tandem-soak-", dir=arguments.dir) as home:
        soak(arguments, pathlib.Path(home))


def soak(arguments, home):
    file, ready = home / "rows.arrows", home / "ready.json"
    subprocess.run([arguments.bench, "rows", "--rows", str(arguments.rows), str(file)], check=True)
    with pa.OSFile(str(file)) as source:
        batches = list(pa.ipc.open_stream(source))
    first, last = (pc.min_max(b.column(0))[end].value for b, end in ((batches[0], "min"), (batches[-1], "max")))
    binary = arguments.binary or str(pathlib.Path(arguments.bench).parent / "tandem")
    server = subprocess.Popen(
        [binary, "serve", "--store", str(home / "store"), "--flight", "127.0.0.1:0", "--http", "off", "--ready-file", str(ready)],
        stdout=subprocess.DEVNULL,
    )
    try:
        while not ready.exists():
            time.sleep(0.05)
        url = "grpc://" + json.loads(ready.read_text())["flight"]
        client = flight.connect(url)
        columns = ", ".join(declared(field) for field in batches[0].schema)
        subprocess.run([binary, "sql", "--connect", url, "-c", CREATE.format(columns=columns)], check=True, stdout=subprocess.DEVNULL)
        started = time.monotonic()
        until = started + arguments.seconds
        senders = [Sender(url, batches[i::STREAMS], last - first + 10**10, until) for i in range(STREAMS)]
        for sender in senders:
            sender.start()
        samples = []
        while any(sender.is_alive() for sender in senders):
            time.sleep(SAMPLE_SECONDS)
            tail, _ = (rows_of(client, sql) for sql in QUERIES)
            at = time.monotonic() - started
            sent = sum(sender.rows for sender in senders)
            samples.append((at, sent, tail.column(0)[0].as_py(), anonymous_mb(server.pid)))
            print("{:6.1f} s  {:12,} rows acknowledged  {:12,} rows of tail  {:6.0f} MB".format(*samples[-1]), flush=True)
        for sender in senders:
            if sender.trouble:
                raise sender.trouble
        sent = sum(sender.rows for sender in senders)
        found = rows_of(client, "SELECT count(*) FROM cpu").column(0)[0].as_py()
        if found != sent:
            raise SystemExit(f"{sent} rows were acknowledged, {found} are there")
        early = [tail for at, _, tail, _ in samples if at <= arguments.seconds / 4] or [samples[0][2]]
        print(f"rows/s: {sent / arguments.seconds:,.0f}")
        print(f"tail at the end against a quarter of the time: {samples[-1][2] / max(early[-1], 1):.2f}")
        print(f"peak anonymous memory: {max(mb for *_, mb in samples):.0f} MB")
    finally:
        server.terminate()
        server.wait(60)


if __name__ == "__main__":
    main()
