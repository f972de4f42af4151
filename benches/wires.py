"""The same query over PostgreSQL's wire protocol (psycopg) and over Flight SQL (ADBC), for a small and a large result.

A node of its own is started, with a table of 1 million rows of a time, a name and three numbers. Each query runs in turns over
both wires; printed are the medians, until the last row is there as the client's usual value (Python tuples for psycopg, an Arrow
table for ADBC), and their ratio. The aims: 10 rows at most 1.2 times as long over one wire as over the other, 1 million rows at
least 5 times as fast over Flight SQL.

Usage: wires.py --tandem target/release/tandem [--runs 50] [--dir DIR]     needs psycopg, adbc-driver-flightsql and pyarrow
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import adbc_driver_flightsql.dbapi
import psycopg
import pyarrow as pa
import pyarrow.flight

ROWS = 1_000_000
SMALL = "SELECT ts, host, a, b, c FROM wires WHERE n < 10"
LARGE = "SELECT ts, host, a, b, c FROM wires"
START_SECONDS = 60


def start(binary, home):
    ready = home / "ready.json"
    command = [binary, "serve", "--store", home / "store", "--flight", "127.0.0.1:0", "--http", "off", "--pg", "127.0.0.1:0"]
    process = subprocess.Popen([*map(str, command), "--ready-file", str(ready)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + START_SECONDS
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise SystemExit("the node does not start")
        time.sleep(0.02)
    return process, json.loads(ready.read_text())


def load(flight):
    n = pa.array(range(ROWS), pa.int64())
    columns = {
        "ts": pa.array((1_700_000_000_000_000 + 1000 * i for i in range(ROWS)), pa.timestamp("us")),
        "host": pa.array((f"host_{i % 100}" for i in range(ROWS)), pa.string()),
        "n": n,
        "a": n.cast(pa.float64()),
        "b": pa.array((i * 0.1 for i in range(ROWS)), pa.float64()),
        "c": n,
    }
    with flight.cursor() as cursor:
        # The driver sends a batch as one message, of 16 MiB at most.
        cursor.adbc_ingest("wires", pa.table(columns).to_reader(max_chunksize=65_536), mode="create")
        cursor.execute("OPTIMIZE TABLE wires")


def over_flight(connection, query, rows):
    with connection.cursor() as cursor:
        cursor.execute(query)
        assert cursor.fetch_arrow_table().num_rows == rows


def field(number, content):
    """A field of a protobuf message, of bytes: fewer than 128."""
    return bytes([number << 3 | 2, len(content)]) + content


def over_pyarrow(client, query, rows):
    url = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
    command = field(1, url) + field(2, field(1, query.encode()))
    info = client.get_flight_info(pa.flight.FlightDescriptor.for_command(command))
    assert client.do_get(info.endpoints[0].ticket).read_all().num_rows == rows


def over_postgres(connection, query, rows, binary=False):
    with connection.cursor(binary=binary) as cursor:
        cursor.execute(query)
        assert len(cursor.fetchall()) == rows


def medians(ways, runs):
    """Seconds of each way, in turns, so that what else the machine does meets all of them."""
    times = {name: [] for name in ways}
    for run in range(runs + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if run > 0:  # The first one warms up.
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(all_) for name, all_ in times.items()}


def report(title, times):
    flight = times["Flight SQL, ADBC"]
    print(title)
    for name, seconds in times.items():
        print(f"  {name:<20} {seconds * 1000:10.2f} ms   {seconds / flight:6.2f} x ADBC")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tandem", default="target/release/tandem", help="the program")
    options.add_argument("--runs", type=int, default=50, help="of the small query; a tenth as many of the large one")
    options.add_argument("--dir", type=pathlib.Path, help="where the store is made and removed")
    options = options.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as home:
        process, ready = start(options.tandem, pathlib.Path(home))
        try:
            host, port = ready["pg"].rsplit(":", 1)
            flight = adbc_driver_flightsql.dbapi.connect(f"grpc://{ready['flight']}", autocommit=True)
            postgres = psycopg.connect(host=host, port=port, dbname="tandem", user="bench", autocommit=True)
            arrow = pa.flight.connect(f"grpc://{ready['flight']}")
            with flight, postgres, arrow:
                load(flight)

                def ways(query, rows):
                    return {
                        "Flight SQL, ADBC": lambda: over_flight(flight, query, rows),
                        "Flight SQL, pyarrow": lambda: over_pyarrow(arrow, query, rows),
                        "PostgreSQL, text": lambda: over_postgres(postgres, query, rows),
                        "PostgreSQL, binary": lambda: over_postgres(postgres, query, rows, binary=True),
                    }

                small = medians(ways(SMALL, 10), options.runs)
                large = medians(ways(LARGE, ROWS), max(options.runs // 10, 3))
                report("10 rows", small)
                report(f"{ROWS:,} rows", large)
                ratio = small["PostgreSQL, text"] / small["Flight SQL, ADBC"]
                faster = large["PostgreSQL, text"] / large["Flight SQL, ADBC"]
                apart = max(ratio, 1 / ratio)
                print(f"10 rows: {apart:.2f} times apart (at most 1.2 is the aim: {'met' if apart <= 1.2 else 'missed'})")
                print(f"{ROWS:,} rows: Flight SQL {faster:.1f} times as fast (5 is the aim: {'met' if faster >= 5 else 'missed'})")
        finally:
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    main()
