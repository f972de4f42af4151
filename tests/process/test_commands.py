"""The tools: sql, import, compact, checkpoint, status."""

import csv
import gzip
import io
import json

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from harness import run

ROWS = 1000
COLUMNS = ["ts", "id", "name", "value", "flag"]


def rows():
    for i in range(ROWS):
        name = None if i % 10 == 3 else f'n "{i}", é' if i % 7 == 0 else f"n{i}"
        yield f"2024-01-01T{i // 60 % 24:02}:{i % 60:02}:00", i, name, None if i % 11 == 5 else i / 4, i % 2 == 0


def table():
    columns = list(zip(*rows()))
    import datetime as dt

    stamps = [dt.datetime.fromisoformat(t) for t in columns[0]]
    return pa.table([pa.array(stamps, pa.timestamp("us")), *map(pa.array, columns[1:])], names=COLUMNS)


def write_file(path):
    """The rows in the format that the name says."""
    kinds = path.name.split(".")[1:]
    if kinds[0] == "parquet":
        return pq.write_table(table(), path)
    if kinds[0] == "feather":
        return pyarrow.feather.write_feather(table(), path)
    if kinds[0] == "arrows":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table().schema) as writer:
            return writer.write_table(table(), max_chunksize=100)
    text = io.StringIO()
    if kinds[0] in ("csv", "tsv"):
        writer = csv.writer(text, delimiter="\t" if kinds[0] == "tsv" else ",")
        writer.writerow(COLUMNS)
        writer.writerows(rows())
    else:
        objects = [dict(zip(COLUMNS, row)) for row in rows()]
        text.write(json.dumps(objects) if kinds[0] == "json" else "".join(json.dumps(o) + "\n" for o in objects))
    data = text.getvalue().encode()
    if kinds[-1] == "gz":
        data = gzip.compress(data)
    if kinds[-1] == "zst":
        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)


FORMATS = [
    "a.csv", "b.csv.gz", "c.csv.zst", "d.tsv", "e.jsonl", "f.ndjson.gz", "g.json", "h.parquet", "i.feather", "j.arrows",
]  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_imported_alike(node, tmp_path, name):
    path = tmp_path / name
    write_file(path)
    target = f"from_{name.replace('.', '_')}"
    done = node.tandem("import", path, "--table", target, "--create", "--timestamp", "ts", "--json")
    assert json.loads(done.stdout)["rows"] == ROWS
    got = node.table(f"SELECT * FROM {target} ORDER BY id")
    assert got.column_names == COLUMNS
    expected = table()
    for column in COLUMNS[1:]:
        assert got.column(column).to_pylist() == expected.column(column).to_pylist(), column
    assert got.column("ts").cast(pa.timestamp("us")).to_pylist() == expected.column("ts").to_pylist()
    node.tandem("import", path, "--table", target, "--chunk-rows", "300", "--again", "--quiet")
    assert node.sql(f"SELECT count(*), count(DISTINCT id) FROM {target}") == [(2 * ROWS, ROWS)]


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("bad.csv", "ts,n\n2024-01-01T00:00:00,1\n2024-01-01T00:00:01,2\n2024-01-01T00:00:02,many\n", ["bad.csv", "4", "n", "many"]),
        ("short.csv", "ts,n\n2024-01-01T00:00:00,1\n2024-01-01T00:00:01\n", ["short.csv", "3"]),
        ("quoted.csv", 'ts,n\n"2024-01-01T00:00:00\n', ["quoted.csv"]),
        ("stamp.csv", "ts,n\n2024-01-01T00:00:00,1\nyesterday,2\n", ["stamp.csv", "3", "ts", "yesterday"]),
        ("bad.jsonl", '{"ts":"2024-01-01T00:00:00","n":1}\n{"ts":"2024-01-01T00:00:00","n":"many"}\n', ["bad.jsonl", "2", "n", "many"]),
        ("torn.jsonl", '{"ts":"2024-01-01T00:00:00","n":1}\n{"ts":"2024-0', ["torn.jsonl", "2"]),
        ("extra.csv", "ts,n,surplus\n2024-01-01T00:00:00,1,2\n", ["surplus"]),
        ("bad.parquet", "PAR1 this is none", ["bad.parquet"]),
        ("unknown.xyz", "1", ["unknown.xyz"]),
    ],
)  # fmt: skip
def test_a_bad_file_is_named_with_line_and_column_and_leaves_nothing(node, tmp_path, name, content, parts):
    node.sql("DROP TABLE IF EXISTS strict")
    node.sql("CREATE TABLE strict (ts TIMESTAMP NOT NULL, n BIGINT) TIMESTAMP(ts)")
    path = tmp_path / name
    path.write_text(content)
    done = node.tandem("import", path, "--table", "strict", expect=1)
    for part in parts:
        assert part in done.stderr, done.stderr
    assert node.sql("SELECT count(*) FROM strict") == [(0,)]


def test_an_import_goes_on_where_it_failed(node, tmp_path):
    node.sql("DROP TABLE IF EXISTS resumed")
    lines = [f"2024-01-01T00:00:00,{n}" for n in range(100_000)]
    path = tmp_path / "r.csv"
    broken = lines[:70_000] + ["2024-01-01T00:00:00,x"] + lines[70_001:]
    node.sql("CREATE TABLE resumed (ts TIMESTAMP NOT NULL, n BIGINT) TIMESTAMP(ts)")
    path.write_text("ts,n\n" + "\n".join(broken) + "\n")
    done = node.tandem("import", path, "--table", "resumed", "--chunk-rows", "25000", expect=1)
    assert "70002" in done.stderr, "the line of the file, its header counted"
    [(committed,)] = node.sql("SELECT count(*) FROM resumed")
    assert committed in (25_000, 50_000) and f"--skip-rows {committed}" in done.stderr
    path.write_text("ts,n\n" + "\n".join(lines) + "\n")
    node.tandem("import", path, "--table", "resumed", "--skip-rows", str(committed), "--quiet")
    assert node.sql("SELECT count(*), count(DISTINCT n) FROM resumed") == [(100_000, 100_000)]


def test_import_from_standard_input_and_into_a_store_without_a_server(tmp_path):
    store = tmp_path / "store"
    done = run("import", "-", "--format", "csv", "--table", "piped", "--create", "--store", store, "--json", stdin="a,b\n1,x\n2,\n")
    assert json.loads(done.stdout)["rows"] == 2
    done = run("sql", "--store", store, "--json", "-c", "SELECT * FROM piped ORDER BY a")
    assert json.loads(done.stdout) == [{"a": 1, "b": "x"}, {"a": 2, "b": None}] or done.stdout.count('"a"') == 2


@pytest.fixture(scope="module")
def letters(node):
    node.sql("CREATE TABLE letters AS SELECT * FROM (VALUES (1, 'a,\"b\"', 1.5), (2, NULL, NULL)) AS v (n, s, f)")
    return node


QUERY = "SELECT n, s, f FROM letters ORDER BY n"


def test_sql_formats(letters):
    out = letters.tandem("sql", "--format", "csv", "-c", QUERY).stdout
    assert list(csv.reader(io.StringIO(out))) == [["n", "s", "f"], ["1", 'a,"b"', "1.5"], ["2", "", ""]]
    out = letters.tandem("sql", "--json", "-c", QUERY).stdout
    assert json.loads(out) == [{"n": 1, "s": 'a,"b"', "f": 1.5}, {"n": 2, "s": None, "f": None}]
    out = letters.tandem("sql", "-c", QUERY).stdout
    assert 'a,"b"' in out and "1.5" in out and "|" in out.replace("│", "|")
    helped = run("sql", "--help").stdout
    assert "csv" in helped and "json" in helped


def test_sql_scripts(letters, tmp_path):
    script = tmp_path / "s.sql"
    script.write_text("-- a; comment\nCREATE TABLE scripted (n BIGINT);\nINSERT INTO scripted VALUES (1), (2);\nSELECT sum(n) AS total FROM scripted;\n")
    out = letters.tandem("sql", "--format", "csv", "-q", "-f", script).stdout
    assert out.split() == ["total", "3"]
    out = letters.tandem("sql", "--format", "csv", "-q", stdin="SELECT ';' AS x; SELECT 2 AS y").stdout
    assert out.split() == ["x", ";", "y", "2"]
    script.write_text("SELECT 1;\nSELECT nonsense;\nCREATE TABLE never (n BIGINT);\n")
    done = letters.tandem("sql", "-f", script, expect=1)
    assert "nonsense" in done.stderr and "s.sql" in done.stderr
    assert letters.sql("SELECT count(*) FROM system.tables WHERE table_name = 'never'") == [(0,)]


@pytest.mark.parametrize("name", ["o.csv", "o.csv.gz", "o.parquet", "o.json", "o.jsonl", "o.arrow"])
def test_copy_writes_a_file_that_can_be_imported_again(letters, tmp_path, name):
    path = tmp_path / name
    done = letters.tandem("sql", "-c", f"COPY (SELECT n, s, f FROM letters) TO '{path}'")
    assert path.exists(), done.stderr
    assert [p.name for p in tmp_path.iterdir()] == [name]
    if name == "o.parquet":
        assert pq.read_table(path).num_rows == 2
    again = "copied_" + name.replace(".", "_")
    letters.tandem("import", path, "--table", again, "--create", "--quiet")
    got = letters.sql(f"SELECT n, s, f FROM {again} ORDER BY n")
    assert got == [(1, 'a,"b"', 1.5), (2, None, None)]


def test_status_compact_and_checkpoint(node):
    node.sql("CREATE TABLE chores AS SELECT value AS n FROM generate_series(1, 50)")
    status = json.loads(node.tandem("status", "--json").stdout)
    assert status["seq"] >= 1 and status["failure"] is None and status["tail_rows"] >= 50
    assert "seq" in node.tandem("status").stdout
    done = node.tandem("compact", "chores", "--json")
    assert json.loads(done.stdout.splitlines()[-1])["seq"] >= status["seq"]
    assert node.sql("SELECT tail_rows, files FROM system.tables WHERE table_name = 'chores'") == [(0, 1)]
    node.tandem("compact")
    assert node.sql("SELECT sum(tail_rows) FROM system.tables") == [(0,)]
    node.tandem("checkpoint")
    assert json.loads(node.tandem("status", "--json").stdout)["checkpoint_seq"] is not None
    assert "absent" in node.tandem("compact", "absent", expect=1).stderr


def test_nobody_there_is_told_with_the_address():
    import harness

    address = f"grpc://127.0.0.1:{harness.free_port()}"
    done = run("sql", "--connect", address, "-c", "SELECT 1", expect=1, seconds=60)
    assert address.removeprefix("grpc://") in done.stderr


def test_help_and_version():
    assert "serve" in run("--help").stdout
    assert run("--version").stdout.startswith("tandem ")
    for command in ("serve", "sql", "import", "compact", "checkpoint", "status"):
        assert "--" in run(command, "--help").stdout


def test_the_shell_knows_the_words_of_who_looks_for_the_way_out(node):
    done = node.tandem("sql", "--format", "csv", stdin="SELECT 1 AS a;\nhelp\nexit\nSELECT 2 AS b;\n")
    assert done.stdout.split()[:2] == ["a", "1"] and "\\dt " in done.stdout, done
    assert not done.stdout.endswith("b\n2\n"), "it ended"
    assert node.tandem("sql", "-c", "quit", "-c", "SELECT 2").stdout == ""


def test_the_shell_describes_types_as_sql_says_them(node):
    node.sql('CREATE TABLE "Described" (ts TIMESTAMP(6), n BIGINT, "Big" DECIMAL(10,2))')
    done = node.tandem("sql", "--format", "csv", "-c", '\\d "Described"')
    types = {row["column_name"]: row["sql_type"] for row in csv.DictReader(io.StringIO(done.stdout))}
    assert types["n"] == "BIGINT" and types["Big"].startswith("DECIMAL") and types["ts"].startswith("TIMESTAMP"), types
    assert 'did you mean "Described"' in node.tandem("sql", "-c", "\\d described", expect=1).stderr
    assert 'did you mean "Described"' in node.tandem("sql", "-c", "SELECT * FROM described", expect=1).stderr
    assert 'did you mean "Big"' in node.tandem("sql", "-c", 'SELECT Big FROM "Described"', expect=1).stderr
