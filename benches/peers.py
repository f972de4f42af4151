"""What the same batches cost elsewhere, measured in one run on one machine.

Each peer takes the rows of `tandem-bench rows` in batches, over four threads, and makes every batch durable
before it takes the next: pyarrow writes and fsyncs one Parquet file per batch; DuckDB commits each batch. Both run
inside this process, so that no peer pays for a network; `tandem-bench ingest` pays for one and for a second process.

Usage: peers.py --bench target/release/tandem-bench [--rows N]     needs pyarrow and duckdb
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import tempfile
import threading
import time

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

THREADS = 4


def over_threads(batches, work):
    """Wall and CPU seconds of `work(thread, number, batch)` over all batches, each thread taking every fourth."""
    errors = []

    def share(thread):
        try:
            for number in range(thread, len(batches), THREADS):
                work(thread, number, batches[number])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=share, args=(thread,)) for thread in range(THREADS)]
    before, started = cpu_seconds(), time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return time.monotonic() - started, cpu_seconds() - before


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def sync_directory(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def parquet_files(batches, home):
    """One durable Parquet file per batch, pyarrow's defaults but zstd as in TandemDB's files."""

    def write(_thread, number, batch):
        with open(home / f"{number}.parquet", "xb") as file:
            with pq.ParquetWriter(file, batch.schema, compression="zstd") as writer:
                writer.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(home)

    wall, cpu = over_threads(batches, write)
    rows = sum(pq.read_metadata(file).num_rows for file in home.iterdir())
    return wall, cpu, rows, sum(file.stat().st_size for file in home.iterdir())


def duckdb_commits(batches, home):
    """One DuckDB commit per batch, over one connection per thread, and a checkpoint at the end."""
    path = home / "duck.db"
    database = duckdb.connect(str(path))
    first = pa.Table.from_batches(batches[:1])
    database.register("first_batch", first)
    database.execute("CREATE TABLE cpu AS SELECT * FROM first_batch LIMIT 0")
    database.unregister("first_batch")
    cursors = [database.cursor() for _ in range(THREADS)]

    def write(thread, _number, batch):
        cursor = cursors[thread]
        cursor.register("incoming", pa.Table.from_batches([batch]))
        cursor.execute("INSERT INTO cpu SELECT * FROM incoming")
        cursor.unregister("incoming")

    wall, cpu = over_threads(batches, write)
    [rows] = database.execute("SELECT count(*) FROM cpu").fetchone()
    database.execute("CHECKPOINT")
    database.close()
    return wall, cpu, rows, path.stat().st_size


def tandem(arguments, home):
    """The figures of `tandem-bench ingest` on the same rows."""
    command = [arguments.bench, "ingest", "--rows", str(arguments.rows), "--hosts", str(arguments.hosts)]
    command += ["--streams", str(THREADS), "--inflight", str(arguments.inflight), "--dir", str(home)]
    if arguments.partition:
        command += ["--partition", arguments.partition]
    if arguments.binary:
        command += ["--binary", arguments.binary]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(answer.splitlines()[-1])["figures"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True, help="the program tandem-bench")
    parser.add_argument("--binary", help="the server; by default beside tandem-bench")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--hosts", type=int, default=1_000)
    parser.add_argument("--inflight", type=int, default=4, help="unacknowledged batches of each TandemDB stream")
    parser.add_argument("--partition", help="partition unit of the TandemDB table, as of tandem-bench ingest")
    parser.add_argument("--dir", help="where to write; by default the system's directory for temporary files")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tandem-peers-", dir=arguments.dir) as home:
        measure(arguments, pathlib.Path(home))


def measure(arguments, home):
    rows = arguments.rows
    file = home / "rows.arrows"
    subprocess.run(
        [arguments.bench, "rows", "--rows", str(rows), "--hosts", str(arguments.hosts), str(file)], check=True
    )
    with pa.OSFile(str(file)) as source:
        batches = list(pa.ipc.open_stream(source))
    results = {}
    for name, peer in [("pyarrow Parquet files", parquet_files), ("DuckDB commits", duckdb_commits)]:
        place = home / peer.__name__
        place.mkdir()
        wall, cpu, found, size = peer(batches, place)
        if found != rows:
            raise SystemExit(f"{name}: {found} rows are there, not {rows}")
        results[name] = {"rows/s": rows / wall, "CPU s/Mrow": cpu / rows * 1e6, "B/row": size / rows}
    figures = tandem(arguments, home)
    results["TandemDB"] = {
        "rows/s": figures["acknowledged [rows/s]"],
        "CPU s/Mrow": figures["server CPU until acknowledged [s/Mrow]"],
        "B/row": figures["at rest, compacted [B/row]"],
    }
    print(f"{rows} rows, load {os.getloadavg()[0]:.1f} after")
    print(f"  {'':24}{'rows/s':>12}{'CPU s/Mrow':>12}{'B/row':>8}{'TandemDB is':>16}")
    for name, result in results.items():
        ratio = results["TandemDB"]["rows/s"] / result["rows/s"]
        print(f"  {name:24}{result['rows/s']:12.0f}{result['CPU s/Mrow']:12.2f}{result['B/row']:8.1f}{ratio:12.2f} × as fast")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
